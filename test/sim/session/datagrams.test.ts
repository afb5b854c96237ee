import { describe, expect, it } from "vitest";
import {
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionClose,
  encodeContextAssign,
  encodeShutdown,
} from "../../../src/wire/capsule.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { datagram, fromServer, KEYS, open, started } from "./started.ts";

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
