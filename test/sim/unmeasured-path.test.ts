import { describe, expect, it } from "vitest";
import { CapsuleReader, READ_CAPSULE } from "../../src/core/session/capsule-reader.ts";
import { CAPSULE_DATAGRAM } from "../../src/wire/capsule.ts";
import type { NetworkOptions } from "./network.ts";
import { Network } from "./network.ts";

const TARGET = "192.0.2.1:53";
const KEY = new TextEncoder().encode("a key of the tests");

/** A client whose server has an address on this machine, as soon as its session is up. */
function up(latencyMs: number, options: NetworkOptions = {}): Network {
  const client = { lanes: "auto", isLocal: true, ...options.client } as const;
  const network = new Network({ latencyMs, ...options, client });
  network.start();
  while (!network.client.isUp) network.advance(1);
  return network;
}

function open({ client, now }: Network): number {
  return client.openAssociation(now, undefined, true);
}

function flood(network: Network, association: number, count: number): void {
  for (let i = 0; i < count; i++) network.send(association, TARGET, `${i}`.padEnd(1_200));
}

/** Number of the datagrams that arrived, without copies. */
function arrivedOf({ arrived }: Network): number {
  return new Set(arrived.map(({ payload }) => payload)).size;
}

/** Number of DATAGRAM capsules that the client wrote on a connection, by default the first. */
function sentOf({ records }: Network, connection = 0): number {
  const all = Buffer.concat(records[connection].fromClient);
  const reader = new CapsuleReader("extension");
  let count = 0;
  let at = all.indexOf("\r\n\r\n") + 4;
  while (reader.next(all, at, all.length) === READ_CAPSULE) {
    if (reader.type === CAPSULE_DATAGRAM) count++;
    at = reader.offset;
  }
  return count;
}

/** Datagrams in each of four round trips of 50 ms, while the application sends three a millisecond. */
function steps(network: Network, association: number, connection = 0): number[] {
  const counts = [sentOf(network, connection)];
  for (let roundTrip = 0; roundTrip < 4; roundTrip++) {
    for (let ms = 0; ms < 50; ms++) {
      flood(network, association, 3);
      network.advance(1);
    }
    counts.push(sentOf(network, connection));
  }
  return counts.slice(1).map((count, i) => count - counts[i]);
}

describe("a session without receipts, before it is known whether a local address leads far away,", () => {
  it("sends one window per round trip until a session with receipts replaces it", () => {
    const network = up(25);
    const sent = steps(network, open(network));
    // 24 or 25 of them fit into 30,000 bytes with their headers. What is unused at first accumulates.
    for (const step of sent.slice(1)) expect(step).toBeLessThanOrEqual(25);
    expect(sent.reduce((sum, step) => sum + step)).toBeGreaterThan(3 * 24);
    expect(network.client.counters.drops.age).toBeGreaterThan(0);
    network.advance(1_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-renewed"]);
    expect(network.client.lanesUp).toBe(4);
  });

  it("sends no more while it registers thousands of associations", () => {
    const network = up(25, { client: { maxAssociations: 10_000 } });
    const first = open(network);
    for (let i = 0; i < 6_000; i++) network.send(open(network), TARGET, "x");
    for (const step of steps(network, first).slice(1)) expect(step).toBeLessThanOrEqual(30_000 / 8);
    expect(sentOf(network)).toBeLessThanOrEqual((5 * 30_000) / 4);
  });

  it("sends at once what waits when the path turns out to be short", () => {
    const network = up(2);
    flood(network, open(network), 500);
    network.advance(20);
    expect(arrivedOf(network)).toBe(500);
    expect(network.sessionEvents).toEqual(["session-up"]);
  });

  it.each([1_201, 40_000, 65_000])("sends a datagram of %d bytes", (length) => {
    const network = up(15, { client: { ageBudgetMs: 500 } });
    network.send(open(network), TARGET, "x".repeat(length));
    network.advance(150);
    expect(network.sessionEvents).toEqual(["session-up"]);
    expect(network.arrived.map(({ payload }) => payload.length)).toEqual([length]);
  });

  it.each(["at once", "after another change of the network"])(
    "is limited again %s if its lane is lost once the path has turned out to be long",
    (when) => {
      const network = up(25);
      const association = open(network);
      network.send(association, TARGET, "x");
      while (network.attempts.length === 1) network.advance(1);
      // A relay that serves one connection: the session with receipts does not come up.
      network.maxConnections = 0;
      if (when !== "at once") network.client.handleNetworkChange(network.now);
      network.cutConnections();
      network.maxConnections = 1;
      while (!network.client.isUp) network.advance(1);
      expect(network.sessionEvents).toEqual(["session-up", "session-down", "session-resumed"]);
      const sent = steps(network, association, network.records.length - 1);
      for (const step of sent.slice(1)) expect(step).toBeLessThanOrEqual(25);
      expect(sent.reduce((sum, step) => sum + step)).toBeGreaterThan(3 * 24);
    },
  );

  it("is no longer limited after three seconds if the relay refuses further connections", () => {
    const network = up(20);
    network.maxConnections = 1;
    const a = open(network);
    for (let ms = 0; ms < 3_200; ms++) {
      network.send(a, TARGET, "x".repeat(1_200));
      network.advance(1);
    }
    const before = network.arrived.length;
    flood(network, a, 200);
    network.advance(60);
    expect(network.sessionEvents).toEqual(["session-up"]);
    expect(network.arrived.length - before).toBeGreaterThanOrEqual(200);
  });

  it("counts what still waits when it ends as former session", () => {
    const network = up(100, { client: { ageBudgetMs: 60_000, queueBytes: 16_777_216 } });
    flood(network, open(network), 2_000);
    network.advance(10_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-renewed"]);
    const { datagramsOut, drops } = network.client.counters;
    expect(drops.no_lane).toBeGreaterThan(1_000);
    expect(datagramsOut + drops.no_lane).toBe(2_000);
  });

  it("sends what waits when it is closed", () => {
    const network = up(25);
    flood(network, open(network), 100);
    network.settle();
    expect(sentOf(network)).toBeLessThan(30);
    network.client.close();
    network.settle();
    expect(sentOf(network)).toBe(100);
  });
});

describe("a session at a local address whose server challenges the client", () => {
  const KEYED: NetworkOptions = { client: { psk: KEY }, server: { psk: KEY } };

  it.each([40, 150])("begins with receipts if the challenge takes long (%i ms one way)", (latencyMs) => {
    const network = up(latencyMs, KEYED);
    flood(network, open(network), 10);
    network.advance(3_000);
    expect(arrivedOf(network)).toBe(10);
    expect(network.sessionEvents).toEqual(["session-up"]);
    expect(network.client.lanesUp).toBe(4);
  });

  it("begins without receipts if the challenge takes less than 80 ms, and gets them if each round trip takes 10 ms", () => {
    const network = up(39, KEYED);
    expect(network.client.lanesUp).toBe(1);
    network.advance(1_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-renewed"]);
    expect(network.client.lanesUp).toBe(4);
  });

  it("is replaced by one without receipts, although it is in use, if only the challenge takes long", () => {
    const network = new Network({ ...KEYED, client: { ...KEYED.client, lanes: "auto", isLocal: true } });
    network.isStalled = true;
    network.start();
    const association = open(network);
    network.advance(100);
    network.isStalled = false;
    for (let ms = 0; ms < 4_000; ms++) {
      network.send(association, TARGET, `${ms}`);
      network.advance(1);
    }
    expect(arrivedOf(network)).toBe(4_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-renewed"]);
    expect(network.client.lanesUp).toBe(1);
  });

  it("begins without receipts if the server has none, and measures nothing", () => {
    const network = up(40, { ...KEYED, server: { psk: KEY, hasReceipts: false } });
    flood(network, open(network), 200);
    network.advance(90);
    expect(arrivedOf(network)).toBe(200);
    network.advance(1_000);
    expect(network.sessionEvents).toEqual(["session-up"]);
  });
});

describe("a session without receipts at a server far away", () => {
  it.each([true, false])(
    "is replaced by one with receipts after a restart of the server (kept: %s)",
    (isKept) => {
      const network = up(25);
      open(network);
      while (network.attempts.length === 1) network.advance(1);
      // The next session has no time to come up.
      network.cutConnections();
      if (isKept) network.restartServer();
      else {
        network.killServer();
        network.startServer();
      }
      network.advance(5_000);
      expect(network.sessionEvents.at(-1)).toBe("session-renewed");
      expect(network.client.lanesUp).toBe(4);
    },
  );
});

describe("a session at a local address whose server does not challenge the client", () => {
  it("is replaced by one with receipts at once if its first round trip takes half a second", () => {
    const network = up(250);
    network.advance(0);
    // The second one began because the first had no answer yet, and ends with it.
    expect(network.attempts).toEqual(["0 0", "500 0", "500 0"]);
    expect(network.openConnections).toBe(2);
    network.advance(2_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-renewed"]);
  });
});

describe("a session without receipts that is limited by nothing:", () => {
  it("its server has none, and its lane comes back", () => {
    const network = up(25, { client: { isLocal: false }, server: { hasReceipts: false } });
    network.client.handleNetworkChange(network.now);
    network.cutConnections();
    network.advance(3_000);
    expect(network.client.isUp).toBe(true);
    flood(network, open(network), 200);
    network.advance(60);
    expect(arrivedOf(network)).toBe(200);
  });
});
