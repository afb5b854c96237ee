import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ContextTable } from "../../../../src/core/session/context-table.ts";
import { CONTEXT_ACKED, CONTEXT_UNACKED } from "../../../../src/core/session/session-model.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";

const ASSOCIATIONS = [0, 1, 63, 64, 1_000];
const HOSTS = 12;
const addressOf = (host: number) => makeAddress(host % 2 === 0 ? `192.0.2.${host}` : `host${host}.test`, 53)!;

interface Entry {
  readonly slot: number;
  readonly id: number;
  readonly association: number;
  readonly host: number;
  readonly lastUsed: number;
  readonly generation: number;
}

/** Contexts of an association as the table links them. */
function linked(table: ContextTable, association: number): number[] {
  const slots: number[] = [];
  for (let slot = table.first(association); slot >= 0; slot = table.next(slot)) slots.push(slot);
  return slots;
}

describe("ContextTable", () => {
  it("agrees with Maps through any allocations, transfers of an address, and releases", () => {
    const step = fc.record({
      action: fc.constantFrom("allocate", "allocate", "allocate", "release", "take"),
      association: fc.constantFrom(...ASSOCIATIONS),
      host: fc.nat(HOSTS - 1),
      which: fc.nat(10_000),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300, size: "max" }), (steps) => {
        const table = new ContextTable(7);
        const entries: Entry[] = [];
        const indexed = new Map<string, Entry>();
        const generations = new Map<number, number>();
        for (const [now, { action, association, host, which }] of steps.entries()) {
          if (action === "release" && entries.length > 0) {
            const [entry] = entries.splice(which % entries.length, 1);
            const key = `${entry.association}/${entry.host}`;
            if (indexed.get(key) === entry) indexed.delete(key);
            table.release(entry.slot);
            expect(table.address[entry.slot]).toBeUndefined();
            expect(table.generation[entry.slot]).toBeGreaterThan(entry.generation);
            generations.set(entry.slot, table.generation[entry.slot]);
          } else {
            const key = `${association}/${host}`;
            const older = indexed.get(key);
            const isIndexed = older === undefined;
            const id = 2 * now;
            const slot = table.allocate(now, "register", association, id, addressOf(host), isIndexed, 0);
            expect(entries.some((entry) => entry.slot === slot)).toBe(false);
            const generation = table.generation[slot];
            expect(generation).toBeGreaterThan(generations.get(slot) ?? 0);
            const entry: Entry = { slot, id, association, host, lastUsed: now, generation };
            expect(table.state[slot]).toBe(CONTEXT_UNACKED);
            table.handle(slot, "ack");
            entries.unshift(entry);
            if (isIndexed || action === "take") indexed.set(key, entry);
            if (!isIndexed && action === "take") table.takeIndex(slot, older.slot);
          }
          expect(table.size).toBe(entries.length);
        }
        for (const association of ASSOCIATIONS) {
          const own = entries.filter((entry) => entry.association === association);
          expect(linked(table, association)).toEqual(own.map(({ slot }) => slot));
          for (let host = 0; host < HOSTS; host++) {
            const address = addressOf(host);
            const found = indexed.get(`${association}/${host}`)?.slot ?? -1;
            expect(table.find(association, address, 0, address.length)).toBe(found);
          }
        }
        for (const { slot, id, association, host, lastUsed, generation } of entries) {
          expect([table.id[slot], table.association[slot], table.state[slot]]).toEqual([
            id,
            association,
            CONTEXT_ACKED,
          ]);
          expect([table.idle.lastUsed(slot), table.generation[slot]]).toEqual([lastUsed, generation]);
          expect([table.address[slot], table.target[slot]]).toEqual([addressOf(host), addressOf(host)]);
        }
      }),
      { seed: 111, numRuns: 100 },
    );
  });

  it("has no contexts of an unknown association", () => {
    const table = new ContextTable(7);
    expect(table.first(5)).toBe(-1);
    table.allocate(0, "register", 5, 2, addressOf(1), true, 0);
    expect([table.first(4), table.first(5), table.first(6), table.first(1_000_000)]).toEqual([-1, 0, -1, -1]);
  });

  it("finds the address of a name as long as a context of that name exists", () => {
    const table = new ContextTable(7);
    const target = makeAddress("192.0.2.7", 53)!;
    const other = makeAddress("192.0.2.8", 53)!;
    const slots = [1, 3].map((host) => table.allocate(0, "resolve", 5, host, addressOf(host), true, 0));
    expect(table.findResolved(5, target, 0, target.length)).toBe(-1);
    for (const slot of slots) table.resolve(slot, target);
    expect(slots).toContain(table.findResolved(5, target, 0, target.length));
    expect(table.findResolved(5, other, 0, other.length)).toBe(-1);
    expect(table.findResolved(6, target, 0, target.length)).toBe(-1);
    table.release(slots[1]);
    expect(table.findResolved(5, target, 0, target.length)).toBe(slots[0]);
    table.release(slots[0]);
    expect(table.findResolved(5, target, 0, target.length)).toBe(-1);
  });

  it("has no target for a name until it is resolved, so that nothing is sent to a name", () => {
    const table = new ContextTable(7);
    const target = makeAddress("192.0.2.7", 53)!;
    const [resolved, released] = [1, 3].map((host) =>
      table.allocate(0, "resolve", 5, host, addressOf(host), true, 0),
    );
    expect([table.target[resolved], table.target[released]]).toEqual([undefined, undefined]);
    table.resolve(resolved, target);
    table.release(released);
    expect(table.target[resolved]).toBe(target);
    expect(table.findResolved(5, target, 0, target.length)).toBe(resolved);
  });

  it("reuses released slots, so that it grows with what it holds", () => {
    const table = new ContextTable(7);
    for (let i = 0; i < 10_000; i++) {
      table.release(table.allocate(i, "register", i % 100, 2, addressOf(i % HOSTS), true, 0));
    }
    expect(table.id.length).toBe(64);
    expect(table.size).toBe(0);
  });
});
