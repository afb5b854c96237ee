import { describe, expect, it } from "vitest";
import { RecentRate } from "../../../../src/core/lanes/rate/measures/recent-rate.ts";

describe("RecentRate", () => {
  it("is the mean over the whole tenths of the last second", () => {
    const rate = new RecentRate();
    expect(rate.at(0)).toBe(0);
    for (let now = 0; now < 1_000; now++) rate.note(now, 100);
    expect(rate.at(1_000)).toBe(100);
    for (let now = 1_000; now < 1_500; now++) rate.note(now, 300);
    expect(rate.at(1_500)).toBe(200);
    expect(rate.at(1_599)).toBe(200);
  });

  it("counts a pause as time without bytes, and starts anew after a second without any", () => {
    const rate = new RecentRate();
    for (let now = 0; now < 1_000; now++) rate.note(now, 100);
    expect(rate.at(1_500)).toBe(50);
    expect(rate.at(3_000)).toBe(0);
    rate.note(3_000, 5_000);
    expect(rate.at(3_100)).toBe(50);
  });
});
