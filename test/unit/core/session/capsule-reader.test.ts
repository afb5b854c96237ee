import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  CapsuleReader,
  READ_CAPSULE,
  READ_NEED,
  READ_TOO_LONG,
} from "../../../../src/core/session/capsule-reader.ts";
import { writeVarint } from "../../../../src/wire/varint.ts";

type Capsule = readonly [type: number, value: readonly number[]];

/** The naive counterpart: decodes the whole stream at once. */
function encode(capsules: readonly Capsule[]): Uint8Array {
  const parts = capsules.flatMap(([type, value]) => {
    const header = new Uint8Array(16);
    const end = writeVarint(header, writeVarint(header, 0, type), value.length);
    return [...header.subarray(0, end), ...value];
  });
  return Uint8Array.from(parts);
}

/** The capsules that a reader returns for a stream in pieces of these lengths. */
function read(reader: CapsuleReader, bytes: Uint8Array, cuts: readonly number[]): Capsule[] | number {
  const capsules: Capsule[] = [];
  let turn = 0;
  for (let from = 0; from < bytes.length; ) {
    const size = cuts.length === 0 ? bytes.length : cuts[turn++ % cuts.length];
    const piece = bytes.slice(from, from + size);
    from += piece.length;
    for (let at = 0; ; at = reader.offset) {
      const status = reader.next(piece, at, piece.length);
      if (status === READ_NEED) break;
      if (status !== READ_CAPSULE) return status;
      capsules.push([reader.type, [...reader.data.subarray(reader.valueOffset, reader.valueEnd)]]);
    }
  }
  return capsules;
}

const value = fc.array(fc.nat(255), { maxLength: 300 });
const capsule = fc.tuple(
  fc.constantFrom(0, 0x11, 0x12, 0x13, 0x55_5000, 0x55_5004, 0x55_5006, 0x17, 0x55_5fff),
  value,
);
const isKnown = ([type]: Capsule) => type !== 0x17 && type !== 0x55_5fff;

describe("CapsuleReader", () => {
  it("returns the same capsules however the stream is cut, and skips unknown ones", () => {
    fc.assert(
      fc.property(
        fc.array(capsule, { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 400 }), { maxLength: 30 }),
        (capsules, cuts) => {
          const reader = new CapsuleReader("extension");
          expect(read(reader, encode(capsules), cuts)).toEqual(capsules.filter(isKnown));
          // No bytes of them are left over.
          expect(read(reader, encode([[0, [7]]]), [])).toEqual([[0, [7]]]);
        },
      ),
      { seed: 2, numRuns: 2_000 },
    );
  });

  it("skips our own types if the extension was not negotiated", () => {
    const stream = encode([
      [0x55_5000, [1, 2]],
      [0, [0, 104, 105]],
    ]);
    expect(read(new CapsuleReader("bind"), stream, [1])).toEqual([[0, [0, 104, 105]]]);
  });

  it("accepts a DATAGRAM of 65,535 bytes and refuses one of 65,536 at once", () => {
    const stream = encode([[0, new Array(65_535).fill(7)]]);
    expect(read(new CapsuleReader("bind"), stream, [1000])).toHaveLength(1);
    const header = Uint8Array.of(0, 0x80, 0x01, 0x00, 0x00);
    expect(read(new CapsuleReader("bind"), header, [1])).toBe(READ_TOO_LONG);
  });

  it("names the type of a capsule that it refuses, in one piece or several", () => {
    const long = encode([[0x12, new Array(301).fill(0)]]);
    for (const cuts of [[], [1]]) {
      const reader = new CapsuleReader("bind");
      expect(read(reader, long, cuts)).toBe(READ_TOO_LONG);
      expect(reader.type).toBe(0x12);
    }
  });

  it("refuses a control capsule of 301 bytes", () => {
    const ack = (length: number) => encode([[0x12, new Array(length).fill(0)]]);
    expect(read(new CapsuleReader("bind"), ack(300), [])).toHaveLength(1);
    expect(read(new CapsuleReader("bind"), ack(301), [])).toBe(READ_TOO_LONG);
  });

  it("skips capsules of the bind draft if that was not negotiated", () => {
    const stream = encode([
      [0x11, [2, 0]],
      [0x12, new Array(301).fill(0)],
      [0x13, []],
      [0, [0, 104]],
    ]);
    expect(read(new CapsuleReader("datagram"), stream, [3])).toEqual([[0, [0, 104]]]);
  });

  it("is not at a boundary inside a capsule, nor inside one that it skips", () => {
    for (const type of [0, 0x17]) {
      const reader = new CapsuleReader("bind");
      read(reader, encode([[type, [1, 2, 3]]]).slice(0, -1), []);
      expect(reader.atBoundary).toBe(false);
    }
  });
});
