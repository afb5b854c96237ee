import { describe, expect, it } from "vitest";
import { HalfOpen } from "../../../src/host/half-open.ts";

describe("connections without a request", () => {
  it("give way, the oldest first, after a second or once they are too many", () => {
    const halfOpen = new HalfOpen<string>(2);
    expect(halfOpen.givingWay(0)).toBeUndefined();
    halfOpen.add("a", 0);
    halfOpen.add("b", 500);
    expect(halfOpen.givingWay(999)).toBeUndefined();
    expect(halfOpen.givingWay(1_000)).toBe("a");
    halfOpen.delete("a");
    expect(halfOpen.givingWay(1_499)).toBeUndefined();
    expect(halfOpen.givingWay(1_500)).toBe("b");
    halfOpen.add("c", 600);
    expect(halfOpen.givingWay(700)).toBeUndefined();
    halfOpen.add("d", 700);
    expect(halfOpen.givingWay(700)).toBe("b");
  });
});
