import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AddressIndex } from "../../../src/core/address-index.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";

describe("AddressIndex", () => {
  it("agrees with a Map of owner and address through any additions and removals", () => {
    const step = fc.tuple(fc.boolean(), fc.nat(3), fc.nat(9), fc.nat(200));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const index = new AddressIndex(42);
        const model = new Map<string, number>();
        const free: number[] = [];
        let used = 0;
        for (const [isAddition, owner, host, port] of steps) {
          const address = makeAddress(host % 2 === 0 ? `192.0.2.${host}` : `host${host}.test`, port)!;
          const key = `${owner}/${host}/${port}`;
          const known = model.get(key) ?? -1;
          expect(index.find(owner, address, 0, address.length)).toBe(known);
          if (isAddition && known < 0) {
            const slot = free.pop() ?? used++;
            index.add(slot, owner, address);
            model.set(key, slot);
          } else if (!isAddition && known >= 0) {
            index.remove(known);
            model.delete(key);
            free.push(known);
          }
        }
      }),
      { seed: 4, numRuns: 500 },
    );
  });
});
