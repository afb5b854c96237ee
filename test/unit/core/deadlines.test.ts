import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Deadlines } from "../../../src/core/deadlines.ts";

describe("deadlines", () => {
  it("are none if nothing is set", () => {
    const deadlines = new Deadlines();
    expect(deadlines.next()).toBe(Number.POSITIVE_INFINITY);
    expect(deadlines.of(1000)).toBe(Number.POSITIVE_INFINITY);
    expect(deadlines.takeDue(1e9)).toBe(-1);
  });

  it("agree with a fully searched map, whatever is set and cleared", () => {
    const command = fc.record({
      kind: fc.constantFrom("set", "set", "earlier", "clear", "take"),
      key: fc.nat(60),
      time: fc.nat(1000),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 300 }), (commands) => {
        const deadlines = new Deadlines();
        const naive = new Map<number, number>();
        for (const { kind, key, time } of commands) {
          if (kind === "set") {
            deadlines.set(key, time);
            naive.set(key, time);
          } else if (kind === "earlier") {
            deadlines.setEarlier(key, time);
            naive.set(key, Math.min(time, naive.get(key) ?? time));
          } else if (kind === "clear") {
            deadlines.clear(key);
            naive.delete(key);
          } else {
            const taken = deadlines.takeDue(time);
            if (taken === -1) expect(Math.min(...naive.values())).toBeGreaterThan(time);
            else {
              expect(naive.get(taken)).toBe(Math.min(...naive.values()));
              naive.delete(taken);
            }
          }
          expect(deadlines.next()).toBe(Math.min(...naive.values()));
          for (const [each, at] of naive) expect(deadlines.of(each)).toBe(at);
        }
      }),
      { seed: 5, numRuns: 300 },
    );
  });
});
