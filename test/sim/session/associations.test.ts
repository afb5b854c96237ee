import { describe, expect, it } from "vitest";
import { open, payloads, started } from "./started.ts";

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

  it("gets no context of the one that was evicted for it, which still sends in the same turn", () => {
    const network = started({ client: { maxAssociations: 1 } });
    const first = open(network);
    network.send(first, "192.0.2.1:53", "a1");
    network.settle();
    const second = open(network);
    network.send(first, "192.0.2.1:53", "a2");
    network.send(second, "192.0.2.1:53", "b");
    network.settle();
    const third = open(network);
    expect(third).toBe(first);
    network.send(third, "192.0.2.1:53", "c1");
    network.settle();
    network.send(third, "192.0.2.1:53", "c2");
    network.settle();
    expect(payloads(network)).toEqual(["a1", "b", "c1", "c2"]);
    const { drops, unreachable } = network.client.counters;
    expect([drops.association_limit, drops.refused_target, unreachable.prohibited]).toEqual([1, 0, 0]);
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
