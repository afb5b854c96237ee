import { describe, expect, it } from "vitest";
import type { TunnelServer } from "../../../src/core/server/server.ts";
import {
  encodeCompressionAck,
  encodeCompressionClose,
  encodeContextAssign,
} from "../../../src/wire/capsule.ts";
import { encodeUpgradeRequest } from "../../../src/wire/http/upgrade.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { Network } from "../network.ts";
import { open, started } from "./started.ts";

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
