import { describe, expect, it } from "vitest";
import { silentLogger } from "../../../../src/host/log.ts";
import type { ByteStream } from "../../../../src/host/stream/byte-stream.ts";
import { Socks5Path } from "../../../../src/host/udp-paths/socks5.ts";
import type { UdpPathHost } from "../../../../src/host/udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../../../../src/host/udp-paths/udp-path.ts";
import type { AddressBytes } from "../../../../src/wire/socket-address.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { MemoryWorld } from "../../memory/memory-system.ts";

const TARGET = makeAddress("192.0.2.1", 53)!;
const HOST: UdpPathHost = { deliver: () => {}, refuse: () => {}, drop: () => {} };

/** A SOCKS5 server that replies to each UDP ASSOCIATE with an address, and its connections. */
async function listen(world: MemoryWorld, bound: AddressBytes): Promise<ByteStream[]> {
  const streams: ByteStream[] = [];
  await world.tcp.listen({ host: "127.0.0.1", port: 1080 }, {
    onStream: (stream: ByteStream) => {
      streams.push(stream);
      let count = 0;
      stream.start({
        onBytes: () => void stream.write(Uint8Array.of(5, 0, ...(count++ === 0 ? [] : [0, ...bound]))),
        onEnd: () => {},
        onWritten: () => {},
        onClose: () => {},
      });
    },
  } as never);
  return streams;
}

describe("Socks5Path", () => {
  it.each([
    ["an address", makeAddress("192.0.2.9", 1_081)!],
    ["a name", makeAddress("relay.example", 1_081)!],
  ])(
    "ends its connection whenever its association ends, when the server replies with %s",
    async (_, bound) => {
      const MOMENTS = 120;
      for (let moment = 0; moment < MOMENTS; moment++) {
        const world = new MemoryWorld();
        const system = { ...world.system, lookUp: () => new Promise<readonly string[]>(() => {}) };
        const streams = await listen(world, bound);
        const path = new Socks5Path("socks5://127.0.0.1:1080", system, HOST, silentLogger, 1);
        const datagram = new OutgoingDatagram();
        datagram.setPayload(7, new Uint8Array(10), 0, 10, 0);
        datagram.setTarget(TARGET, 0, TARGET.length);
        path.send(datagram);
        // Each turn of the loop is followed by microtasks.
        for (let at = 0; at < MOMENTS; at++) {
          if (at % 12 === 0) world.step();
          if (at === moment) path.close(7);
          await null;
        }
        for (let i = 0; i < 10; i++) world.step();
        expect(streams.filter(({ isClosed }) => !isClosed)).toEqual([]);
      }
    },
  );
});
