import { describe, expect, it } from "vitest";
import {
  CAPSULE_RECEIPT,
  MAX_RECEIPT_BYTES,
  ReceiptReader,
  ReceiptWriter,
  readSequence,
  sequencedHeaderLength,
  writeSequencedHeader,
} from "../../../src/wire/receipt.ts";
import { readVarint } from "../../../src/wire/varint.ts";

/** The value of a receipt for these lanes. */
function receipt(clock: number, items: readonly (readonly [number, number, number])[]): Uint8Array {
  const bytes = new Uint8Array(MAX_RECEIPT_BYTES);
  const writer = new ReceiptWriter();
  writer.begin(bytes, 0, clock);
  for (const [lane, count, age] of items) writer.add(lane, count, age);
  return bytes.slice(0, writer.end());
}

describe("sequenced datagrams", () => {
  it("add at most 10 bytes to a payload of 1,200, with the longest context id in use", () => {
    expect([2, 200, 20_000].map((context) => sequencedHeaderLength(context, 1200))).toEqual([7, 8, 10]);
  });

  it("contain the context and then three bytes of sequence", () => {
    const bytes = new Uint8Array(16);
    const at = writeSequencedHeader(bytes, 0, 2, 0x01_02_03, 2);
    expect([...bytes.subarray(0, at)]).toEqual([0, 6, 2, 1, 2, 3]);
    expect(readSequence(bytes, 3)).toBe(0x01_02_03);
  });
});

describe("receipts", () => {
  it("are read as they were written, with 6 bytes per lane for an age of some milliseconds", () => {
    const items = [
      [0, 7, 20],
      [31, 65_535, 5_000],
    ] as const;
    const bytes = receipt(0xfedc_ba98, items);
    expect(readVarint(bytes, 0)).toBe(CAPSULE_RECEIPT);
    const reader = new ReceiptReader();
    expect(reader.begin(bytes, 6, bytes.length)).toBe(true);
    expect(reader.clock).toBe(0xfedc_ba98);
    const read: number[][] = [];
    while (reader.next()) read.push([reader.lane, reader.count, reader.age]);
    expect(read).toEqual(items);
    expect(reader.isMalformed).toBe(false);
  });

  it("are malformed if they end anywhere inside the clock or an item", () => {
    const bytes = receipt(1, [[3, 4, 5_000]]);
    const reader = new ReceiptReader();
    for (let end = 6; end < bytes.length; end++) {
      let isWell = reader.begin(bytes, 6, end);
      while (reader.next());
      isWell = isWell && !reader.isMalformed;
      expect({ end, isWell }).toEqual({ end, isWell: end === 10 });
    }
  });
});
