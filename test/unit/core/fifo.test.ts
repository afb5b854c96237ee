import { expect, it } from "vitest";
import { Fifo } from "../../../src/core/fifo.ts";
import { seededIntegers } from "../random.ts";

it("a Fifo gives entries back in their order, however pushes and shifts alternate", () => {
  const integer = seededIntegers(1);
  const fifo = new Fifo<number>();
  const expected: number[] = [];
  for (let next = 0, rounds = 0; rounds < 2_000; rounds++) {
    for (let count = integer(40); count > 0; count--) {
      fifo.push(next);
      expected.push(next++);
    }
    // Longer at first, so that taken entries are moved away while others wait.
    for (let count = integer(rounds < 1_000 ? 30 : 60); count > 0; count--) {
      expect(fifo.shift()).toBe(expected.shift());
    }
    expect(fifo.length).toBe(expected.length);
  }
  while (expected.length > 0) expect(fifo.shift()).toBe(expected.shift());
  expect([fifo.shift(), fifo.length]).toEqual([undefined, 0]);
});
