import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HostError } from "../../src/core/errors.ts";
import { decodeKeptSessions, encodeKeptSessions } from "../../src/core/server/restart/kept-sessions.ts";
import type { NetworkOptions } from "./network.ts";
import { Network } from "./network.ts";

const KEY = new TextEncoder().encode("a key of at least sixteen bytes");
const OTHER_KEY = new TextEncoder().encode("another key of sixteen bytes, too");
const TARGET = "192.0.2.1:53";

function started(lanes: number, options: NetworkOptions = {}): Network {
  const network = new Network({
    latencyMs: 5,
    ...options,
    client: { lanes, psk: KEY, ...options.client },
    server: { psk: KEY, ...options.server },
  });
  network.names.set("target.test", "192.0.2.7");
  network.start();
  network.advance(300);
  expect(network.client.isUp).toBe(true);
  return network;
}

function open(network: Network): number {
  return network.client.openAssociation(network.now, undefined, true);
}

/** Source ports that targets saw, by the first word of the payload. */
function portsBySender(network: Network): Map<string, Set<string>> {
  const ports = new Map<string, Set<string>>();
  for (const line of network.atTargets) {
    const [, port, sender] = /^(\d+) > .*: (\w+)/.exec(line)!;
    ports.set(sender, (ports.get(sender) ?? new Set()).add(port));
  }
  return ports;
}

function exchange(network: Network, association: number, name: string, target = TARGET): void {
  network.send(association, target, name);
  network.advance(30);
}

describe.each([
  { lanes: 1, what: "a session without receipts" },
  { lanes: 4, what: "a session with receipts" },
])("$what over a restart of its server", ({ lanes }) => {
  it("resumes with the source ports of its associations without registering anything again", () => {
    const network = started(lanes);
    const [a, b] = [open(network), open(network)];
    exchange(network, a, "a");
    exchange(network, b, "b", "target.test:53");
    network.restartServer(100);
    network.advance(2_000);
    expect(network.server.counters.restored).toBe(1);
    expect(network.sessionEvents).toContain("session-resumed");
    const size = network.arrived.length;
    exchange(network, a, "a");
    exchange(network, b, "b", "target.test:53");
    expect(network.arrived.slice(size).map(({ payload }) => payload)).toEqual(["a", "b"]);
    expect([...portsBySender(network).values()].map((ports) => ports.size)).toEqual([1, 1]);
    expect(network.server.counters.drops.unknown_context).toBe(0);
    expect(network.client.counters.drops.unknown_context).toBe(0);
  });

  it("loses only datagrams in flight, and delivers nothing twice, whenever restarts happen", () => {
    const gaps = fc.array(fc.tuple(fc.integer({ min: 1, max: 150 }), fc.integer({ min: 0, max: 400 })), {
      minLength: 1,
      maxLength: 6,
    });
    fc.assert(
      fc.property(gaps, (restarts) => {
        const network = started(lanes, { latencyMs: 7 });
        const associations = [open(network), open(network), open(network)];
        const expected: number[] = [];
        let count = 0;
        const sendFor = (ms: number) => {
          for (let at = 0; at < ms; at += 3) {
            const place = count % 3;
            network.send(associations[place], place === 2 ? "target.test:9" : TARGET, `f${place} ${count++}`);
            network.advance(3);
          }
        };
        sendFor(60);
        for (const [ms, gapMs] of restarts) {
          const first = count;
          sendFor(ms);
          // The earlier ones have had time to arrive.
          for (let i = first; i < count - 10; i++) expected.push(i);
          network.restartServer(gapMs);
          network.advance(3_000);
        }
        const before = count;
        sendFor(30);
        network.advance(300);
        const sent = network.atTargets.map((line) => line.split(": ")[1]);
        for (const i of expected) expect(sent).toContain(`f${i % 3} ${i}`);
        expect(new Set(sent).size).toBe(sent.length);
        const answered = network.arrived.map(({ payload }) => payload);
        expect(new Set(answered).size).toBe(answered.length);
        for (let i = before; i < count; i++) expect(answered).toContain(`f${i % 3} ${i}`);
        for (const ports of portsBySender(network).values()) expect(ports.size).toBe(1);
        expect(network.server.counters.restored).toBe(1);
      }),
      { numRuns: 12 },
    );
  });

  it("is not restored if its client has ended it or its linger time has passed", () => {
    const network = started(lanes);
    const a = open(network);
    exchange(network, a, "a");
    network.restartServer(59_000);
    expect(network.server.sessionCount).toBe(1);
    network.killServer();
    network.startServer();
    network.advance(30_000);
    exchange(network, a, "a");
    network.restartServer(61_000);
    expect(network.server.sessionCount).toBe(0);
    network.advance(30_000);
    expect(network.client.isUp).toBe(true);
    exchange(network, a, "a");
    network.client.close();
    network.advance(100);
    network.restartServer(10);
    expect(network.server.sessionCount).toBe(0);
  });

  it("is not restored by a server with another key or a policy that denies its target", () => {
    const network = started(lanes);
    const [a, b] = [open(network), open(network)];
    exchange(network, a, "a");
    exchange(network, b, "b", "192.0.2.2:53");
    network.restartServer(10, undefined, { permits: (target) => target[4] !== 2 });
    network.advance(2_000);
    const size = network.atTargets.length;
    exchange(network, a, "a");
    exchange(network, b, "b", "192.0.2.2:53");
    network.advance(300);
    exchange(network, b, "b", "192.0.2.2:53");
    expect(network.atTargets.slice(size).map((line) => line.split(": ")[1])).toEqual(["a"]);
    expect(network.server.counters.restored).toBe(1);
    network.restartServer(10, undefined, { psk: OTHER_KEY });
    expect(network.server.counters.restored).toBe(0);
    expect(network.server.associationCount).toBe(0);
  });

  it("loses only what exceeds a lowered limit", () => {
    const network = started(lanes);
    const associations = [open(network), open(network), open(network)];
    for (const each of associations) {
      exchange(network, each, `f${each}`);
      network.advance(2_000);
    }
    network.restartServer(10, undefined, { maxAssociations: 2, maxContextsPerSession: 1 });
    expect(network.server.associationCount).toBe(2);
    expect(network.server.contexts.size).toBeLessThanOrEqual(1);
    network.advance(2_000);
    const size = network.arrived.length;
    exchange(network, associations[0], "again");
    network.advance(300);
    exchange(network, associations[0], "again");
    expect(network.arrived.length).toBeGreaterThan(size);
  });

  it("registers a name again whose lookup was pending", () => {
    const network = started(lanes);
    const a = open(network);
    exchange(network, a, "a");
    network.answersNames = false;
    exchange(network, a, "a", "target.test:53");
    network.restartServer(10);
    network.answersNames = true;
    network.advance(2_000);
    const size = network.arrived.length;
    exchange(network, a, "a", "target.test:53");
    expect(network.arrived.slice(size).map(({ payload }) => payload)).toContain("a");
    expect(portsBySender(network).get("a")!.size).toBe(1);
  });
});

describe("the state of sessions as bytes", () => {
  const network = started(4);
  const associations = Array.from({ length: 5 }, () => open(network));
  for (const [slot, each] of associations.entries()) {
    exchange(network, each, "x");
    exchange(network, each, "x", "target.test:53");
    network.receive(slot, "192.0.2.1:999", "from another port");
  }
  network.advance(100);
  const sessions = network.server.saveSessions(network.now, () => [40_000, 0]);
  const bytes = encodeKeptSessions({ clock: 5, sessions });

  it("does not change when read and written again", () => {
    const decoded = decodeKeptSessions(bytes);
    expect(decoded.sessions[0].contexts.some(({ id }) => id % 2 === 1)).toBe(true);
    expect(decoded).toEqual({ clock: 5, sessions });
    expect(encodeKeptSessions(decoded)).toEqual(bytes);
  });

  it("is refused with a typed error if it is truncated, too long, of another version, or something else", () => {
    const refuse = (wrong: Uint8Array, text = "the state of sessions cannot be read") => {
      expect(() => decodeKeptSessions(wrong)).toThrow(HostError);
      expect(() => decodeKeptSessions(wrong)).toThrow(text);
    };
    for (let end = 0; end < bytes.length; end++) refuse(bytes.subarray(0, end));
    refuse(Uint8Array.of(...bytes, 0), "bytes follow its end");
    const later = bytes.slice();
    later[8] = 2;
    refuse(later, "it has version 2, this program reads 1");
    refuse(new Uint8Array(64), "it does not begin with the expected bytes");
  });

  it("is refused or restored without an exception, whichever byte is changed", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 255 })), {
          minLength: 1,
          maxLength: 4,
        }),
        (changes) => {
          const changed = bytes.slice();
          for (const [at, byte] of changes) changed[at] = byte;
          const server = new Network({ server: { psk: KEY } }).server;
          let state: ReturnType<typeof decodeKeptSessions>;
          try {
            state = decodeKeptSessions(changed);
          } catch (error) {
            expect(error).toBeInstanceOf(HostError);
            expect((error as HostError).code).toBe("ERR_KEPT_SESSIONS");
            return;
          }
          server.restoreSessions(1_000, state.sessions, 10);
          server.handleTimeout(200_000);
          server.handleTimeout(90_000_000);
          expect(server.associationCount).toBe(0);
          expect(server.contexts.size).toBe(0);
        },
      ),
      { numRuns: 400 },
    );
  });
});
