import { describe, expect, it } from "vitest";
import { UsedIds } from "../../../../src/core/server/sessions/used-ids.ts";

describe("UsedIds", () => {
  it("knows exactly the added ids, in any order", () => {
    const ids = new UsedIds();
    const added = new Set<number>();
    for (let i = 0; i < 2_000; i++) {
      const id = 2 * ((i * 7_919) % 997);
      expect(ids.add(id)).toBe(!added.has(id));
      added.add(id);
      if (i % 50 === 0)
        for (let other = 0; other < 2_000; other += 2) expect(ids.has(other)).toBe(added.has(other));
    }
  });

  it("forgets the lowest ids above 1,024 gaps and keeps the others", () => {
    const ids = new UsedIds();
    for (let i = 0; i < 2_000; i++) ids.add(4 * i);
    expect(ids.has(0)).toBe(false);
    expect(ids.has(4 * 975)).toBe(false);
    for (let i = 976; i < 2_000; i++) expect(ids.has(4 * i)).toBe(true);
    expect(ids.has(4 * 1_500 + 2)).toBe(false);
  });
});
