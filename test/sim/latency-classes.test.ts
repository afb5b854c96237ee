import { describe, expect, it } from "vitest";
import { parseLatencyRule } from "../../src/core/session/latency-rules.ts";
import { encodeAssociationOpen, encodeLatencyClass } from "../../src/wire/capsule.ts";
import { Network } from "./network.ts";

const RULES = ["interactive:5060", "bulk:192.0.2.0/24"].map((text) => parseLatencyRule(text)!);
const PLAIN = "198.51.100.1:53";
const VOICE = "198.51.100.1:5060";
const BACKUP = "192.0.2.1:53";

/** A session with one association, number 0 at both ends, that has sent to the targets. */
function started(targets: readonly string[], client: object = {}): Network {
  const network = new Network({ client: { latencyRules: RULES, ...client } });
  network.start();
  network.advance(100);
  expect(network.client.openAssociation(network.now, undefined, false)).toBe(0);
  for (const target of targets) network.send(0, target, "x");
  network.settle();
  return network;
}

const told = (network: Network) => network.clientEvents.filter(({ kind }) => kind === "latency").length;
const heard = (network: Network) =>
  network.serverEvents.flatMap((event) => (event.kind === "latency" ? [event.latency] : []));

describe("the latency class of an association", () => {
  it.each([
    [[PLAIN], "balanced", undefined],
    [[BACKUP], "bulk", "bulk"],
    [[BACKUP, PLAIN], "balanced", "balanced"],
    [[BACKUP, PLAIN, VOICE], "interactive", "interactive"],
    [[VOICE, BACKUP], "interactive", "interactive"],
    [["192.0.2.1:5060"], "interactive", "interactive"],
  ] as const)("for targets %j is %s at the client, and %s at the server", (targets, own, theirs) => {
    const network = started(targets);
    expect(network.client.latencyOf(0)).toBe(own);
    expect(network.server.latencyOf(0)).toBe(theirs);
  });

  it("depends on the port if the target is a name", () => {
    const network = started([]);
    network.names.set("voice.test", "192.0.2.9");
    network.send(0, "voice.test:5060", "x");
    network.settle();
    expect(network.server.latencyOf(0)).toBe("interactive");
  });

  it("is sent only when it changes", () => {
    const network = started([BACKUP]);
    for (let i = 0; i < 10; i++) network.send(0, `192.0.2.${i + 1}:${i + 60}`, "x");
    network.settle();
    expect([told(network), heard(network)]).toEqual([1, ["bulk"]]);
    network.send(0, VOICE, "x");
    network.send(0, "198.51.100.2:5060", "x");
    network.settle();
    expect([told(network), heard(network)]).toEqual([2, ["bulk", "interactive"]]);
  });

  it("follows when its most sensitive context has expired", () => {
    const network = started([BACKUP, VOICE]);
    for (let minute = 0; minute < 6; minute++) {
      network.advance(60_000);
      network.send(0, BACKUP, "x");
      network.settle();
    }
    expect([network.client.latencyOf(0), network.server.latencyOf(0)]).toEqual(["bulk", "bulk"]);
  });

  it("is the value of --latency if no rule matches, and is sent too", () => {
    const network = started([PLAIN], { latency: "bulk" });
    expect([told(network), network.server.latencyOf(0)]).toEqual([0, "bulk"]);
  });

  it("is sent to a restarted server", () => {
    const network = started([VOICE]);
    network.killServer();
    network.startServer();
    network.advance(20_000);
    network.send(0, VOICE, "x");
    network.settle();
    expect(network.server.latencyOf(0)).toBe("interactive");
  });

  it("does not change when its association is opened again, and is balanced for an unknown number", () => {
    const network = started([VOICE]);
    network.carryToServer(encodeAssociationOpen(1, undefined));
    expect(network.server.latencyOf(0)).toBe("interactive");
    network.carryToServer(encodeLatencyClass(1, 63));
    expect(network.server.latencyOf(0)).toBe("balanced");
    network.carryToServer(encodeLatencyClass(77, 0));
    expect(network.server.associationCount).toBe(1);
    network.send(0, VOICE, "still up");
    network.settle();
    expect(network.arrived.at(-1)?.payload).toBe("still up");
  });
});

describe("a latency rule", () => {
  it.each([
    "interactive",
    "interactive:",
    "fast:53",
    ":53",
    "bulk:0",
    "bulk:65536",
    "bulk:2-1",
    "bulk:10.0.0.0/33",
    "bulk:10.0.0.0/8:",
    "bulk:a.example:53",
    "Bulk:53",
    "bulk: 53",
  ])("%j is refused", (text) => {
    expect(parseLatencyRule(text)).toBeUndefined();
  });

  it.each(["bulk:53", "bulk:53,100-200", "bulk:*", "bulk:*:53", "bulk:10.0.0.1", "bulk:[2001:db8::/32]:53"])(
    "%j is one",
    (text) => {
      expect(parseLatencyRule(text)?.latency).toBe(2);
    },
  );
});
