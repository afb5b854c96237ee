import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HeadBuffer } from "../../src/core/head-buffer.ts";
import {
  asciiBytes,
  decodeHead,
  fieldHasToken,
  findHeadEnd,
  MAX_HEAD_BYTES,
  singleField,
  utf8Bytes,
} from "../../src/wire/http-head.ts";

const NAME_CHARACTERS = [..."!#$%&'*+-.^_`|~09azAZ"];
const VALUE_CHARACTERS = [...'azAZ09:;,="\t (){}[]<>@?/\\~!'];
const fieldName = fc.string({ unit: fc.constantFrom(...NAME_CHARACTERS), minLength: 1, maxLength: 12 });
const fieldValue = fc.string({ unit: fc.constantFrom(...VALUE_CHARACTERS), maxLength: 30 });
const blanks = fc.string({ unit: fc.constantFrom(" ", "\t"), maxLength: 3 });
const field = fc.tuple(fieldName, blanks, fieldValue, blanks);

const decode = (text: string) => {
  const bytes = asciiBytes(text);
  return decodeHead(bytes, bytes.length);
};

describe("decodeHead", () => {
  it("returns the values of every field in order and trimmed, under its name in lower case", () => {
    fc.assert(
      fc.property(fc.array(field, { maxLength: 12 }), (fields) => {
        const lines = fields.map(([name, before, value, after]) => `${name}:${before}${value}${after}\r\n`);
        const expected = new Map<string, string[]>();
        for (const [name, , value] of fields) {
          const key = name.toLowerCase();
          expected.set(key, [...(expected.get(key) ?? []), value.replace(/^[ \t]+|[ \t]+$/g, "")]);
        }
        expect(decode(`GET / HTTP/1.1\r\n${lines.join("")}\r\n`)).toEqual({
          startLine: "GET / HTTP/1.1",
          fields: expected,
        });
      }),
      { seed: 31, numRuns: 1_000 },
    );
  });

  it.each([
    ["an empty start line", "\r\nHost: a\r\n\r\n"],
    ["a folded line", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"],
    ["a line without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n"],
    ["a field without a name", "GET / HTTP/1.1\r\n: a\r\n\r\n"],
    ["a blank before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"],
    ["a line feed alone in the start line", "GET / HTTP/1.1\nX: y\r\n\r\n"],
    ["a line feed alone in a value", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"],
    ["a carriage return alone in a value", "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"],
    ["a zero byte", "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n"],
    ["a byte that is not ASCII", "GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n"],
    ["a byte 127", "GET / HTTP/1.1\r\nHost: \x7f\r\n\r\n"],
  ])("refuses %s", (_, text) => {
    expect(decode(text)).toBeUndefined();
  });

  it.each([
    ["blanks and a carriage return alone", `x:${" ".repeat(8_000)}\ry`],
    ["blanks within a value", `x:a${" ".repeat(8_000)}b`],
    ["blanks at the end of a value", `x:a${" ".repeat(8_000)}`],
  ])("takes hardly any time for a long line of %s", (_, line) => {
    const startedAt = performance.now();
    decode(`GET / HTTP/1.1\r\n${line}\r\n\r\n`);
    expect(performance.now() - startedAt).toBeLessThan(1_000);
  });
});

describe("fields", () => {
  const head = decode(
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nconnection: X, UpGrade \r\n\r\n",
  )!;

  it("singleField returns a field that occurs exactly once", () => {
    expect(singleField(head, "host")).toBe("a");
    expect(singleField(head, "connection")).toBeUndefined();
    expect(singleField(head, "upgrade")).toBeUndefined();
  });

  it("fieldHasToken finds a whole token in any value and any case", () => {
    expect(fieldHasToken(head, "connection", "upgrade")).toBe(true);
    expect(fieldHasToken(head, "connection", "keep-alive")).toBe(true);
    expect(fieldHasToken(head, "connection", "keep")).toBe(false);
    expect(fieldHasToken(head, "upgrade", "upgrade")).toBe(false);
  });
});

describe("HeadBuffer", () => {
  /** Feeds pieces of these lengths. @returns the head and where it ended, -1 or -2 as `take` gave it last */
  function take(bytes: Uint8Array, cuts: readonly number[]): { end: number; head: Uint8Array } {
    const buffer = new HeadBuffer();
    let end = -1;
    for (let from = 0, turn = 0; from < bytes.length && end === -1; turn++) {
      const size = cuts.length === 0 ? bytes.length : cuts[turn % cuts.length];
      const to = Math.min(from + size, bytes.length);
      end = buffer.take(bytes, from, to);
      from = to;
    }
    return { end, head: buffer.bytes.slice(0, buffer.length) };
  }

  it("ends at the same byte however the stream is cut, and consumes none behind it", () => {
    const text = fc.string({ unit: fc.constantFrom("\r", "\n", "\r\n\r\n", "a", "bcd"), maxLength: 60 });
    const cuts = fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 20 });
    fc.assert(
      fc.property(fc.nat(40), text, cuts, (blocks, tail, sizes) => {
        const stream = "x".repeat(blocks * 30) + tail;
        const at = stream.indexOf("\r\n\r\n");
        const { end, head } = take(asciiBytes(stream), sizes);
        expect(end).toBe(at < 0 ? -1 : at + 4);
        expect(head).toEqual(asciiBytes(at < 0 ? stream : stream.slice(0, at + 4)));
      }),
      { seed: 32, numRuns: 500 },
    );
  });

  it.each([[[]], [[1]], [[100, 4_000]], [[MAX_HEAD_BYTES]]])(
    "accepts a head of exactly its limit and refuses one more byte, in pieces of %j",
    (cuts) => {
      const whole = asciiBytes(`${"x".repeat(MAX_HEAD_BYTES - 4)}\r\n\r\nbehind`);
      expect(take(whole, cuts).end).toBe(MAX_HEAD_BYTES);
      expect(take(asciiBytes(`${"x".repeat(MAX_HEAD_BYTES - 3)}\r\n\r\n`), cuts).end).toBe(-2);
    },
  );

  it("accepts the next head once it is cleared", () => {
    const buffer = new HeadBuffer();
    const bytes = asciiBytes("a\r\n\r\nbc\r\n\r\n");
    expect(buffer.take(bytes, 0, bytes.length)).toBe(5);
    buffer.clear();
    expect(buffer.take(bytes, 5, bytes.length)).toBe(11);
    expect(buffer.bytes.slice(0, buffer.length)).toEqual(asciiBytes("bc\r\n\r\n"));
  });
});

describe("bytes of text", () => {
  it("utf8Bytes agrees with TextEncoder for any text without lone surrogates", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(utf8Bytes(text)).toEqual(new TextEncoder().encode(text));
      }),
      { seed: 33, numRuns: 500 },
    );
  });

  it("headEnd finds no end before all four of its bytes have arrived", () => {
    const bytes = asciiBytes("a\r\n\r\n");
    expect([1, 2, 3, 4, 5].map((end) => findHeadEnd(bytes, 0, end))).toEqual([-1, -1, -1, -1, 5]);
  });
});
