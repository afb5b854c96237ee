import { describe, expect, it } from "vitest";
import type { Interval } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { RateUse } from "../../../../src/core/lanes/rate/measures/rate-use.ts";

/** Whether a rate counts as used after intervals that were limited or not, while 1,000 bytes/ms were delivered. */
function wasUsed(limited: string, rate: number): boolean {
  const use = new RateUse();
  for (const flag of limited) use.note({ isLimited: flag === "1" } as Interval);
  return use.wasUsed({ deliveries: 1_000 } as Interval, rate);
}

describe("RateUse", () => {
  it.each([
    ["11100", true],
    ["10110", false],
    ["11011", false],
    ["111100", true],
    ["1111000", true],
    ["11110000", false],
    ["1111", false],
  ])("looks at two round trips, of one round trip ago: limited in %s is %s", (limited, isUsed) => {
    expect(wasUsed(limited, 1_200)).toBe(isUsed);
  });

  it("counts a rate far above the rate of delivery as used", () => {
    expect(wasUsed("0", 1_240)).toBe(false);
    expect(wasUsed("0", 1_260)).toBe(true);
  });
});
