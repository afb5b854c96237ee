import { describe, expect, it } from "vitest";
import { ArrivalHistory } from "../../../../src/core/lanes/receiving/arrival-history.ts";
import { seededRandom } from "../../random.ts";

const BUDGET = 100;
const MODULUS = 0x100_0000;

describe("ArrivalHistory", () => {
  it("treats a datagram as too old if a later one arrived a budget before it", () => {
    const history = new ArrivalHistory();
    expect(history.isStale(0, 10, BUDGET)).toBe(false);
    expect(history.isStale(BUDGET, 9, BUDGET)).toBe(false);
    expect(history.isStale(BUDGET + 1, 9, BUDGET)).toBe(true);
    expect(history.isStale(BUDGET + 1, 11, BUDGET)).toBe(false);
  });

  it("never treats a datagram as too old that none has overtaken, however late", () => {
    const history = new ArrivalHistory();
    for (let i = 0; i < 100; i++) expect(history.isStale(i * 10_000, i, BUDGET)).toBe(false);
  });

  it("works across the wrap of the numbers", () => {
    for (const first of [0, MODULUS - 50, MODULUS - 1, MODULUS / 2 - 20]) {
      const history = new ArrivalHistory();
      const number = (i: number) => (first + i) % MODULUS;
      history.isStale(0, number(0), BUDGET);
      for (let i = 2; i < 300; i++) history.isStale(i, number(i), BUDGET);
      expect(history.isStale(300, number(1), BUDGET)).toBe(true);
      expect(history.isStale(300, number(250), BUDGET)).toBe(false);
    }
  });

  it("errs by at most a thirtieth of the budget, and never to the sender's disadvantage", () => {
    // One datagram arrives per millisecond, one of them late.
    for (const late of [40, 99, 100, 101, 103, 104, 110, 150, 1_000, 5_000]) {
      const history = new ArrivalHistory();
      for (let i = 0; i <= 6_000; i++) if (i !== 500) expect(history.isStale(i, i, BUDGET)).toBe(false);
      const other = new ArrivalHistory();
      for (let i = 0; i <= 501 + late; i++) if (i !== 500) other.isStale(i, i, BUDGET);
      const isStale = other.isStale(501 + late, 500, BUDGET);
      if (late <= BUDGET) expect(isStale).toBe(false);
      if (late > BUDGET + BUDGET / 30 + 1) expect(isStale).toBe(true);
    }
  });

  it("agrees with a list of all arrivals", () => {
    const history = new ArrivalHistory();
    const arrivals: { at: number; number: number }[] = [];
    let now = 0;
    const random = seededRandom(1);
    for (let i = 0; i < 5_000; i++) {
      now += random() % 7;
      const number = (MODULUS - 2_000 + i - (random() % 4 === 0 ? random() % 60 : 0)) % MODULUS;
      const order = (number + 4_000) % MODULUS;
      const overtakers = arrivals.filter((one) => one.number > order).map(({ at }) => now - at);
      const longest = Math.max(-1, ...overtakers);
      const isStale = history.isStale(now, number, BUDGET);
      if (isStale) expect(longest).toBeGreaterThan(BUDGET);
      // A mark may stand for arrivals of a thirtieth of the budget, after the next one.
      if (longest > BUDGET + BUDGET / 30 + 7) expect(isStale).toBe(true);
      arrivals.push({ at: now, number: order });
      if (arrivals.length > 200) arrivals.shift();
    }
  });
});
