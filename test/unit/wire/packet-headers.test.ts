import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checksumOf, sumBytes, updateChecksum } from "../../../src/wire/ip/checksum.ts";
import { ICMP_ECHO_REQUEST, icmpSum, writeIcmpChecksum, writeIcmpHeader } from "../../../src/wire/ip/icmp.ts";
import { IpPacket, PACKET_INVALID, packetLength } from "../../../src/wire/ip/ip-packet.ts";
import {
  isIpv4ChecksumRight,
  updateIpv4Checksum,
  writeIpv4Checksum,
  writeIpv4Header,
} from "../../../src/wire/ip/ipv4.ts";
import { writeIpv6FragmentHeader, writeIpv6Header } from "../../../src/wire/ip/ipv6.ts";
import { TCP_RST, writeTcpChecksum, writeTcpHeader } from "../../../src/wire/ip/tcp.ts";
import { isUdpChecksumRight, udpEnd, writeUdpHeader } from "../../../src/wire/ip/udp.ts";
import {
  VIRTIO_GSO_TCPV4,
  VIRTIO_NEEDS_CHECKSUM,
  VIRTIO_NET_HEADER_BYTES,
  virtioChecksumOffset,
  virtioChecksumStart,
  virtioFlags,
  virtioGsoSize,
  virtioGsoType,
  writeVirtioNetHeader,
} from "../../../src/wire/ip/virtio-net.ts";
import { addressLength, formatAddress, writeAddress } from "../../../src/wire/socket-address.ts";
import { inspect, ip, slowChecksum } from "../packet-oracle.ts";
import { mutate, seededRandom } from "../random.ts";
import { bytesOf, vectors } from "../vectors.ts";

const packets = vectors("packets.json");

describe("checksums", () => {
  it("of the example in RFC 1071 sum to ddf2", () => {
    const bytes = bytesOf("0001f203f4f5f6f7");
    expect(sumBytes(bytes, 0, 8, 0)).toBe(0xddf2);
    expect(checksumOf(0xddf2)).toBe(0x220d);
  });

  it("are updated to 0000 in the example of RFC 1624, where RFC 1141 fails", () => {
    expect(updateChecksum(0xdd2f, 0x5555, 0x3285)).toBe(0);
  });

  it("agree with the slow implementation for any bytes at any offset of any view", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(7), fc.nat(7), (whole, before, skip) => {
        const bytes = whole.subarray(before);
        const offset = Math.min(skip, bytes.length);
        expect(checksumOf(sumBytes(bytes, offset, bytes.length, 0))).toBe(
          slowChecksum(bytes.subarray(offset)),
        );
      }),
      { seed: 1, numRuns: 2_000 },
    );
  });

  it("do not overflow with 65,535 bytes of ff", () => {
    const bytes = new Uint8Array(65_535).fill(0xff);
    expect(checksumOf(sumBytes(bytes, 0, bytes.length, 0xffff))).toBe(slowChecksum(bytes));
  });

  it("are the same whether updated or recomputed, for any change of words", () => {
    const words = fc.uint8Array({ minLength: 12, maxLength: 12 });
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 60 }), words, words, (rest, before, after) => {
        // Not all zeros, because 0000 and ffff would then be the same sum.
        const fixed = Buffer.concat([Buffer.from([1, 0]), rest]);
        const old = slowChecksum(before, fixed);
        const updated = updateChecksum(old, sumBytes(before, 0, 12, 0), sumBytes(after, 0, 12, 0));
        expect(updated).toBe(slowChecksum(after, fixed));
      }),
      { seed: 2, numRuns: 2_000 },
    );
  });
});

describe("IP packets", () => {
  it.each(packets)("$name: all headers are read", (vector) => {
    const bytes = Buffer.concat([Buffer.alloc(3), bytesOf(vector.hex), Buffer.from("trailer")]);
    const packet = new IpPacket();
    expect(packet.read(bytes, 3, bytes.length)).toBe(true);
    const { version, protocol, transport, length, fragment } = vector;
    expect(packet).toMatchObject({ version, protocol, isFragment: fragment !== undefined });
    expect([packet.transport - 3, packet.end - 3]).toEqual([transport, length]);
    expect(packetLength(bytes, 3, bytes.length)).toBe(length);
    const addresses = [packet.source, packet.destination].map((at) => [
      ...bytes.subarray(at, at + packet.addressBytes),
    ]);
    const expected = version === 4 ? ["10.0.0.2", "192.0.2.53"] : ["fd00::2", "2001:db8::53"];
    expect(addresses).toEqual(expected.map((text) => [...ip(text)]));
    if (fragment !== undefined) {
      expect([packet.fragmentOffset, packet.moreFragments, packet.identification]).toEqual(fragment);
    }
  });

  it.each(packets.filter(({ protocol, fragment }) => protocol === 17 && fragment === undefined))(
    "$name: its checksum is right, and wrong with any bit changed",
    ({ hex }) => {
      const bytes = bytesOf(hex);
      const packet = new IpPacket();
      packet.read(bytes, 0, bytes.length);
      const end = udpEnd(bytes, packet);
      expect(isUdpChecksumRight(bytes, packet, end)).toBe(true);
      for (let bit = 0; bit < (end - packet.transport) * 8; bit++) {
        const at = packet.transport + (bit >> 3);
        bytes[at] ^= 1 << (bit & 7);
        expect(isUdpChecksumRight(bytes, packet, end)).toBe(false);
        bytes[at] ^= 1 << (bit & 7);
      }
    },
  );

  it.each(packets)("$name: it is refused if truncated anywhere", ({ hex, length }) => {
    const bytes = bytesOf(hex);
    const packet = new IpPacket();
    for (let end = 0; end < Number(length); end++) {
      expect(packet.read(bytes, 0, end)).toBe(false);
      const known = packetLength(bytes, 0, end);
      if (end < 4) expect(known).toBeLessThan(0);
      else if (known < 0) expect(end - known).toBeLessThanOrEqual(Number(length));
      else expect(known).toBe(length);
    }
  });

  it("are never read past their end in 100,000 mutations", () => {
    const random = seededRandom(3);
    const packet = new IpPacket();
    let read = 0;
    for (let i = 0; i < 100_000; i++) {
      const bytes = mutate(random, bytesOf(packets[i % packets.length].hex));
      if (!packet.read(bytes, 0, bytes.length)) continue;
      read++;
      const { transport, end, protocolAt, source } = packet;
      if (transport > end || end > bytes.length || protocolAt >= transport || source >= transport) {
        throw new Error(`past the end: ${Buffer.from(bytes).toString("hex")}`);
      }
      if (packet.protocol === 17 && udpEnd(bytes, packet) > end) throw new Error("past the end");
    }
    expect(read).toBeGreaterThan(10_000);
  });

  it("are refused on a stream with an unknown version or an IPv4 header below 20 bytes", () => {
    expect(packetLength(Uint8Array.of(0x50, 0, 0, 60), 0, 4)).toBe(PACKET_INVALID);
    expect(packetLength(Uint8Array.of(0x44, 0, 0, 60), 0, 4)).toBe(PACKET_INVALID);
    expect(packetLength(Uint8Array.of(0x45, 0, 0, 19), 0, 4)).toBe(PACKET_INVALID);
  });

  it("are refused with nine extension headers, late hop-by-hop options or a pending route", () => {
    const packet = new IpPacket();
    const chain = (headers: number[], routed = 0) => {
      const bytes = Buffer.alloc(40 + headers.length * 8);
      writeIpv6Header(bytes, 0, headers.length * 8, 64, headers[0]);
      for (const [i, next] of [...headers.slice(1), 59].entries()) {
        bytes[40 + i * 8] = next;
        bytes[43 + i * 8] = routed;
      }
      return packet.read(bytes, 0, bytes.length);
    };
    expect(chain(Array(8).fill(60))).toBe(true);
    expect(chain(Array(9).fill(60))).toBe(false);
    expect(chain([0, 60])).toBe(true);
    expect(chain([60, 0])).toBe(false);
    expect(chain([43])).toBe(true);
    expect(chain([43], 1)).toBe(false);
  });
});

describe("written headers", () => {
  it("are well-formed for the slow implementation", () => {
    const bytes = new Uint8Array(100);
    for (const [source, destination] of [
      ["10.0.0.1", "192.0.2.1"],
      ["fd00::1", "2001:db8::1"],
    ]) {
      const isIpv4 = source.includes(".");
      const at = isIpv4 ? 20 : 40;
      const addresses = isIpv4 ? [12, 16] : [8, 24];
      bytes.set(ip(source), addresses[0]);
      bytes.set(ip(destination), addresses[1]);
      const addressBytes = isIpv4 ? 4 : 16;
      const header = (length: number, protocol: number) =>
        isIpv4
          ? writeIpv4Header(bytes, 0, 20 + length, 7, 0x4000, 63, protocol)
          : writeIpv6Header(bytes, 0, length, 63, protocol);
      header(20, 6);
      writeTcpHeader(bytes, at, 1, 2, 0xffff_fffe, 5, TCP_RST);
      writeTcpChecksum(bytes, at, at + 20, addresses[0], addresses[1], addressBytes);
      expect(inspect(bytes.subarray(0, at + 20))).toMatchObject({
        source,
        destination,
        ttl: 63,
        sourcePort: 1,
        destinationPort: 2,
        sequence: 0xffff_fffe,
        acknowledgment: 5,
        flags: TCP_RST,
      });
      header(11, isIpv4 ? 1 : 58);
      writeIcmpHeader(bytes, at, ICMP_ECHO_REQUEST, 0, 0x1234_0001);
      writeIcmpChecksum(bytes, at, at + 11, addresses[0], addresses[1], addressBytes);
      inspect(bytes.subarray(0, at + 11));
      expect(icmpSum(bytes, at, at + 11, addresses[0], addresses[1], addressBytes)).toBe(0xffff);
      header(8, 17);
      writeUdpHeader(bytes, at, 53, 40_000, 8);
      const packet = new IpPacket();
      packet.read(bytes, 0, at + 8);
      expect(isUdpChecksumRight(bytes, packet, at + 8)).toBe(isIpv4);
    }
  });

  it("keep a correct IPv4 checksum when addresses change", () => {
    const bytes = bytesOf("4500007300004000401100 00c0a80001c0a800c7".replace(" ", ""));
    writeIpv4Checksum(bytes, 0);
    expect(Buffer.from(bytes.subarray(10, 12)).toString("hex")).toBe("b861");
    const before = sumBytes(bytes, 12, 20, 0);
    bytes.set(ip("10.255.0.1"), 12);
    updateIpv4Checksum(bytes, 0, before, sumBytes(bytes, 12, 20, 0));
    expect(isIpv4ChecksumRight(bytes, 0)).toBe(true);
    expect(slowChecksum(bytes)).toBe(0);
  });

  it("are read back from IPv6 fragments", () => {
    const bytes = new Uint8Array(56);
    writeIpv6Header(bytes, 0, 16, 64, 44);
    writeIpv6FragmentHeader(bytes, 40, 17, 65_528, true, 0x8000_0001);
    const packet = new IpPacket();
    expect(packet.read(bytes, 0, 56)).toBe(true);
    expect(packet).toMatchObject({
      protocol: 17,
      fragmentOffset: 65_528,
      moreFragments: true,
      identification: 0x8000_0001,
      transport: 48,
    });
  });

  it("are little-endian for virtio-net", () => {
    const bytes = new Uint8Array(VIRTIO_NET_HEADER_BYTES);
    writeVirtioNetHeader(bytes, 0, VIRTIO_NEEDS_CHECKSUM, VIRTIO_GSO_TCPV4 | 0x80, 54, 1448, 20, 16);
    expect(Buffer.from(bytes).toString("hex")).toBe("01813600a80514001000");
    expect([virtioFlags(bytes, 0), virtioGsoType(bytes, 0), virtioGsoSize(bytes, 0)]).toEqual([1, 1, 1448]);
    expect([virtioChecksumStart(bytes, 0), virtioChecksumOffset(bytes, 0)]).toEqual([20, 16]);
  });
});

describe("addresses from packets", () => {
  it.each([
    ["IPv4 UDP, a DNS query", "10.0.0.2:40000", "192.0.2.53:53"],
    ["IPv6 UDP, a DNS query", "[fd00::2]:40000", "[2001:db8::53]:53"],
  ])("%s: are written in the one form of all addresses", (name, source, destination) => {
    const bytes = bytesOf(packets.find((vector) => vector.name === name)!.hex);
    const packet = new IpPacket();
    packet.read(bytes, 0, bytes.length);
    const arena = new Uint8Array(64);
    const { transport, addressBytes } = packet;
    const written = writeAddress(arena, 5, bytes, packet.source, addressBytes, transport);
    expect(addressLength(arena, 5, 64)).toBe(written);
    expect(formatAddress(arena.slice(5, 5 + written))).toBe(source);
    writeAddress(arena, 5, bytes, packet.destination, addressBytes, transport + 2);
    expect(formatAddress(arena.slice(5, 5 + written))).toBe(destination);
  });
});
