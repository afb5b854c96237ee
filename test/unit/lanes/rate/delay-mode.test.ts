import { describe, expect, it } from "vitest";
import type { Interval, Measures } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { DelayMode } from "../../../../src/core/lanes/rate/modes/delay-mode.ts";

const INTERVAL_MS = 25;
/** Bytes per millisecond. */
const LINK_RATE = 250;

/** What the path shows when 1,000 bytes per millisecond seem to pass between two frames, and `LINK_RATE` is receipted. */
function overflow(standing: number): Measures {
  const shown = {
    capacity: 1_000,
    proved: 1_000,
    standing,
    minRtt: 50,
    delivery: LINK_RATE,
    recentDelivery: LINK_RATE,
    sentAt: 0,
    sentBytes: 0,
    surges: false,
  };
  return shown as Measures;
}

/** The capacity after some intervals. @param standing  wait in the queue, in milliseconds */
function capacityAfter(mode: DelayMode, intervals: number, standing: number): number {
  const interval = {
    now: 0,
    length: INTERVAL_MS,
    delivered: LINK_RATE * INTERVAL_MS,
    hasSamples: true,
    isLimited: true,
    sentBytes: 0,
  };
  for (let i = 0; i < intervals; i++) mode.tick(interval as Interval, overflow(standing), false);
  return mode.capacity;
}

/** Intervals in which nothing is receipted. */
function stall(mode: DelayMode, intervals: number): void {
  const interval = {
    now: 0,
    length: INTERVAL_MS,
    delivered: 0,
    hasSamples: false,
    isLimited: true,
    sentBytes: 0,
  };
  for (let i = 0; i < intervals; i++) mode.tick(interval as Interval, overflow(0), false);
}

/** The rate after intervals in which half of the lanes are late. @param delays  above the delay of the empty path, in milliseconds, in turn */
function rateAfterSurge(mode: DelayMode, intervals: number, ...delays: number[]): number {
  const interval = {
    now: 0,
    length: INTERVAL_MS,
    delivered: (LINK_RATE / 2) * INTERVAL_MS,
    hasSamples: true,
    isLimited: true,
    lateShare: 0.5,
    sentBytes: 0,
  };
  const delivery = LINK_RATE / 2;
  const shown = { capacity: 0, proved: 0, standing: 0, minRtt: 50, delivery, recentDelivery: delivery };
  const measures = { ...shown, delayed: 0, sentAt: 0, sentBytes: 0, surges: true };
  for (let i = 0; i < intervals; i++) {
    interval.now += INTERVAL_MS;
    measures.delayed = delays[i % delays.length];
    mode.tick(interval as Interval, measures as Measures, true);
  }
  return mode.rate;
}

function begun(): DelayMode {
  const mode = new DelayMode();
  mode.begin(LINK_RATE);
  return mode;
}

describe("DelayMode", () => {
  it("bounds the capacity by the rate of delivery while a queue overflows, because the drops make it seem larger", () => {
    expect(capacityAfter(begun(), 20, 80)).toBe(1.25 * LINK_RATE);
  });

  it("follows the capacity beyond the rate of delivery if there is no queue", () => {
    expect(capacityAfter(begun(), 20, 0)).toBeGreaterThan(2 * LINK_RATE);
  });

  it("does not bound the capacity by the rate of delivery shortly after a slowdown", () => {
    const mode = begun();
    mode.noteSlowdown();
    expect(capacityAfter(mode, 16, 80)).toBeGreaterThan(2 * LINK_RATE);
    expect(capacityAfter(mode, 1, 80)).toBe(1.25 * LINK_RATE);
  });

  it("does not bound the capacity by the rate of delivery shortly after a stall of the path", () => {
    const mode = begun();
    stall(mode, 13);
    expect(capacityAfter(mode, 16, 80)).toBeGreaterThan(2 * LINK_RATE);
    expect(capacityAfter(mode, 1, 80)).toBe(1.25 * LINK_RATE);
  });

  it("backs off in a surge of losses while the delay shows a queue, even one below the target", () => {
    expect(rateAfterSurge(begun(), 40, 1.5)).toBeLessThan(0.5 * LINK_RATE);
  });

  it("does not back off in a surge of losses if no two intervals in a row show a queue", () => {
    expect(rateAfterSurge(begun(), 40, 8, 0)).toBeGreaterThan(0.85 * LINK_RATE);
  });

  it("does not back off in a surge of losses once the path has been empty for four intervals", () => {
    expect(rateAfterSurge(begun(), 40, 0.5)).toBeGreaterThan(0.85 * LINK_RATE);
  });

  it("bounds it after a silence in which the path would have carried less than 64 packets", () => {
    const mode = begun();
    stall(mode, 12);
    expect(capacityAfter(mode, 16, 80)).toBe(1.25 * LINK_RATE);
  });
});
