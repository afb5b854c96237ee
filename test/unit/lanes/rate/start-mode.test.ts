import { describe, expect, it } from "vitest";
import type { Interval } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { Measures } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { StartMode } from "../../../../src/core/lanes/rate/modes/start-mode.ts";

const RTT = 100;
/** Delay in milliseconds that does not count as a queue. */
const TARGET = 5;

function measuresWith(standing: number, sentAt: number): Measures {
  const measures = new Measures();
  measures.minRtt = RTT;
  measures.standing = standing;
  measures.sentAt = sentAt;
  return measures;
}

/** A start that has ended at a time because of a queue. */
function ended(at: number, laneUpAt: number): StartMode {
  const start = new StartMode();
  start.laneUp(laneUpAt);
  const interval = { hasSamples: true, isFilled: true, delivered: 1_000 } as Interval;
  expect(start.tick({ ...interval, now: at - 50 }, measuresWith(12, at - 150), TARGET)).toBe(0);
  expect(start.tick({ ...interval, now: at }, measuresWith(12, at - 100), TARGET)).toBeGreaterThan(0);
  return start;
}

function resumes(start: StartMode, standing: number, sentAt: number): boolean {
  return start.resumes({ hasSamples: true } as Interval, measuresWith(standing, sentAt));
}

describe("the start of a session", () => {
  it("goes on if lanes were new at its end, and a frame sent soon after met no queue", () => {
    expect(resumes(ended(1_000, 800), 2, 1_050)).toBe(true);
  });

  it("is over if frames still meet the queue", () => {
    expect(resumes(ended(1_000, 800), 12, 1_050)).toBe(false);
  });

  it("is over if the queue has had the time to empty, or the frame was sent before the end", () => {
    expect(resumes(ended(1_000, 800), 2, 1_160)).toBe(false);
    expect(resumes(ended(1_000, 800), 2, 990)).toBe(false);
  });

  it("is over if the lanes were not new, even if one comes up afterwards", () => {
    const start = ended(1_000, 600);
    expect(resumes(start, 2, 1_050)).toBe(false);
    start.laneUp(1_040);
    expect(resumes(start, 2, 1_050)).toBe(false);
  });
});
