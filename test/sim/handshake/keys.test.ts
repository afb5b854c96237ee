import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TunnelClientOptions } from "../../../src/core/client/client-parts.ts";
import type { KeyEntry } from "../../../src/core/keys/named-key.ts";
import type { TunnelServerOptions } from "../../../src/core/server/server-options.ts";
import { Network } from "../network.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const [ALICE, BOB] = [bytes("the key of alice"), bytes("the key of bob..")];
/** 15 January 2027, at half past the hour. */
const UNIX_MS = 1_800_001_800_000;
const HOUR_MS = 3_600_000;

function entry(name: string, key: Uint8Array, limits: Partial<KeyEntry> = {}): KeyEntry {
  return {
    ...{ name, key, expiresAt: undefined, maxAssociations: undefined },
    ...{ bitsPerSecond: undefined, datagramsPerSecond: undefined },
    ...limits,
  };
}

const KEYS = [entry("alice", ALICE), entry("bob", BOB)];

/** @param clockErrorMs  how far the client's clock is ahead of the server's */
function network(
  client: Partial<TunnelClientOptions>,
  keys: readonly KeyEntry[] = KEYS,
  {
    clockErrorMs = 0,
    ...server
  }: { psk?: Uint8Array; clockErrorMs?: number; worker?: TunnelServerOptions["worker"] } = {},
): Network {
  const made = new Network({ client, server: { ...server, keys } });
  made.server.handleWallClock(made.now, UNIX_MS);
  made.client.handleWallClock(made.now, UNIX_MS + clockErrorMs);
  return made;
}

function errorsOf(net: Network): string[] {
  return net.clientEvents.flatMap((event) =>
    event.kind === "disconnect" && event.error !== undefined ? event.error.message : [],
  );
}

function upgrades(net: Network): string[] {
  return net.records.flatMap(({ fromClient }) =>
    fromClient
      .map((sent) => new TextDecoder("latin1").decode(sent))
      .filter((text) => text.startsWith("GET ")),
  );
}

const holders = (net: Network) => net.server.sessionReports(10).map(({ key }) => key);
const alice = { psk: ALICE, keyName: "alice" };

describe("a server with a key for each client", () => {
  it("finds the key by its id and knows the session's owner", () => {
    const net = network(alice);
    net.start();
    expect(net.client.isUp).toBe(true);
    expect(holders(net)).toEqual(["alice"]);
    expect(net.records).toHaveLength(1);
  });

  it("never sees a name, and sees another id every hour", () => {
    const net = network(alice);
    net.start();
    const now = upgrades(net);
    expect(now.join()).not.toContain("alice");
    const idOf = (request: string) => /k=:([^:]*):/.exec(request)![1];
    expect(new Set(now.map(idOf)).size).toBe(1);
    net.advance(HOUR_MS);
    net.cutConnections();
    net.advance(1_000);
    expect(net.client.isUp).toBe(true);
    expect(idOf(upgrades(net).at(-1)!)).not.toBe(idOf(now[0]));
  });

  it("serves a client that does not support names", () => {
    const net = network({ psk: BOB });
    net.start();
    expect(holders(net)).toEqual(["bob"]);
    expect(upgrades(net).join()).not.toContain(" k=:");
  });

  it("serves the common key beside them, also to a client with a name", () => {
    const everybody = bytes("everybody's key.");
    for (const keyName of [undefined, "alice"]) {
      const net = network({ psk: everybody, keyName }, KEYS, { psk: everybody });
      net.start();
      expect(net.client.isUp).toBe(true);
      expect(holders(net)).toEqual([undefined]);
    }
  });

  it("serves a client with a name at a server with one key, or an older server", () => {
    const net = new Network({ client: alice, server: { psk: ALICE } });
    net.start();
    expect(net.client.isUp).toBe(true);
  });

  it.each([
    ["another key", { psk: bytes("nobody's key is this"), keyName: "alice" }],
    ["another key and no name", { psk: bytes("nobody's key is this") }],
    ["no key", {}],
  ])("answers a client with %s like a web server", (_, client) => {
    const net = network(client);
    net.start();
    net.advance(3_000);
    expect(net.client.isUp).toBe(false);
    expect(errorsOf(net).length).toBeGreaterThan(0);
    for (const error of errorsOf(net)) expect(error).toContain("status 404");
    const answers = net.records.flatMap(({ fromServer }) =>
      fromServer.map((sent) => new TextDecoder().decode(sent)),
    );
    expect(answers.join()).not.toContain("Underpass");
  });

  it.each(["bob", "carol"])("tells the holder of a key that it does not belong to %s", (keyName) => {
    const net = network({ psk: ALICE, keyName });
    net.start();
    net.advance(3_000);
    expect(net.client.isUp).toBe(false);
    expect(new Set(errorsOf(net))).toEqual(
      new Set(["the server does not accept this key: it knows this key by another name"]),
    );
    expect(net.server.counters.refused.key_name).toBe(errorsOf(net).length);
  });

  it("tells the holder of a key that it has expired, but not someone who replays a request", () => {
    const net = network(alice, [entry("alice", ALICE, { expiresAt: UNIX_MS - 1 })]);
    net.start();
    expect(errorsOf(net)).toEqual(["the server does not accept this key: it has expired there"]);
    const { server } = net;
    for (const request of upgrades(net)) {
      const connection = server.handleAccept(net.now);
      const sent = bytes(request);
      server.handleStream(net.now, connection, sent, 0, sent.length);
      const answer = new TextDecoder().decode(server.pollTransmit(net.now, connection));
      expect(answer).not.toContain("expired");
      expect(answer).not.toContain("e=");
    }
  });

  it("rejects a forged refusal of a key", () => {
    const net = network(alice, [entry("alice", ALICE, { expiresAt: UNIX_MS - 1 })]);
    net.tamper = (sent, isFromServer) => {
      const text = new TextDecoder("latin1").decode(sent);
      return isFromServer && text.includes("e=expired")
        ? Uint8Array.from(text.replace("e=expired", "e=name"), (character) => character.charCodeAt(0))
        : sent;
    };
    net.start();
    expect(errorsOf(net)).toEqual([expect.stringContaining("status 403")]);
  });

  it.each([-2, -1, 1, 2, 1_000, -400_000])("serves a client whose clock is %i hours off", (hours) => {
    const net = network(alice, KEYS, { clockErrorMs: hours * HOUR_MS });
    net.start();
    expect(holders(net)).toEqual(["alice"]);
    expect(errorsOf(net)).toEqual([]);
    expect(net.records).toHaveLength(1);
    // From then on the client knows the error.
    net.advance(10_000);
    net.cutConnections();
    net.advance(1_000);
    expect(net.client.isUp).toBe(true);
    expect(errorsOf(net)).toEqual([]);
  });

  it("serves a client whose clock is corrected later, after one refusal", () => {
    const net = network(alice, KEYS, { clockErrorMs: 5 * HOUR_MS });
    net.start();
    net.client.handleWallClock(net.now, UNIX_MS);
    net.cutConnections();
    net.advance(3_000);
    expect(net.client.isUp).toBe(true);
    expect(errorsOf(net)).toHaveLength(1);
  });

  it("limits requests whose key it has to search for, but not those with an id", () => {
    const many = Array.from({ length: 1_000 }, (_, i) => entry(`k${i}`, bytes(`key number ${i} of many`)));
    const net = network(alice, [...many, entry("alice", ALICE)]);
    const stranger = new Network({ client: { psk: bytes("nobody's key is this") } });
    stranger.start();
    const [request] = upgrades(stranger);
    for (let i = 0; i < 50; i++) {
      const connection = net.server.handleAccept(net.now);
      const sent = bytes(request);
      net.server.handleStream(net.now, connection, sent, 0, sent.length);
    }
    const { refused } = net.server.counters;
    expect(refused.bad_credentials).toBe(9);
    expect(refused.key_search_limit).toBe(41);
    net.start();
    expect(net.client.isUp).toBe(true);
  });

  it("does not let the holder of one key resume the session of another", () => {
    const net = network(alice);
    net.start();
    const association = net.client.openAssociation(net.now, undefined, true);
    net.send(association, "192.0.2.1:53", "a");
    net.settle();
    // The same name with another key: the old session belongs to someone else.
    net.server.replaceKeys(net.now, [entry("alice", BOB)]);
    net.settle();
    expect(net.server.sessionCount).toBe(0);
  });
});

describe("replaced keys", () => {
  function withSession(keys = KEYS): { net: Network; association: number } {
    const net = network(alice, keys);
    net.start();
    const association = net.client.openAssociation(net.now, undefined, true);
    net.send(association, "192.0.2.1:53", "first");
    net.settle();
    expect(net.arrived).toHaveLength(1);
    return { net, association };
  }

  it("do not affect a session whose key stays, even at another position and with other limits", () => {
    const { net, association } = withSession();
    net.server.replaceKeys(net.now, [entry("carol", BOB), entry("alice", ALICE, { maxAssociations: 7 })]);
    net.send(association, "192.0.2.1:53", "second");
    net.settle();
    expect(net.arrived).toHaveLength(2);
    expect(new Set(net.atTargets.map((text) => text.split(" ")[0])).size).toBe(1);
    expect(net.records).toHaveLength(1);
    net.cutConnections();
    net.advance(1_000);
    expect(net.clientEvents.some(({ kind }) => kind === "session-resumed")).toBe(true);
  });

  it.each([
    ["removed", [entry("bob", BOB)]],
    ["changed", [entry("alice", bytes("a new key for alice"))]],
    ["renamed", [entry("alison", ALICE)]],
  ])("end the session of a key that was %s at once and for good", (_, keys) => {
    const { net, association } = withSession();
    net.server.replaceKeys(net.now, keys);
    net.settle();
    expect(net.server.sessionCount).toBe(0);
    expect(net.client.isUp).toBe(false);
    expect(errorsOf(net)).toEqual([
      "the peer shut down the tunnel: the server no longer accepts this key, which was removed or replaced there, or has expired",
    ]);
    expect(net.server.counters.refused.key_session_ended).toBe(1);
    net.advance(30_000);
    net.send(association, "192.0.2.1:53", "second");
    net.settle();
    expect(net.client.isUp).toBe(false);
    expect(net.arrived).toHaveLength(1);
  });

  it("also end a session without lanes, so that it cannot be resumed", () => {
    const { net } = withSession();
    net.ways.set(0, "refuse");
    net.cutConnections();
    expect(net.server.lingeringCount).toBe(1);
    net.server.replaceKeys(net.now, []);
    expect(net.server.sessionCount).toBe(0);
    net.ways.clear();
    net.advance(20_000);
    expect(net.client.isUp).toBe(false);
  });

  it("do not affect sessions with the common key", () => {
    const everybody = bytes("everybody's key.");
    const net = network({ psk: everybody }, KEYS, { psk: everybody });
    net.start();
    net.server.replaceKeys(net.now, []);
    net.settle();
    expect(net.client.isUp).toBe(true);
  });

  it("let a client return once its key is back", () => {
    const { net } = withSession();
    net.server.replaceKeys(net.now, []);
    net.advance(10_000);
    net.server.replaceKeys(net.now, KEYS);
    net.advance(6_000);
    expect(holders(net)).toEqual(["alice"]);
  });
});

describe("a key that gets limits while it has sessions in several workers", () => {
  const handOvers = (net: Network) => net.serverEvents.filter(({ kind }) => kind === "hand-over");

  function inFirstOfTwo(
    keyName: string,
    limits: Partial<KeyEntry>,
    client: Partial<TunnelClientOptions> = {},
  ): Network {
    const keys = [entry(keyName, ALICE, limits)];
    const net = network({ ...client, psk: ALICE, keyName }, keys, { worker: { index: 0, count: 2 } });
    net.start();
    return net;
  }

  /** A name whose limits `worker` counts for. */
  function nameFor(worker: number): string {
    const owner = (name: string) => handOvers(inFirstOfTwo(name, { datagramsPerSecond: 100 })).length;
    return ["alice", "bob", "carol", "dave"].find((name) => owner(name) === worker)!;
  }

  function limit(net: Network, keyName: string): void {
    net.server.replaceKeys(net.now, [entry(keyName, ALICE, { datagramsPerSecond: 100 })]);
  }

  it("keeps those in the worker that counts for it", () => {
    const name = nameFor(0);
    const net = inFirstOfTwo(name, {});
    limit(net, name);
    net.advance(5_000);
    expect(handOvers(net)).toEqual([]);
    expect(net.records).toHaveLength(1);
  });

  it("moves others there, while they remain in use", () => {
    const name = nameFor(1);
    const net = inFirstOfTwo(name, {});
    const association = net.client.openAssociation(net.now, undefined, true);
    limit(net, name);
    net.settle();
    expect(handOvers(net)).toMatchObject([{ worker: 1, holder: name }]);
    net.send(association, "192.0.2.1:53", "x");
    net.settle();
    expect(net.arrived).toHaveLength(1);
  });

  it("moves those of a client with several servers within their server", () => {
    const name = nameFor(1);
    const ways = [0, 1].map((server) => ({ authority: `server${server}.test:1`, server }));
    const net = inFirstOfTwo(name, {}, { ways });
    limit(net, name);
    net.settle();
    expect(net.attempts.map((attempt) => attempt.split(" ")[1])).toEqual(["0", "0"]);
    expect(handOvers(net)).toMatchObject([{ worker: 1, holder: name }]);
  });

  it("moves those that had no lane as soon as they return", () => {
    const name = nameFor(1);
    const net = inFirstOfTwo(name, {});
    net.send(net.client.openAssociation(net.now, undefined, true), "192.0.2.1:53", "x");
    net.settle();
    net.ways.set(0, "refuse");
    net.cutConnections();
    limit(net, name);
    net.ways.clear();
    net.advance(20_000);
    expect(net.clientEvents.map(({ kind }) => kind)).toContain("session-resumed");
    expect(handOvers(net)[0]).toMatchObject({ worker: 1, holder: name });
  });
});

describe("a key that expires", () => {
  const keys = [entry("alice", ALICE, { expiresAt: UNIX_MS + 20_000 }), entry("bob", BOB)];

  it("ends its sessions at that moment", () => {
    const net = network(alice, keys);
    net.start();
    net.advance(19_900);
    expect(net.client.isUp).toBe(true);
    // No deadline precedes it except those that any session has.
    expect(net.server.nextTimeout()).toBeGreaterThan(net.now);
    net.advance(200);
    expect(net.server.sessionCount).toBe(0);
    net.advance(10_000);
    expect(net.client.isUp).toBe(false);
    expect(errorsOf(net)).toContain("the server does not accept this key: it has expired there");
  });

  it("ends them when the system clock is set past it", () => {
    const net = network(alice, keys);
    net.start();
    net.server.handleWallClock(net.now, UNIX_MS + 60_000);
    net.settle();
    expect(net.server.sessionCount).toBe(0);
  });

  it("may be extended", () => {
    const net = network(alice, keys);
    net.start();
    net.advance(10_000);
    net.server.replaceKeys(net.now, [entry("alice", ALICE, { expiresAt: UNIX_MS + 60_000 })]);
    net.advance(30_000);
    expect(net.client.isUp).toBe(true);
    net.advance(30_000);
    expect(net.client.isUp).toBe(false);
  });
});

describe("limits of a key", () => {
  it("refuse further associations across all of its sessions, and accept new ones when some have ended", () => {
    const net = network(alice, [entry("alice", ALICE, { maxAssociations: 3 })]);
    net.start();
    const all = Array.from({ length: 5 }, () => net.client.openAssociation(net.now, undefined, true));
    for (const association of all) net.send(association, "192.0.2.1:53", "x");
    net.settle();
    expect(net.server.associationCount).toBe(3);
    expect(net.arrived).toHaveLength(3);
    expect(net.server.counters.refused.key_association_limit).toBeGreaterThanOrEqual(2);
    for (const association of all) net.client.closeAssociation(net.now, association);
    net.settle();
    const late = net.client.openAssociation(net.now, undefined, true);
    net.send(late, "192.0.2.1:53", "y");
    net.settle();
    expect(net.arrived).toHaveLength(4);
  });

  it.each([1, 2])(
    "drop datagrams over the rate in each direction, counted by reason, with %i lanes",
    (lanes) => {
      const net = network({ ...alice, lanes }, [entry("alice", ALICE, { datagramsPerSecond: 100 })]);
      net.start();
      const association = net.client.openAssociation(net.now, undefined, true);
      for (let i = 0; i < 1_000; i++) {
        net.send(association, "192.0.2.1:53", "x");
        net.advance(1);
      }
      const passed = net.atTargets.length;
      expect(passed).toBeGreaterThanOrEqual(110);
      expect(passed).toBeLessThanOrEqual(126);
      const [key] = [...net.server.keys!];
      expect(net.server.counters.drops.rate_limit).toBe(1_000 - passed);
      expect(key.counts).toMatchObject({
        datagramsIn: passed,
        datagramsOut: passed,
        limited: 1_000 - passed,
      });
    },
  );

  it("count associations correctly however they open, end, expire and are replaced", () => {
    const step = fc.oneof(
      fc.constant("open" as const),
      fc.constant("close" as const),
      fc.constant("cut" as const),
      fc.constant("wait" as const),
      fc.constant("replace" as const),
      fc.constant("remove" as const),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const net = network(alice, [entry("alice", ALICE, { maxAssociations: 5 })]);
        net.start();
        const open: number[] = [];
        for (const one of steps) {
          if (one === "open") {
            const association = net.client.openAssociation(net.now, undefined, true);
            if (association >= 0) open.push(association);
            net.send(association, "192.0.2.1:53", "x");
          } else if (one === "close" && open.length > 0) net.client.closeAssociation(net.now, open.pop()!);
          else if (one === "cut") net.cutConnections();
          else if (one === "wait") net.advance(7_000);
          else if (one === "replace")
            net.server.replaceKeys(net.now, [entry("alice", ALICE, { maxAssociations: 3 })]);
          else if (one === "remove") {
            net.server.replaceKeys(net.now, []);
            net.settle();
            net.server.replaceKeys(net.now, [entry("alice", ALICE)]);
          }
          net.settle();
          const [key] = [...net.server.keys!];
          expect(key.associations).toBe(net.server.associationCount);
          expect(key.sessions).toBe(net.server.sessionCount);
        }
      }),
      { numRuns: 60 },
    );
  });
});
