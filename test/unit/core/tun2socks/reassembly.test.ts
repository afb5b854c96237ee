import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PacketCounters } from "../../../../src/core/tun2socks/packet-counters.ts";
import { Reassembler } from "../../../../src/core/tun2socks/reassembly.ts";
import { IpPacket } from "../../../../src/wire/ip/ip-packet.ts";
import { ipPacket, udpMessage } from "../../packet-oracle.ts";
import { randomBytes, seededRandom } from "../../random.ts";

const IDENTIFICATION = 0x1234;

/** A fragment of version 4 or 6 with `data` at `offset`. */
function fragment(
  version: number,
  offset: number,
  more: boolean,
  data: Uint8Array,
  identification = IDENTIFICATION,
): Buffer {
  if (version === 4) {
    const flags = (offset / 8) | (more ? 0x2000 : 0);
    return ipPacket(
      { source: "10.0.0.2", destination: "192.0.2.1", protocol: 17, identification, flags },
      data,
    );
  }
  const header = Buffer.from([17, 0, 0, 0, 0, 0, 0, 0]);
  header.writeUInt16BE(offset | (more ? 1 : 0), 2);
  header.writeUInt32BE(identification, 4);
  return ipPacket(
    { source: "fd00::2", destination: "2001:db8::1", protocol: 44 },
    Buffer.concat([header, data]),
  );
}

/** `message` in fragments that end at `cuts`, multiples of 8. */
function fragments(version: number, message: Uint8Array, cuts: readonly number[]): Buffer[] {
  const ends = [...new Set(cuts)].filter((cut) => cut > 0 && cut < message.length).sort((a, b) => a - b);
  let start = 0;
  return [...ends, message.length].map((end) => {
    const piece = fragment(version, start, end < message.length, message.subarray(start, end));
    start = end;
    return piece;
  });
}

function machine(maxBytes = 4 * 1024 * 1024) {
  const counters = new PacketCounters();
  const reassembler = new Reassembler(maxBytes, 30_000, counters);
  const packet = new IpPacket();
  const add = (bytes: Buffer, now = 0) => {
    if (!packet.read(bytes, 0, bytes.length)) throw new Error("unreadable");
    const length = reassembler.add(now, bytes, packet);
    return length === 0 ? undefined : Buffer.from(reassembler.whole.subarray(0, length));
  };
  return { counters, reassembler, add };
}

/** The data of a complete packet with a plain header, whose checksum and length the oracle has verified. */
function dataOf(version: number, whole: Buffer | undefined): Buffer | undefined {
  return whole?.subarray(version === 4 ? 20 : 40);
}

describe.each([4, 6])("reassembly of IPv%i", (version) => {
  it("restores the original from fragments of any size, in any order, one of them repeated", () => {
    const ordered = fc.array(fc.nat(400), { maxLength: 12 });
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 17, maxLength: 3_000 }),
        ordered,
        fc.nat(),
        (data, cuts, seed) => {
          const { add, reassembler } = machine();
          const random = seededRandom(seed);
          const pieces = fragments(version, data, [8, ...cuts.map((cut) => cut * 8)]);
          const sequence = [...pieces, pieces[random() % pieces.length]]
            .map((piece) => ({ piece, key: random() }))
            .sort((a, b) => a.key - b.key)
            .map(({ piece }) => piece);
          const wholes = sequence.flatMap((piece) => add(piece) ?? []);
          // Fragments that are repeated after the end begin a new packet, which times out.
          expect(wholes.map((whole) => dataOf(version, whole))).toEqual([Buffer.from(data)]);
          expect(reassembler.size).toBeLessThanOrEqual(1);
        },
      ),
      { seed: 4, numRuns: 500 },
    );
  });

  it("restores a datagram of 65,507 bytes", () => {
    const { add } = machine();
    const payload = randomBytes(seededRandom(5), 65_507);
    const message =
      version === 4
        ? udpMessage("10.0.0.2", 1, "192.0.2.1", 2, payload)
        : udpMessage("fd00::2", 1, "2001:db8::1", 2, payload);
    const pieces = fragments(
      version,
      message,
      Array.from({ length: 60 }, (_, i) => i * 1_480),
    ).reverse();
    const wholes = pieces.flatMap((piece) => add(piece) ?? []);
    expect(wholes).toHaveLength(1);
    expect(Buffer.compare(dataOf(version, wholes[0])!, message)).toBe(0);
  });

  it.each([
    ["shares its first block with another", 8, true, 16],
    ["lies within another and differs", 8, true, 8],
    ["is shorter than the furthest end and says it is the last", 0, false, 8],
  ])("discards the whole packet because of a fragment that %s", (_name, offset, more, length) => {
    const { add, counters } = machine();
    add(fragment(version, 0, true, Buffer.alloc(16, 1)));
    expect(add(fragment(version, offset || 8, more, Buffer.alloc(length, 2)))).toBeUndefined();
    expect(add(fragment(version, 16, true, Buffer.alloc(8, 1)))).toBeUndefined();
    expect(add(fragment(version, 24, false, Buffer.alloc(8, 1)))).toBeUndefined();
    expect(counters.drops.reassembly_overlap).toBe(3);
    expect(counters.reassembled).toBe(0);
  });

  it("discards the packet when a second last fragment ends elsewhere, or a fragment reaches beyond the last", () => {
    for (const piece of [
      fragment(version, 40, false, Buffer.alloc(8)),
      fragment(version, 32, true, Buffer.alloc(8)),
    ]) {
      const { add, counters } = machine();
      add(fragment(version, 24, false, Buffer.alloc(5)));
      add(piece);
      expect(add(fragment(version, 0, true, Buffer.alloc(24)))).toBeUndefined();
      expect(counters.drops.reassembly_overlap).toBe(2);
    }
  });

  it("refuses fragments that are empty, of odd length, or end past the largest packet", () => {
    const { add, counters, reassembler } = machine();
    add(fragment(version, 8, true, Buffer.alloc(0)));
    add(fragment(version, 8, true, Buffer.alloc(9)));
    add(fragment(version, 65_528, false, Buffer.alloc(8)));
    expect(counters.drops.malformed).toBe(3);
    expect(reassembler.size).toBe(0);
  });

  it("keeps packets of different identification apart, and drops them after 30 s", () => {
    const { add, counters, reassembler } = machine();
    add(fragment(version, 0, true, Buffer.alloc(8, 1), 1));
    add(fragment(version, 0, true, Buffer.alloc(8, 2), 2), 10_000);
    expect(dataOf(version, add(fragment(version, 8, false, Buffer.alloc(1, 2), 2), 10_000))).toEqual(
      Buffer.alloc(9, 2),
    );
    reassembler.expire(29_999);
    expect(reassembler.size).toBe(1);
    reassembler.expire(30_000);
    expect(reassembler.size).toBe(0);
    expect(counters.drops.reassembly_timeout).toBe(1);
  });

  it("drops the oldest packet when one more would exceed 256 KiB", () => {
    const { add, counters, reassembler } = machine(256 * 1024);
    for (let i = 0; i < 100; i++) add(fragment(version, 0, true, Buffer.alloc(8), i), i);
    expect(reassembler.size).toBe(3);
    expect(counters.drops.reassembly_limit).toBe(97);
    expect(add(fragment(version, 8, false, Buffer.alloc(8), 96), 100)).toBeUndefined();
    expect(add(fragment(version, 8, false, Buffer.alloc(8), 99), 100)).toBeDefined();
  });
});

describe("reassembly", () => {
  it("accepts an atomic IPv6 fragment, whatever is pending (RFC 6946)", () => {
    const { add, reassembler } = machine();
    add(fragment(6, 0, true, Buffer.alloc(8)));
    expect(dataOf(6, add(fragment(6, 0, false, Buffer.from("atomic"))))).toEqual(Buffer.from("atomic"));
    expect(reassembler.size).toBe(1);
  });
});
