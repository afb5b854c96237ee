import { describe, expect, it } from "vitest";
import { PathWatch } from "../../../src/core/lanes/transfers/path-watch.ts";

/** The clock of the other end is ahead by this, in microseconds. */
const OFFSET = 4_000_000_000;

/** A receipt that was sent at a time and took `delay`. */
function receive(watch: PathWatch, sentAt: number, delay: number): void {
  watch.noteReceipt(sentAt + delay, (OFFSET + 1000 * sentAt) % 2 ** 32, 50);
}

describe("PathWatch", () => {
  it("reports the queue of each direction for any difference of the clocks", () => {
    const watch = new PathWatch();
    for (let at = 0; at < 1_000; at += 20) receive(watch, at, at < 500 ? 25 : 60);
    for (let at = 0; at < 1_000; at += 20) watch.noteArrival(at, at < 500 ? -7 : 3);
    expect(watch.standing(1_040, false)).toBeCloseTo(35, 1);
    expect(watch.standing(1_000, true)).toBeCloseTo(10, 1);
  });

  it("leaves out receipts that were held up behind a hole", () => {
    const watch = new PathWatch();
    for (let at = 0; at < 400; at += 20) receive(watch, at, 25);
    receive(watch, 400, 25);
    for (let at = 300; at < 400; at += 20) receive(watch, at, 425 - at);
    expect(watch.standing(430, false)).toBe(0);
  });

  it("knows nothing without fresh samples", () => {
    const watch = new PathWatch();
    expect(watch.standing(0, true)).toBe(-1);
    receive(watch, 0, 25);
    expect(watch.standing(100, false)).toBe(0);
    expect(watch.standing(1_000, false)).toBe(-1);
  });

  it("measures again after a rest in which the clocks have wrapped halfway", () => {
    const watch = new PathWatch();
    for (let at = 0; at < 1_000; at += 20) receive(watch, at, 25);
    const later = 40 * 60_000;
    for (let at = later; at < later + 1_000; at += 20) receive(watch, at, 60);
    expect(watch.standing(later + 1_040, false)).toBeGreaterThanOrEqual(0);
  });

  it("recognises a call by steady sparse datagrams, and not a burst of lookups", () => {
    const watch = new PathWatch();
    for (let i = 0; i < 60; i++) watch.noteSparse(10_000 + 10 * i);
    for (let at = 10_600; at < 15_000; at += 100) expect(watch.hasCall(at)).toBe(false);
    for (let at = 20_000; at < 23_000; at += 20) watch.noteSparse(at);
    expect(watch.hasCall(23_000)).toBe(true);
    for (let at = 23_020; at < 27_000; at += 20) watch.hasCall(at);
    expect(watch.hasCall(27_000)).toBe(false);
  });
});
