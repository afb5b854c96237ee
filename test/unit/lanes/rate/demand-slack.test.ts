import { describe, expect, it } from "vitest";
import { DemandSlack } from "../../../../src/core/lanes/rate/demand-slack.ts";
import type { Interval } from "../../../../src/core/lanes/rate/measures/measures.ts";

/** Intervals of 25 ms. */
function spend(
  slack: DemandSlack,
  ms: number,
  dropped: number,
  sent: number,
  lateShare = 0,
  isShort = true,
  delivered = 1,
  isLong = false,
): void {
  const interval = { length: 25, dropped, frames: sent, delivered, lateShare } as Interval;
  for (let now = 0; now < ms; now += 25) slack.note(interval, isShort, isLong);
}

function slackAfter(ms: number, dropped: number, sent: number): number {
  const slack = new DemandSlack();
  spend(slack, ms, dropped, sent);
  return slack.value;
}

describe("the delay that is accepted for a path that may be underestimated", () => {
  it("is 0 while at most as much is dropped as an overload by a fifth costs", () => {
    expect(slackAfter(10_000, 24, 76)).toBe(0);
  });

  it("is bounded when nearly all of the demand is dropped", () => {
    expect(slackAfter(10_000, 99, 1)).toBe(15);
  });

  it("does not grow from a short burst of drops", () => {
    expect(slackAfter(100, 99, 1)).toBe(0);
  });

  it("disappears when the demand is met", () => {
    const slack = new DemandSlack();
    spend(slack, 10_000, 1, 1);
    expect(slack.value).toBeGreaterThan(0);
    spend(slack, 10_000, 0, 1);
    expect(slack.value).toBe(0);
  });

  it("disappears while most lanes are late, as over a queue that is shorter, and comes back slowly", () => {
    const slack = new DemandSlack();
    spend(slack, 10_000, 1, 1, 0.4);
    spend(slack, 10_000, 1, 1, 0.8, false);
    expect(slack.value).toBeGreaterThan(14);
    spend(slack, 100, 1, 1, 0.8);
    expect(slack.value).toBeLessThan(1);
    spend(slack, 5_000, 1, 1);
    expect(slack.value).toBeLessThan(5);
    spend(slack, 60_000, 1, 1);
    expect(slack.value).toBeGreaterThan(14);
  });

  it("comes back within seconds if a longer queue shows", () => {
    const slack = new DemandSlack();
    spend(slack, 10_000, 1, 1);
    spend(slack, 100, 1, 1, 0.8);
    expect(slack.value).toBeLessThan(1);
    spend(slack, 9_000, 1, 1, 0, false, 1, true);
    expect(slack.value).toBeGreaterThan(14);
  });

  it("stays while a path stalls, where all lanes are late too", () => {
    const slack = new DemandSlack();
    spend(slack, 10_000, 1, 1);
    spend(slack, 500, 1, 1, 1, true, 0);
    expect(slack.value).toBeGreaterThan(14);
  });

  it("is 0 if nothing is sent", () => {
    expect(slackAfter(10_000, 0, 0)).toBe(0);
  });
});
