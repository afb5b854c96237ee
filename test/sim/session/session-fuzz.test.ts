import { describe, expect, it } from "vitest";
import { fuzz } from "../../fuzz/main.ts";

const STEPS = 100_000;

describe("both ends of a session under random events", () => {
  it.each([1, 2])("neither hang nor throw, and agree at the end (100,000 steps, seed %i)", (seed) => {
    const lines: string[] = [];
    const isSound = fuzz({ seeds: [seed], steps: STEPS }, (line) => lines.push(line));
    expect(isSound, lines.join("\n")).toBe(true);
  });
});
