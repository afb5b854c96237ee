import { describe, expect, it } from "vitest";
import { TurnDelay } from "../../../../src/core/lanes/rate/measures/turn-delay.ts";

describe("the delay of turns", () => {
  it("is the time since a turn was due, and nothing if it comes earlier or none was due", () => {
    const turn = new TurnDelay();
    turn.begin(100);
    expect(turn.late).toBe(0);
    turn.expect(105);
    turn.begin(112);
    expect(turn.late).toBe(7);
    turn.begin(150);
    expect(turn.late).toBe(0);
    turn.expect(200);
    turn.begin(160);
    expect(turn.late).toBe(0);
  });

  it("is forgotten within a second, even after the machine was suspended", () => {
    const turn = new TurnDelay();
    turn.expect(100);
    turn.begin(90);
    turn.expect(100);
    turn.begin(60_000);
    expect(turn.longest).toBe(40);
    turn.begin(61_000);
    turn.expect(61_001);
    turn.begin(61_041);
    expect(turn.longest).toBe(40);
    turn.begin(61_541);
    expect(turn.longest).toBe(20);
    turn.begin(62_541);
    expect(turn.longest).toBe(0);
  });
});
