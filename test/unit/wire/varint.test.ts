import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  readVarint,
  VARINT_MAX,
  varintLength,
  varintLengthFrom,
  writeVarint,
} from "../../../src/wire/varint.ts";

const hex = (text: string) => Uint8Array.from(Buffer.from(text, "hex"));

describe("varint", () => {
  it.each([
    ["c2197c5eff14e88c", Number(151_288_809_941_952_652n)],
    ["9d7f3e7d", 494_878_333],
    ["7bbd", 15_293],
    ["25", 37],
    ["4025", 37],
  ])("decodes the example %s of RFC 9000 §A.1", (text, value) => {
    const bytes = hex(text);
    expect(varintLengthFrom(bytes[0])).toBe(bytes.length);
    expect(readVarint(bytes, 0)).toBe(value > VARINT_MAX ? -1 : value);
  });

  it("returns -1 for 2^53, the first value that a number cannot hold exactly", () => {
    expect(readVarint(hex("c01fffffffffffff"), 0)).toBe(Number.MAX_SAFE_INTEGER);
    expect(readVarint(hex("c020000000000000"), 0)).toBe(-1);
  });

  it("encodes in the shortest form at every boundary", () => {
    for (const [value, length] of [
      [0, 1],
      [63, 1],
      [64, 2],
      [16_383, 2],
      [16_384, 4],
      [2 ** 30 - 1, 4],
      [2 ** 30, 8],
      [VARINT_MAX, 8],
    ]) {
      const bytes = new Uint8Array(9).fill(0xee);
      expect(writeVarint(bytes, 1, value)).toBe(1 + length);
      expect(varintLength(value)).toBe(length);
      expect(varintLengthFrom(bytes[1])).toBe(length);
      expect(readVarint(bytes, 1)).toBe(value);
    }
  });

  it("decodes what was encoded", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        const bytes = new Uint8Array(8);
        const end = writeVarint(bytes, 0, value);
        return end === varintLength(value) && readVarint(bytes, 0) === value;
      }),
      { seed: 1, numRuns: 10_000 },
    );
  });
});
