import { describe, expect, it } from "vitest";
import type { NetworkOptions } from "../network.ts";
import { Network } from "../network.ts";

const TARGET = "192.0.2.1:53";
const PSK = new TextEncoder().encode("a key of the tests");

function network(lanes: number | "auto", options: NetworkOptions = {}): Network {
  return new Network({ latencyMs: 20, ...options, client: { lanes, ...options.client } });
}

function timesOf({ attempts }: Network): number[] {
  return attempts.map((text) => Number(text.split(" ")[0]));
}

describe("a client whose first lane gets no answer", () => {
  it.each([2, 4, "auto"] as const)(
    "connects another after half a second, which begins the session (lanes %s)",
    (lanes) => {
      const net = network(lanes);
      net.ways.set(0, "drop");
      net.start();
      net.ways.clear();
      net.advance(499);
      expect(net.attempts).toEqual(["0 0"]);
      net.advance(100);
      expect(net.client.isUp).toBe(true);
      expect(net.sessionEvents).toEqual(["session-up"]);
    },
  );

  it.each(["drop", "swallow"] as const)(
    "makes four attempts and no more while all are unanswered (%s)",
    (fault) => {
      const net = network("auto");
      net.ways.set(0, fault);
      net.start();
      net.advance(4_900);
      expect(timesOf(net)).toEqual([0, 500, 1_000, 1_500]);
    },
  );

  it("continues with one attempt and no more when several have failed, and adds others to it again", () => {
    const net = network("auto");
    net.ways.set(0, "swallow");
    net.start();
    net.advance(120_000);
    const times = timesOf(net);
    // The handshake of each attempt has five seconds.
    for (const time of times) {
      expect(times.filter((other) => other > time - 4_900 && other <= time).length).toBeLessThanOrEqual(6);
    }
    expect(times.length).toBeGreaterThan(30);
    net.ways.clear();
    net.advance(6_000);
    expect(net.client.lanesUp).toBe(4);
  });

  it("makes one attempt with a single lane, and one for each refusal", () => {
    const single = network(1);
    single.ways.set(0, "drop");
    single.start();
    single.advance(4_900);
    expect(single.attempts).toEqual(["0 0"]);

    const refused = network("auto");
    refused.ways.set(0, "refuse");
    refused.start();
    refused.advance(20_000);
    const times = timesOf(refused);
    expect(Math.min(...times.slice(1).map((time, i) => time - times[i]))).toBeGreaterThanOrEqual(100);
  });

  it.each([undefined, PSK])(
    "leaves no connection and no session behind when the first answer comes late (key %s)",
    (psk) => {
      const net = network("auto", { latencyMs: 300, client: { psk }, server: { psk } });
      net.start();
      net.advance(10_000);
      expect(timesOf(net).slice(0, 2)).toEqual([0, 500]);
      expect(net.sessionEvents).toEqual(["session-up"]);
      expect(net.client.lanesUp).toBe(4);
      expect(net.openConnections).toBe(4);
      expect(net.server.sessionCount).toBe(1);
      expect(
        net.clientEvents.filter((event) => event.kind === "disconnect" && event.error !== undefined),
      ).toEqual([]);
    },
  );

  it("keeps a lane that is still connecting when another is accepted, and connects the others", () => {
    const net = network("auto", { latencyMs: 200, client: { psk: PSK }, server: { psk: PSK } });
    net.ways.set(0, "drop");
    net.start();
    net.ways.clear();
    net.advance(10_000);
    expect(net.client.lanesUp).toBe(3);
    expect(net.client.laneReports()[0].state).toBe("connecting");
  });

  it("gives up a lane that is still connecting if the session needs only one", () => {
    const net = network("auto", { latencyMs: 0, client: { isLocal: true } });
    net.ways.set(0, "drop");
    net.start();
    net.ways.clear();
    net.advance(10_000);
    expect(net.client.laneReports().filter(({ state }) => state !== "held")).toHaveLength(1);
    expect(net.attempts).toHaveLength(2);
  });

  it("resumes its session, with the same ports, when all lanes are lost and the first to come back is not answered", () => {
    const net = network("auto");
    net.start();
    net.advance(1_000);
    const association = net.client.openAssociation(net.now, undefined, false);
    net.send(association, TARGET, "before");
    net.advance(1_000);
    const before = net.attempts.length;
    net.ways.set(0, "drop");
    net.cutConnections();
    while (net.attempts.length === before) net.advance(1);
    net.ways.clear();
    net.advance(600);
    net.send(association, TARGET, "after");
    net.advance(1_000);
    expect(net.sessionEvents).toEqual(["session-up", "session-down", "session-resumed"]);
    expect(net.arrived.map(({ payload }) => payload)).toEqual(["before", "after"]);
    expect(new Set(net.atTargets.map((line) => line.split(" ")[0])).size).toBe(1);
  });

  it("ends all attempts when it is closed", () => {
    const net = network("auto");
    net.ways.set(0, "swallow");
    net.start();
    net.advance(2_000);
    net.client.close();
    net.settle();
    expect(net.openConnections).toBe(0);
    expect(net.client.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
  });
});
