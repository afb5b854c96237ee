import { describe, expect, it } from "vitest";
import { PathDelay } from "../../../../src/core/lanes/rate/measures/path-delay.ts";
import { Lateness } from "../../../../src/core/lanes/sending/lateness.ts";

/** Margin in milliseconds. @param rtt  smallest round trip, in milliseconds @param rate  of the session, in bytes per millisecond */
function marginAt(rtt: number, rate?: number): number {
  const path = new PathDelay();
  path.noteRoundTrip(rtt);
  const lateness = new Lateness();
  lateness.judge(rate ?? 1, rate !== undefined);
  return lateness.margin(path);
}

describe("Lateness", () => {
  it.each([
    ["5 ms", 30, 2_500, 5],
    ["a tenth of the round trip", 200, 2_500, 20],
    ["four packets on a slow path", 100, 250, 20],
    ["at most half of the round trip for packets", 30, 12.5, 15],
  ])("tolerates %s between lanes (RTT %i ms, %d bytes/ms)", (_, rtt, rate, margin) => {
    expect(marginAt(rtt, rate)).toBe(margin);
  });

  it("does not use a rate that is not measured", () => {
    expect(marginAt(30)).toBe(5);
  });
});
