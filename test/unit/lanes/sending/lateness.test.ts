import { describe, expect, it } from "vitest";
import { LaneState } from "../../../../src/core/lanes/lane-state.ts";
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

  it("tolerates 2 ms less while copies cost little", () => {
    const path = new PathDelay();
    path.noteRoundTrip(30);
    const lateAfter = [true, false].map((isCheap) => {
      const lateness = new Lateness();
      const lane = new LaneState(0);
      lane.open(0, 0);
      lane.assign(0, 0, 1_200, 1_200);
      lane.written = 1;
      for (let sentAt = 0; sentAt < 10; sentAt += 0.5) {
        lateness.noteReceipt(sentAt);
        lateness.update(sentAt + 30, [lane], path, isCheap);
        if (lateness.isAny) return sentAt;
      }
      return undefined;
    });
    expect(lateAfter).toEqual([3.5, 5.5]);
  });

  it("does not use a rate that is not measured", () => {
    expect(marginAt(30)).toBe(5);
  });
});
