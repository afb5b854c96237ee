import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { ASSOCIATION, CONTEXT, LANE, SESSION } from "../../../../src/core/session/session-model.ts";
import { withDiagrams } from "../../documents/state-diagram.ts";

const FILE = resolve(import.meta.dirname, "../../../../PROTOCOL.md");
const MACHINES = {
  lane: LANE.transitions,
  session: SESSION.transitions,
  association: ASSOCIATION.transitions,
  context: CONTEXT.transitions,
};

describe("the diagrams of PROTOCOL.md", () => {
  it("show the tables that the code uses; UPDATE_DIAGRAMS=1 redraws them", () => {
    const text = readFileSync(FILE, "utf8");
    const drawn = withDiagrams(text, MACHINES);
    if (process.env.UPDATE_DIAGRAMS === "1") writeFileSync(FILE, drawn);
    else expect(text).toBe(drawn);
  });

  it.each([LANE, SESSION, ASSOCIATION, CONTEXT])(
    "every state can be reached, and left, in machine %#",
    (machine) => {
      const names = Object.keys(machine.transitions);
      const rows = Object.values(machine.transitions) as Record<string, string>[];
      const reached = new Set([names[0], ...rows.flatMap((row) => Object.values(row))]);
      expect([...reached].toSorted()).toEqual(names.toSorted());
      for (const row of rows) expect(Object.keys(row).length).toBeGreaterThan(0);
    },
  );
});
