import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatHttpDate, parseUtcTime } from "../../../src/wire/http/http-date.ts";

describe("formatHttpDate", () => {
  it.each([
    [0, "Thu, 01 Jan 1970 00:00:00 GMT"],
    [784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"],
    [951_782_399_999, "Mon, 28 Feb 2000 23:59:59 GMT"],
    [951_782_400_000, "Tue, 29 Feb 2000 00:00:00 GMT"],
    [4_107_542_400_000, "Mon, 01 Mar 2100 00:00:00 GMT"],
  ])("writes %i ms as %s", (unixMs, text) => {
    expect(formatHttpDate(unixMs)).toBe(text);
  });

  it("agrees with Date for 20,000 times up to the year 9999", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 253_402_300_799_999 }), (unixMs) => {
        expect(formatHttpDate(unixMs)).toBe(new Date(unixMs).toUTCString());
      }),
      { seed: 47, numRuns: 20_000 },
    );
  });
});

describe("parseUtcTime", () => {
  it("agrees with Date for 20,000 times up to the year 9999", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 253_402_300_799 }), (unixS) => {
        const text = new Date(unixS * 1000).toISOString();
        expect(parseUtcTime(`${text.slice(0, 19)}Z`)).toBe(unixS);
        expect(parseUtcTime(text.slice(0, 10))).toBe(unixS - (unixS % 86_400));
      }),
      { seed: 47, numRuns: 20_000 },
    );
  });

  it.each([
    ...["2027-02-29", "2100-02-29", "2027-04-31", "2027-13-01", "2027-00-01", "2027-01-00", "1969-12-31"],
    ...["2027-01-01T24:00:00Z", "2027-01-01T00:60:00Z", "2027-01-01T00:00:60Z", "2027-01-01T00:00:00"],
    ...["2027-1-1", "27-01-01", "2027-01-01 ", "tomorrow", ""],
  ])("does not read %j as a time", (text) => {
    expect(parseUtcTime(text)).toBeUndefined();
  });
});
