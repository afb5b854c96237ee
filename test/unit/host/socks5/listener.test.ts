import { expect, it } from "vitest";
import type { Socks5ListenerOptions } from "../../../../src/host/socks5/listener.ts";
import { Socks5Listener } from "../../../../src/host/socks5/listener.ts";
import type { ByteStream, ByteStreamEvents } from "../../../../src/host/stream/byte-stream.ts";
import type { ListenOptions } from "../../../../src/host/stream/tcp.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { encodeMessage } from "../../../../src/wire/socks5.ts";

/** A listener that has no credentials and takes streams from the test. */
async function open(more: Partial<Socks5ListenerOptions>) {
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
    ...more,
  } as unknown as Socks5ListenerOptions;
  await new Socks5Listener(options).listen("127.0.0.1:1080", ["127.0.0.1"]);
  return accept;
}

it("counts a SOCKS5 connection beyond the bound as refused", async () => {
  let refused = 0;
  let destroyed = 0;
  const accept = await open({ onRefused: () => refused++ });
  const stream = { start: () => {}, destroy: () => destroyed++ } as unknown as ByteStream;
  for (let i = 0; i < 3; i++) accept({ ...stream });
  expect([refused, destroyed]).toEqual([1, 1]);
});

it("closes the target's connection if the client goes before it has accepted the reply to its CONNECT", async () => {
  let destroyed = 0;
  const far = { destroy: () => destroyed++ } as unknown as ByteStream;
  const accept = await open({ connect: async () => far });
  let events!: ByteStreamEvents;
  const written: number[] = [];
  accept({
    start: (given: ByteStreamEvents) => (events = given),
    pause: () => {},
    // The second write is the reply.
    write: ({ length }: Uint8Array) => written.push(length) < 2,
  } as unknown as ByteStream);
  const request = encodeMessage(1, makeAddress("192.0.2.80", 80)!);
  events.onBytes(Uint8Array.of(5, 1, 0), 3);
  events.onBytes(request, request.length);
  while (written.length < 2) await undefined;
  expect(destroyed).toBe(0);
  events.onClose(undefined);
  expect(destroyed).toBe(1);
});
