import { describe, expect, it } from "vitest";
import type { Interval } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { Slowdown } from "../../../../src/core/lanes/rate/probes/slowdown.ts";

const LENGTH = 25;
const RTT = 50;
const LONG_RTT = 300;
const TARGET = 6;
/** Delay of an empty path, with any clock offset. */
const PATH = -4_321;

/** A session that has left the start with a queue in its smallest delay. */
class Session {
  readonly slowdown = new Slowdown();
  now = 10_000;
  standing: number;
  readonly minRtt: number;
  #base: number;

  constructor(queue: number, minRtt = RTT, standing = 0) {
    this.minRtt = minRtt;
    this.standing = standing;
    this.#base = PATH + queue;
    this.slowdown.arm(this.#base);
  }

  /** The next interval, by whose end the smallest delay has fallen by `fall`. */
  next(fall = 0, hasOthers = false, isLimited = true): boolean {
    this.#base -= fall;
    return this.#tick(this.#base, LENGTH, isLimited, hasOthers);
  }

  /** An interval of this length by whose end nothing has been receipted for so long that no smallest delay is known. */
  nextInStall(length: number): boolean {
    return this.#tick(Number.POSITIVE_INFINITY, length, true, false);
  }

  #tick(base: number, length: number, isLimited: boolean, hasOthers: boolean): boolean {
    this.now += length;
    const interval = { now: this.now, length, isLimited } as Interval;
    const { minRtt, standing } = this;
    this.slowdown.tick(interval, { base, minRtt, standing, target: TARGET }, hasOthers);
    return this.slowdown.isRunning;
  }

  /** Intervals until the slowdown is over. */
  intervalsLeft(): number {
    for (let count = 1; count < 100; count++) if (!this.next()) return count;
    return Number.POSITIVE_INFINITY;
  }
}

describe("a slowdown", () => {
  it("begins after the start once a pause has shown others, and takes a round trip", () => {
    const session = new Session(0);
    expect(session.next()).toBe(false);
    expect(session.next(0, true)).toBe(true);
    expect(session.intervalsLeft()).toBe(3);
  });

  it("does not begin again because others are still there", () => {
    const session = new Session(0);
    session.next(0, true);
    session.intervalsLeft();
    expect(session.next(0, true)).toBe(false);
  });

  it("begins because of others on a long path only if there is a queue that could be theirs", () => {
    expect(new Session(0, LONG_RTT, TARGET - 1).next(0, true)).toBe(false);
    expect(new Session(0, LONG_RTT, TARGET + 1).next(0, true)).toBe(true);
    expect(new Session(0, RTT, TARGET - 1).next(0, true)).toBe(true);
  });

  it("begins on a long path without a queue when the smallest delay falls", () => {
    expect(new Session(40, LONG_RTT, 0).next(5)).toBe(true);
  });

  it("waits on a long path for a queue, and begins at the next pause that shows others", () => {
    const session = new Session(0, LONG_RTT, 0);
    expect(session.next(0, true)).toBe(false);
    session.standing = TARGET + 1;
    expect(session.next()).toBe(false);
    expect(session.next(0, true)).toBe(true);
  });

  it("begins when the smallest delay falls, which shows that it included a queue", () => {
    expect(new Session(40).next(2)).toBe(false);
    expect(new Session(40).next(5)).toBe(true);
  });

  it("goes on while the smallest delay falls further", () => {
    const session = new Session(40);
    session.next(5);
    for (let count = 0; count < 10; count++) expect(session.next(2)).toBe(true);
    expect(session.intervalsLeft()).toBe(3);
  });

  it("ends after a while even if the smallest delay still falls", () => {
    const session = new Session(1_000);
    session.next(5);
    let intervals = 0;
    while (session.next(5)) intervals++;
    expect(intervals * LENGTH).toBeGreaterThan(500);
    expect(intervals * LENGTH).toBeLessThan(700);
  });

  it("does not begin because clocks drift", () => {
    const session = new Session(0);
    for (let count = 0; count < 4_000; count++) expect(session.next(0.0125)).toBe(false);
  });

  it.each([25, 2_000])(
    "does not begin because a stall of intervals of %i ms ends, but can begin after it",
    (length) => {
      const session = new Session(40);
      for (let count = 0; count < 3; count++) expect(session.nextInStall(length)).toBe(false);
      expect(session.next(0, false, false)).toBe(false);
      expect(session.next()).toBe(false);
      expect(session.next(5)).toBe(true);
    },
  );

  it("does not begin while the session sends less than its rate", () => {
    const session = new Session(40);
    expect(session.next(0, true, false)).toBe(false);
    expect(session.next(20, false, false)).toBe(false);
  });

  it("does not begin because the clocks have drifted while the session was idle for 150 s, but after 1 s", () => {
    for (const [idle, begins] of [
      [150_000, false],
      [1_000, true],
    ] as const) {
      const session = new Session(0);
      session.next();
      session.slowdown.skip(idle);
      expect(session.next(4)).toBe(begins);
    }
  });
});
