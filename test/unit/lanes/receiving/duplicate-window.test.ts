import { describe, expect, it } from "vitest";
import { DuplicateWindow, MAX_HOLES } from "../../../../src/core/lanes/receiving/duplicate-window.ts";
import { seededRandom } from "../../random.ts";

describe("DuplicateWindow", () => {
  it("accepts each number once, across the wrap of 24 bits", () => {
    const window = new DuplicateWindow();
    for (let i = 0; i < 10; i++) {
      const sequence = (0xff_fffb + i) & 0xff_ffff;
      expect([window.accept(sequence), window.accept(sequence)]).toEqual([true, false]);
    }
  });

  it("drops a number that is 65,536 behind", () => {
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

  it("continues in another window, which treats numbers that it no longer lists as arrived", () => {
    const random = seededRandom(3);
    const window = new DuplicateWindow();
    let highest = 0xff_0000;
    for (let i = 0; i < 20_000; i++) {
      highest += random() % 300 === 0 ? random() % 3_000 : random() % 3;
      window.accept((highest - (random() % 50)) & 0xff_ffff);
    }
    const { arrived } = window;
    const other = new DuplicateWindow();
    other.restore(arrived!);
    expect(arrived!.holes).toHaveLength(MAX_HOLES);
    expect(other.highest).toBe(window.highest);
    const reach = arrived!.holes.at(-1)!.distance;
    const wrong = Array.from({ length: 70_000 }, (_, behind) => behind).filter((behind) => {
      const sequence = (window.highest - behind) & 0xff_ffff;
      return other.has(sequence) !== (behind > reach || window.has(sequence));
    });
    expect(wrong).toEqual([]);
    expect(other.accept((window.highest + 1) & 0xff_ffff)).toBe(true);
  });

  it("continues from its beginning, with all that has not arrived yet", () => {
    const window = new DuplicateWindow();
    expect(window.arrived).toBeUndefined();
    for (const sequence of [0, 5, 3]) window.accept(sequence);
    const other = new DuplicateWindow();
    other.restore(window.arrived!);
    expect([0, 1, 2, 3, 4, 5, 6].filter((sequence) => other.accept(sequence))).toEqual([1, 2, 4, 6]);
  });
});
