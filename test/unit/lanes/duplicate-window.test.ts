import { describe, expect, it } from "vitest";
import { DuplicateWindow } from "../../../src/core/lanes/duplicate-window.ts";
import { seededRandom } from "../random.ts";

describe("DuplicateWindow", () => {
  it("accepts each number once, across the turn of 24 bits", () => {
    const window = new DuplicateWindow();
    for (let i = 0; i < 10; i++) {
      const sequence = (0xff_fffb + i) & 0xff_ffff;
      expect([window.accept(sequence), window.accept(sequence)]).toEqual([true, false]);
    }
  });

  it("drops what is 65,536 behind", () => {
    const window = new DuplicateWindow();
    window.accept(0);
    window.accept(65_536);
    expect([window.accept(1), window.accept(0)]).toEqual([true, false]);
  });

  it("agrees with a set of numbers, whatever their order and their jumps", () => {
    const window = new DuplicateWindow();
    const random = seededRandom(7);
    const seen = new Set<number>();
    let highest = 0;
    window.accept(0);
    seen.add(0);
    for (let i = 0; i < 100_000; i++) {
      const jump = random() % 500 === 0 ? random() % 200_000 : random() % 40;
      const sequence = Math.max(0, highest + jump - (random() % 60));
      const isNew = sequence > highest - 65_536 && !seen.has(sequence);
      expect(window.accept(sequence & 0xff_ffff)).toBe(isNew);
      seen.add(sequence);
      highest = Math.max(highest, sequence);
    }
  });
});
