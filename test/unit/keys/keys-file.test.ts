import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkKeys, MAX_KEYS, parseKeys } from "../../../src/host/options/keys.ts";

const KEY = "sixteen byte key";

function complaint(text: string): string {
  try {
    parseKeys("keys.json", text);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("there is no complaint");
}

describe("a file of keys", () => {
  it("is JSON with comments: names, each with a key and its holder's limits", () => {
    const text = `{
      // the first of two
      "alice": { "key": "${KEY}" },
      "bob@home-2": {
        "key": "another key of bytes", "expires": "2027-01-31", "bits-per-second": 10000000,
        "datagrams-per-second": 5000, "max-associations": 100,
      },
    }`;
    expect(parseKeys("keys.json", text)).toEqual([
      { name: "alice", key: KEY },
      {
        ...{ name: "bob@home-2", key: "another key of bytes", expires: 1_801_353_600 },
        ...{ bitsPerSecond: 10_000_000, datagramsPerSecond: 5_000, maxAssociations: 100 },
      },
    ]);
    expect(parseKeys("keys.json", "{}")).toEqual([]);
  });

  it.each([
    [`{ "a": { "key": "short" } }`, "keys.json:1:17: a.key: expected a text of at least 16 bytes"],
    [`{ "a": { "key": " ${KEY}" } }`, "keys.json:1:17: a.key: expected a text of at least 16 bytes"],
    [`{ "a": {} }`, "keys.json:1:8: a.key: expected"],
    [`{ "a": "${KEY}" }`, "keys.json:1:8: a: expected an object with a member key"],
    [`{ "a": ["${KEY}"] }`, "keys.json:1:8: a: expected an object"],
    [`{ "a": null }`, "keys.json:1:8: a: expected an object"],
    [`{ "a b": { "key": "${KEY}" } }`, 'keys.json:1:10: "a b": expected a name of 1 to 64'],
    [`{ "": { "key": "${KEY}" } }`, 'keys.json:1:7: "": expected a name of 1 to 64'],
    [`{ "a": { "key": "${KEY}", "rate": 1 } }`, "a.rate: unknown member"],
    [`{ "a": { "key": "${KEY}", "expires": "2027-02-30" } }`, "a.expires: expected seconds since 1970"],
    [`{ "a": { "key": "${KEY}", "max-associations": 0 } }`, "a.max-associations: expected an integer"],
    [`{ "a": { "key": "${KEY}", "bits-per-second": "1M" } }`, "a.bits-per-second: expected an integer"],
    [`{ "a": { "key": "${KEY}" }, "a": {} }`, '"a" is given twice'],
    [`{ "a": { "key": "${KEY}" },\n "b": { "key": "${KEY}" } }`, "b.key: is also that of a"],
    ["[]", "keys.json:1:1: expected one object"],
    ["{", "not JSON"],
  ])("%s is refused with its place, and without a key in the message", (text, problem) => {
    const message = complaint(text);
    expect(message).toContain(problem);
    expect(message).not.toContain(KEY);
    expect(message).not.toContain("\n");
  });

  it("has a bounded number of keys", () => {
    const row = (i: number) => [`k${i}`, { key: `${KEY} ${i}` }] as const;
    const rows = (count: number) =>
      JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, i) => row(i))));
    expect(parseKeys("keys.json", rows(MAX_KEYS))).toHaveLength(MAX_KEYS);
    expect(complaint(rows(MAX_KEYS + 1))).toContain("4097 keys; the limit is 4096");
  });

  it("gives the library's option, whatever is in it, or an error of one line", () => {
    fc.assert(
      fc.property(
        fc.json(),
        fc.dictionary(fc.string(), fc.dictionary(fc.string(), fc.anything())),
        (a, b) => {
          for (const text of [a, JSON.stringify(b) ?? ""]) {
            try {
              const keys = parseKeys("keys.json", text);
              expect(checkKeys(keys)).toEqual(keys);
            } catch (error) {
              expect(error).toMatchObject({ code: "ERR_OPTION" });
              expect((error as Error).message).not.toContain("\n");
            }
          }
        },
      ),
    );
  });
});

describe("the library's keys", () => {
  it.each([
    [[{ name: "a", key: "short" }], /^.*keys\[0\]\.key: expected keys with name, key/],
    [[{ name: "a", key: KEY, rate: 1 }], /keys\[0\]\.rate: unknown option/],
    [
      [
        { name: "a", key: KEY },
        { name: "a", key: `${KEY}2` },
      ],
      /keys\[1\]\.name: occurs twice/,
    ],
    [
      [
        { name: "a", key: KEY },
        { name: "b", key: KEY },
      ],
      /keys\[1\]\.key: is also that of a/,
    ],
  ])("%j are refused", (keys, message) => {
    expect(() => checkKeys(keys as never)).toThrow(message);
    expect(() => checkKeys(keys as never)).not.toThrow(/sixteen/);
  });
});
