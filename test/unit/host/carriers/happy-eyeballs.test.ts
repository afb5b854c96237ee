import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Cancellation } from "../../../../src/host/cancellation.ts";
import {
  connectFirst,
  interleaveFamilies,
  resolveHost,
} from "../../../../src/host/carriers/happy-eyeballs.ts";
import { silentLogger } from "../../../../src/host/log.ts";
import { chooseIo } from "../../../../src/node/io/io.ts";
import { nodeLoop, nodeSystem } from "../../../../src/node/system.ts";

const IPV4 = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
const IPV6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
const never = () => new Cancellation();

function cancelled(): Cancellation {
  const cancellation = new Cancellation();
  cancellation.cancel();
  return cancellation;
}

describe("interleaveFamilies", () => {
  it.each([
    [[], []],
    [["192.0.2.1"], ["192.0.2.1"]],
    [
      [...IPV6.slice(0, 2), ...IPV4],
      [IPV6[0], IPV4[0], IPV6[1], IPV4[1], IPV4[2]],
    ],
    [
      [...IPV4, IPV6[0]],
      [IPV4[0], IPV6[0], IPV4[1], IPV4[2]],
    ],
    [
      ["192.0.2.1", "192.0.2.1", "2001:db8::1"],
      ["192.0.2.1", "2001:db8::1"],
    ],
  ])("of %j gives %j", (addresses, order) => {
    expect(interleaveFamilies(addresses)).toEqual(order);
  });

  it("keeps every address and the order within each family, and alternates while it can", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.oneof(fc.ipV4(), fc.constantFrom(...IPV6)), { maxLength: 12 }),
        (from) => {
          const order = interleaveFamilies(from);
          const isIpv6 = (address: string) => address.includes(":");
          for (const family of [true, false]) {
            const of = (list: readonly string[]) => list.filter((address) => isIpv6(address) === family);
            expect(of(order)).toEqual(of(from));
          }
          const fewer = Math.min(order.filter(isIpv6).length, order.filter((each) => !isIpv6(each)).length);
          for (let i = 1; i < 2 * fewer; i++) expect(isIpv6(order[i])).not.toBe(isIpv6(order[i - 1]));
          expect(order[0]).toBe(from[0]);
        },
      ),
      { seed: 41, numRuns: 500 },
    );
  });
});

describe("resolveHost", () => {
  const system = nodeSystem(chooseIo("plain", "balanced", silentLogger));

  it("returns an address unchanged, and resolves a name through the system", async () => {
    expect(await resolveHost(system, "192.0.2.1", never())).toEqual(["192.0.2.1"]);
    expect(await resolveHost(system, "2001:db8::1", never())).toEqual(["2001:db8::1"]);
    expect(await resolveHost(system, "localhost", never())).toContain("127.0.0.1");
  });

  it("stops waiting for the resolver when it is cancelled", async () => {
    await expect(resolveHost(system, "localhost", cancelled())).rejects.toThrow("the name was not resolved");
  });
});

describe("connectFirst", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Attempts whose outcome the test decides. */
  class Attempts {
    /** When each address was tried, in milliseconds since the start. */
    readonly began: Record<string, number> = {};
    readonly givenUp: string[] = [];
    readonly onDone = new Map<string, (result: { address: string } | string) => void>();
    readonly #startedAt = performance.now();

    readonly begin = (address: string, onDone: (result: { address: string } | string) => void) => {
      this.began[address] = performance.now() - this.#startedAt;
      this.onDone.set(address, onDone);
      return () => {
        this.givenUp.push(address);
      };
    };

    succeed(address: string): void {
      this.onDone.get(address)!({ address });
    }

    fail(address: string, reason: string): void {
      this.onDone.get(address)!(reason);
    }
  }

  it("starts an attempt every 250 ms while none answers, and cancels the others once one does", async () => {
    const attempts = new Attempts();
    const first = connectFirst(["a", "b", "c", "d"], attempts.begin, never(), nodeLoop);
    vi.advanceTimersByTime(600);
    expect(attempts.began).toEqual({ a: 0, b: 250, c: 500 });
    attempts.succeed("a");
    expect(attempts.givenUp).toEqual(["b", "c"]);
    expect(await first).toEqual({ address: "a" });
    vi.advanceTimersByTime(10_000);
    expect(Object.keys(attempts.began)).toEqual(["a", "b", "c"]);
  });

  it("starts the next attempt as soon as one fails, and the one after that 250 ms later", async () => {
    const attempts = new Attempts();
    const first = connectFirst(["a", "b", "c", "d"], attempts.begin, never(), nodeLoop);
    vi.advanceTimersByTime(100);
    attempts.fail("a", "refused");
    vi.advanceTimersByTime(250);
    expect(attempts.began).toEqual({ a: 0, b: 100, c: 350 });
    attempts.succeed("c");
    expect(attempts.givenUp).toEqual(["b"]);
    expect(await first).toEqual({ address: "c" });
  });

  it("names each address and its reason when all fail, including those that fail immediately", async () => {
    const attempts = new Attempts();
    const begin: typeof attempts.begin = (address, onDone) => {
      if (address !== "c") return attempts.begin(address, onDone);
      throw new Error("no such device");
    };
    const first = connectFirst(["a", "b", "c"], begin, never(), nodeLoop);
    vi.advanceTimersByTime(250);
    attempts.fail("b", "refused");
    attempts.fail("a", "reset");
    await expect(first).rejects.toThrow(/^a: reset; b: refused; c: no such device$/);
    expect(attempts.givenUp).toEqual([]);
  });

  it("does not repeat the only address in the error", async () => {
    const attempts = new Attempts();
    const first = connectFirst(["a"], attempts.begin, never(), nodeLoop);
    attempts.fail("a", "refused");
    await expect(first).rejects.toThrow(/^refused$/);
  });

  it("cancels all attempts when it is cancelled, and starts no more", async () => {
    const attempts = new Attempts();
    const cancellation = new Cancellation();
    const first = connectFirst(["a", "b", "c", "d"], attempts.begin, cancellation, nodeLoop);
    attempts.fail("a", "refused");
    vi.advanceTimersByTime(250);
    cancellation.cancel();
    expect(attempts.givenUp).toEqual(["b", "c"]);
    await expect(first).rejects.toThrow(/^a: refused; b: no answer; c: no answer$/);
    vi.advanceTimersByTime(10_000);
    expect(Object.keys(attempts.began)).toEqual(["a", "b", "c"]);
  });

  it("starts nothing if it is already cancelled", async () => {
    const attempts = new Attempts();
    await expect(connectFirst(["a"], attempts.begin, cancelled(), nodeLoop)).rejects.toThrow();
    expect(attempts.began).toEqual({});
  });

  it("tries each address once, at most 250 ms after the previous one, and cancels all but the winner", async () => {
    const events = fc.array(fc.tuple(fc.nat(300), fc.nat(7), fc.nat(9)), { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 8 }), events, async (count, script) => {
        const addresses = Array.from({ length: count }, (_, i) => `${i}`);
        const attempts = new Attempts();
        const cancellation = new Cancellation();
        const outcome = connectFirst(addresses, attempts.begin, cancellation, nodeLoop).then(
          ({ address }) => address,
          () => "none",
        );
        const over = new Set<string>();
        let winner: string | undefined;
        for (const [delay, at, kind] of script) {
          vi.advanceTimersByTime(delay);
          const address = `${at}`;
          if (winner !== undefined || !attempts.onDone.has(address) || over.has(address)) continue;
          over.add(address);
          if (kind > 7) {
            winner = address;
            attempts.succeed(address);
          } else attempts.fail(address, "refused");
        }
        cancellation.cancel();
        const began = Object.keys(attempts.began);
        expect(await outcome).toBe(winner ?? "none");
        expect(began).toEqual(addresses.slice(0, began.length));
        for (let i = 1; i < began.length; i++) {
          expect(attempts.began[began[i]] - attempts.began[began[i - 1]]).toBeLessThanOrEqual(250);
        }
        expect(attempts.givenUp.sort()).toEqual(began.filter((address) => !over.has(address)).sort());
      }),
      { seed: 42, numRuns: 500 },
    );
  });
});
