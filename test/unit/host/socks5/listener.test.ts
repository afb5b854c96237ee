import { expect, it } from "vitest";
import type { Socks5ListenerOptions } from "../../../../src/host/socks5/listener.ts";
import { Socks5Listener } from "../../../../src/host/socks5/listener.ts";
import type { ByteStream } from "../../../../src/host/stream/byte-stream.ts";
import type { ListenOptions } from "../../../../src/host/stream/tcp.ts";

it("counts a SOCKS5 connection beyond the bound as refused", async () => {
  let refused = 0;
  let destroyed = 0;
  let accept: ListenOptions["onStream"] = () => {};
  const options = {
    loop: { now: () => 0, after: () => ({ cancel: () => {} }) },
    credentials: undefined,
    maxConnections: 2,
    sharesPort: false,
    tcp: {
      listen: async (_: unknown, { onStream }: ListenOptions) => {
        accept = onStream;
        return { address: "127.0.0.1:1080", port: 1080, close: async () => {} };
      },
    },
    log: { debug: () => {} },
    onRefused: () => refused++,
  } as unknown as Socks5ListenerOptions;
  const listener = new Socks5Listener(options);
  await listener.listen("127.0.0.1:1080", ["127.0.0.1"]);
  const stream = { start: () => {}, destroy: () => destroyed++ } as unknown as ByteStream;
  for (let i = 0; i < 3; i++) accept({ ...stream });
  expect([refused, destroyed]).toEqual([1, 1]);
});
