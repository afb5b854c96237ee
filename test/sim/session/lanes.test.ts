import { describe, expect, it } from "vitest";
import { open, started } from "./started.ts";

describe("lanes", () => {
  it("share the associations, and those of a lost lane move to another lane with their ports", () => {
    const network = started({ client: { lanes: 4 } });
    expect(network.client.lanesUp).toBe(4);
    const all = Array.from({ length: 100 }, () => open(network));
    for (const a of all) network.send(a, "192.0.2.1:53", `a${a}`);
    network.advance(10);
    const before = new Map(network.atTargets.map((line) => [line.split("a")[1], line.split(" ")[0]]));
    network.cutConnections(2);
    expect(network.client.lanesUp).toBe(3);
    for (const a of all) network.send(a, "192.0.2.1:53", `a${a}`);
    network.settle();
    for (const line of network.atTargets.slice(100))
      expect(before.get(line.split("a")[1])).toBe(line.split(" ")[0]);
    expect(network.arrived).toHaveLength(200);
    network.advance(6_000);
    expect(network.client.lanesUp).toBe(4);
    expect(network.server.sessionCount).toBe(1);
  });

  it("all return to one session after the server has restarted", () => {
    const network = started({ client: { lanes: 4 } });
    network.send(open(network), "192.0.2.1:53", "x");
    network.advance(10);
    network.killServer();
    network.advance(3_000);
    network.startServer();
    network.advance(12_000);
    expect(network.client.lanesUp).toBe(4);
    expect(network.server.sessionCount).toBe(1);
  });
});
