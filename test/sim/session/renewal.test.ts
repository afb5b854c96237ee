import { describe, expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { encodeShutdown } from "../../../src/wire/capsule.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import type { Network } from "../network.ts";
import { open, payloads, started } from "./started.ts";

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

  it.each([1, 3])(
    "shows a tap the targets of datagrams that the former one of %i lanes still sends",
    (lanes) => {
      const network = started({ client: { lanes, maxContexts: 2, ageBudgetMs: 60_000 } });
      const targets = [1, 2, 3].map((last) => `192.0.2.${last}:53`);
      const association = open(network);
      // The first context makes room for the third, so the others get new ids in the next session.
      for (const target of targets) {
        network.send(association, target, "a");
        network.advance(2_000);
      }
      network.maxConnections = 1;
      for (let lane = 1; lane < lanes; lane++) network.cutConnections(lane);
      network.maxConnections = 2;
      // Until its bytes are written, the lane takes no others.
      network.send(association, targets[2], "b");
      expect(network.client.pollTransmit(network.now, 0)).toBeDefined();
      for (const target of targets.slice(1)) network.send(association, target, "c");
      const seen: (string | undefined)[] = [];
      network.client.counters.tap = {
        record: (isIn, _reason, _association, _local, remote) => {
          if (!isIn) seen.push(remote && formatAddress(remote));
        },
      };
      network.carryToClient(encodeShutdown("moving"));
      expect(isRenewed(network)).toBe(true);
      network.client.handleTransmitted(0);
      network.settle();
      expect(seen).toEqual(targets.slice(1));
    },
  );

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
