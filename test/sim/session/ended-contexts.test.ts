import { describe, expect, it } from "vitest";
import { encodeCompressionClose } from "../../../src/wire/capsule.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import type { Network } from "../network.ts";
import { fromServer, open, started } from "./started.ts";

const [ONE, TWO, THREE] = ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"];

describe.each([
  ["without receipts", 1],
  ["with receipts", 3],
])("a client in a session %s", (_, lanes) => {
  /** Makes datagrams to `ONE` wait for the session's only lane. @returns what a tap sees of the datagrams that the client drops */
  function waiting(answers: boolean): { net: Network; association: number; seen: string[] } {
    const net = started({ client: { lanes, maxContexts: 2, ageBudgetMs: 60_000 } });
    net.maxConnections = 1;
    for (let lane = 1; lane < lanes; lane++) net.cutConnections(lane);
    const association = open(net);
    const seen: string[] = [];
    net.client.counters.tap = {
      record: (isIn, reason, _association, _local, remote) => {
        if (!isIn && reason !== undefined) seen.push(`${reason} ${remote && formatAddress(remote)}`);
      },
    };
    if (answers) net.send(association, ONE, "a");
    net.send(association, TWO, "a");
    if (answers) net.settle();
    // Until its bytes are written, the lane takes no others.
    expect(answers ? net.send(association, TWO, "b") : undefined).toBe(undefined);
    expect(net.client.pollTransmit(net.now, 0)).toBeDefined();
    for (const payload of ["c", "d"]) net.send(association, ONE, payload);
    return { net, association, seen };
  }

  const dropsOf = ({ client }: Network) =>
    Object.fromEntries(Object.entries(client.counters.drops).filter(([, count]) => count > 0));

  it("drops what waits for a context that makes room for another", () => {
    const { net, association, seen } = waiting(true);
    net.advance(2_000);
    net.send(association, TWO, "e");
    net.send(association, THREE, "f");
    net.settle();
    expect(seen).toEqual([`context_limit ${ONE}`, `context_limit ${ONE}`]);
    expect(dropsOf(net)).toEqual({ context_limit: 2 });
    net.client.handleTransmitted(0);
    net.settle();
    expect(net.atTargets.map((line) => line.split(" > ")[1])).toEqual([
      ...[`${ONE}: a`, `${TWO}: a`, `${TWO}: e`, `${THREE}: f`],
    ]);
    expect(net.server.counters.drops.unknown_context).toBe(0);
  });

  it("drops what waits for a context that the server closes", () => {
    const { net, seen } = waiting(true);
    fromServer(net, encodeCompressionClose(2));
    expect(seen).toEqual([`unknown_context ${ONE}`, `unknown_context ${ONE}`]);
    expect(dropsOf(net)).toEqual({ unknown_context: 2 });
  });

  it("drops what waits for a context that the server refuses", () => {
    const { net, seen } = waiting(false);
    fromServer(net, encodeCompressionClose(4));
    expect(seen).toEqual([`refused_target ${ONE}`, `refused_target ${ONE}`]);
    expect(dropsOf(net)).toEqual({ refused_target: 2 });
    expect(net.told).toEqual([`0 ${ONE} prohibited 0`]);
  });
});
