import { describe, expect, it } from "vitest";
import { Network } from "../network.ts";
import { open, payloads, started } from "./started.ts";

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

  it("datagrams for which no association could be opened are dropped, and counted as beyond that limit", () => {
    const network = started({ client: { maxAssociations: 1 } });
    open(network, false);
    const none = open(network, false);
    expect(none).toBe(-1);
    network.send(none, "192.0.2.1:53", "a");
    network.client.handleDscp(network.now, none, 46);
    network.client.handleMoved(none);
    network.client.closeAssociation(network.now, none);
    network.settle();
    expect(network.client.counters.drops.association_limit).toBe(1);
    expect(network.client.counters.refused.association_limit).toBe(1);
    expect(network.client.associationCount).toBe(1);
    expect(network.atTargets).toEqual([]);
    expect(network.clientEvents).not.toContainEqual(expect.objectContaining({ association: none }));
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
