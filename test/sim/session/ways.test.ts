import { describe, expect, it } from "vitest";
import type { TunnelClientOptions } from "../../../src/core/client/client-parts.ts";
import type { Way } from "../../../src/core/client/ways/way-race.ts";
import { WayRace } from "../../../src/core/client/ways/way-race.ts";
import { Network } from "../network.ts";

const TARGET = "192.0.2.1:53";
const same = (count: number): Way[] =>
  Array.from({ length: count }, (_, way) => ({ authority: `way${way}.test:3456`, server: 0 }));

function network(count: number, client: Partial<TunnelClientOptions> = {}): Network {
  return new Network({ client: { ways: same(count), lanes: 1, ...client } });
}

describe("a client with several ways", () => {
  it("uses the first if it works and never tries the others", () => {
    const net = network(3);
    net.start();
    net.advance(60_000);
    expect(net.attempts).toEqual(["0 0"]);
    expect(net.sessionEvents).toEqual(["session-up"]);
  });

  it("tries the next at once after a refusal, and after 1 s of silence", () => {
    const net = network(4);
    net.ways.set(0, "refuse").set(1, "drop").set(2, "swallow");
    net.start();
    net.advance(3_000);
    expect(net.attempts).toEqual(["0 0", "0 1", "1000 2", "2000 3"]);
    expect(net.client.way).toBe(3);
    expect(net.sessionEvents).toEqual(["session-up"]);
  });

  it.each([1, 2])(
    "connects at once when the network changes, however long it has tried (ways: %d)",
    (count) => {
      const net = network(count);
      net.start();
      net.advance(100);
      net.killServer();
      net.advance(300_000);
      net.startServer();
      net.client.handleNetworkChange(net.now);
      net.advance(200);
      expect(net.client.isUp).toBe(true);
    },
  );

  it("cancels the other attempts when one works", () => {
    const net = network(3);
    net.ways.set(0, "drop").set(1, "swallow");
    net.start();
    net.advance(60_000);
    expect(net.client.lanesUp).toBe(1);
    expect(net.openConnections).toBe(1);
    expect(net.attempts).toHaveLength(3);
  });

  it("uses a way that connects and answers late, if it is the first to answer", () => {
    const net = network(2);
    net.ways.set(0, "swallow").set(1, "drop");
    net.start();
    net.advance(2_000);
    net.ways.delete(0);
    net.advance(0);
    expect(net.client.way).toBe(0);
    expect(net.openConnections).toBe(1);
  });

  it.each([1, 4, "auto"] as const)(
    "resumes its session by the second way when the first is blocked midway (lanes %s)",
    (lanes) => {
      const net = new Network({
        client: { ways: same(2), lanes, psk: new Uint8Array(16) },
        server: { psk: new Uint8Array(16) },
        latencyMs: 20,
      });
      net.start();
      net.advance(1_000);
      const association = net.client.openAssociation(net.now, undefined, false);
      net.send(association, TARGET, "before");
      net.advance(1_000);
      net.ways.set(0, "drop");
      net.advance(30_000);
      net.send(association, TARGET, "after");
      net.advance(1_000);
      expect(net.sessionEvents).toEqual(["session-up", "session-down", "session-resumed"]);
      expect(net.client.way).toBe(1);
      expect(net.arrived.map(({ payload }) => payload)).toEqual(["before", "after"]);
      // The source port has not changed.
      expect(new Set(net.atTargets.map((line) => line.split(" ")[0])).size).toBe(1);
    },
  );

  it("connects all its lanes by the way that worked", () => {
    const net = network(3, { lanes: 4 });
    net.ways.set(0, "drop").set(2, "drop");
    net.start();
    net.advance(5_000);
    expect(net.client.lanesUp).toBe(4);
    net.cutConnections(net.client.lanesUp - 1);
    net.advance(5_000);
    expect(net.client.lanesUp).toBe(4);
    expect(new Set(net.attempts.slice(2).map((text) => text.split(" ")[1]))).toEqual(new Set(["1"]));
  });

  it("keeps trying all ways while none works, starting with the first, at most 5 s apart", () => {
    const net = network(2);
    net.ways.set(1, "drop");
    net.serverIsUp = false;
    net.start();
    net.advance(60_000);
    net.ways.clear();
    net.startServer();
    net.advance(6_000);
    expect(net.client.way).toBe(0);
    const times = net.attempts
      .filter((text) => text.endsWith(" 0"))
      .map((text) => Number(text.split(" ")[0]));
    const gaps = times.slice(1).map((time, i) => time - times[i]);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(6_000);
    expect(times.length).toBeLessThan(30);
  });

  it("goes back to the first way when it reconnects after ten minutes, and not before", () => {
    const net = network(2);
    net.ways.set(0, "drop");
    net.start();
    net.advance(2_000);
    expect(net.client.way).toBe(1);
    net.ways.clear();
    net.advance(300_000);
    net.cutConnections();
    net.advance(5_000);
    expect(net.client.way).toBe(1);
    net.advance(300_000);
    expect(net.attempts).toHaveLength(3);
    net.cutConnections();
    net.advance(5_000);
    expect(net.client.way).toBe(0);
  });

  it("ends all attempts when it is closed", () => {
    const net = network(3);
    net.ways.set(0, "drop").set(1, "swallow").set(2, "drop");
    net.start();
    net.advance(2_500);
    net.client.close();
    net.settle();
    const made = net.attempts.length;
    net.advance(60_000);
    expect(net.attempts).toHaveLength(made);
    expect(net.openConnections).toBe(0);
    expect(net.client.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("WayRace", () => {
  const servers = (...numbers: number[]): Way[] => numbers.map((server) => ({ authority: "a.test", server }));
  /** The order in which ways are tried when all are silent. */
  function order(race: WayRace, now: number, count: number): number[] {
    let underWay = 0;
    return Array.from({ length: count }, (_, i) => {
      const way = race.next(now + i, underWay);
      underWay |= 1 << way;
      return way;
    });
  }

  it("tries the ways to the session's server before those to other servers", () => {
    const race = new WayRace(servers(0, 0, 1, 1), () => 0);
    race.begin(0, false, false);
    race.next(0, 0);
    race.handleWorked(0, 3);
    race.begin(10, true, true);
    expect(order(race, 100, 4)).toEqual([3, 2, 0, 1]);
    race.begin(700_000, true, true);
    expect(order(race, 700_000, 4)).toEqual([2, 3, 0, 1]);
  });

  it("prefers no server without a session", () => {
    const race = new WayRace(servers(0, 1), () => 0);
    race.begin(0, false, false);
    expect(order(race, 0, 2)).toEqual([0, 1]);
  });
});
