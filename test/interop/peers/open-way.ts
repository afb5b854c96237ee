import { Cancellation } from "../../../src/host/cancellation.ts";
import { tcpWay } from "../../../src/host/carriers/carrier-chain.ts";
import { silentLogger } from "../../../src/host/log.ts";
import { ByteStreamDuplex } from "../../../src/node/io/byte-stream-duplex.ts";
import { chooseIo } from "../../../src/node/io/io.ts";
import { nodeSystem } from "../../../src/node/system.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";

/** A way to TCP targets (see {@link tcpWay}) for tests that use Node's streams. */
export function openWay(via?: string) {
  const way = tcpWay(via, nodeSystem(chooseIo(undefined, "balanced", silentLogger)));
  return {
    connect: async (target: AddressBytes) =>
      new ByteStreamDuplex(await way.connect(target, new Cancellation())),
    close: () => way.close(),
  };
}
