import { describe, expect, it } from "vitest";
import { resumeMac } from "../../../src/core/handshakes/credentials.ts";
import { decodeHead, findHeadEnd } from "../../../src/wire/http/http-head.ts";
import { BIND_PATH, decodeUpgradeResponse, encodeUpgradeRequest } from "../../../src/wire/http/upgrade.ts";
import { Network, seededCryptography } from "../network.ts";
import { KEYS, open, payloads, started } from "./started.ts";

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
