import { describe, expect, it } from "vitest";
import { LaneState } from "../../../../src/core/lanes/lane-state.ts";
import { PathDelay } from "../../../../src/core/lanes/rate/measures/path-delay.ts";

const RTT = 50;

/** One lane that gets a receipt every 25 ms while it is busy, at which a period may end. */
class Path {
  readonly path = new PathDelay();
  readonly lane = new LaneState(0);
  now = 0;

  get base(): number {
    return this.path.base;
  }

  busy(ms: number, delay: number, isShared = false): void {
    for (const end = this.now + ms; this.now < end; this.now += 25) {
      this.path.turn(this.now, [this.lane], isShared);
      this.path.addOfLane(this.lane, delay);
      this.path.add(this.lane, this.now - RTT, 0, delay, RTT);
    }
  }
}

describe("the smallest delay of a path", () => {
  it.each([3, -3])(
    "does not take a drift of %i ms in 150 s without receipts for a change of the path",
    (drift) => {
      const session = new Path();
      session.busy(5_000, 7);
      session.now += 150_000;
      session.busy(25, 7 + drift);
      expect(session.base).toBe(7 + drift);
      expect(session.path.lag(session.lane)).toBe(0);
    },
  );

  it("recognizes a queue of 20 ms after 150 s without receipts, except for the drift that is allowed for", () => {
    const session = new Path();
    session.busy(5_000, 7);
    session.now += 150_000;
    session.busy(25, 27);
    expect(27 - session.base).toBeGreaterThan(20 - 8);
    expect(27 - session.base).toBeLessThan(20 - 7);
  });

  it("does not grow after others have filled the queue for 50 s, in which the session was not idle", () => {
    const session = new Path();
    session.busy(50_000, 7, true);
    session.busy(1_000, 20);
    expect(session.base).toBe(7);
  });

  it("allows for the drift of an idle time after which others still fill the queue", () => {
    const session = new Path();
    session.busy(25, 7, true);
    session.now += 100_000;
    session.busy(25, 7 + 4, true);
    expect(session.base).toBe(7 + 4);
  });

  it("stays exactly what it was for 20 s of a queue, and is forgotten then", () => {
    const session = new Path();
    session.busy(10_000, 7);
    session.busy(10_000, 9);
    expect(session.base).toBe(7);
    session.busy(100, 9);
    expect(session.base).toBe(9);
  });
});
