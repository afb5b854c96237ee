import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RateLimit } from "../../../src/core/keys/rate-limit.ts";

describe("a rate limit", () => {
  it("never lets more through than its rate and one burst, however datagrams arrive", () => {
    const steps = fc.array(fc.record({ wait: fc.nat(200), length: fc.nat(65_507) }), { minLength: 1 });
    const rate = fc.record({
      bitsPerSecond: fc.option(fc.integer({ min: 1_000, max: 1e9 }), { nil: undefined }),
      datagramsPerSecond: fc.option(fc.integer({ min: 1, max: 100_000 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(rate, steps, ({ bitsPerSecond, datagramsPerSecond }, all) => {
        const limit = new RateLimit(bitsPerSecond, datagramsPerSecond);
        let [now, bytes, datagrams] = [5_000, 0, 0];
        for (const { wait, length } of all) {
          now += wait;
          if (!limit.take(now, length)) continue;
          bytes += length;
          datagrams++;
        }
        const seconds = (now - 5_000) / 1000;
        const { bits = Number.POSITIVE_INFINITY } = { bits: bitsPerSecond };
        const { count = Number.POSITIVE_INFINITY } = { count: datagramsPerSecond };
        expect(bytes).toBeLessThanOrEqual((bits / 8) * seconds + Math.max(65_535, bits / 32) + 1);
        expect(datagrams).toBeLessThanOrEqual(count * seconds + Math.max(1, count / 4) + 1);
      }),
    );
  });

  it("lets through all that stays below its rate", () => {
    const limit = new RateLimit(8_000_000, 1_000);
    for (let now = 0; now < 10_000; now++) expect(limit.take(now, 1_000)).toBe(true);
  });

  it("lets the largest datagram through at the lowest rate, and nothing more for as long as that takes", () => {
    const limit = new RateLimit(1_000, undefined);
    expect(limit.take(0, 65_507)).toBe(true);
    expect(limit.take(0, 100)).toBe(false);
    expect(limit.take(500, 90)).toBe(true);
    expect(limit.take(500, 90)).toBe(false);
  });

  it("limits nothing without a limit", () => {
    const limit = new RateLimit();
    for (let i = 0; i < 10_000; i++) expect(limit.take(i % 3, 65_507)).toBe(true);
  });
});
