import { describe, expect, it } from "vitest";
import { ANY_LANE } from "../../../../src/core/lanes/lane-bits.ts";
import { LaneState } from "../../../../src/core/lanes/lane-state.ts";
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

  it.each([
    ["prefers a lane that owes an acknowledgement on a slow path", 250, 1],
    ["does not prefer it on a fast path", 2_500, 0],
  ])("%s", (_, rate, chosen) => {
    const lanes = Array.from({ length: 6 }, (_, index) => new LaneState(index));
    for (const lane of lanes) lane.open(0, 0);
    lanes[1].assign(10, 0, 1_000, 1_000);
    lanes[1].noteReceived(20);
    const path = new PathDelay();
    path.noteRoundTrip(40);
    const choice = new LaneChoice(lanes, path);
    choice.judge(rate, true);
    expect(choice.bulk(0, ANY_LANE)).toBe(chosen);
  });
});
