import { describe, expect, it } from "vitest";
import { FoulServer } from "../../hostile/foul-server.ts";
import { Siege } from "../../hostile/siege.ts";

const STEPS = 6_000;

describe("a server under attack by clients that resume, join, repeat and trickle as they like", () => {
  it.each([1, 2, 3, 4, 5, 6])(
    "serves an honest client, keeps its bounds and deadlines, and counts each connection that it closes (seed %i)",
    (seed) => {
      const siege = new Siege(seed);
      for (let i = 0; i < STEPS; i++) siege.step();
      siege.end();
      const { challenged: _, ...seen } = siege.seen;
      for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(10);
    },
  );
});

describe("a client whose server answers, resumes, moves and registers as it likes", () => {
  it.each([1, 2, 3, 4, 5, 6])(
    "keeps its bounds, waits between attempts, and works with the next server (seed %i)",
    (seed) => {
      const foul = new FoulServer(seed);
      for (let i = 0; i < STEPS; i++) foul.step();
      foul.end();
      for (const [what, count] of Object.entries(foul.seen)) expect(count, what).toBeGreaterThan(10);
    },
  );
});
