import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HeadBuffer } from "../../../../src/core/handshakes/head-buffer.ts";
import type { HttpHead } from "../../../../src/wire/http/http-head.ts";
import {
  asciiBytes,
  authenticationSchemes,
  decodeHead,
  fieldHasToken,
  findHeadEnd,
  isInterim,
  MAX_HEAD_BYTES,
  singleField,
  statusOf,
  trimBlanks,
  utf8Bytes,
} from "../../../../src/wire/http/http-head.ts";
import { cut, cutLengths } from "../../cuts.ts";
import { mutate, seededRandom } from "../../random.ts";

const NAME_CHARACTERS = [..."!#$%&'*+-.^_`|~09azAZ"];
const VALUE_CHARACTERS = [...'azAZ09:;,="\t (){}[]<>@?/\\~!\x80\xa0\xff'];
const lineEnd = fc.constantFrom("\r\n", "\n");
const fieldName = fc.string({ unit: fc.constantFrom(...NAME_CHARACTERS), minLength: 1, maxLength: 12 });
const fieldValue = fc.string({ unit: fc.constantFrom(...VALUE_CHARACTERS), maxLength: 30 });
const blanks = fc.string({ unit: fc.constantFrom(" ", "\t"), maxLength: 3 });
const field = fc.tuple(fieldName, blanks, fieldValue, blanks);

const decode = (text: string) => {
  const bytes = asciiBytes(text);
  return decodeHead(bytes, bytes.length);
};

/** Like {@link decodeHead}, by regular expressions over the whole text. */
function decodeNaively(text: string): HttpHead | undefined {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to refuse.
  if (/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)/.test(text)) return undefined;
  const [, startLine, rest] = /^([^ \t\r\n][^\r\n]*)\r?\n((?:[^\r\n]+\r?\n)*)\r?\n$/.exec(text) ?? [];
  if (startLine === undefined || /^[ \t]/.test(rest)) return undefined;
  const fields = new Map<string, string[]>();
  for (const line of rest.replace(/(?:[ \t]*\r?\n[ \t]+)+/g, " ").match(/[^\r\n]+/g) ?? []) {
    const [, name, value] = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? [];
    if (name === undefined) return undefined;
    const key = name.toLowerCase();
    fields.set(key, [...(fields.get(key) ?? []), value]);
  }
  return { startLine, fields };
}

describe("decodeHead", () => {
  it("returns the values of every field in order and trimmed, under its name in lower case", () => {
    fc.assert(
      fc.property(fc.array(field, { maxLength: 12 }), lineEnd, (fields, end) => {
        const lines = fields.map(([name, before, value, after]) => `${name}:${before}${value}${after}${end}`);
        const expected = new Map<string, string[]>();
        for (const [name, , value] of fields) {
          const key = name.toLowerCase();
          expected.set(key, [...(expected.get(key) ?? []), value.replace(/^[ \t]+|[ \t]+$/g, "")]);
        }
        expect(decode(`GET / HTTP/1.1${end}${lines.join("")}${end}`)).toEqual({
          startLine: "GET / HTTP/1.1",
          fields: expected,
        });
      }),
      { seed: 31, numRuns: 1_000 },
    );
  });

  it.each([
    ["an empty start line", "\r\nHost: a\r\n\r\n"],
    ["a blank before the start line", " GET / HTTP/1.1\r\n\r\n"],
    ["a folded line without a field", "GET / HTTP/1.1\r\n b\r\nHost: a\r\n\r\n"],
    ["a blank line without a field", "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n"],
    ["a head without its empty line", "GET / HTTP/1.1\r\nHost: a\r\n"],
    ["an empty line in the middle", "GET / HTTP/1.1\r\n\r\nHost: a\r\n\r\n"],
    ["a byte that is not ASCII in a name", "GET / HTTP/1.1\r\nH\xf6st: a\r\n\r\n"],
    ["a line without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n"],
    ["a field without a name", "GET / HTTP/1.1\r\n: a\r\n\r\n"],
    ["a blank before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"],
    ["a carriage return alone in a value", "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"],
    ["two carriage returns at the end of a line", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"],
    ["two carriage returns in place of an empty line", "GET / HTTP/1.1\r\n\r\r\n"],
    ["a zero byte", "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n"],
    ["a byte 127", "GET / HTTP/1.1\r\nHost: \x7f\r\n\r\n"],
  ])("refuses %s", (_, text) => {
    expect(decode(text)).toBeUndefined();
  });

  it.each([
    [
      "bytes over 0x7e in a value and in a reason",
      "HTTP/1.1 200 \xd6K\r\nX: \xa0\xe9\xa0\r\n\r\n",
      ["\xa0\xe9\xa0"],
    ],
    ["lines that end with a line feed alone", "HTTP/1.0 200 OK\nX: a\nX: b\n\n", ["a", "b"]],
    ["lines that end with either", "HTTP/1.0 200 OK\nX: a\r\nX: b\n\r\n", ["a", "b"]],
    ["a folded value", "HTTP/1.1 200 OK\r\nX: a \r\n\t b\r\nX:\r\n c\r\n \r\n d\r\n\r\n", ["a b", "c d"]],
  ])("takes %s", (_, text, values) => {
    const head = decode(text)!;
    expect(head.fields).toEqual(new Map([["x", values]]));
    expect(statusOf(head)).toBe(200);
  });

  it("agrees with an expression over the whole text, for 20,000 heads with misplaced pieces", () => {
    const random = seededRandom(34);
    const piece = fc.constantFrom(
      ...[
        "\r\n",
        "\n",
        "\r\n ",
        "\n\t",
        "\r",
        " ",
        "\t",
        ":",
        ": ",
        "X",
        "x-y",
        "a b",
        ",",
        "\xe9",
        "\xa0",
        "\0",
        "\x7f",
      ],
    );
    const line = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(""));
    const good = fc.tuple(fieldName, fc.constant(":"), fieldValue).map((parts) => parts.join(""));
    const lines = fc.array(fc.oneof(good, line), { maxLength: 6 });
    let taken = 0;
    fc.assert(
      fc.property(lines, lineEnd, fc.nat(3), (rest, end, kind) => {
        let bytes: Uint8Array = asciiBytes(["HTTP/1.1 200 OK", ...rest, "", ""].join(end));
        if (kind === 0) bytes = mutate(random, bytes);
        const head = decodeHead(bytes, bytes.length);
        expect(head).toEqual(decodeNaively(Buffer.from(bytes).toString("latin1")));
        if (head !== undefined) taken++;
      }),
      { seed: 34, numRuns: 20_000 },
    );
    expect(taken).toBeGreaterThan(2_000);
  });

  it.each([
    ["blanks and a carriage return alone", `x:${" ".repeat(8_000)}\ry`],
    ["blanks within a value", `x:a${" ".repeat(8_000)}b`],
    ["blanks at the end of a value", `x:a${" ".repeat(8_000)}`],
    ["folds", `x:${"\r\n a".repeat(2_000)}`],
    ["fields of one name", "x:\r\n".repeat(1_600).slice(0, -2)],
    ["list items", `connection:${",".repeat(8_000)}`],
    ["quotes that are not closed", `proxy-authenticate:${'"\\'.repeat(4_000)}`],
    ["blanks behind a scheme", `proxy-authenticate:a${" ".repeat(7_000)}=`],
  ])("takes hardly any time for a long line of %s", (_, line) => {
    const startedAt = performance.now();
    const head = decode(`GET / HTTP/1.1\r\n${line}\r\n\r\n`);
    if (head !== undefined) {
      fieldHasToken(head, "connection", "upgrade");
      authenticationSchemes(head, "proxy-authenticate");
    }
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

describe("the status of a response", () => {
  it.each([
    ["HTTP/1.1 200 OK", 200],
    ["HTTP/1.0 407", 407],
    ["HTTP/1.1 103 Early Hints", 103],
    ["HTTP/1.1 099 x", undefined],
    ["HTTP/1.1 600 x", undefined],
    ["HTTP/1.1 2000", undefined],
    ["HTTP/1.1  200", undefined],
    ["HTTP/2 200 x", undefined],
    ["http/1.1 200 x", undefined],
    ["GET / HTTP/1.1", undefined],
  ])("of %j is %s", (startLine, status) => {
    expect(statusOf({ startLine, fields: new Map() })).toBe(status);
  });

  it("is interim from 100 to 199, except 101", () => {
    expect([100, 101, 102, 103, 199, 200, 401].map(isInterim)).toEqual([
      ...[true, false, true, true, true, false, false],
    ]);
  });
});

describe("authentication schemes", () => {
  const schemesOf = (...values: string[]) =>
    authenticationSchemes({ startLine: "", fields: new Map([["a", values]]) }, "a");

  it.each([
    [["Basic"], ["Basic"]],
    [['Basic realm="a, Digest b"'], ["Basic"]],
    [['Basic realm="\\"", Digest qop="auth, auth-int", nonce = "x"'], ["Basic", "Digest"]],
    [
      ["Negotiate, NTLM", "Basic realm=x, charset=UTF-8"],
      ["Negotiate", "NTLM", "Basic"],
    ],
    [
      ["Negotiate abc==", "Basic realm =x", "Basic"],
      ["Negotiate", "Basic"],
    ],
    [[", ,Basic,,"], ["Basic"]],
    [['"Basic"', "B@sic x", 'realm="x"', "realm  = x"], []],
    [["x".repeat(33)], []],
    [Array.from({ length: 20 }, (_, i) => `s${i}`), Array.from({ length: 8 }, (_, i) => `s${i}`)],
  ])("of %j are %j", (values, schemes) => {
    expect(schemesOf(...values)).toEqual(schemes);
  });

  it("are none if the field is absent", () => {
    expect(authenticationSchemes({ startLine: "", fields: new Map() }, "a")).toEqual([]);
  });
});

describe("trimBlanks", () => {
  it("removes blanks and tabs at both ends only", () => {
    const text = fc.string({ unit: fc.constantFrom(" ", "\t", "a", "\xa0", "\n"), maxLength: 8 });
    fc.assert(
      fc.property(text, (value) => {
        expect(trimBlanks(value)).toBe(value.replace(/^[ \t]+|[ \t]+$/g, ""));
      }),
      { seed: 35, numRuns: 500 },
    );
  });
});

describe("HeadBuffer", () => {
  /** Feeds pieces of these lengths. @returns the head and where it ended; or -1 or -2, the last result of `take` */
  function take(bytes: Uint8Array, cuts: readonly number[]): { end: number; head: Uint8Array } {
    const buffer = new HeadBuffer();
    let end = -1;
    let from = 0;
    for (const piece of cut(bytes, cuts)) {
      end = buffer.take(bytes, from, from + piece.length);
      from += piece.length;
      if (end !== -1) break;
    }
    return { end, head: buffer.bytes.slice(0, buffer.length) };
  }

  it("ends at the same byte however the stream is cut, and consumes none after it", () => {
    const text = fc.string({
      unit: fc.constantFrom("\r", "\n", "\r\n", "\r\n\r\n", "a", "bcd"),
      maxLength: 60,
    });
    fc.assert(
      fc.property(text, fc.nat(40), text, cutLengths, (lead, blocks, tail, sizes) => {
        const stream = lead + "x".repeat(blocks * 30) + tail;
        const [skipped] = /^(?:\r?\n)*/.exec(stream)!;
        const rest = stream.slice(skipped.length);
        const [whole] = /^.*?\n\r?\n/s.exec(rest) ?? [];
        const { end, head } = take(asciiBytes(stream), sizes);
        expect(end).toBe(whole === undefined ? -1 : skipped.length + whole.length);
        expect(head).toEqual(asciiBytes(whole ?? rest));
      }),
      { seed: 32, numRuns: 2_000 },
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

  it.each([[[]], [[1]], [[3, 1]]])(
    "counts empty lines before the head towards its limit, in pieces of %j",
    (cuts) => {
      for (const line of ["\n", "\r\n"]) {
        const lead = line.repeat((MAX_HEAD_BYTES - 4) / line.length);
        expect(take(asciiBytes(`${lead}a\n\n`), cuts)).toEqual({
          end: lead.length + 3,
          head: asciiBytes("a\n\n"),
        });
        expect(take(asciiBytes(`${lead}abc\n\n`), cuts).end).toBe(-2);
        expect(take(asciiBytes(line.repeat(2 * MAX_HEAD_BYTES)), cuts).end).toBe(-2);
      }
    },
  );

  it("accepts 16 interim responses, and 16 more once it is cleared", () => {
    const buffer = new HeadBuffer();
    const bytes = asciiBytes("a\r\n\r\n");
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 17; i++) {
        expect(buffer.take(bytes, 0, bytes.length)).toBe(bytes.length);
        expect(buffer.clearInterim()).toBe(i < 16);
      }
      buffer.clear();
    }
  });

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

  it("have no end of a head before its empty line is complete", () => {
    const ends = (text: string) =>
      Array.from({ length: text.length }, (_, i) => findHeadEnd(asciiBytes(text), 0, i + 1));
    expect(ends("a\r\n\r\n")).toEqual([-1, -1, -1, -1, 5]);
    expect(ends("a\n\n")).toEqual([-1, -1, 3]);
    expect(ends("a\n\r\n")).toEqual([-1, -1, -1, 4]);
    expect(ends("a\r\n\n")).toEqual([-1, -1, -1, 4]);
  });
});
