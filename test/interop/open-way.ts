import { Cancellation } from "../../src/host/cancellation.ts";
import { silentLogger } from "../../src/host/log.ts";
import { ByteStreamDuplex } from "../../src/node/byte-stream-duplex.ts";
import { tcpWay } from "../../src/node/carrier-chain.ts";
import { chooseIo } from "../../src/node/io.ts";
import type { AddressBytes } from "../../src/wire/socket-address.ts";

/** A way to TCP targets, see {@link tcpWay}, for tests that read and write streams of Node. */
export function openWay(via?: string) {
  const way = tcpWay(via, chooseIo(undefined, "balanced", silentLogger));
  return {
    connect: async (target: AddressBytes) =>
      new ByteStreamDuplex(await way.connect(target, new Cancellation())),
    close: () => way.close(),
  };
}
