import { expect, it } from "vitest";
import { ServerSessions } from "../../../../src/core/server/sessions/server-sessions.ts";

const KEY = new Uint8Array(32);

/** The names of sessions that begin one after the other. @param given  numbers that another process gave some of them */
function namesOf(sessions: ServerSessions, given: readonly (number | undefined)[]): string[] {
  return given.map(
    (number, i) => sessions.begin("native", Uint8Array.of(i), KEY, undefined, undefined, number).name,
  );
}

it("3 workers give their sessions different names", () => {
  const names = [0, 1, 2].map((index) =>
    namesOf(new ServerSessions({ index, count: 3 }), [undefined, undefined]),
  );
  expect(names).toEqual([
    ["s1", "s4"],
    ["s2", "s5"],
    ["s3", "s6"],
  ]);
});

it("a session from before a restart keeps its name, and no later one gets it", () => {
  expect(namesOf(new ServerSessions({ index: 1, count: 3 }), [5, undefined, 7, undefined])).toEqual([
    ...["s5", "s8", "s7", "s11"],
  ]);
  expect(namesOf(new ServerSessions(undefined), [undefined, 4, undefined])).toEqual(["s1", "s4", "s5"]);
});

it.each([1, 2, 4])(
  "no session gets a name that one of 3 workers gave before a restart with %i workers",
  (count) => {
    const before = [0, 1, 2].flatMap((index) =>
      namesOf(new ServerSessions({ index, count: 3 }), [undefined, undefined]),
    );
    const numbers = before.map((name) => Number(name.slice(1)));
    const numbersUsed = Math.max(...numbers);
    const names = Array.from({ length: count }, (_, index) => {
      const kept = numbers.filter((_, i) => i % count === index);
      return namesOf(new ServerSessions({ index, count, numbersUsed }), [...kept, undefined, undefined]);
    }).flat();
    expect(new Set(names).size).toBe(before.length + 2 * count);
  },
);

it("the highest number that a session from before a restart can have costs no more than any other", () => {
  const given = Array.from({ length: 8 }, () => new ServerSessions({ index: 1, count: 2 }));
  for (const sessions of given) {
    expect(namesOf(sessions, [0xffff_fffe, undefined])).toEqual(["s4294967294", "s4294967296"]);
  }
});
