import { describe, expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { resumeMac } from "../../../src/core/handshakes/credentials.ts";
import type { TunnelServer } from "../../../src/core/server/server.ts";
import {
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionAck,
  encodeCompressionClose,
  encodeContextAssign,
  encodeHeartbeat,
  encodeHeartbeatEcho,
  encodeShutdown,
} from "../../../src/wire/capsule.ts";
import { decodeHead, findHeadEnd } from "../../../src/wire/http/http-head.ts";
import { BIND_PATH, decodeUpgradeResponse, encodeUpgradeRequest } from "../../../src/wire/http/upgrade.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { Network, seededCryptography } from "../network.ts";

const KEY = new TextEncoder().encode("a key of at least sixteen bytes");
const KEYS = { client: { psk: KEY }, server: { psk: KEY } };

function started(...options: ConstructorParameters<typeof Network>): Network {
  const network = new Network(...options);
  network.start();
  network.advance(100);
  expect(network.client.isUp).toBe(true);
  return network;
}

function open(network: Network, expires = true): number {
  return network.client.openAssociation(network.now, undefined, expires);
}

function payloads(network: Network): string[] {
  return network.arrived.map(({ payload }) => payload);
}

/** Delivers the capsules to the client's lane 0 in one piece. */
function fromServer(network: Network, ...capsules: Uint8Array[]): void {
  network.carryToClient(Buffer.concat(capsules));
}

function datagram(context: number, payload: string): Uint8Array {
  return Buffer.from([0, payload.length + 1, context, ...Buffer.from(payload)]);
}

describe("a datagram in one chunk with the end of its context", () => {
  it("reaches the application with its own source, whatever ends it", () => {
    const network = started();
    network.echoes = false;
    const a = open(network);
    network.send(a, "192.0.2.1:53", "x");
    network.settle();
    fromServer(
      network,
      encodeContextAssign(1, 1, makeAddress("192.0.2.2", 1)!),
      datagram(1, "closed"),
      encodeCompressionClose(1),
      encodeContextAssign(3, 1, makeAddress("192.0.2.3", 1)!),
      datagram(3, "its slot"),
      datagram(2, "ended"),
      encodeAssociationClose(1, "idle"),
    );
    expect(network.arrived).toEqual([
      { association: a, remote: "192.0.2.2:1", payload: "closed" },
      { association: a, remote: "192.0.2.3:1", payload: "its slot" },
      { association: a, remote: "192.0.2.1:53", payload: "ended" },
    ]);
  });

  it("reaches its own target, whatever ends it", () => {
    const network = started();
    network.echoes = false;
    const a = open(network);
    network.send(a, "192.0.2.1:53", "x");
    network.settle();
    network.carryToServer(
      Buffer.concat([
        datagram(2, "closed"),
        encodeCompressionClose(2),
        encodeContextAssign(4, 1, makeAddress("192.0.2.2", 1)!),
        datagram(4, "its slot"),
        encodeAssociationClose(1, "done"),
        encodeAssociationOpen(2, undefined),
        encodeContextAssign(6, 2, makeAddress("192.0.2.3", 1)!),
        datagram(6, "last"),
        encodeShutdown("done"),
      ]),
    );
    expect(network.atTargets.slice(1)).toEqual([
      "40000 > 192.0.2.1:53: closed",
      "40000 > 192.0.2.2:1: its slot",
      "40001 > 192.0.2.3:1: last",
    ]);
  });
});

describe("a server", () => {
  const plain = (server: TunnelServer, now: number, target: string) => {
    const connection = server.handleAccept(now);
    const request = encodeUpgradeRequest("a", `/.well-known/masque/udp/${target}/53/`, false, undefined);
    server.handleStream(now, connection, request, 0, request.length);
    return connection;
  };

  it("starts nothing for a connection that ended before its target's name was resolved", () => {
    const { server, now } = new Network();
    const connection = plain(server, now, "a.test");
    const output = server.pollOutput();
    if (output?.kind !== "resolve") throw new Error("asks for no name");
    server.handleDisconnected(now, connection);
    server.handleResolved(now, output.query, [makeAddress("192.0.2.1", 53)!]);
    expect(server.pollOutput()).toBeUndefined();
    expect([server.sessionCount, server.associationCount, server.tunnelCount]).toEqual([0, 0, 0]);
  });

  it("stays within its limit of sessions when the names of many targets are resolved late", () => {
    const { server, now } = new Network({ server: { maxSessions: 2 } });
    for (let i = 0; i < 5; i++) plain(server, now, `${i}.test`);
    for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput()) {
      if (output.kind === "resolve")
        server.handleResolved(now, output.query, [makeAddress("192.0.2.1", 53)!]);
    }
    expect(server.sessionCount).toBe(2);
    expect(server.counters.refused.tunnel_limit).toBe(3);
  });

  it("sends nothing to an unresolved name, even if the client acknowledges it", () => {
    const network = started();
    network.answersNames = false;
    const a = open(network);
    network.send(a, "a.test:53", "one");
    network.settle();
    network.carryToServer(encodeCompressionAck(2));
    network.send(a, "a.test:53", "two");
    network.settle();
    expect(network.atTargets).toEqual([]);
  });

  it("drops datagrams from denied addresses, so that a forged source cannot bypass the policy", () => {
    const network = started({ server: { filtering: "endpoint-independent" } });
    network.echoes = false;
    const a = open(network);
    network.send(a, "192.0.2.1:53", "x");
    network.settle();
    network.receive(0, "10.0.0.1:161", "made up");
    network.receive(0, "192.0.2.9:161", "true");
    network.settle();
    expect(network.arrived.map(({ remote }) => remote)).toEqual(["192.0.2.9:161"]);
    expect(network.server.counters.drops.filtered).toBe(1);
  });
});

describe("names", () => {
  it("are looked up 64 at a time per session, in order, and not at all once their context is closed", () => {
    const network = started();
    const { server } = network;
    network.answersNames = false;
    const a = open(network);
    for (let i = 0; i < 200; i++) network.send(a, `${i}.test:53`, "x");
    network.settle();
    const asked = () => network.serverEvents.flatMap((event) => (event.kind === "resolve" ? [event] : []));
    expect(asked().map(({ name }) => name)).toEqual(Array.from({ length: 64 }, (_, i) => `${i}.test`));
    for (let i = 100; i < 200; i++) network.carryToServer(encodeCompressionClose(2 + 2 * i));
    for (let answered = 0; answered < asked().length; answered++) {
      server.handleResolved(network.now, asked()[answered].query, []);
      network.settle();
    }
    expect(asked().map(({ name }) => name)).toEqual(Array.from({ length: 100 }, (_, i) => `${i}.test`));
  });

  it("are not looked up without bound when a client keeps registering and closing them", () => {
    const network = started();
    network.answersNames = false;
    const a = open(network);
    network.send(a, "192.0.2.1:53", "x");
    network.settle();
    const name = makeAddress("a.test", 53)!;
    for (let id = 4; id < 40_000; id += 4) {
      network.carryToServer(
        Buffer.concat([
          encodeContextAssign(id, 1, name),
          encodeContextAssign(id + 2, 1, name),
          encodeCompressionClose(id),
          encodeCompressionClose(id + 2),
        ]),
      );
    }
    expect(network.serverEvents.filter(({ kind }) => kind === "resolve")).toHaveLength(64);
    expect(network.server.contexts.size).toBe(1);
  });
});

describe("datagrams", () => {
  it("reach the target and come back with the target's address", () => {
    const network = started();
    const a = open(network);
    network.send(a, "192.0.2.1:53", "question");
    network.send(a, "2001:db8::1:443", "six");
    network.settle();
    expect(network.atTargets).toEqual(["40000 > 192.0.2.1:53: question", "40000 > [2001:db8::1]:443: six"]);
    expect(network.arrived).toEqual([
      { association: a, remote: "192.0.2.1:53", payload: "question" },
      { association: a, remote: "[2001:db8::1]:443", payload: "six" },
    ]);
  });

  it("of one association leave from one port for every target", () => {
    const network = started();
    const [a, b] = [open(network), open(network)];
    for (let i = 0; i < 3; i++) {
      network.send(a, `192.0.2.${i + 1}:53`, "x");
      network.send(b, `192.0.2.${i + 1}:53`, "y");
    }
    network.settle();
    const ports = (payload: string) =>
      new Set(network.atTargets.filter((line) => line.endsWith(payload)).map((line) => line.split(" ")[0]));
    expect(ports("x")).toEqual(new Set(["40000"]));
    expect(ports("y")).toEqual(new Set(["40001"]));
  });

  it("to a name wait until the server has resolved it, and answers carry its address", () => {
    const network = started();
    network.names.set("example.test", "192.0.2.7");
    const a = open(network);
    network.send(a, "example.test:53", "one");
    network.send(a, "example.test:53", "two");
    network.settle();
    expect(network.atTargets).toEqual(["40000 > 192.0.2.7:53: one", "40000 > 192.0.2.7:53: two"]);
    expect(network.arrived[0].remote).toBe("192.0.2.7:53");
  });

  it("to a name that does not exist are dropped and counted without a lookup for each", () => {
    const network = started();
    const a = open(network);
    for (let i = 0; i < 5; i++) {
      network.send(a, "nowhere.test:53", "x");
      network.settle();
    }
    expect(network.server.counters.drops.unresolved).toBe(1);
    expect(network.client.counters.drops.refused_target).toBe(4);
    expect(network.serverEvents.filter(({ kind }) => kind === "resolve")).toHaveLength(1);
  });

  it("to a name that is still being looked up are counted when their association ends", () => {
    const network = started();
    network.answersNames = false;
    const a = open(network);
    for (let i = 0; i < 3; i++) network.send(a, "slow.test:53", "x");
    network.settle();
    network.client.closeAssociation(network.now, a);
    network.settle();
    expect(network.server.counters.drops.unresolved).toBe(3);
  });

  it("to a denied target are refused by the server and counted", () => {
    const network = started();
    const a = open(network);
    network.send(a, "10.0.0.1:53", "x");
    network.settle();
    network.send(a, "10.0.0.1:53", "x");
    network.settle();
    expect(network.atTargets).toEqual([]);
    expect(network.server.counters.refused.target_denied).toBe(1);
    expect(network.client.counters.drops.refused_target).toBe(1);
  });

  it("of a steady flow of 1,200 bytes cost 4 bytes more each", () => {
    const network = started();
    const a = open(network);
    const payload = "x".repeat(1200);
    network.send(a, "192.0.2.1:53", payload);
    network.settle();
    network.echoes = false;
    for (let i = 0; i < 100; i++) network.send(a, "192.0.2.1:53", payload);
    const batch = network.client.pollTransmit(network.now, 0)!;
    expect(batch.length).toBe(100 * 1204);
  });
});

describe("an association that begins in the chunk in which another ends", () => {
  it("gets another slot until the host has closed the old socket", () => {
    const network = started();
    const first = open(network);
    network.send(first, "192.0.2.1:53", "first");
    network.settle();
    network.client.closeAssociation(network.now, first);
    const second = open(network);
    network.send(second, "192.0.2.1:53", "second");
    network.settle();
    expect(network.atTargets).toEqual(["40000 > 192.0.2.1:53: first", "40001 > 192.0.2.1:53: second"]);
    expect(payloads(network)).toEqual(["first", "second"]);
  });

  it("is not mistaken by the host for the one that was evicted for it", () => {
    const network = started({ client: { maxAssociations: 1 } });
    const first = open(network);
    const second = open(network);
    expect(second).not.toBe(first);
    network.settle();
    network.send(second, "192.0.2.1:53", "x");
    network.settle();
    expect(payloads(network)).toEqual(["x"]);
    expect(open(network)).toBe(first);
  });
});

describe("filtering", () => {
  const senders = ["192.0.2.1:53", "192.0.2.1:54", "192.0.2.2:53"];
  const heard = (filtering: "endpoint-independent" | "address-dependent" | "address-and-port-dependent") => {
    const network = started({ server: { filtering } });
    network.echoes = false;
    network.send(open(network), "192.0.2.1:53", "out");
    network.settle();
    for (const sender of senders) network.receive(0, sender, sender);
    network.settle();
    return { heard: payloads(network), filtered: network.server.counters.drops.filtered };
  };

  it("endpoint-independent accepts every sender", () => {
    expect(heard("endpoint-independent")).toEqual({ heard: senders, filtered: 0 });
  });
  it("address-dependent accepts every port of an address that was sent to", () => {
    expect(heard("address-dependent")).toEqual({ heard: senders.slice(0, 2), filtered: 1 });
  });
  it("address-and-port-dependent accepts only addresses and ports that were sent to", () => {
    expect(heard("address-and-port-dependent")).toEqual({ heard: senders.slice(0, 1), filtered: 2 });
  });
});

describe("a handshake", () => {
  it("succeeds when both ends have the key", () => {
    const network = started(KEYS);
    network.send(open(network), "192.0.2.1:53", "x");
    network.settle();
    expect(payloads(network)).toEqual(["x"]);
  });

  it("gets the answer of an unknown page when the key is wrong or missing", () => {
    for (const psk of [undefined, new TextEncoder().encode("another key of sixteen bytes")]) {
      const network = new Network({ client: { psk }, server: { psk: KEY } });
      network.start();
      network.advance(50);
      expect(network.client.isUp).toBe(false);
      expect(network.server.counters.refused.bad_credentials).toBe(1);
      const failure = network.clientEvents.find(({ kind }) => kind === "disconnect");
      expect(failure).toMatchObject({ error: { code: "ERR_UPGRADE_REFUSED" } });
    }
  });

  it("fails for a client with a key if the server cannot prove that it has the same key", () => {
    const network = new Network({ client: { psk: KEY } });
    network.start();
    expect(network.client.isUp).toBe(false);
    const failure = network.clientEvents.find(({ kind }) => kind === "disconnect");
    expect(failure).toMatchObject({ error: { code: "ERR_SERVER_PROOF" } });
  });

  it("never reveals the key and never repeats a nonce", () => {
    const network = new Network(KEYS);
    network.client.start(network.now);
    network.client.pollOutput();
    network.client.handleConnected(network.now, 0);
    const text = new TextDecoder().decode(network.client.pollTransmit(network.now, 0));
    expect(text).not.toContain(new TextDecoder().decode(KEY));
    expect(text).not.toContain(Buffer.from(KEY).toString("base64"));
  });

  it("is cut off after 5 s", () => {
    const network = new Network();
    const connection = network.server.handleAccept(network.now);
    const slow = new TextEncoder().encode("GET / HTTP/1.1\r\n");
    network.server.handleStream(network.now, connection, slow, 0, slow.length);
    network.advance(4_900);
    expect(network.server.counters.refused.handshake_timeout).toBe(0);
    network.advance(400);
    expect(network.server.counters.refused.handshake_timeout).toBe(1);
  });
});

describe("heartbeats", () => {
  it("keep an idle session up for an hour and measure the round trip", () => {
    const network = started({ latencyMs: 20 });
    network.advance(3_600_000);
    expect(network.client.isUp).toBe(true);
    expect(network.clientEvents.filter(({ kind }) => kind === "connect")).toHaveLength(1);
    expect(network.client.rttMs).toBeGreaterThanOrEqual(40);
    expect(network.client.rttMs).toBeLessThan(42);
    expect(network.server.rttMs).toBeGreaterThanOrEqual(40);
  });

  it("from a peer that reads late are all echoed in order while at most 1 MiB is queued", () => {
    const { client, now } = started();
    const count = 80_000;
    const asked = Buffer.concat(Array.from({ length: count }, (_, i) => encodeHeartbeat(i, 1)));
    for (let at = 0; at < asked.length; ) at = client.handleStream(now, 0, asked, at, asked.length);
    const batches: Uint8Array[] = [];
    for (let batch = client.pollTransmit(now, 0); batch !== undefined; batch = client.pollTransmit(now, 0)) {
      batches.push(batch.slice());
      client.handleTransmitted(0);
    }
    const echoes = Buffer.concat(Array.from({ length: count }, (_, i) => encodeHeartbeatEcho(i, 1)));
    expect(Buffer.concat(batches).equals(echoes)).toBe(true);
    expect(client.isUp).toBe(true);
  });

  it("from a server that does not read are echoed until 1 MiB is queued beside all registrations; then its lane ends", () => {
    const { client, now } = started({ client: { maxAssociations: 16, maxContexts: 16 } });
    const asked = Buffer.concat(Array.from({ length: 10_000 }, () => encodeHeartbeat(1, 1)));
    let sent = 0;
    while (client.isUp && sent < 100_000_000) {
      client.handleStream(now, 0, asked, 0, asked.length);
      sent += asked.length;
    }
    expect(sent).toBeGreaterThan(1_048_576);
    expect(sent).toBeLessThan(1_600_000);
    expect(client.pollOutput()).toMatchObject({
      kind: "disconnect",
      error: { code: "ERR_CONTROL_OVERFLOW" },
    });
  });

  it("end a half-open connection at both ends within 20 s", () => {
    const network = started();
    network.send(open(network), "192.0.2.1:53", "x");
    network.advance(10);
    network.isStalled = true;
    network.advance(20_500);
    expect(network.server.tunnelCount).toBe(0);
    const failure = network.clientEvents.find(({ kind }) => kind === "disconnect");
    expect(failure).toMatchObject({ error: { code: "ERR_HEARTBEAT_LOST" } });
    network.isStalled = false;
    network.advance(6_000);
    expect(network.client.isUp).toBe(true);
  });
});

describe("a resumed session", () => {
  it("keeps the source port that targets see", () => {
    const network = started(KEYS);
    const a = open(network);
    network.send(a, "192.0.2.1:53", "before");
    network.advance(10);
    network.cutConnections();
    network.advance(1_000);
    network.send(a, "192.0.2.1:53", "after");
    network.advance(10);
    expect(network.atTargets).toEqual(["40000 > 192.0.2.1:53: before", "40000 > 192.0.2.1:53: after"]);
    expect(network.clientEvents.some(({ kind }) => kind === "session-resumed")).toBe(true);
    expect(network.client.counters.resumed).toBe(1);
  });

  it("delivers a target's datagram before the client has sent again", () => {
    const network = started();
    const a = open(network);
    network.send(a, "192.0.2.1:53", "x");
    network.advance(10);
    network.cutConnections();
    network.advance(1_000);
    network.receive(0, "192.0.2.1:53", "unasked");
    network.advance(10);
    expect(payloads(network)).toEqual(["x", "unasked"]);
  });

  it("registers 1,000 associations again with a restarted server", () => {
    const network = started(KEYS);
    const all = Array.from({ length: 1000 }, () => open(network));
    for (const a of all) network.send(a, "192.0.2.1:53", `a${a}`);
    network.advance(10);
    expect(network.arrived).toHaveLength(1000);
    network.killServer();
    network.advance(2_000);
    network.startServer();
    network.advance(6_000);
    expect(network.client.isUp).toBe(true);
    expect(network.server.associationCount).toBe(1000);
    for (const a of all) network.send(a, "192.0.2.1:53", `b${a}`);
    network.advance(10);
    expect(new Set(payloads(network).slice(1000))).toEqual(new Set(all.map((a) => `b${a}`)));
  });

  it("is up within 6 s of the server's return after any downtime", () => {
    for (const away of [300, 7_000, 61_000, 600_000]) {
      const network = started();
      network.killServer();
      network.advance(away);
      network.startServer();
      network.advance(6_000);
      expect(network.client.isUp).toBe(true);
    }
  });

  it("is refused to a client that has the session's id but not its key", () => {
    const { server, now } = new Network();
    const crypto = seededCryptography(7);
    const upgrade = (session: Uint8Array | undefined) => {
      const transcript = {
        nonce: crypto.random(16),
        lane: 0,
        ticket: undefined,
        session,
      };
      const wrongKey = new Uint8Array(32);
      const request = encodeUpgradeRequest("server.test", BIND_PATH, true, {
        ...transcript,
        receipts: false,
        mac: undefined,
        resumeMac: resumeMac(crypto, wrongKey, transcript),
      });
      const connection = server.handleAccept(now);
      server.handleStream(now, connection, request, 0, request.length);
      const answer = server.pollTransmit(now, connection)!;
      return decodeUpgradeResponse(decodeHead(answer, findHeadEnd(answer, 0, answer.length))!)!.extension!;
    };
    const first = upgrade(undefined);
    const second = upgrade(first.session);
    expect(second.resumed).toBe(false);
    expect(second.session).not.toEqual(first.session);
  });

  it("does not exist after the linger time: the association gets a new port", () => {
    const network = started({ server: { lingerMs: 1_000 } });
    const a = open(network);
    network.send(a, "192.0.2.1:53", "before");
    network.advance(10);
    network.server.handleDisconnected(network.now, 0);
    network.isStalled = true;
    network.advance(3_000);
    expect(network.server.associationCount).toBe(0);
    network.isStalled = false;
    network.cutConnections();
    network.advance(1_000);
    network.send(a, "192.0.2.1:53", "after");
    network.advance(10);
    expect(network.atTargets.map((line) => line.split(" ")[0])).toEqual(["40000", "40001"]);
  });

  it("drops datagrams that waited longer than the age budget while the session was down", () => {
    const network = started();
    const a = open(network);
    network.killServer();
    for (let i = 0; i < 10; i++) network.send(a, "192.0.2.1:53", `old${i}`);
    network.advance(2_000);
    network.startServer();
    network.advance(6_000);
    expect(network.atTargets).toEqual([]);
    expect(network.client.counters.drops.age).toBe(10);
  });
});

describe("lanes", () => {
  it("share the associations, and those of a lost lane move to another lane with their ports", () => {
    const network = started({ client: { lanes: 4 } });
    expect(network.client.lanesUp).toBe(4);
    const all = Array.from({ length: 100 }, () => open(network));
    for (const a of all) network.send(a, "192.0.2.1:53", `a${a}`);
    network.advance(10);
    const before = new Map(network.atTargets.map((line) => [line.split("a")[1], line.split(" ")[0]]));
    network.cutConnections(2);
    expect(network.client.lanesUp).toBe(3);
    for (const a of all) network.send(a, "192.0.2.1:53", `a${a}`);
    network.settle();
    for (const line of network.atTargets.slice(100))
      expect(before.get(line.split("a")[1])).toBe(line.split(" ")[0]);
    expect(network.arrived).toHaveLength(200);
    network.advance(6_000);
    expect(network.client.lanesUp).toBe(4);
    expect(network.server.sessionCount).toBe(1);
  });

  it("all return to one session after the server has restarted", () => {
    const network = started({ client: { lanes: 4 } });
    network.send(open(network), "192.0.2.1:53", "x");
    network.advance(10);
    network.killServer();
    network.advance(3_000);
    network.startServer();
    network.advance(12_000);
    expect(network.client.lanesUp).toBe(4);
    expect(network.server.sessionCount).toBe(1);
  });
});

describe("bounds", () => {
  it("above max-associations the idlest association that may expire is evicted and counted", () => {
    const network = started({ client: { maxAssociations: 2 } });
    const first = open(network);
    network.advance(10);
    open(network);
    network.advance(10);
    open(network);
    network.settle();
    expect(network.client.counters.refused.association_evicted).toBe(1);
    expect(network.clientEvents).toContainEqual({
      kind: "association-closed",
      association: first,
      reason: "evicted",
    });
  });

  it("the server refuses an association if all others had answers, and the client does not ask again for each datagram", () => {
    const network = started({ server: { maxAssociationsPerSession: 1 } });
    const [a, b] = [open(network), open(network)];
    for (let i = 0; i < 2; i++) {
      network.send(a, "192.0.2.1:53", "a");
      network.settle();
    }
    for (let i = 0; i < 10; i++) {
      network.send(b, "192.0.2.1:53", "b");
      network.settle();
    }
    expect(payloads(network)).toEqual(["a", "a"]);
    expect(network.server.counters.refused.association_limit).toBe(1);
    expect(network.client.counters.drops.association_limit).toBe(9);
  });

  it("a lane that reconnects before the server saw its end takes over its own place at the limit of tunnels", () => {
    const network = started({ server: { maxTunnels: 1, heartbeatMs: 60_000 } });
    network.isStalled = true;
    network.advance(20_500);
    expect(network.client.isUp).toBe(false);
    expect(network.server.tunnelCount).toBe(1);
    network.isStalled = false;
    network.advance(5_000);
    expect(network.client.isUp).toBe(true);
    expect(network.server.counters.refused.tunnel_limit).toBe(0);
    expect(network.server.tunnelCount).toBe(1);
  });

  it("answers 3,000 one-shot queries with room for 500 associations at the server", () => {
    const network = started({ server: { maxAssociationsPerSession: 500 } });
    const call = open(network);
    for (let i = 0; i < 3; i++) {
      network.send(call, "192.0.2.9:5060", "call");
      network.settle();
    }
    for (let i = 0; i < 3_000; i++) {
      network.send(open(network), "192.0.2.1:53", `query ${i}`);
      network.settle();
    }
    expect(new Set(payloads(network)).size).toBe(3_001);
    expect(network.server.counters.refused.association_evicted).toBe(3_001 - 500);
    // The ongoing association was not evicted: its target still sees the same port.
    network.send(call, "192.0.2.9:5060", "call again");
    network.settle();
    const ports = network.atTargets.filter((line) => line.includes("call")).map((line) => line.split(" ")[0]);
    expect(new Set(ports).size).toBe(1);
  });

  it("the oldest of too many half-open connections is closed", () => {
    const network = new Network({ server: { maxHalfOpen: 4 } });
    for (let i = 0; i < 10; i++) {
      network.server.handleAccept(network.now);
      network.settle();
    }
    expect(network.server.halfOpenCount).toBe(4);
    expect(network.server.counters.refused.half_open_limit).toBe(6);
  });

  it("an idle association ends after 60 s, or after 300 s if it had more than one answer", () => {
    const network = started();
    const [once, twice] = [open(network), open(network)];
    network.send(once, "192.0.2.1:53", "x");
    network.send(twice, "192.0.2.1:53", "x");
    network.send(twice, "192.0.2.1:53", "x");
    network.advance(59_000);
    expect(network.client.associationCount).toBe(2);
    network.advance(3_000);
    expect(network.client.associationCount).toBe(1);
    expect(network.server.associationCount).toBe(1);
    network.advance(240_000);
    expect(network.client.associationCount).toBe(0);
    expect(network.server.associationCount).toBe(0);
    expect(network.server.contexts.size).toBe(0);
    expect(network.client.contexts.size).toBe(0);
  });
});

describe("a stream cut into pieces of any size", () => {
  it("yields the same datagrams", () => {
    const run = (cutBytes: number) => {
      const network = started({ ...KEYS, cutBytes });
      network.names.set("example.test", "192.0.2.7");
      const all = Array.from({ length: 20 }, () => open(network));
      for (let i = 0; i < 200; i++) {
        const target = i % 7 === 0 ? "example.test:5" : `192.0.2.${1 + (i % 3)}:${53 + (i % 2)}`;
        network.send(all[i % 20], target, String(i).repeat(1 + (i % 50)));
      }
      network.advance(50);
      return [network.atTargets, network.arrived];
    };
    const whole = run(0);
    expect((whole[0] as string[]).length).toBe(200);
    for (const cut of [1, 2, 3, 7, 64, 1000]) expect(run(cut)).toEqual(whole);
  });
});

describe("a session whose ids run out", () => {
  const maxId = 400;
  const few = { client: { maxId }, server: { maxId } };
  const ports = (network: Network) => new Set(network.atTargets.map((line) => line.split(" ")[0]));
  const isRenewed = (network: Network) => network.clientEvents.some(({ kind }) => kind === "session-renewed");
  /** Opens and closes associations until the condition holds. */
  const useIds = (network: Network, until: (count: number) => boolean) => {
    for (let count = 0; !until(count); count++) {
      const association = open(network);
      network.send(association, "192.0.2.1:53", "");
      network.settle();
      network.client.closeAssociation(network.now, association);
      network.settle();
    }
  };

  it("is replaced by a new one in time, and every datagram arrives", () => {
    for (const latencyMs of [0, 30]) {
      const network = started({ ...few, latencyMs });
      const call = open(network, false);
      for (let i = 0; i < 1_000; i++) {
        network.send(call, "192.0.2.9:5060", `call ${i}`);
        network.send(call, `192.0.2.${i % 200}:53`, `query ${i}`);
        if (i % 3 === 0) network.send(open(network), "192.0.2.1:53", `other ${i}`);
        network.advance(10);
        if (i % 50 === 49) network.advance(310_000);
      }
      network.advance(5_000);
      const renewals = network.clientEvents.filter(({ kind }) => kind === "session-renewed").length;
      expect(renewals).toBeGreaterThan(5);
      expect(new Set(payloads(network)).size).toBe(2_334);
      expect(network.unexpectedCloses).toBe(0);
      expect(network.client.counters.drops).toEqual(new Counters().drops);
      expect(network.server.counters.drops).toEqual(new Counters().drops);
      // The old sessions have ended with their connections.
      expect(network.server.sessionCount).toBe(1);
      expect(network.openConnections).toBe(1);
      expect(ports(network).size).toBeGreaterThan(1);
    }
  });

  it("still delivers answers on its old sockets to their application", () => {
    const network = started(few);
    network.echoes = false;
    const call = open(network, false);
    network.send(call, "192.0.2.9:5060", "asks");
    network.settle();
    useIds(network, () => isRenewed(network));
    network.receive(0, "192.0.2.9:5060", "answers late");
    network.settle();
    expect(payloads(network)).toEqual(["answers late"]);
    network.advance(10_000);
    expect(network.server.sessionCount).toBe(1);
  });

  it("sends nothing more of an association that has ended since, which may have left its slot to another", () => {
    const network = started({ ...few, latencyMs: 30 });
    const [call, ending] = [open(network, false), open(network, false)];
    for (const association of [call, ending]) network.send(association, "192.0.2.9:5060", "on time");
    network.advance(100);
    useIds(network, () => network.clientEvents.at(-1)?.kind === "connect");
    // The lane takes nothing more while these bytes, which get lost, are on loan.
    network.send(ending, "192.0.2.9:5060", "on loan");
    expect(network.client.pollTransmit(network.now, 0)).toBeDefined();
    for (const association of [call, ending]) network.send(association, "192.0.2.9:5060", "late");
    for (let i = 0; !isRenewed(network) && i < 100; i++) network.advance(1);
    expect(isRenewed(network)).toBe(true);
    network.client.closeAssociation(network.now, ending);
    network.client.handleTransmitted(0);
    network.advance(1_000);
    const got = network.atTargets.filter((line) => line.includes("192.0.2.9"));
    expect(got.map((line) => line.split(": ")[1])).toEqual(["on time", "on time", "late"]);
  });

  it("is replaced when the server's ids run out, too", () => {
    const network = started({ ...few, server: { maxId, filtering: "endpoint-independent" } });
    const call = open(network, false);
    network.send(call, "192.0.2.9:5060", "hello");
    network.settle();
    let strangers = 0;
    for (; !isRenewed(network); strangers++) {
      network.receive(0, `198.51.100.7:${1_000 + strangers}`, `stranger ${strangers}`);
      network.settle();
    }
    expect(strangers).toBeLessThan(maxId / 2);
    expect(payloads(network)).toHaveLength(strangers + 1);
  });

  it("keeps an association whose new id belonged to one that is closing", () => {
    const network = started({ ...few, latencyMs: 30 });
    const [call, closing] = [open(network, false), open(network, false)];
    network.send(closing, "192.0.2.1:53", "takes id 1");
    network.send(call, "192.0.2.9:5060", "takes id 2, and 1 in the new session");
    network.advance(100);
    const isConnecting = () => network.clientEvents.at(-1)?.kind === "connect";
    for (let i = 0; !isConnecting() && i < maxId; i++) {
      const association = open(network);
      network.send(association, `192.0.2.1:${1_000 + i}`, "");
      network.settle();
      if (isConnecting()) break;
      network.advance(100);
      network.client.closeAssociation(network.now, association);
    }
    expect(isConnecting()).toBe(true);
    network.advance(20);
    network.client.closeAssociation(network.now, closing);
    for (let i = 0; !isRenewed(network) && i < 100; i++) network.advance(1);
    expect(isRenewed(network)).toBe(true);
    network.send(call, "192.0.2.9:5060", "still there");
    network.advance(5_000);
    // Another port of the same host answers; only the association that sent to that port receives it.
    for (let slot = 0; slot < 300; slot++) network.receive(slot, "192.0.2.9:9999", "from another port");
    network.advance(1_000);
    expect(payloads(network).filter((payload) => payload === "from another port")).toHaveLength(1);
  });

  it("is replaced when the server has used up its ids without the client learning of any", () => {
    const network = started({
      client: { maxId },
      server: { maxId, filtering: "endpoint-independent" },
      latencyMs: 30,
    });
    const call = open(network, false);
    network.send(call, "192.0.2.9:5060", "hello");
    network.advance(200);
    for (let i = 0; i < maxId / 2; i++) network.receive(0, `198.51.100.7:${1_000 + i}`, "lost with the lane");
    network.cutConnections();
    network.advance(1_000);
    expect(network.clientEvents.at(-1)?.kind).toBe("session-resumed");
    const before = network.server.contexts.size;
    network.receive(0, "198.51.100.8:1000", "the first without an id");
    expect(network.server.contexts.size).toBe(before);
    network.advance(1_000);
    expect(isRenewed(network)).toBe(true);
    network.send(call, "192.0.2.9:5060", "hello again");
    network.advance(5_000);
    expect(payloads(network).at(-1)).toBe("hello again");
  });

  it("is resumed and then replaced if its lanes are lost meanwhile", () => {
    const network = started(few);
    const call = open(network, false);
    useIds(network, (count) => count === 170);
    network.cutConnections();
    network.advance(1_000);
    useIds(network, () => isRenewed(network));
    network.cutConnections();
    network.advance(1_000);
    network.send(call, "192.0.2.1:53", "after it all");
    network.advance(70_000);
    expect(payloads(network)).toContain("after it all");
    expect(network.server.sessionCount).toBe(1);
  });
});

describe("deadlines", () => {
  it("both ends notice a silent peer 15 s after its last bytes", () => {
    for (const latencyMs of [0, 40]) {
      const network = started({ latencyMs, client: { lanes: 1 } });
      network.advance(7_300);
      network.send(open(network), "192.0.2.1:53", "x");
      network.advance(2 * latencyMs);
      network.isStalled = true;
      network.advance(14_900);
      expect(network.clientEvents.at(-1)?.kind).toBe("session-up");
      network.advance(200);
      expect(network.clientEvents.map(({ kind }) => kind)).toContain("session-down");
      expect(network.server.tunnelCount).toBe(0);
    }
  });

  it("the server wakes once per heartbeat for any number of idle associations", () => {
    const network = started();
    for (let i = 0; i < 1_000; i++) network.send(open(network, false), "192.0.2.1:53", "x");
    network.settle();
    let wakes = 0;
    const { handleTimeout } = network.server;
    network.server.handleTimeout = (now) => {
      wakes++;
      handleTimeout.call(network.server, now);
    };
    network.advance(100_000);
    expect(wakes).toBeLessThan(25);
  });
});
