import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Permissions } from "../../../../src/core/server/permissions.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";

const HOSTS = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "::"];

describe("Permissions", () => {
  it("agrees with a Map of counts by association and IP through any grants and revocations", () => {
    const step = fc.record({
      isGrant: fc.boolean(),
      association: fc.nat(3),
      host: fc.nat(HOSTS.length - 1),
      port: fc.nat(65_535),
      which: fc.nat(1_000),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200, size: "max" }), (steps) => {
        const permissions = new Permissions(42);
        const counts = new Map<string, number>();
        const granted: { slot: number; key: string }[] = [];
        for (const { isGrant, association, host, port, which } of steps) {
          const key = `${association}/${host}`;
          if (isGrant) {
            const slot = permissions.grant(association, makeAddress(HOSTS[host], port)!);
            granted.push({ slot, key });
            counts.set(key, (counts.get(key) ?? 0) + 1);
          } else if (granted.length > 0) {
            const [revoked] = granted.splice(which % granted.length, 1);
            permissions.revoke(revoked.slot);
            counts.set(revoked.key, counts.get(revoked.key)! - 1);
          }
          for (let other = 0; other <= 3; other++) {
            const known = HOSTS.map((text) => permissions.has(other, makeAddress(text, port ^ 1)!));
            expect(known).toEqual(HOSTS.map((_, index) => (counts.get(`${other}/${index}`) ?? 0) > 0));
          }
        }
      }),
      { seed: 101, numRuns: 60 },
    );
  });

  it("reuses the slots of revoked permissions", () => {
    const permissions = new Permissions(1);
    const slots = new Set<number>();
    for (let i = 0; i < 1_000; i++) {
      const slot = permissions.grant(i, makeAddress(`192.0.2.${i % 256}`, 1)!);
      slots.add(slot);
      permissions.revoke(slot);
    }
    expect(slots.size).toBe(1);
  });
});
