import { describe, expect, it } from "vitest";
import type { Interval } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { Measures } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { StartMode } from "../../../../src/core/lanes/rate/modes/start-mode.ts";

const RTT = 100;
/** Delay in milliseconds that does not count as a queue. */
const TARGET = 5;

function measuresWith(standing: number, sentAt: number, minRtt = RTT): Measures {
  const measures = new Measures();
  measures.minRtt = minRtt;
  measures.standing = standing;
  measures.sentAt = sentAt;
  return measures;
}

/** A start that has ended at a time because of a queue. */
function ended(at: number, laneUpAt: number, rtt = RTT): StartMode {
  const start = new StartMode();
  start.laneUp(laneUpAt);
  const interval = { hasSamples: true, isFilled: true, delivered: 1_000 } as Interval;
  expect(start.tick({ ...interval, now: at - 50 }, measuresWith(12, at - 150, rtt), TARGET)).toBe(0);
  expect(start.tick({ ...interval, now: at }, measuresWith(12, at - 100, rtt), TARGET)).toBeGreaterThan(0);
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

  it.each([
    { rtt: 100, newMs: 500 },
    { rtt: 80, newMs: 400 },
    { rtt: 60, newMs: 180 },
  ])("takes a lane for new in its first $newMs ms if a round trip takes $rtt ms", ({ rtt, newMs }) => {
    const resumed = (laneUpAt: number) =>
      ended(1_000, laneUpAt, rtt).resumes({ hasSamples: true } as Interval, measuresWith(2, 1_050, rtt));
    expect(resumed(1_001 - newMs)).toBe(true);
    expect(resumed(1_000 - newMs)).toBe(false);
  });

  it("is over if the lanes were not new, even if one comes up afterwards", () => {
    const start = ended(1_000, 500);
    expect(resumes(start, 2, 1_050)).toBe(false);
    start.laneUp(1_040);
    expect(resumes(start, 2, 1_050)).toBe(false);
  });
});
