import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PacketBatch } from "../../../../src/core/tun2socks/packet-batch.ts";
import { PacketCounters } from "../../../../src/core/tun2socks/packet-counters.ts";
import { PacketEgress } from "../../../../src/core/tun2socks/packet-egress.ts";
import { PacketStreamReader } from "../../../../src/core/tun2socks/packet-stream-reader.ts";
import { PacketWriter } from "../../../../src/core/tun2socks/packet-writer.ts";
import { writeIcmpChecksum } from "../../../../src/wire/ip/icmp.ts";
import { IpPacket } from "../../../../src/wire/ip/ip-packet.ts";
import { isIpv4ChecksumRight, writeIpv4Checksum } from "../../../../src/wire/ip/ipv4.ts";
import { readUint16, writeUint16 } from "../../../../src/wire/network-order.ts";
import type { AddressBytes } from "../../../../src/wire/socket-address.ts";
import { formatAddress, makeAddress, writeAddress } from "../../../../src/wire/socket-address.ts";
import { mutate, randomBytes, seededRandom } from "../../random.ts";

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

/** The answer of an echo behind the device to an unfragmented packet: addresses and ports swapped. */
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
    egress.handlePacket(0, packet, 0, packet.length, {
      onDatagram: (association, remote, data, offset, length) => {
        datagrams.push({
          association,
          remote: formatAddress(remote),
          data: data.slice(offset, offset + length),
        });
      },
      onUnreachable: () => expect.unreachable(),
    });
  }
  return datagrams;
}

/** Reported ICMP errors: `association remote kind mtu`. */
function told(egress: PacketEgress, packets: readonly Uint8Array[]): string[] {
  const lines: string[] = [];
  for (const packet of packets) {
    egress.handlePacket(0, packet, 0, packet.length, {
      onDatagram: () => expect.unreachable(),
      onUnreachable: (association, remote, kind, mtu) =>
        lines.push(`${association} ${formatAddress(remote)} ${kind} ${mtu}`),
    });
  }
  return lines;
}

/** An ICMP error about a packet, from an address that is neither of its ends. */
function icmpError(about: Uint8Array, type: number, code: number, rest = 0): Uint8Array {
  const view = new IpPacket();
  view.read(about, 0, about.length);
  const batch = new PacketBatch(1, 4096);
  const writer = new PacketWriter(batch, new PacketCounters(), 1500, false, false, 1);
  const from = (view.addressBytes === 4 ? TARGET4 : TARGET6).slice(1, -2);
  from[from.length - 1] = 200;
  const { addressBytes, source, start, end } = view;
  writer.writeIcmpError(addressBytes, from, 0, about, source, type, code, rest, about, start, end);
  return batch.buffer(0).slice(batch.offset[0], batch.offset[0] + batch.length[0]);
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

  it("writes the DSCP of a datagram into its packet, and into every fragment", () => {
    const egress = new PacketEgress(1);
    egress.open(3, undefined);
    for (const [target, size, dscp] of [
      [TARGET4, 5, 46],
      [TARGET6, 5, 46],
      [TARGET6, 65_507, 18],
      [TARGET4, 5, 0],
    ] as const) {
      expect(egress.send(3, target, new Uint8Array(size), 0, size, dscp)).toBe(true);
    }
    const found = takePackets(egress).map((packet) => {
      const view = new IpPacket();
      expect(view.read(packet, 0, packet.length)).toBe(true);
      if (view.version === 4) expect(isIpv4ChecksumRight(packet, 0)).toBe(true);
      return `${view.version} ${view.dscp} ${view.isFragment}`;
    });
    expect(found).toEqual(["4 46 false", "6 46 false", "6 18 true", "6 18 true", "4 0 false"]);
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

  it("gives three sources to two clients with the same address and one whose own is in the pool", () => {
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

  it("delivers every reply unchanged to the association that it answers, over both families", () => {
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
            if (packets.length > 1) continue; // Over IPv6, the longest arrive in fragments, which an echo must not change.
            const [got] = receive(egress, packets.map(echoed));
            expect(got).toMatchObject({ association, remote: formatAddress(isIpv6 ? TARGET6 : TARGET4) });
            expect(Buffer.compare(got.data, data)).toBe(0);
          }
        },
      ),
      { seed: 4, numRuns: 60 },
    );
  });

  it("drops and counts replies to an association that has ended", () => {
    const egress = new PacketEgress(1);
    egress.open(1, undefined);
    send(egress, 1, TARGET4, new Uint8Array(9));
    const packets = takePackets(egress).map(echoed);
    egress.close(1);
    expect(receive(egress, packets)).toEqual([]);
    expect(egress.counters.drops.association_closed).toBe(1);
  });

  it("drops a packet with a wrong checksum, and anything that is not a packet", () => {
    const egress = new PacketEgress(1);
    egress.open(1, undefined);
    send(egress, 1, TARGET4, new Uint8Array(9));
    const [packet] = takePackets(egress).map(echoed);
    packet[packet.length - 1] ^= 1;
    expect(receive(egress, [packet, new Uint8Array(30)])).toEqual([]);
    expect(egress.counters.drops).toMatchObject({ bad_checksum: 1, malformed: 1 });
  });
});

describe("ICMP errors that come back to PacketEgress", () => {
  /** An egress with associations 0 and 1, and the packets that each sent. */
  function egressAndPackets(target: AddressBytes): { egress: PacketEgress; packets: Uint8Array[] } {
    const egress = new PacketEgress(1);
    for (const association of [0, 1]) {
      egress.open(association, undefined);
      egress.send(association, target, new Uint8Array(700), 0, 700);
    }
    return { egress, packets: takePackets(egress) };
  }

  it.each([
    ["port", TARGET4, 3, 3, 0, "port 0"],
    ["protocol", TARGET4, 3, 2, 0, "port 0"],
    ["host", TARGET4, 3, 1, 0, "host 0"],
    ["network", TARGET4, 3, 0, 0, "host 0"],
    ["prohibited", TARGET4, 3, 13, 0, "prohibited 0"],
    ["fragmentation needed", TARGET4, 3, 4, 1300, "too-big 1300"],
    ["fragmentation needed, with more than an MTU can be", TARGET4, 3, 4, 0xffff_0500, "too-big 1280"],
    ["port, IPv6", TARGET6, 1, 4, 0, "port 0"],
    ["address, IPv6", TARGET6, 1, 3, 0, "host 0"],
    ["prohibited, IPv6", TARGET6, 1, 1, 0, "prohibited 0"],
    ["packet too big, IPv6", TARGET6, 2, 0, 1300, "too-big 1300"],
    ["packet too big, IPv6, with more than is told", TARGET6, 2, 0, 0xffff_ffff, "too-big 65535"],
  ])(
    "%s: are reported to the association that sent, with the target",
    (_, target, type, code, rest, wanted) => {
      const { egress, packets } = egressAndPackets(target);
      const errors = packets.map((packet) => icmpError(packet, type, code, rest));
      const remote = formatAddress(target);
      expect(told(egress, errors)).toEqual([`0 ${remote} ${wanted}`, `1 ${remote} ${wanted}`]);
    },
  );

  it.each([
    ["time exceeded", TARGET4, 11, 0],
    ["echo reply", TARGET4, 0, 0],
    ["time exceeded, IPv6", TARGET6, 3, 0],
    ["echo reply, IPv6", TARGET6, 129, 0],
  ])("%s: are ignored", (_, target, type, code) => {
    const { egress, packets } = egressAndPackets(target);
    expect(told(egress, [icmpError(packets[0], type, code)])).toEqual([]);
    expect(egress.counters.drops.icmp).toBe(1);
  });

  it.each([
    ["IPv4", TARGET4],
    ["IPv6", TARGET6],
  ])("are ignored over %s if nobody sent the datagram, or it is truncated or changed", (_, target) => {
    const { egress, packets } = egressAndPackets(target);
    const isIpv4 = target === TARGET4;
    const [type, code] = isIpv4 ? [3, 3] : [1, 4];
    const [packet] = packets;
    const headerBytes = isIpv4 ? 20 : 40;
    const drops = () => {
      const { icmp, malformed, bad_checksum, association_closed } = egress.counters.drops;
      return [icmp, malformed, bad_checksum, association_closed];
    };
    // From a port that belongs to no association.
    const other = packet.slice();
    writeUint16(other, headerBytes, 9);
    expect(told(egress, [icmpError(other, type, code)])).toEqual([]);
    expect(drops()).toEqual([0, 0, 0, 1]);
    // An error about TCP.
    const tcp = packet.slice();
    tcp[isIpv4 ? 9 : 6] = 6;
    expect(told(egress, [icmpError(tcp, type, code)])).toEqual([]);
    expect(drops()).toEqual([1, 0, 0, 1]);
    // Every bit of the message matters.
    const good = icmpError(packet, type, code);
    for (let at = headerBytes; at < good.length; at += 7) {
      const changed = good.slice();
      changed[at] ^= 0x10;
      expect(told(egress, [changed])).toEqual([]);
    }
    expect(drops()[2]).toBeGreaterThan(50);
    // To an address other than the source of the quoted packet.
    const elsewhere = packet.slice();
    elsewhere[isIpv4 ? 15 : 23] ^= 1;
    const quoted = icmpError(elsewhere, type, code);
    const before = drops();
    const forged = forgeQuote(quoted, packet, headerBytes);
    expect(told(egress, [forged])).toEqual([]);
    expect(drops()[0]).toBe(before[0] + 1);
    egress.close(0);
    expect(told(egress, [good])).toEqual([]);
  });

  it("are never read past their end, whatever their length", () => {
    const random = seededRandom(11);
    const { egress, packets } = egressAndPackets(TARGET4);
    const six = egressAndPackets(TARGET6);
    for (const [one, good] of [
      [egress, icmpError(packets[0], 3, 3)],
      [six.egress, icmpError(six.packets[0], 2, 0, 1280)],
    ] as const) {
      for (let i = 0; i < 20_000; i++) told(one, [mutate(random, good)]);
      // Correct checksums over truncated messages.
      for (let length = 0; length < 60; length++) told(one, [shortened(good, length)]);
    }
  });
});

/** Replaces the quoted packet of an error, and corrects the checksum. */
function forgeQuote(error: Uint8Array, quote: Uint8Array, headerBytes: number): Uint8Array {
  const forged = error.slice();
  const at = headerBytes + 8;
  forged.set(quote.subarray(0, forged.length - at), at);
  return withIcmpChecksum(forged, headerBytes);
}

/** An error with only this many bytes of its message, with all lengths and checksums correct. */
function shortened(error: Uint8Array, messageBytes: number): Uint8Array {
  const headerBytes = error[0] >> 4 === 4 ? 20 : 40;
  const short = error.slice(0, headerBytes + messageBytes);
  if (headerBytes === 20) {
    writeUint16(short, 2, short.length);
    writeIpv4Checksum(short, 0);
  } else writeUint16(short, 4, messageBytes);
  return messageBytes < 4 ? short : withIcmpChecksum(short, headerBytes);
}

function withIcmpChecksum(packet: Uint8Array, headerBytes: number): Uint8Array {
  const addressBytes = headerBytes === 20 ? 4 : 16;
  const source = headerBytes - 2 * addressBytes;
  writeIcmpChecksum(packet, headerBytes, packet.length, source, source + addressBytes, addressBytes);
  return packet;
}

describe("PacketStreamReader", () => {
  function makePackets(lengths: readonly number[]): Uint8Array[] {
    const egress = new PacketEgress(1);
    egress.open(0, undefined);
    return lengths.flatMap((length, i) => {
      egress.send(0, i % 2 === 0 ? TARGET4 : TARGET6, randomBytes(seededRandom(i), length), 0, length);
      return takePackets(egress);
    });
  }

  it("returns whole packets however the stream is cut", () => {
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
  ])("fails at %s, whole or byte by byte", (_, bytes) => {
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
