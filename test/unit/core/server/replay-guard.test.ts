import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReplayGuard } from "../../../../src/core/server/admission/replay-guard.ts";

const VALID_MS = 60_000;
const nonce = (number: number) => Uint8Array.from({ length: 16 }, (_, i) => (number >> (8 * (i % 4))) & 0xff);

describe("ReplayGuard", () => {
  it("reports a nonce as new once, and as replayed after that", () => {
    const guard = new ReplayGuard(VALID_MS, 10);
    expect(guard.admit(0, nonce(1))).toBe("new");
    expect(guard.admit(0, nonce(1))).toBe("replayed");
    expect(guard.admit(1, nonce(1))).toBe("replayed");
    expect(guard.admit(1, nonce(2))).toBe("new");
  });

  it("accepts no new nonces when it is full, still knows the old ones, and has room again later", () => {
    const guard = new ReplayGuard(VALID_MS, 3);
    const admit = (now: number, numbers: number[]) =>
      numbers.map((number) => guard.admit(now, nonce(number)));
    expect(admit(0, [1, 2, 3, 4, 5])).toEqual(["new", "new", "new", "full", "full"]);
    expect(admit(1, [1, 2, 3])).toEqual(["replayed", "replayed", "replayed"]);
    expect(admit(VALID_MS, [4, 5, 6, 7])).toEqual(["new", "new", "new", "full"]);
    expect(admit(VALID_MS, [1])).toEqual(["replayed"]);
  });

  it("forgets a nonce after two generations, even if nothing came in between", () => {
    for (const steps of [[2 * VALID_MS], [VALID_MS, 2 * VALID_MS]]) {
      const guard = new ReplayGuard(VALID_MS, 10);
      expect(guard.admit(0, nonce(1))).toBe("new");
      for (const step of steps) guard.admit(step, nonce(2 + step));
      expect(guard.admit(2 * VALID_MS, nonce(1))).toBe("new");
    }
  });

  it("reports no nonce as new twice while its request is valid, whenever it arrives", () => {
    const steps = fc.array(
      fc.record({
        wait: fc.oneof(fc.nat(1_000), fc.nat(VALID_MS / 2), fc.nat(3 * VALID_MS)),
        /** An earlier nonce to repeat, counted back from the last one; undefined for a new one. */
        again: fc.option(fc.nat(5), { nil: undefined, freq: 2 }),
      }),
      { maxLength: 60, size: "max" },
    );
    let replays = 0;
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 20 }), (all, capacity) => {
        const guard = new ReplayGuard(VALID_MS, capacity);
        const seen: (number | undefined)[] = [];
        let now = 0;
        for (const { wait, again } of all) {
          now += wait;
          const old = again === undefined ? -1 : seen.length - 1 - again;
          const number = old < 0 ? seen.push(undefined) - 1 : old;
          const novelty = guard.admit(now, nonce(number));
          const wasNewAt = seen[number];
          if (novelty === "replayed") replays++;
          expect(novelty === "new" && wasNewAt !== undefined && now - wasNewAt < VALID_MS).toBe(false);
          expect(novelty === "replayed" && wasNewAt === undefined).toBe(false);
          if (novelty === "new") seen[number] = now;
        }
      }),
      { seed: 91, numRuns: 1_000 },
    );
    expect(replays).toBeGreaterThan(1_000);
  });
});
