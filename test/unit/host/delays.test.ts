import { describe, expect, it } from "vitest";
import { delaysOf, heldUntil, isHeld, quantile, summarizeDelays } from "../../../src/host/doctor/delays.ts";

describe("delays of probes", () => {
  it("are counted from the lowest one, whatever the clocks show", () => {
    const samples = [
      { sequence: 0, sentMs: 1_000, arrivedMs: 90_007 },
      { sequence: 1, sentMs: 1_020, arrivedMs: 90_022 },
      { sequence: 2, sentMs: 1_040, arrivedMs: 90_062 },
    ];
    expect([...delaysOf(samples)]).toEqual([
      [0, 5],
      [1, 0],
      [2, 20],
    ]);
    expect(delaysOf([]).size).toBe(0);
  });

  it("tolerate that a 32-bit clock wraps around", () => {
    const end = 2 ** 32 / 1_000;
    const samples = [
      { sequence: 0, sentMs: end - 10, arrivedMs: 5 },
      { sequence: 1, sentMs: 10, arrivedMs: 27 },
    ];
    const delays = delaysOf(samples);
    expect(delays.get(0)).toBeCloseTo(0);
    expect(delays.get(1)).toBeCloseTo(2);
  });

  it("are summarized by rank", () => {
    const values = Array.from({ length: 100 }, (_, i) => i);
    expect(summarizeDelays(values, 97)).toEqual({ count: 100, p50: 50, p99: 99, max: 99, late: 2 });
    expect(summarizeDelays([], 1)).toEqual({ count: 0, p50: 0, p99: 0, max: 0, late: 0 });
    expect(quantile([], 0.5)).toBe(0);
  });
});

describe("a relay that waits for ACKs", () => {
  const waits = (value: number, count = 8) => Array.from({ length: count }, () => value);

  it("is recognised by a fixed time after the previous probe, whatever the gap", () => {
    const held = new Map([
      [5, waits(36)],
      [17, waits(24)],
    ]);
    expect(heldUntil(held, 0)).toBe(41);
  });

  it("is recognised even if the first few are sent at once", () => {
    const own = [...waits(0, 4), ...waits(36, 4)];
    expect(isHeld(own)).toBe(true);
    expect(isHeld([...waits(0, 7), 36])).toBe(false);
  });

  it("is not a queue, whose delay does not shrink as the gap grows", () => {
    const queue = new Map([
      [5, waits(30)],
      [17, waits(30)],
    ]);
    expect(heldUntil(queue, 0)).toBeUndefined();
  });

  it("is not a path that is slow now and then, nor one wait of seconds", () => {
    expect(
      heldUntil(
        new Map([
          [5, waits(0)],
          [17, waits(0)],
        ]),
        0,
      ),
    ).toBeUndefined();
    expect(
      heldUntil(
        new Map([
          [5, waits(1_000)],
          [17, waits(988)],
        ]),
        0,
      ),
    ).toBeUndefined();
  });

  it("may be a round trip away", () => {
    expect(
      heldUntil(
        new Map([
          [5, waits(435)],
          [17, waits(423)],
        ]),
        400,
      ),
    ).toBe(440);
  });
});
