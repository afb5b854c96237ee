import { describe, expect, it } from "vitest";
import { PathDelay } from "../../../../src/core/lanes/rate/measures/path-delay.ts";
import { LaneChoice } from "../../../../src/core/lanes/sending/lane-choice.ts";

describe("LaneChoice", () => {
  it.each([
    ["counts a path as slow if its measured rate is low", 250, true, true],
    ["does not count a path as slow if its measured rate is higher", 625, true, false],
    ["does not count a long path as slow while its rate only follows from the round trip", 200, false, false],
  ])("%s", (_, rate, isMeasured, isSlow) => {
    const choice = new LaneChoice([], new PathDelay());
    choice.judge(rate, isMeasured);
    expect(choice.isSlow).toBe(isSlow);
  });
});
