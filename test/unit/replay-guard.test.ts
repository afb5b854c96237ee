import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CLOCK_WINDOW_MS, ReplayGuard } from "../../src/core/replay-guard.ts";

const START = 1_700_000_000_000;
const nonce = (number: number) => Uint8Array.from({ length: 16 }, (_, i) => (number >> (8 * (i % 4))) & 0xff);

describe("ReplayGuard", () => {
  it("calls a nonce fresh once, and replayed after that, whatever time comes with it", () => {
    const guard = new ReplayGuard(START, 10);
    expect(guard.check(START, START, nonce(1))).toBe("fresh");
    expect(guard.check(START, START, nonce(1))).toBe("replayed");
    expect(guard.check(START + 1, START + 1, nonce(1))).toBe("replayed");
    expect(guard.check(START + 1, START - 1, nonce(1))).toBe("replayed");
    expect(guard.check(START + 1, START + 1, nonce(2))).toBe("fresh");
  });

  it("is unsure of a clock that is off by more than its window, on either side", () => {
    const guard = new ReplayGuard(START - 10 * CLOCK_WINDOW_MS, 10);
    expect(guard.check(START, START - CLOCK_WINDOW_MS - 1, nonce(1))).toBe("unsure");
    expect(guard.check(START, START + CLOCK_WINDOW_MS + 1, nonce(2))).toBe("unsure");
    expect(guard.check(START, START - CLOCK_WINDOW_MS, nonce(3))).toBe("fresh");
    expect(guard.check(START, START + CLOCK_WINDOW_MS, nonce(4))).toBe("fresh");
  });

  it("is unsure of what was made before it: another process may have seen that", () => {
    const guard = new ReplayGuard(START, 10);
    expect(guard.check(START + 5, START - 1, nonce(1))).toBe("unsure");
    expect(guard.check(START + 5, START, nonce(1))).toBe("fresh");
  });

  it("does not remember a nonce of which it was unsure", () => {
    const guard = new ReplayGuard(START, 10);
    expect(guard.check(START, START - 1, nonce(1))).toBe("unsure");
    expect(guard.check(START, START, nonce(1))).toBe("fresh");
  });

  it("is unsure of new nonces when it is full, still knows the old ones, and has room again later", () => {
    const guard = new ReplayGuard(START, 3);
    const say = (now: number, number: number) => guard.check(now, now, nonce(number));
    expect([1, 2, 3, 4, 5].map((number) => say(START, number))).toEqual([
      "fresh",
      "fresh",
      "fresh",
      "unsure",
      "unsure",
    ]);
    expect([1, 2, 3].map((number) => say(START + 1, number))).toEqual(["replayed", "replayed", "replayed"]);
    const later = START + 2 * CLOCK_WINDOW_MS;
    expect([4, 5, 6, 7].map((number) => say(later, number))).toEqual(["fresh", "fresh", "fresh", "unsure"]);
    expect(say(later, 1)).toBe("replayed");
  });

  it("forgets a nonce after two turns of its memory, also when nothing came between", () => {
    for (const steps of [[4 * CLOCK_WINDOW_MS], [2 * CLOCK_WINDOW_MS, 4 * CLOCK_WINDOW_MS]]) {
      const guard = new ReplayGuard(START, 10);
      expect(guard.check(START, START, nonce(1))).toBe("fresh");
      for (const step of steps) guard.check(START + step, START + step, nonce(2 + step));
      const now = START + 4 * CLOCK_WINDOW_MS;
      expect(guard.check(now, now, nonce(1))).toBe("fresh");
    }
  });

  it("never calls the same request fresh twice, at whatever times it comes", () => {
    const steps = fc.array(
      fc.record({
        wait: fc.oneof(fc.nat(1_000), fc.nat(CLOCK_WINDOW_MS), fc.nat(5 * CLOCK_WINDOW_MS)),
        /** An older request to send again, counted from the last one; undefined for a new one. */
        again: fc.option(fc.nat(5), { nil: undefined, freq: 2 }),
        clockOff: fc.integer({ min: -CLOCK_WINDOW_MS - 10, max: CLOCK_WINDOW_MS + 10 }),
      }),
      { maxLength: 60, size: "max" },
    );
    let replays = 0;
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 20 }), (all, capacity) => {
        const guard = new ReplayGuard(START, capacity);
        const requests: { number: number; time: number; wasFresh: boolean }[] = [];
        let now = START;
        for (const { wait, again, clockOff } of all) {
          now += wait;
          let request = again === undefined ? undefined : requests.at(-1 - again);
          if (request === undefined) {
            request = { number: requests.length, time: now + clockOff, wasFresh: false };
            requests.push(request);
          }
          const freshness = guard.check(now, request.time, nonce(request.number));
          if (freshness === "replayed") replays++;
          expect(freshness === "fresh" && request.wasFresh).toBe(false);
          expect(freshness === "replayed" && !request.wasFresh).toBe(false);
          if (freshness === "fresh") request.wasFresh = true;
        }
      }),
      { seed: 91, numRuns: 1_000 },
    );
    expect(replays).toBeGreaterThan(1_000);
  });
});
