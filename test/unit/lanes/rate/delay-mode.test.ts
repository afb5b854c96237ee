import { describe, expect, it } from "vitest";
import type { Interval, Measures } from "../../../../src/core/lanes/rate/measures/measures.ts";
import { DelayMode } from "../../../../src/core/lanes/rate/modes/delay-mode.ts";
import { FIRST_WINDOW_BYTES } from "../../../../src/core/lanes/rate/modes/start-mode.ts";

const INTERVAL_MS = 25;
const RTT_MS = 50;
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
    arrivals: 2 * LINK_RATE,
    deliveries: LINK_RATE,
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
    inFlight: 0,
    arrivals: LINK_RATE,
    deliveries: LINK_RATE / 2,
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

/** Rate of a link on which the target is 1.5 ms, in bytes per millisecond. */
const FAST_RATE = 2_500;

/**
 * The rate after an interval of a session that sends at the rate of delivery, as a share of that.
 *
 * @param inFlight  beyond the first window, in round trips at that rate
 * @param shares    of the rate of delivery: the recent one, and what arrives
 */
function rateWith(inFlight: number, lateShare: number, shares = { recent: 1, arrivals: 1.25 }): number {
  const mode = new DelayMode();
  mode.begin(FAST_RATE);
  const shown = { capacity: 0, proved: 0, standing: 0, delayed: 0, minRtt: RTT_MS, delivery: FAST_RATE };
  const recentDelivery = shares.recent * FAST_RATE;
  const measures = { ...shown, recentDelivery, sentAt: 0, sentBytes: 0, surges: false } as Measures;
  const interval = { now: 0, length: INTERVAL_MS, delivered: 1, hasSamples: false, isLimited: true };
  const rates = { arrivals: shares.arrivals * FAST_RATE, deliveries: FAST_RATE };
  const inFlightBytes = FIRST_WINDOW_BYTES + inFlight * FAST_RATE * RTT_MS;
  const ended = { ...interval, ...rates, lateShare, inFlight: inFlightBytes } as Interval;
  mode.tick(ended, measures, false);
  return mode.rate / FAST_RATE;
}

/** The rate after two seconds in which the delay jumps between 2 and 5 ms. @param offered  as a share of `FAST_RATE` */
function rateAfterJitter(offered: number): number {
  const mode = new DelayMode();
  mode.begin(FAST_RATE);
  const shown = { minRtt: 50, delivery: 0, recentDelivery: 0, surges: false };
  const measures = { ...shown, capacity: 0, proved: 0, standing: 0, delayed: 0, sentAt: 0, sentBytes: 0 };
  for (let i = 1; i <= 80; i++) {
    const now = i * INTERVAL_MS;
    const sent = Math.min(mode.rate, offered * FAST_RATE);
    measures.standing = i % 2 === 0 ? 2 : 5;
    measures.delayed = measures.standing;
    measures.capacity = sent;
    measures.proved = sent;
    measures.sentAt = now - 50;
    measures.sentBytes += sent * INTERVAL_MS;
    const interval = {
      now,
      length: INTERVAL_MS,
      hasSamples: true,
      isLimited: sent === mode.rate,
      arrivals: offered * FAST_RATE,
      deliveries: sent,
      delivered: sent * INTERVAL_MS,
      lateShare: 0,
      sentBytes: measures.sentBytes + sent * 50,
    };
    mode.tick(interval as Interval, measures as Measures, false);
  }
  return mode.rate;
}

/**
 * The capacity of a fast link after intervals in which a call of 2 bytes/ms seems to wait in a queue of 30 ms.
 *
 * @param isLimited  whether the pacer holds its datagrams
 */
function capacityAfterCall(isLimited: boolean): number {
  const mode = new DelayMode();
  mode.begin(FAST_RATE);
  const interval = {
    ...{ now: 0, length: INTERVAL_MS, hasSamples: true, isLimited, lateShare: 0, sentBytes: 0 },
    ...{ arrivals: 2, deliveries: 2, delivered: 2 * INTERVAL_MS },
  };
  const measures = {
    ...{ standing: 30, delayed: 30, minRtt: 20, sentAt: 0, sentBytes: 0, surges: false },
    ...{ capacity: 2, proved: 2, delivery: 2, recentDelivery: 2 },
  };
  for (let i = 0; i < 80; i++) {
    interval.now += INTERVAL_MS;
    mode.tick(interval as Interval, measures as Measures, false);
  }
  return mode.capacity;
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

  it("does not take the rate of a call for the path's: the first window in a round trip stays possible", () => {
    expect(capacityAfterCall(false)).toBe(30_000 / (20 + 30));
    expect(capacityAfterCall(true)).toBeLessThan(10);
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

  it("sends less than the path delivers while most lanes are late and hold several round trips of it", () => {
    expect(rateWith(3, 0.5)).toBeCloseTo(0.75);
    expect(rateWith(9, 0.5)).toBeGreaterThan(0.3);
    expect(rateWith(9, 0.5)).toBeLessThan(0.5);
  });

  it("sends at its rate while few lanes are late, they hold little, or the path delivers what arrives", () => {
    expect(rateWith(9, 0.4)).toBe(1);
    expect(rateWith(2.4, 1)).toBe(1);
    expect(rateWith(9, 0.5, { recent: 1, arrivals: 1 })).toBe(1);
  });

  it("does not take a burst after a quiet time for what late lanes hold", () => {
    expect(rateWith(9, 0.5, { recent: 5, arrivals: 1.25 })).toBe(1);
  });

  it("does not fall below what is offered because of jitter", () => {
    expect(rateAfterJitter(0.95)).toBeGreaterThanOrEqual(0.95 * FAST_RATE);
  });

  it("takes jitter for a queue if much more is offered than the path takes", () => {
    expect(rateAfterJitter(1.3)).toBeLessThan(FAST_RATE);
  });

  it("bounds it after a silence in which the path would have carried less than 64 packets", () => {
    const mode = begun();
    stall(mode, 12);
    expect(capacityAfter(mode, 16, 80)).toBe(1.25 * LINK_RATE);
  });
});
