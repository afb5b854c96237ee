import { describe, expect, it } from "vitest";
import type { Interval } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { Measures } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { HeadroomProbe } from "../../../../src/core/lanes/rate/probes/headroom-probe.ts";
import { seededRandom } from "../../random.ts";

const RTT = 50;
const TICK_MS = 25;
/** Bytes per millisecond that the session sends outside bursts. */
const RATE = 1_000;

interface Path {
  /** In bytes per millisecond. */
  readonly capacity: number;
  /** Longest wait in the queue, in milliseconds. While it is reached, lanes become late. */
  readonly longest?: number;
  /** Share of the lanes that are late then. A smaller one than 0.6 shows only as a surge. */
  readonly lates?: number;
  /** Milliseconds of delay that are added to every packet, and their variation. */
  readonly added?: number;
  readonly varies?: number;
  /** Share of the demand that is dropped. */
  readonly dropped?: number;
}

/** Sends over a path with a queue for some milliseconds. @returns how many bursts found room, and how many there were */
function drive(probe: HeadroomProbe, path: Path, ms: number, from = 0): { room: number; bursts: number } {
  const random = seededRandom(7);
  const measures = new Measures();
  measures.minRtt = RTT;
  const receipts: { at: number; sentAt: number; standing: number; sentBytes: number }[] = [];
  let [queue, sentBytes, newest, room, bursts, isBurst] = [0, 0, 0, 0, 0, false];
  let overflowedAt = Number.NEGATIVE_INFINITY;
  for (let now = from; now < from + ms; now++) {
    const raise = probe.raise(now);
    if (raise > 1 && !isBurst) bursts++;
    isBurst = raise > 1;
    sentBytes += RATE * raise;
    queue = Math.max(0, queue + (RATE * raise) / path.capacity - 1);
    if (queue > (path.longest ?? Number.POSITIVE_INFINITY)) {
      queue = path.longest!;
      overflowedAt = now;
    }
    const standing = queue + (path.added ?? 0) + (path.varies ?? 0) * (random() / 2 ** 32);
    receipts.push({ at: now + RTT + standing, sentAt: now, standing, sentBytes });
    while (receipts.length > 0 && receipts[0].at <= now) {
      const receipt = receipts.shift()!;
      newest = receipt.sentAt;
      probe.note(receipt.sentAt, receipt.standing, receipt.sentBytes);
    }
    if (now % TICK_MS !== 0) continue;
    const interval = { now, length: TICK_MS, isLimited: true, newest, frames: 100 } as Interval;
    interval.dropped = 100 * (path.dropped ?? 0.3);
    const isOverflowing = now - overflowedAt < 3 * RTT;
    measures.surges = isOverflowing;
    interval.lateShare = isOverflowing ? (path.lates ?? 0.8) : 0.1;
    interval.delivered = RATE * TICK_MS;
    if (probe.tick(interval, measures, RATE, false)) room++;
  }
  return { room, bursts };
}

describe("HeadroomProbe", () => {
  it("finds room if the path carries more, and counts the delay that packets had as the path's own", () => {
    const probe = new HeadroomProbe();
    const { room, bursts } = drive(probe, { capacity: 2 * RATE, added: 5, varies: 3 }, 3_000);
    expect(bursts).toBeGreaterThan(3);
    expect(room).toBe(bursts);
    expect(probe.own).toBeGreaterThan(3);
    expect(probe.own).toBeLessThan(8);
  });

  it("finds none if the path is full, and tries at growing intervals", () => {
    const probe = new HeadroomProbe();
    expect(drive(probe, { capacity: RATE, added: 5, varies: 3 }, 30_000)).toEqual({ room: 0, bursts: 7 });
    expect(probe.own).toBe(0);
  });

  it("finds none if the queue is full and therefore does not grow", () => {
    const probe = new HeadroomProbe();
    expect(drive(probe, { capacity: RATE, added: 8, longest: 1 }, 30_000)).toEqual({ room: 0, bursts: 7 });
    expect(probe.own).toBe(0);
  });

  it("finds none if the queue drops the excess, although this makes few lanes late", () => {
    const probe = new HeadroomProbe();
    const path = { capacity: RATE, added: 8, longest: 1, lates: 0.3 };
    expect(drive(probe, path, 30_000)).toEqual({ room: 0, bursts: 7 });
    expect(probe.own).toBe(0);
  });

  it("forgets the path's own delay if losses surge and make many lanes late, although nothing is dropped here", () => {
    const probe = new HeadroomProbe();
    drive(probe, { capacity: 2 * RATE, added: 10 }, 5_000);
    const { own } = probe;
    drive(probe, { capacity: 2 * RATE, added: 10, dropped: 0 }, 1_000, 5_000);
    expect(probe.own).toBeGreaterThan(0.9 * own);
    drive(probe, { capacity: 0.9 * RATE, longest: 8, lates: 0.5, dropped: 0 }, 500, 6_000);
    expect(probe.own).toBeLessThan(own / 8);
  });

  it("does not burst while nearly all of the demand is met", () => {
    const probe = new HeadroomProbe();
    expect(drive(probe, { capacity: 2 * RATE, dropped: 0.01 }, 10_000).bursts).toBe(0);
  });

  it("learns nothing from a burst in a stall, where all lanes are late and nothing arrives", () => {
    const probe = new HeadroomProbe();
    drive(probe, { capacity: 2 * RATE, added: 10 }, 5_000);
    const { own } = probe;
    const measures = new Measures();
    measures.minRtt = RTT;
    for (let now = 5_000; now < 6_000; now += TICK_MS) {
      const interval = {
        now,
        length: TICK_MS,
        isLimited: true,
        newest: 4_900,
        frames: 100,
        dropped: 30,
        lateShare: 1,
      };
      expect(probe.tick(interval as Interval, measures, RATE, false)).toBe(false);
    }
    expect(probe.own).toBeGreaterThan(0.9 * own);
  });

  it("forgets a burst that is cancelled", () => {
    const probe = new HeadroomProbe();
    const measures = new Measures();
    measures.minRtt = RTT;
    const interval = {
      now: 1_000,
      length: TICK_MS,
      isLimited: true,
      newest: 0,
      frames: 100,
      dropped: 30,
      lateShare: 0,
    };
    for (let i = 0; i < 40; i++) probe.tick(interval as Interval, measures, RATE, false);
    expect(probe.isRunning).toBe(true);
    probe.cancel();
    for (let now = 950; now < 1_100; now++) {
      expect(probe.raise(now)).toBe(1);
      probe.note(now, 5, 2 * RATE * now);
    }
    const after = { ...interval, now: 1_200, newest: 1_150, isLimited: false };
    expect(probe.tick(after as Interval, measures, RATE, false)).toBe(false);
  });

  it("bounds the path's own delay", () => {
    const probe = new HeadroomProbe();
    drive(probe, { capacity: 2 * RATE, added: 200 }, 10_000);
    expect(probe.own).toBeGreaterThan(14);
    expect(probe.own).toBeLessThanOrEqual(15);
  });

  it("forgets the path's own delay if a burst builds a queue, and with time", () => {
    const probe = new HeadroomProbe();
    drive(probe, { capacity: 2 * RATE, added: 10 }, 5_000);
    const { own } = probe;
    drive(probe, { capacity: RATE, added: 10 }, 5_000, 5_000);
    expect(probe.own).toBeLessThan(own / 2);
    drive(probe, { capacity: RATE, dropped: 0 }, 60_000, 10_000);
    expect(probe.own).toBeLessThan(0.5);
  });
});
