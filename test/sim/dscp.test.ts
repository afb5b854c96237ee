import { describe, expect, it } from "vitest";
import { parseLatencyRule } from "../../src/core/session/latency-rules.ts";
import { encodeAssociationOpen, encodeDscp } from "../../src/wire/capsule.ts";
import type { NetworkOptions } from "./network.ts";
import { Network } from "./network.ts";

const EF = 46;
const AF21 = 18;
const TARGET = "192.0.2.1:53";

/** A session with one association, 0 on both ends. */
function started(options: NetworkOptions = {}): Network {
  const network = new Network(options);
  network.start();
  network.advance(2_000);
  expect(network.client.openAssociation(network.now, undefined, false)).toBe(0);
  return network;
}

function send(network: Network, dscp: number, target = TARGET): void {
  network.client.handleDscp(network.now, 0, dscp);
  network.send(0, target, "x");
  network.settle();
}

const heard = (network: Network) =>
  network.serverEvents.flatMap((event) => (event.kind === "dscp" ? [event.dscp] : []));

describe("the DSCP of an association", () => {
  it("is 0 and not sent to the server until the application uses another value", () => {
    const network = started();
    send(network, 0);
    expect([heard(network), network.server.dscpOf(0)]).toEqual([[], 0]);
    send(network, EF);
    expect([heard(network), network.server.dscpOf(0)]).toEqual([[EF], EF]);
  });

  it("arrives before the association's first datagram", () => {
    const network = started();
    network.client.handleDscp(network.now, 0, EF);
    network.send(0, TARGET, "x");
    network.settle();
    const { fromClient } = network.records[0];
    const bytes = Buffer.concat(fromClient.map((each) => Buffer.from(each)));
    const at = bytes.indexOf(encodeDscp(1, EF));
    expect(at).toBeGreaterThan(bytes.indexOf(encodeAssociationOpen(1, undefined)));
    expect(bytes.indexOf(Buffer.from("00020278", "hex"))).toBeGreaterThan(at);
  });

  it("is sent once, and again when it changes", () => {
    const network = started();
    for (const dscp of [EF, EF, AF21, AF21, 0, 0]) {
      send(network, dscp);
      network.advance(300);
    }
    expect(heard(network)).toEqual([EF, AF21, 0]);
  });

  it("changes at most four times a second and ends at the value of the last datagrams", () => {
    const network = started();
    for (let ms = 0; ms < 1_000; ms++) {
      send(network, ms % 2 === 0 ? EF : AF21);
      network.advance(1);
    }
    expect(heard(network).length).toBeGreaterThan(2);
    expect(heard(network).length).toBeLessThanOrEqual(4);
    for (let ms = 0; ms < 300; ms++) {
      send(network, 0);
      network.advance(1);
    }
    expect(network.server.dscpOf(0)).toBe(0);
  });

  it("is sent to a restarted server", () => {
    const network = started();
    send(network, EF);
    network.killServer();
    network.startServer();
    network.advance(20_000);
    send(network, EF);
    expect(network.server.dscpOf(0)).toBe(EF);
  });

  it("starts at 0 in a new association", () => {
    const network = started();
    send(network, EF);
    network.client.closeAssociation(network.now, 0);
    network.settle();
    network.client.openAssociation(network.now, undefined, false);
    network.send(0, TARGET, "x");
    network.settle();
    expect([network.server.associationCount, network.server.dscpOf(0)]).toEqual([1, 0]);
  });

  it("does not change when its association is opened again, and is 0 for a value above 63", () => {
    const network = started();
    send(network, EF);
    network.carryToServer(encodeAssociationOpen(1, undefined));
    expect(network.server.dscpOf(0)).toBe(EF);
    network.carryToServer(encodeDscp(1, 64));
    expect(network.server.dscpOf(0)).toBe(0);
    network.carryToServer(encodeDscp(77, EF));
    expect(network.server.associationCount).toBe(1);
    send(network, EF);
    expect(network.arrived.length).toBe(2);
  });

  it.each([0, 1, 2, 3])("reaches the server in a session with receipts when only lane %i is left", (left) => {
    const network = started({ client: { lanes: 4 }, latencyMs: 20 });
    send(network, EF);
    network.advance(300);
    expect(network.server.dscpOf(0)).toBe(EF);
    for (const lane of [0, 1, 2, 3]) network.stalledLanes.add(lane);
    send(network, AF21);
    network.advance(30);
    for (const lane of [0, 1, 2, 3]) if (lane !== left) network.cutConnections(lane);
    network.stalledLanes.clear();
    network.advance(2_000);
    expect(network.server.dscpOf(0)).toBe(AF21);
  });

  it("is sent in a session with receipts if it changes before the server confirms the association", () => {
    const network = started({ client: { lanes: 4 }, latencyMs: 200 });
    network.client.handleDscp(network.now, 0, EF);
    network.send(0, TARGET, "x");
    network.client.handleDscp(network.now, 0, AF21);
    network.advance(20);
    for (let i = 0; i < 20; i++) {
      network.advance(15);
      network.client.handleDscp(network.now, 0, AF21);
    }
    network.advance(1_000);
    expect(network.server.dscpOf(0)).toBe(AF21);
  });
});

describe("a latency rule with DSCPs", () => {
  const latencyRules = ["bulk:192.0.2.0/24", `interactive:dscp=${EF},${AF21}`].map(
    (text) => parseLatencyRule(text)!,
  );

  it("gives its class to all datagrams of the application while they carry one of its DSCPs", () => {
    const network = started({ client: { latencyRules } });
    const other = "198.51.100.1:53";
    send(network, 0, other);
    expect([network.client.latencyOf(0), network.server.latencyOf(0)]).toEqual(["balanced", undefined]);
    send(network, AF21, other);
    expect([network.client.latencyOf(0), network.server.latencyOf(0)]).toEqual([
      "interactive",
      "interactive",
    ]);
    network.advance(300);
    send(network, 0, other);
    expect([network.client.latencyOf(0), network.server.latencyOf(0)]).toEqual(["balanced", "balanced"]);
  });

  it("applies only if no earlier rule matches", () => {
    const network = started({ client: { latencyRules } });
    send(network, EF);
    expect(network.client.latencyOf(0)).toBe("bulk");
  });

  it.each(["interactive:dscp=", "interactive:dscp=64", "interactive:dscp=46,", "bulk:dscp=-1", "bulk:dscp"])(
    "%j is refused",
    (text) => {
      expect(parseLatencyRule(text)).toBeUndefined();
    },
  );
});
