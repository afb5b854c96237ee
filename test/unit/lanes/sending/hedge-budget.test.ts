import { describe, expect, it } from "vitest";
import { HedgeBudget } from "../../../../src/core/lanes/sending/hedge-budget.ts";

/** Spends until only the reserve at a rate is left. @returns bytes */
function spendSpare(budget: HedgeBudget, rate: number): number {
  let spent = 0;
  while (budget.hasSpare(rate) && budget.spend(100)) spent += 100;
  return spent;
}

describe("HedgeBudget", () => {
  it("reserves for overdue datagrams what the session sends in 40 ms, at most three quarters of the budget", () => {
    for (const [rate, all, kept] of [
      [0, 5_000, 0],
      [240, 24_000, 9_600],
      [1_875, 100_000, 75_000],
      [25_000, 100_000, 75_000],
    ]) {
      const budget = new HedgeBudget();
      budget.earn(10_000_000, rate);
      expect(spendSpare(budget, rate)).toBe(all - kept);
      expect(budget.spend(kept)).toBe(true);
      expect(budget.spend(100)).toBe(false);
    }
  });

  it("is a share of what is sent", () => {
    const budget = new HedgeBudget();
    budget.earn(100_000, 2_500);
    expect(budget.spend(15_100)).toBe(false);
    expect(budget.spend(15_000)).toBe(true);
  });

  it("keeps of what was earned at a higher rate only what the session now sends in 100 ms", () => {
    const budget = new HedgeBudget();
    budget.earn(10_000_000, 2_500);
    budget.earn(100, 240);
    expect(budget.spend(24_100)).toBe(false);
    expect(budget.spend(24_000)).toBe(true);
  });
});
