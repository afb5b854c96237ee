import { describe, expect, it } from "vitest";
import { deriveSessionKey, resumeMac } from "../../../src/core/handshakes/credentials.ts";
import type { TunnelServer } from "../../../src/core/server/server.ts";
import { CapsuleReader, READ_CAPSULE } from "../../../src/core/session/capsule-reader.ts";
import {
  CAPSULE_ASSOCIATION_OPEN,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_DATAGRAM,
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeContextAssign,
} from "../../../src/wire/capsule.ts";
import { decodeHead, findHeadEnd } from "../../../src/wire/http/http-head.ts";
import { BIND_PATH, decodeUpgradeResponse, encodeUpgradeRequest } from "../../../src/wire/http/upgrade.ts";
import { CAPSULE_RECEIPT, readSequence } from "../../../src/wire/receipt.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { readVarint, varintLengthFrom } from "../../../src/wire/varint.ts";
import { seededRandom } from "../../unit/random.ts";
import type { NetworkOptions } from "../network.ts";
import { Network, seededCryptography } from "../network.ts";

const KEY = new TextEncoder().encode("a key of at least sixteen bytes");
const TARGET = "192.0.2.1:53";

interface Capsule {
  readonly type: number;
  /** The first number of the value. */
  readonly id: number;
  /** The association of a CONTEXT_ASSIGN or the sequence number of a DATAGRAM. */
  readonly second: number;
  readonly payload: string;
}

/** The capsules that one end wrote on a connection, after the head. */
function capsulesOf(written: readonly Uint8Array[]): Capsule[] {
  const all = Buffer.concat(written);
  const reader = new CapsuleReader("receipts");
  const capsules: Capsule[] = [];
  for (
    let at = all.indexOf("\r\n\r\n") + 4;
    reader.next(all, at, all.length) === READ_CAPSULE;
    at = reader.offset
  ) {
    const { type, data, valueOffset, valueEnd } = reader;
    const next = valueOffset + varintLengthFrom(data[valueOffset]);
    const isDatagram = type === CAPSULE_DATAGRAM;
    capsules.push({
      type,
      id: type === CAPSULE_RECEIPT ? 0 : readVarint(data, valueOffset),
      second: isDatagram ? readSequence(data, next) : next < valueEnd ? readVarint(data, next) : 0,
      payload: isDatagram ? Buffer.from(data.subarray(next + 3, valueEnd)).toString() : "",
    });
  }
  return capsules;
}

/** A network with all of its lanes up. */
function started(lanes: number | "auto", options: NetworkOptions = {}): Network {
  const network = new Network({ latencyMs: 10, ...options, client: { lanes, ...options.client } });
  network.start();
  network.advance(300);
  expect(network.client.isUp).toBe(true);
  return network;
}

function open(network: Network): number {
  return network.client.openAssociation(network.now, undefined, true);
}

function payloads(network: Network): string[] {
  return network.arrived.map(({ payload }) => payload);
}

/** Sends `count` datagrams, one every `ms`. */
function sendSteadily(network: Network, association: number, count: number, ms = 5, name = "n"): void {
  for (let i = 0; i < count; i++) {
    network.send(association, TARGET, `${name}${i}`);
    network.advance(ms);
  }
}

describe("a session with receipts", () => {
  it("sends a context's datagrams only behind its registration until that is acknowledged", () => {
    const network = started(6);
    const [a, b] = [open(network), open(network)];
    const size = network.records.length;
    for (let i = 0; i < 60; i++) {
      network.send(i % 2 ? a : b, `192.0.2.${1 + (i % 5)}:53`, `x${i}`.padEnd(1_000));
      network.settle();
    }
    // No answer can have arrived yet.
    let datagrams = 0;
    let lanes = 0;
    for (const { fromClient } of network.records.slice(0, size)) {
      const known = new Set<number>();
      const opened = new Set<number>();
      for (const { type, id, second } of capsulesOf(fromClient)) {
        if (type === CAPSULE_ASSOCIATION_OPEN) opened.add(id);
        if (type === CAPSULE_CONTEXT_ASSIGN) {
          expect(opened.has(second)).toBe(true);
          known.add(id);
        }
        if (type !== CAPSULE_DATAGRAM) continue;
        expect(known.has(id)).toBe(true);
        datagrams++;
      }
      if (known.size > 0) lanes++;
    }
    expect(datagrams).toBeGreaterThan(2);
    expect(lanes).toBeGreaterThan(1);
    network.advance(300);
    expect(network.server.counters.drops.unknown_context).toBe(0);
    expect(network.client.counters.drops.unknown_context).toBe(0);
  });

  it("uses a server's context only behind its registration, too", () => {
    const network = started(6, { server: { filtering: "endpoint-independent" } });
    network.echoes = false;
    network.send(open(network), TARGET, "x");
    network.advance(100);
    for (let i = 0; i < 40; i++) network.receive(0, `198.51.100.${1 + (i % 4)}:9`, `y${i}`);
    network.settle();
    let datagrams = 0;
    for (const { fromServer } of network.records) {
      const known = new Set<number>();
      for (const { type, id } of capsulesOf(fromServer)) {
        if (type === CAPSULE_CONTEXT_ASSIGN) known.add(id);
        if (type !== CAPSULE_DATAGRAM || id % 2 === 0) continue;
        expect(known.has(id)).toBe(true);
        datagrams++;
      }
    }
    expect(datagrams).toBeGreaterThan(2);
    network.advance(300);
    expect(new Set(payloads(network)).size).toBe(40);
  });

  it("delivers a datagram with two copies once", () => {
    const network = started(4);
    sendSteadily(network, open(network), 50);
    network.advance(100);
    expect(new Set(payloads(network)).size).toBe(50);
    expect(payloads(network).length).toBe(50);
    expect(network.atTargets.length).toBe(50);
    const copies = network.records.flatMap(({ fromClient }) => capsulesOf(fromClient));
    const frames = copies.filter(({ type }) => type === CAPSULE_DATAGRAM).length;
    expect(frames).toBeGreaterThan(60);
    const { client, server } = network;
    expect(client.counters.datagramsOut).toBe(50);
    expect(client.counters.spread.copies).toBe(frames - 50);
    expect(server.counters.spread.duplicates).toBe(frames - 50);
    expect(client.spread.modes).toEqual({ start: 1, delay: 0, compete: 0 });
    expect(client.spread.bitsPerSecond).toBeGreaterThan(0);
  });

  it("does not reopen an association for a late registration on a slower lane", () => {
    const network = started(2);
    const address = makeAddress("192.0.2.1", 53)!;
    network.carryToServer(
      Buffer.concat([encodeAssociationOpen(9, undefined), encodeContextAssign(18, 9, address)]),
    );
    network.carryToServer(encodeAssociationClose(9, "done"));
    expect(network.server.associationCount).toBe(0);
    network.carryToServer(
      Buffer.concat([encodeAssociationOpen(9, undefined), encodeContextAssign(18, 9, address)]),
      1,
    );
    expect(network.server.associationCount).toBe(0);
    expect(network.server.contexts.size).toBe(0);
    expect(network.client.lanesUp).toBe(2);
  });

  it("loses only datagrams in flight when lanes end one by one", () => {
    const network = started(4);
    const a = open(network);
    sendSteadily(network, a, 20);
    for (let lane = 3; lane > 0; lane--) {
      network.maxConnections = lane;
      network.cutConnections(lane);
      sendSteadily(network, a, 40, 5, `${lane}/`);
      expect(network.client.lanesUp).toBe(lane);
    }
    network.advance(100);
    // 5 ms apart, with a round trip of 20 ms.
    expect(payloads(network).length).toBeGreaterThan(140 - 3 * 5);
    expect(network.sessionEvents).toEqual(["session-up"]);
    network.maxConnections = 4;
    network.advance(20_000);
    expect(network.client.lanesUp).toBe(4);
  });

  it("continues with its numbers and its sockets after all lanes were lost", () => {
    const network = started(3);
    const a = open(network);
    sendSteadily(network, a, 10);
    const before = network.records.length;
    network.cutConnections();
    network.advance(1_000);
    sendSteadily(network, a, 10, 5, "later");
    network.advance(100);
    expect(network.sessionEvents).toEqual(["session-up", "session-down", "session-resumed"]);
    expect(payloads(network).slice(-10)).toEqual(Array.from({ length: 10 }, (_, i) => `later${i}`));
    expect(network.atTargets.every((line) => line.startsWith("40000 "))).toBe(true);
    const numbers = network.records.slice(before).flatMap(({ fromClient }) => capsulesOf(fromClient));
    const sequences = numbers.filter(({ type }) => type === CAPSULE_DATAGRAM).map(({ second }) => second);
    expect(Math.min(...sequences)).toBe(10);
  });

  it("restarts its numbers at a restarted server and keeps queued datagrams", () => {
    const network = started(3, { client: { ageBudgetMs: 5_000 } });
    const a = open(network);
    sendSteadily(network, a, 10);
    network.killServer();
    const before = network.records.length;
    for (let i = 0; i < 5; i++) network.send(a, TARGET, `waits${i}`);
    network.advance(500);
    network.startServer();
    network.advance(4_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-down", "session-up"]);
    expect(payloads(network).slice(-5).sort()).toEqual(["waits0", "waits1", "waits2", "waits3", "waits4"]);
    const all = network.records.slice(before).flatMap(({ fromClient }) => capsulesOf(fromClient));
    const sequences = all.filter(({ type }) => type === CAPSULE_DATAGRAM).map(({ second }) => second);
    expect(Math.min(...sequences)).toBe(0);
    expect(network.client.storedBytes).toBe(0);
  });

  it("keeps queued datagrams for the whole age budget while no lane is up", () => {
    const network = started(3, { client: { ageBudgetMs: 5_000 } });
    const a = open(network);
    // Long enough to measure the rate.
    sendSteadily(network, a, 200);
    network.maxConnections = 0;
    network.cutConnections();
    for (let i = 0; i < 30; i++) network.send(a, TARGET, `${i}`.padStart(1_200, "w"));
    network.advance(1_000);
    network.maxConnections = 3;
    network.advance(3_000);
    expect(payloads(network).filter((payload) => payload.startsWith("w")).length).toBe(30);
    expect(network.client.counters.drops.age).toBe(0);
  });

  it.each([
    [4, [0], true],
    [4, [0], false],
    [4, [3], false],
    [8, [0, 1], false],
    [8, [2, 3, 4], false],
    [16, [0, 1, 2], false],
  ])("continues over %d lanes while these stall for 10 s: %o (answers: %s)", (lanes, stalled, echoes) => {
    const network = started(lanes);
    network.echoes = echoes;
    const [call, bulk] = [open(network), open(network)];
    const load = (steps: number) => {
      for (let i = 0; i < steps; i++) {
        if (i % 4 === 0) network.send(call, TARGET, `c${i}`);
        for (let k = 0; k < 3; k++) network.send(bulk, TARGET, `${i}`.padStart(1_200, "b"));
        network.advance(5);
      }
    };
    load(100);
    for (const lane of stalled) network.stalledLanes.add(lane);
    const before = network.atTargets.length;
    load(2_000);
    network.stalledLanes.clear();
    network.advance(500);
    const since = network.atTargets.slice(before);
    // The stalled lanes may hold the datagrams of a few round trips.
    expect(since.filter((line) => line.includes(": c")).length).toBeGreaterThanOrEqual(495);
    expect(since.filter((line) => line.includes(": b")).length).toBeGreaterThanOrEqual(5_950);
  });

  it("reopens an association whose end was lost with a lane, whichever context reveals it", () => {
    const network = started(4, { server: { filtering: "endpoint-independent" } });
    const a = open(network);
    network.send(a, TARGET, "one");
    network.advance(100);
    network.receive(0, "198.51.100.1:9", "from a stranger");
    network.advance(100);
    const before = network.records.map(({ fromServer }) => fromServer.length);
    network.server.handleSocketFailed(network.now, 0);
    network.settle();
    const [carrier] = network.records.filter(({ fromServer }, i) => fromServer.length > before[i]);
    network.cutConnections(carrier.lane);
    network.advance(1_000);
    network.send(a, "198.51.100.1:9", "is lost");
    network.advance(200);
    network.send(a, "198.51.100.1:9", "arrives");
    network.advance(200);
    expect(network.atTargets.at(-1)).toContain("198.51.100.1:9: arrives");
  });

  it("is replaced before its ids run out, and answers still arrive", () => {
    const network = started(4, { client: { maxId: 64 }, latencyMs: 30 });
    for (let i = 0; i < 40; i++) {
      const a = open(network);
      network.send(a, TARGET, `n${i}`);
      network.advance(100);
      network.client.closeAssociation(network.now, a);
      network.advance(100);
    }
    network.advance(5_000);
    expect(network.sessionEvents).toContain("session-renewed");
    expect(payloads(network).length).toBe(40);
    expect(network.client.lanesUp).toBe(4);
    expect(network.client.storedBytes).toBe(0);
    expect(network.server.storedBytes).toBe(0);
    expect(network.server.sessionCount).toBe(1);
  });

  it("restores datagrams of a lane that stalls from parity, at both ends", () => {
    const network = started(16);
    const a = open(network);
    const load = (steps: number) => {
      for (let i = 0; i < steps; i++) {
        network.send(a, TARGET, `${i}`.padStart(1_200, "b"));
        network.advance(2);
      }
    };
    load(200);
    for (let lane = 0; lane < 16; lane++) {
      network.stalledLanes.add(lane);
      load(60);
      network.stalledLanes.clear();
      load(50);
    }
    network.advance(500);
    const { client, server } = network;
    for (const { counters } of [client, server]) {
      expect(counters.spread.parities).toBeGreaterThan(0);
      expect(counters.spread.restored).toBeGreaterThan(0);
    }
    expect(network.atTargets.length).toBe(200 + 16 * 110);
    expect(payloads(network).length).toBe(200 + 16 * 110);
    network.maxConnections = 0;
    network.cutConnections();
    network.advance(100);
    expect([client.storedBytes, server.storedBytes]).toEqual([0, 0]);
  });

  it("sends a restored datagram only once the name is resolved for which its id was used again", () => {
    const network = started(4);
    network.answersNames = false;
    const address = makeAddress("192.0.2.1", 53)!;
    const record = Uint8Array.of(0, 0, 0, 18, 0, 0, 0, 2, 0x78, 0x78);
    const parity = (first: number) =>
      Uint8Array.of(0x80, 0x55, 0x50, 0x0d, 4 + record.length, 0, 0, first, 1, ...record);
    network.carryToServer(
      Buffer.concat([
        ...[encodeAssociationOpen(9, undefined), encodeContextAssign(18, 9, address), parity(200)],
        // The second registration of the address ends the first, whose id is then free for a name.
        ...[Uint8Array.of(0, 6, 18, 0, 0, 210, 0x68, 0x69), encodeContextAssign(20, 9, address)],
        ...[encodeContextAssign(18, 9, makeAddress("localhost", 53)!), parity(211)],
      ]),
    );
    network.advance(100);
    expect(network.server.counters.spread.restored).toBe(1);
    expect(network.atTargets).toEqual(["40000 > 192.0.2.1:53: hi"]);
    expect(network.client.lanesUp).toBe(4);
  });

  it("ends only the tunnel that carried a malformed RECEIPT or PARITY, or a DATAGRAM with a truncated number", () => {
    const receipt = Uint8Array.of(0x80, 0x55, 0x50, 0x07, 3, 1, 2, 3);
    const datagram = Uint8Array.of(0, 3, 2, 0, 0);
    const parity = Uint8Array.of(0x80, 0x55, 0x50, 0x0d, 12, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1);
    const parityLimit = Uint8Array.of(0x80, 0x55, 0x50, 0x0c, 2, 32, 32);
    for (const bytes of [receipt, datagram, parity, parityLimit]) {
      for (const isToServer of [true, false]) {
        const network = started(3);
        const a = open(network);
        sendSteadily(network, a, 5);
        if (isToServer) network.carryToServer(bytes, 1);
        else network.carryToClient(bytes, 1);
        expect(network.client.lanesUp).toBe(2);
        sendSteadily(network, a, 10, 5, "after");
        network.advance(2_000);
        expect(network.client.lanesUp).toBe(3);
        expect(network.sessionEvents).toEqual(["session-up"]);
        expect(payloads(network).slice(-5)).toEqual(["after5", "after6", "after7", "after8", "after9"]);
      }
    }
  });

  it("survives false receipts, and continues once they end", () => {
    const random = seededRandom(7);
    for (let round = 0; round < 20; round++) {
      const network = started(4);
      const a = open(network);
      for (let i = 0; i < 300; i++) {
        for (let k = 0; k < 3; k++) network.send(a, TARGET, `${i}`.padStart(1_200, "x"));
        const items = random() % 6;
        const lie = Buffer.alloc(6 + 4 + 7 * items);
        lie.set([0x80, 0x55, 0x50, 0x07, 0x40, 4 + 7 * items]);
        for (let at = 6; at < lie.length; at++) lie[at] = random();
        // Mostly lanes that exist and plausible ages.
        for (let item = 0; item < items; item++) {
          if (random() % 4 > 0) lie[10 + 7 * item] %= 4;
          lie[13 + 7 * item] = 0x80 | (random() % 64);
        }
        if (i % 2) network.carryToServer(lie, random() % network.openConnections);
        else network.carryToClient(lie, random() % network.openConnections);
        network.advance(random() % 10);
        expect(network.client.storedBytes).toBeLessThan(6_000_000);
        expect(network.server.storedBytes).toBeLessThan(6_000_000);
      }
      expect(network.client.lanesUp).toBe(4);
      // Measurements expire within two periods.
      network.advance(25_000);
      const before = network.arrived.length;
      sendSteadily(network, a, 200, 20);
      network.advance(500);
      expect(network.arrived.length - before).toBeGreaterThanOrEqual(199);
      network.advance(2_000);
      expect(network.client.storedBytes).toBe(0);
      expect(network.server.storedBytes).toBe(0);
    }
  });
});

describe("whether a session has receipts", () => {
  const ask = (server: TunnelServer, request: Uint8Array) => {
    const connection = server.handleAccept(1_000);
    server.handleStream(1_000, connection, request, 0, request.length);
    const bytes = server.pollTransmit(1_000, connection)!;
    const head = decodeHead(bytes, findHeadEnd(bytes, 0, bytes.length))!;
    return decodeUpgradeResponse(head)!;
  };
  const crypto = seededCryptography(5);
  const request = (lane: number, receipts: boolean, session?: { id: Uint8Array; key: Uint8Array }) => {
    const transcript = { nonce: crypto.random(16), lane, ticket: undefined, session: session?.id };
    const mac = session && resumeMac(crypto, session.key, transcript);
    const bytes = encodeUpgradeRequest("a", BIND_PATH, true, {
      ...transcript,
      receipts,
      mac: undefined,
      resumeMac: mac,
    });
    return { bytes, nonce: transcript.nonce };
  };

  it.each([
    [true, true],
    [true, false],
    [false, true],
    [false, false],
  ])("decides whether a lane joins it: session %s, lane %s", (has, asks) => {
    const { server } = new Network();
    const first = request(0, has);
    const { extension } = ask(server, first.bytes);
    expect(extension?.receipts).toBe(has);
    const { session: id, nonce } = extension!;
    const key = deriveSessionKey(crypto, new Uint8Array(0), first.nonce, nonce, id);
    const answer = ask(server, request(1, asks, { id, key }).bytes).extension!;
    expect(answer.resumed).toBe(has === asks);
    expect(answer.receipts).toBe(asks);
    expect(server.sessionCount).toBe(has === asks ? 1 : 2);
  });

  it("decides which lane numbers are valid", () => {
    const { server } = new Network();
    expect(ask(server, request(31, true).bytes).status).toBe(101);
    expect(ask(server, request(32, true).bytes).status).toBe(400);
    expect(ask(server, request(32, false).bytes).status).toBe(101);
    const without = new Network({ server: { hasReceipts: false } }).server;
    const answer = ask(without, request(32, true).bytes);
    expect([answer.status, answer.extension?.receipts]).toEqual([101, false]);
  });

  it("depends on the server too; without receipts each association has its own lane", () => {
    const network = started(3, { server: { hasReceipts: false } });
    expect(network.client.lanesUp).toBe(3);
    for (const a of [open(network), open(network), open(network)]) sendSteadily(network, a, 5);
    network.advance(50);
    expect(network.arrived.length).toBe(15);
    const written: Buffer = Buffer.concat(
      network.records.flatMap(({ fromClient, fromServer }) => [...fromClient, ...fromServer]),
    );
    expect(written.includes("80555007", 0, "hex")).toBe(false);
  });

  const swap = (from: string, to: string) => (bytes: Uint8Array) => {
    const text = Buffer.from(bytes).toString("latin1");
    return text.includes("HTTP/1.1") ? Buffer.from(text.replace(from, to), "latin1") : bytes;
  };
  const refusal = (network: Network) =>
    network.clientEvents.flatMap((event) =>
      event.kind === "disconnect" && event.error ? [event.error.code] : [],
    )[0];

  it("is the client's choice: a server cannot turn them on unasked", () => {
    const network = new Network({ client: { lanes: 1 } });
    network.tamper = (bytes, isFromServer) => (isFromServer ? swap("r=?0", "r=?0, q=1")(bytes) : bytes);
    network.start();
    expect(network.client.isUp).toBe(false);
    expect(refusal(network)).toBe("ERR_UPGRADE_REFUSED");
  });

  it("cannot be changed on the way unnoticed if the ends share a key", () => {
    const options = { client: { psk: KEY, lanes: 2 }, server: { psk: KEY } };
    const stripped = new Network(options);
    stripped.tamper = (bytes, isFromServer) => (isFromServer ? swap(", q=1", "")(bytes) : bytes);
    stripped.start();
    expect(refusal(stripped)).toBe("ERR_SERVER_PROOF");
    const inserted = new Network({ ...options, client: { psk: KEY, lanes: 1 } });
    inserted.tamper = (bytes, isFromServer) => (isFromServer ? bytes : swap(", l=0", ", l=0, q=1")(bytes));
    inserted.start();
    expect(refusal(inserted)).toBe("ERR_UPGRADE_REFUSED");
    const unasked = new Network(options);
    unasked.tamper = (bytes, isFromServer) => (isFromServer ? bytes : swap(", q=1", "")(bytes));
    unasked.start();
    // This equals a client that did not ask, which costs only speed.
    expect(unasked.client.isUp).toBe(true);
  });
});

describe("--lanes auto", () => {
  it("uses one lane for a server on this machine over a short path", () => {
    const network = started("auto", { latencyMs: 0, client: { isLocal: true } });
    network.advance(30_000);
    expect(network.sessionEvents).toEqual(["session-up"]);
    expect(network.client.lanesUp).toBe(1);
  });

  it("starts a new session with receipts if a local address leads far away", () => {
    const network = started("auto", { latencyMs: 20, client: { isLocal: true } });
    const a = open(network);
    sendSteadily(network, a, 100);
    network.advance(1_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-renewed"]);
    expect(network.client.lanesUp).toBe(4);
    expect(new Set(payloads(network)).size).toBe(100);
  });

  it("starts a new session without receipts if the server is near", () => {
    const network = started("auto", { latencyMs: 0 });
    network.advance(10_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-renewed"]);
    expect(network.client.lanesUp).toBe(1);
    expect(network.unexpectedCloses).toBe(0);
  });

  it.each([0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 6, 10])(
    "keeps the source ports of an association that opens %d ms after the session to a near server",
    (delay) => {
      const network = new Network({ latencyMs: 0.4, client: { lanes: "auto" } });
      network.start();
      while (!network.client.isUp) network.advance(0.1);
      network.advance(delay);
      const a = open(network);
      const before = network.sessionEvents.length;
      sendSteadily(network, a, 100);
      network.advance(10_000);
      expect(new Set(payloads(network)).size).toBe(100);
      expect(network.sessionEvents.slice(before)).toEqual([]);
      expect([network.server.sessionCount, network.server.lingeringCount]).toEqual([1, 0]);
      expect(network.unexpectedCloses).toBe(0);
    },
  );

  it("keeps a session that has no receipts because its near server has none", () => {
    const network = started("auto", { latencyMs: 0, server: { hasReceipts: false } });
    network.advance(10_000);
    expect(network.sessionEvents).toEqual(["session-up"]);
    expect(network.client.lanesUp).toBe(1);
  });

  it("still starts a new session after a failed attempt", () => {
    const network = new Network({ latencyMs: 20, client: { lanes: "auto", isLocal: true } });
    network.maxConnections = 1;
    network.start();
    network.advance(10_000);
    expect(network.sessionEvents).toEqual(["session-up"]);
    sendSteadily(network, open(network), 2, 50);
    network.cutConnections();
    network.advance(5_000);
    expect(network.sessionEvents).toEqual(["session-up", "session-down", "session-resumed"]);
    network.maxConnections = 16;
    network.advance(10_000);
    expect(network.sessionEvents.at(-1)).toBe("session-renewed");
    expect(network.client.lanesUp).toBe(4);
  });

  it("settles for the number of lanes that the carrier allows", () => {
    const network = started("auto");
    network.maxConnections = 3;
    network.cutConnections(3);
    network.advance(20_000);
    const attempts = network.records.length;
    const connects = network.clientEvents.filter(({ kind }) => kind === "connect").length;
    const a = open(network);
    sendSteadily(network, a, 1_000, 20);
    network.advance(100);
    expect(network.client.lanesUp).toBe(3);
    expect(network.records.length).toBe(attempts);
    expect(network.clientEvents.filter(({ kind }) => kind === "connect").length).toBe(connects);
    expect(new Set(payloads(network)).size).toBe(1_000);
  });

  it("connects again whenever the last lane is lost, even while others are closing", () => {
    for (let ms = 0; ms < 4_000; ms += 50) {
      const network = started("auto");
      network.maxConnections = 1;
      for (const lane of [1, 2, 3]) network.cutConnections(lane);
      network.advance(ms);
      network.cutConnections();
      network.maxConnections = 16;
      network.advance(10_000);
      expect(network.client.isUp).toBe(true);
    }
  });

  it("settles for that number even if the carrier ends an old lane for each new one", () => {
    const network = started("auto");
    const endOldest = () => {
      if (network.openConnections > 3) network.cutOldest();
    };
    for (let i = 0; i < 3_000; i++) {
      network.advance(10);
      endOldest();
    }
    const attempts = network.records.length;
    for (let i = 0; i < 3_000; i++) {
      network.advance(10);
      endOldest();
    }
    expect(network.records.length).toBe(attempts);
    expect(network.client.lanesUp).toBeGreaterThanOrEqual(2);
  });
});
