import { describe, expect, it } from "vitest";
import { LaneCount } from "../../../../src/core/client/lanes/lane-count.ts";

/** A session with receipts that has begun at 0. */
function begun(): LaneCount {
  const count = new LaneCount("auto", false);
  count.begin(0, count.offersReceipts, true);
  return count;
}

describe("a fixed number of lanes", () => {
  it("stays as it is, and has receipts from two on", () => {
    for (const lanes of [1, 2, 16]) {
      const count = new LaneCount(lanes, true);
      expect([count.most, count.wanted, count.offersReceipts]).toEqual([lanes, lanes, lanes > 1]);
      count.begin(0, count.offersReceipts, false);
      for (let i = 1; i < 20; i++) {
        expect(count.grow(i * 1_000, i * 10)).toBe(false);
        count.handleFailed(i * 1_000, 1);
        expect(count.isSampling).toBe(false);
        expect(count.sample(1)).toBe(false);
      }
      expect(count.shrink(1e9, 0)).toBe(false);
      expect(count.wanted).toBe(lanes);
    }
  });
});

describe("--lanes auto", () => {
  it("starts with one lane, without receipts if the server is local", () => {
    for (const isLocal of [true, false]) {
      const count = new LaneCount("auto", isLocal);
      expect([count.wanted, count.offersReceipts]).toEqual([1, !isLocal]);
      count.begin(0, count.offersReceipts, false);
      expect(count.wanted).toBe(1);
      count.begin(0, count.offersReceipts, true);
      expect(count.wanted).toBe(4);
    }
  });

  it("doubles the lanes up to sixteen as long as lanes become late", () => {
    const count = begun();
    expect(count.grow(1_000, 1)).toBe(false);
    expect(count.grow(1_000, 2)).toBe(true);
    expect(count.wanted).toBe(8);
    // New lanes get time to show their effect.
    expect(count.grow(1_200, 4)).toBe(false);
    expect(count.grow(1_300, 4)).toBe(true);
    expect(count.grow(9_000, 100)).toBe(false);
    expect(count.wanted).toBe(16);
  });

  it("halves the lanes after a quiet minute, down to four", () => {
    const count = begun();
    count.grow(1_000, 2);
    count.grow(2_000, 4);
    expect(count.shrink(61_999, 1_500)).toBe(false);
    expect(count.shrink(62_000, 2_001)).toBe(false);
    expect(count.shrink(62_001, 2_001)).toBe(true);
    expect(count.wanted).toBe(8);
    expect(count.shrink(122_000, 2_001)).toBe(false);
    expect(count.shrink(122_001, 2_001)).toBe(true);
    expect(count.shrink(1e9, 2_001)).toBe(false);
    expect(count.wanted).toBe(4);
  });

  it("keeps the current number for five minutes after four refusals in a row", () => {
    const count = begun();
    for (let i = 0; i < 3; i++) count.handleFailed(i, 3);
    count.handleProven();
    for (let i = 0; i < 3; i++) count.handleFailed(i, 3);
    expect(count.wanted).toBe(4);
    count.handleFailed(1_000, 3);
    expect(count.wanted).toBe(3);
    expect(count.grow(300_999, 50)).toBe(false);
    expect(count.grow(301_000, 52)).toBe(true);
    expect(count.wanted).toBe(6);
  });

  it("counts no refusals while no lane is up", () => {
    const count = begun();
    for (let i = 0; i < 20; i++) count.handleFailed(i, 0);
    expect(count.wanted).toBe(4);
    for (let i = 0; i < 4; i++) count.handleFailed(i, 2);
    expect(count.wanted).toBe(2);
    // The whole path was down, so earlier refusals no longer count.
    count.handleFailed(10, 0);
    expect(count.grow(1_000, 2)).toBe(true);
  });

  it.each([
    { isLocal: false, times: [1], turns: true },
    { isLocal: false, times: [2, 1], turns: true },
    { isLocal: false, times: [...Array(19).fill(2), 1], turns: true },
    { isLocal: false, times: [...Array(20).fill(2), 1], turns: false },
    { isLocal: false, times: [...Array(5).fill(90), 1], turns: true },
    { isLocal: false, times: [...Array(6).fill(90), 1], turns: false },
    { isLocal: true, times: Array(20).fill(10), turns: true },
    { isLocal: true, times: [...Array(19).fill(10), 9], turns: false },
    { isLocal: true, times: Array(10).fill(50), turns: true },
    // One lane to a relay, which is overloaded: each round trip takes longer than the one before.
    { isLocal: true, times: [80, 200, 400], turns: true },
    // Both ends are still starting, or the machine is busy.
    { isLocal: true, times: [90, 90, 90, 90, 90, 9], turns: false },
    { isLocal: true, times: [1, 50, 50, 50, 50, 50], turns: false },
  ])("change their mind about receipts by round trips: %o", ({ isLocal, times, turns }) => {
    const count = new LaneCount("auto", isLocal);
    const offers = count.offersReceipts;
    expect(times.map((time) => count.sample(time)).includes(true)).toBe(turns);
    expect(count.offersReceipts).toBe(turns ? !offers : offers);
    expect(count.isSampling).toBe(false);
  });

  it.each([
    { challenge: 79, times: [9], begins: false, ends: false },
    { challenge: 80, times: [9], begins: true, ends: false },
    { challenge: 80, times: [...Array(19).fill(10), 9], begins: true, ends: false },
    { challenge: 80, times: Array(20).fill(10), begins: true, ends: true },
  ])("guess from a challenge whether a relay is far away, until it has measured: %o", (given) => {
    const count = new LaneCount("auto", true);
    count.handleChallenge(given.challenge);
    expect(count.offersReceipts).toBe(given.begins);
    count.begin(0, given.begins, given.begins);
    expect(given.times.map((time) => count.sample(time)).includes(true)).toBe(given.begins !== given.ends);
    expect(count.offersReceipts).toBe(given.ends);
  });

  it("has no guess about a session that began before the challenge of another way arrived", () => {
    const count = new LaneCount("auto", true);
    count.handleChallenge(100);
    count.begin(0, false, false);
    expect([count.offersReceipts, count.isSampling, count.mayAddReceipts]).toEqual([false, true, true]);
    expect(count.sample(600)).toBe(true);
  });

  it("does not measure at a server that does not support receipts", () => {
    const count = new LaneCount("auto", false);
    count.begin(0, count.offersReceipts, false);
    expect(count.isSampling).toBe(false);
  });
});
