import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PacketEgress } from "../../src/core/packet-egress.ts";
import { PacketStreamReader } from "../../src/core/packet-stream-reader.ts";
import { IpPacket } from "../../src/wire/ip-packet.ts";
import { readUint16, writeUint16 } from "../../src/wire/network-order.ts";
import type { AddressBytes } from "../../src/wire/socket-address.ts";
import { formatAddress, makeAddress, writeAddress } from "../../src/wire/socket-address.ts";
import { randomBytes, seededRandom } from "./random.ts";

const address = (host: string, port: number) => makeAddress(host, port)!;
const TARGET4 = address("192.0.2.7", 53);
const TARGET6 = address("2001:db8::7", 53);

/** Packets that wait for the device, copied. */
function takePackets(egress: PacketEgress): Uint8Array[] {
  const { toDevice } = egress;
  const packets = Array.from({ length: toDevice.count }, (_, i) =>
    toDevice.buffer(i).slice(toDevice.offset[i], toDevice.offset[i] + toDevice.length[i]),
  );
  toDevice.clear();
  return packets;
}

function sourceOf(packet: Uint8Array): string {
  const view = new IpPacket();
  expect(view.read(packet, 0, packet.length)).toBe(true);
  const source = new Uint8Array(view.addressBytes + 3);
  writeAddress(source, 0, packet, view.source, view.addressBytes, view.transport);
  return formatAddress(source);
}

/** What an echo behind the device makes of a packet that is no fragment: addresses and ports change places. */
function echoed(packet: Uint8Array): Uint8Array {
  const view = new IpPacket();
  view.read(packet, 0, packet.length);
  const { source, destination, addressBytes, transport } = view;
  const from = packet.slice(source, source + addressBytes);
  packet.copyWithin(source, destination, destination + addressBytes);
  packet.set(from, destination);
  const port = readUint16(packet, transport);
  writeUint16(packet, transport, readUint16(packet, transport + 2));
  writeUint16(packet, transport + 2, port);
  return packet;
}

interface Datagram {
  readonly association: number;
  readonly remote: string;
  readonly data: Uint8Array;
}

function receive(egress: PacketEgress, packets: readonly Uint8Array[]): Datagram[] {
  const datagrams: Datagram[] = [];
  for (const packet of packets) {
    egress.handlePacket(0, packet, 0, packet.length, (association, remote, data, offset, length) => {
      datagrams.push({
        association,
        remote: formatAddress(remote),
        data: data.slice(offset, offset + length),
      });
    });
  }
  return datagrams;
}

describe("PacketEgress", () => {
  const send = (egress: PacketEgress, association: number, target: AddressBytes, data: Uint8Array) =>
    expect(egress.send(association, target, data, 0, data.length)).toBe(true);

  it("sends from the client's own address", () => {
    const egress = new PacketEgress(1);
    egress.open(3, address("10.1.2.3", 4000));
    send(egress, 3, TARGET4, new Uint8Array(5));
    expect(takePackets(egress).map(sourceOf)).toEqual(["10.1.2.3:4000"]);
  });

  it.each([
    ["is not known", undefined],
    ["is a loopback", address("127.0.0.1", 4000)],
    ["is multicast", address("224.0.0.1", 4000)],
    ["is of the other family", address("2001:db8::1", 4000)],
    ["has no port", address("10.1.2.3", 0)],
  ])("sends from an address of its pool when the client's own %s", (_, own) => {
    const egress = new PacketEgress(1);
    egress.open(300, own);
    send(egress, 300, TARGET4, new Uint8Array(5));
    expect(takePackets(egress).map(sourceOf)).toEqual(["198.19.1.44:1024"]);
  });

  it("two clients with the same address, and one whose own is in the pool, have three sources", () => {
    const egress = new PacketEgress(1);
    const own = address("10.1.2.3", 4000);
    egress.open(0, address("198.19.0.2", 1024));
    egress.open(1, own);
    egress.open(2, own);
    for (const association of [0, 1, 2]) send(egress, association, TARGET4, new Uint8Array(1));
    expect(takePackets(egress).map(sourceOf)).toEqual([
      "198.19.0.2:1024",
      "10.1.2.3:4000",
      "198.19.0.2:1025",
    ]);
  });

  it("gives every reply to the association that it answers, byte by byte, over both families", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ isIpv6: fc.boolean(), length: fc.integer({ min: 0, max: 65_507 }) }), {
          minLength: 1,
          maxLength: 6,
        }),
        (datagrams) => {
          const egress = new PacketEgress(7);
          for (const [association, { isIpv6, length }] of datagrams.entries()) {
            const data = randomBytes(seededRandom(association), length);
            egress.open(association, undefined);
            send(egress, association, isIpv6 ? TARGET6 : TARGET4, data);
            const packets = takePackets(egress);
            if (packets.length > 1) continue; // Over IPv6, the longest come in fragments, which an echo must not touch.
            const [got] = receive(egress, packets.map(echoed));
            expect(got).toMatchObject({ association, remote: formatAddress(isIpv6 ? TARGET6 : TARGET4) });
            expect(Buffer.compare(got.data, data)).toBe(0);
          }
        },
      ),
      { seed: 4, numRuns: 60 },
    );
  });

  it("drops what is for an association that has ended, and counts it", () => {
    const egress = new PacketEgress(1);
    egress.open(1, undefined);
    send(egress, 1, TARGET4, new Uint8Array(9));
    const packets = takePackets(egress).map(echoed);
    egress.close(1);
    expect(receive(egress, packets)).toEqual([]);
    expect(egress.counters.drops.association_closed).toBe(1);
  });

  it("drops a packet with a wrong checksum, and what is no packet", () => {
    const egress = new PacketEgress(1);
    egress.open(1, undefined);
    send(egress, 1, TARGET4, new Uint8Array(9));
    const [packet] = takePackets(egress).map(echoed);
    packet[packet.length - 1] ^= 1;
    expect(receive(egress, [packet, new Uint8Array(30)])).toEqual([]);
    expect(egress.counters.drops).toMatchObject({ bad_checksum: 1, malformed: 1 });
  });
});

describe("PacketStreamReader", () => {
  function makePackets(lengths: readonly number[]): Uint8Array[] {
    const egress = new PacketEgress(1);
    egress.open(0, undefined);
    return lengths.flatMap((length, i) => {
      egress.send(0, i % 2 === 0 ? TARGET4 : TARGET6, randomBytes(seededRandom(i), length), 0, length);
      return takePackets(egress);
    });
  }

  it("gives whole packets however the stream is cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 3000 }), { minLength: 1, maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 20 }),
        (lengths, cuts) => {
          const packets = makePackets(lengths);
          const stream = Uint8Array.from(packets.flatMap((packet) => [...packet]));
          const got: Uint8Array[] = [];
          const reader = new PacketStreamReader((data, offsets, sizes, count) => {
            for (let i = 0; i < count; i++) got.push(data.slice(offsets[i], offsets[i] + sizes[i]));
          });
          for (let at = 0, cut = 0; at < stream.length; cut++) {
            const end = Math.min(stream.length, at + cuts[cut % cuts.length]);
            expect(reader.handleStream(stream.slice(at, end), end - at)).toBe(true);
            at = end;
          }
          expect(got).toEqual(packets);
        },
      ),
      { seed: 5, numRuns: 100 },
    );
  });

  it.each([
    ["a version that is none", [0x55]],
    ["an IPv4 header shorter than 20 bytes", [0x44, 0, 0, 40]],
    ["an IPv4 length shorter than the header", [0x45, 0, 0, 19]],
  ])("ends at %s, whole or byte by byte", (_, bytes) => {
    const packets = [...makePackets([10]), Uint8Array.from([...bytes, ...new Array(60).fill(0)])];
    const stream = Uint8Array.from(packets.flatMap((packet) => [...packet]));
    let count = 0;
    const whole = new PacketStreamReader((_data, _offsets, _lengths, packetCount) => {
      count += packetCount;
    });
    expect(whole.handleStream(stream, stream.length)).toBe(false);
    expect(count).toBe(1);
    const single = new PacketStreamReader(() => {});
    const answers = [...stream].map((byte) => single.handleStream(Uint8Array.of(byte), 1));
    expect(answers).toContain(false);
  });
});
