import { describe, expect, it } from "vitest";
import { Jitter } from "../../../../src/core/lanes/rate/measures/jitter.ts";
import type { Measures } from "../../../../src/core/lanes/rate/measures/measures.ts";

const INTERVAL_MS = 25;
/** Rate of the bottleneck, in bytes per millisecond. */
const CAPACITY = 2_500;

/** The jitter after intervals with these waits in the queue, in milliseconds. @param share  what is sent, as a share of the capacity */
function jitterOf(waits: readonly number[], share = 1): number {
  const jitter = new Jitter();
  waits.forEach((standing, i) => {
    const sentAt = 1_000 + i * INTERVAL_MS;
    jitter.note({ standing, sentAt, sentBytes: share * CAPACITY * sentAt } as Measures, CAPACITY);
  });
  return jitter.value;
}

describe("the jitter of a path", () => {
  it("is next to nothing if the queue stays as it is, or changes as what is sent makes it", () => {
    const growing = Array.from({ length: 60 }, (_, i) => 5 + i * 0.2 * INTERVAL_MS);
    const shrinking = growing.toReversed();
    const steady = growing.map(() => 5);
    for (const [waits, share] of [
      [steady, 1],
      [growing, 1.2],
      [shrinking, 0.8],
    ] as const) {
      expect(jitterOf(waits, share)).toBeLessThan(0.1);
    }
  });

  it("is nothing while the path is empty, however little is sent", () => {
    expect(jitterOf(Array(60).fill(0), 0.1)).toBe(0);
  });

  it("is the mean change of the delay that nothing explains", () => {
    const waits = Array.from({ length: 80 }, (_, i) => (i % 2 === 0 ? 1 : 4));
    expect(jitterOf(waits)).toBeCloseTo(3, 1);
  });

  it("grows by less than a third of a millisecond in a stall", () => {
    expect(jitterOf([...Array(60).fill(0), 400])).toBeLessThan(1 / 3);
  });

  it("takes each frame once", () => {
    const jitter = new Jitter();
    const measures = { standing: 3, sentAt: 100, sentBytes: 250_000 } as Measures;
    for (let i = 0; i < 10; i++) jitter.note(measures, CAPACITY);
    expect(jitter.value).toBeLessThan(0.2);
  });
});
