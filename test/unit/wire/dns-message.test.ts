import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { truncatedAnswer, udpAnswerLimit } from "../../../src/wire/dns-message.ts";

const QUESTION = [7, ...Buffer.from("example"), 4, ...Buffer.from("test"), 0, 0, 16, 0, 1];

/** @param counts  QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT */
function message(flags: number, counts: readonly number[], ...rest: readonly number[]): Uint8Array {
  return Uint8Array.from([0x12, 0x34, flags >> 8, flags & 255, ...counts.flatMap((n) => [0, n]), ...rest]);
}

const opt = (size: number) => [0, 0, 41, size >> 8, size & 255, 0, 0, 0, 0, 0, 0];
const limit = (bytes: Uint8Array) => udpAnswerLimit(bytes, 0, bytes.length);

describe("udpAnswerLimit", () => {
  it.each([
    ["no OPT record", message(0x0100, [1, 0, 0, 0], ...QUESTION), 512],
    ["an OPT record", message(0x0100, [1, 0, 0, 1], ...QUESTION, ...opt(4096)), 4096],
    ["an OPT record with less than 512", message(0x0100, [1, 0, 0, 1], ...QUESTION, ...opt(100)), 512],
    ["an OPT record that is cut short", message(0x0100, [1, 0, 0, 1], ...QUESTION, 0, 0, 41), 512],
    ["no question", message(0x0100, [0, 0, 0, 1], ...opt(4096)), 512],
    ["a name that is cut short", message(0x0100, [1, 0, 0, 0], 63, 1, 2), 512],
    ["an answer in it", message(0x0100, [1, 1, 0, 1], ...QUESTION, ...opt(4096)), 512],
  ])("with %s", (_, query, expected) => {
    expect(limit(query)).toBe(expected);
  });

  it("reads no byte outside the message", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        expect(limit(bytes)).toBeGreaterThanOrEqual(512);
        const short = truncatedAnswer(bytes);
        expect(short === undefined || short.length <= bytes.length).toBe(true);
      }),
      { seed: 6, numRuns: 2_000 },
    );
  });
});

describe("truncatedAnswer", () => {
  it("keeps id, flags and question, sets TC, and has no records", () => {
    const answer = message(0x8180, [1, 3, 1, 1], ...QUESTION, ...new Array(900).fill(1));
    expect(truncatedAnswer(answer)).toEqual(message(0x8380, [1, 0, 0, 0], ...QUESTION));
  });

  it("returns undefined for a message without a question", () => {
    expect(truncatedAnswer(message(0x8180, [0, 0, 0, 0]))).toBeUndefined();
  });
});
