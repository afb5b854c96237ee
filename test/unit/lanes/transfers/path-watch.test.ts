import { describe, expect, it } from "vitest";
import { FlowTable } from "../../../../src/core/lanes/flow-table.ts";
import { PathWatch } from "../../../../src/core/lanes/transfers/path-watch.ts";

/** The clock of the other end is ahead by this, in microseconds. */
const OFFSET = 4_000_000_000;

function flows(count: number): FlowTable {
  const table = new FlowTable();
  table.reserve(count);
  return table;
}

/** A receipt that was sent at a time and took `delay`. */
function receive(watch: PathWatch, sentAt: number, delay: number): void {
  watch.noteReceipt(sentAt + delay, (OFFSET + 1000 * sentAt) % 2 ** 32, 50);
}

describe("PathWatch", () => {
  it("reports the queue of each direction for any difference of the clocks", () => {
    const watch = new PathWatch(flows(16));
    for (let at = 0; at < 1_000; at += 20) receive(watch, at, at < 500 ? 25 : 60);
    for (let at = 0; at < 1_000; at += 20) watch.noteArrival(at, at < 500 ? -7 : 3);
    expect(watch.standing(1_040, false)).toBeCloseTo(35, 1);
    expect(watch.standing(1_000, true)).toBeCloseTo(10, 1);
  });

  it("leaves out receipts that were held up behind a hole", () => {
    const watch = new PathWatch(flows(16));
    for (let at = 0; at < 400; at += 20) receive(watch, at, 25);
    receive(watch, 400, 25);
    for (let at = 300; at < 400; at += 20) receive(watch, at, 425 - at);
    expect(watch.standing(430, false)).toBe(0);
  });

  it("knows nothing without fresh samples", () => {
    const watch = new PathWatch(flows(16));
    expect(watch.standing(0, true)).toBe(-1);
    receive(watch, 0, 25);
    expect(watch.standing(100, false)).toBe(0);
    expect(watch.standing(1_000, false)).toBe(-1);
  });

  it("measures again after a rest in which the clocks have wrapped halfway", () => {
    const watch = new PathWatch(flows(16));
    for (let at = 0; at < 1_000; at += 20) receive(watch, at, 25);
    const later = 40 * 60_000;
    for (let at = later; at < later + 1_000; at += 20) receive(watch, at, 60);
    expect(watch.standing(later + 1_040, false)).toBeGreaterThanOrEqual(0);
  });

  it("recognises a call by steady sparse datagrams of a flow, and not a burst of lookups", () => {
    const watch = new PathWatch(flows(16));
    for (let i = 0; i < 60; i++) watch.noteSparse(10_000 + 10 * i, i % 16);
    for (let at = 10_600; at < 15_000; at += 100) expect(watch.hasCall(at)).toBe(false);
    for (let at = 20_000; at < 23_000; at += 20) watch.noteSparse(at, 3);
    expect(watch.hasCall(23_000)).toBe(true);
    for (let at = 23_020; at < 27_000; at += 20) watch.hasCall(at);
    expect(watch.hasCall(27_000)).toBe(false);
  });

  it("recognises no call in a hundred idle programs, but one that is among them", () => {
    const watch = new PathWatch(flows(128));
    for (let at = 1_000; at < 20_000; at += 10) {
      watch.noteSparse(at, (at / 10) % 100);
      expect(watch.hasCall(at)).toBe(false);
    }
    for (let at = 20_000; at < 25_000; at += 20) {
      watch.noteSparse(at, (at / 10) % 100);
      watch.noteSparse(at, 100);
    }
    expect(watch.hasCall(25_000)).toBe(true);
  });

  it("recognises no call in bursts of eight, each by another flow", () => {
    const watch = new PathWatch(flows(64));
    for (let at = 1_000, flow = 0; at < 20_000; at += 500, flow = (flow + 1) % 64) {
      for (let i = 0; i < 8; i++) watch.noteSparse(at + 10 * i, flow);
      expect(watch.hasCall(at + 100)).toBe(false);
    }
  });

  it("recognises a call again in the session that follows", () => {
    const table = flows(1);
    const before = new PathWatch(table);
    for (let at = 20; at < 600_000; at += 20) before.noteSparse(at, 0);
    expect(before.hasCall(600_000)).toBe(true);
    const watch = new PathWatch(table);
    for (let at = 600_000; at < 603_000; at += 20) watch.noteSparse(at, 0);
    expect(watch.hasCall(603_000)).toBe(true);
  });

  it("recognises a call by a clock that counts from 1970", () => {
    const watch = new PathWatch(flows(1));
    const start = 1_800_000_000_000;
    for (let at = start; at < start + 3_000; at += 20) watch.noteSparse(at, 0);
    expect(watch.hasCall(start + 3_000)).toBe(true);
    expect(watch.hasCall(start + 6_000)).toBe(false);
  });
});
