import { describe, expect, it } from "vitest";
import { DemandSlack } from "../../../src/core/lanes/rate/demand-slack.ts";

function slackAfter(ms: number, dropped: number, sent: number): number {
  const slack = new DemandSlack();
  for (let now = 0; now < ms; now += 25) slack.note(25, dropped, sent);
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
    for (let i = 0; i < 400; i++) slack.note(25, 1, 1);
    expect(slack.value).toBeGreaterThan(0);
    for (let i = 0; i < 400; i++) slack.note(25, 0, 1);
    expect(slack.value).toBe(0);
  });

  it("is 0 if nothing is sent", () => {
    expect(slackAfter(10_000, 0, 0)).toBe(0);
  });
});
