import { beforeEach, describe, expect, it } from "vitest";
import type { TunnelClient } from "../../../../src/core/client/client.ts";
import type { TunnelServer } from "../../../../src/core/server/server.ts";
import { ContextTable } from "../../../../src/core/session/context-table.ts";
import type { Shortcut } from "../../../../src/core/session/shortcuts.ts";
import { ShortcutEpoch } from "../../../../src/core/session/shortcuts.ts";
import { encodeHeartbeat } from "../../../../src/wire/capsule.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { Network } from "../../../sim/network.ts";

const TARGET = "192.0.2.1:53";

/**
 * The flows of either end that currently have shortcuts, as `in ID` and `out ID`. Every offered shortcut is created, and reports its end.
 */
class Ends {
  readonly network: Network;
  /** How often the host was asked to end shortcuts. */
  ended = { client: 0, server: 0 };

  constructor(network: Network) {
    this.network = network;
    network.client.shortcuts.isWanted = true;
    network.server.shortcuts.isWanted = true;
    network.start();
  }

  give(end: "client" | "server"): Shortcut[] {
    const core: TunnelClient | TunnelServer = this.network[end];
    const given: Shortcut[] = [];
    for (let one = core.pollShortcut(); one !== undefined; one = core.pollShortcut()) {
      one.epoch.begin(one, () => this.ended[end]++);
      given.push(one);
    }
    return given;
  }

  exchange(association: number, times: number, target = TARGET): void {
    for (let i = 0; i < times; i++) {
      this.network.send(association, target, "text");
      this.network.settle();
    }
  }
}

function namesOf(shortcuts: readonly Shortcut[]): string[] {
  return shortcuts.map(({ isOut, id }) => `${isOut ? "out" : "in"} ${id}`).sort();
}

describe("core", () => {
  let ends: Ends;
  let flow: number;
  beforeEach(() => {
    ends = new Ends(new Network());
    flow = ends.network.client.openAssociation(ends.network.now, undefined, true);
  });

  it("offers each direction of a context once it has handled four batches of it", () => {
    ends.exchange(flow, 3);
    expect(ends.give("client")).toEqual([]);
    ends.exchange(flow, 1);
    expect(namesOf(ends.give("client"))).toEqual(["in 2", "out 2"]);
    ends.exchange(flow, 10);
    expect(ends.give("client")).toEqual([]);
  });

  it("offers nothing to a host that does not want shortcuts", () => {
    ends.network.client.shortcuts.isWanted = false;
    ends.exchange(flow, 20);
    expect(ends.give("client")).toEqual([]);
  });

  it("offers a declined flow again after 64 batches", () => {
    const { client } = ends.network;
    ends.exchange(flow, 4);
    for (let one = client.pollShortcut(); one !== undefined; one = client.pollShortcut()) {
      client.shortcuts.decline(one);
    }
    ends.exchange(flow, 63);
    expect(ends.give("client")).toEqual([]);
    ends.exchange(flow, 1);
    expect(namesOf(ends.give("client"))).toEqual(["in 2", "out 2"]);
  });

  it("offers no context that the server has not acknowledged", () => {
    const { network } = ends;
    network.isStalled = true;
    for (let i = 0; i < 10; i++) network.send(flow, TARGET, "text");
    expect(ends.give("client")).toEqual([]);
  });

  it("offers a flow again that native I/O has ended, after four batches", () => {
    ends.exchange(flow, 4);
    for (const one of ends.give("client")) ends.network.client.shortcuts.handleEnded(one);
    ends.exchange(flow, 4);
    expect(namesOf(ends.give("client"))).toEqual(["in 2", "out 2"]);
  });

  const given = () => {
    ends.exchange(flow, 4);
    expect([ends.give("client").length, ends.give("server").length]).toEqual([2, 1]);
    expect(ends.ended).toEqual({ client: 0, server: 0 });
  };

  it.each<[string, (network: Network) => void, { client: number; server: number }]>([
    ["a heartbeat", (network) => network.advance(5_000), { client: 1, server: 1 }],
    [
      "a heartbeat that is read",
      (network) => network.carryToServer(encodeHeartbeat(9, 9)),
      { client: 1, server: 1 },
    ],
    [
      "a report that is only read",
      (network) => network.unreachable(0, TARGET, "port"),
      { client: 1, server: 1 },
    ],
    ["another context", (network) => network.send(0, "192.0.2.9:53", "text"), { client: 1, server: 1 }],
    [
      "the end of the association",
      (network) => network.client.closeAssociation(network.now, 0),
      { client: 1, server: 1 },
    ],
    ["the end of the connection", (network) => network.cutConnections(), { client: 1, server: 1 }],
    ["the end of the client", (network) => network.client.close(), { client: 1, server: 1 }],
    ["a server that shuts down", (network) => network.server.close(network.now), { client: 1, server: 1 }],
    ["a server that asks its clients to move", (network) => network.server.drain(), { client: 1, server: 1 }],
    [
      "a server that another process replaces",
      (network) => network.server.suspend(network.now),
      { client: 0, server: 1 },
    ],
    [
      "an application that is elsewhere",
      (network) => network.client.handleMoved(0),
      { client: 1, server: 0 },
    ],
    [
      "bytes that are no capsules",
      (network) => network.carryToClient(Uint8Array.of(0, 0xbf, 0xff, 0xff, 0xff)),
      { client: 1, server: 1 },
    ],
  ])("ends all shortcuts of a tunnel, once, at %s", (_, happens, expected) => {
    given();
    happens(ends.network);
    ends.network.settle();
    expect(ends.ended).toEqual(expected);
  });

  it("offers no flow of a session with more than 256 contexts, and ends existing ones", () => {
    given();
    for (let port = 1; port <= 256; port++) ends.exchange(flow, 1, `192.0.2.2:${port}`);
    expect(ends.ended).toEqual({ client: 1, server: 1 });
    ends.exchange(flow, 70);
    expect([ends.give("client"), ends.give("server")]).toEqual([[], []]);
  });

  it("offers nothing while the server shuts down, or has asked its clients to move", () => {
    ends.network.server.drain();
    ends.exchange(flow, 10);
    expect(ends.give("server")).toEqual([]);
  });

  it("ends the shortcuts of a session's only lane when another joins, and offers none to two", () => {
    ends = new Ends(new Network({ client: { lanes: 2 }, server: { hasReceipts: false } }));
    ends.network.advance(100);
    flow = ends.network.client.openAssociation(ends.network.now, undefined, true);
    ends.exchange(flow, 20);
    expect(ends.network.openConnections).toBe(2);
    expect([ends.give("client"), ends.give("server")]).toEqual([[], []]);
    ends.network.cutOldest();
    ends.exchange(flow, 70);
    const { openConnections } = ends.network;
    expect(openConnections).toBe(1);
    expect(ends.give("client").length).toBeGreaterThan(0);
    expect(ends.give("server").length).toBeGreaterThan(0);
    ends.network.advance(2_000);
    expect(ends.network.openConnections).toBe(2);
    expect(ends.ended.client).toBe(1);
    expect(ends.ended.server).toBe(1);
  });

  it("counts a shortcut's datagrams after its context has ended, and refreshes nothing else", () => {
    ends.exchange(flow, 4);
    const [one] = ends.give("client");
    const { client, now } = ends.network;
    const { datagramsIn, datagramsOut } = client.counters;
    client.closeAssociation(now, flow);
    ends.network.settle();
    const other = client.openAssociation(now, undefined, true);
    ends.exchange(other, 1, "192.0.2.7:7");
    ends.network.advance(50_000);
    client.handleShortcut(ends.network.now, one, 5, 50, 10);
    expect(client.counters.datagramsIn + client.counters.datagramsOut).toBe(datagramsIn + datagramsOut + 7);
    ends.network.advance(12_000);
    expect(client.associationCount).toBe(0);
  });
});

describe("a table of contexts", () => {
  it.each<[string, (table: ContextTable, slot: number) => void]>([
    ["is released", (table, slot) => table.release(slot)],
    ["has another id in a new session", (table, slot) => table.handle(slot, "new session")],
    ["is closed by the peer", (table, slot) => table.handle(slot, "close")],
  ])("ends the shortcuts of a tunnel when one of their contexts %s", (_, change) => {
    let ended = 0;
    const tunnel = {
      epoch: undefined as unknown as ShortcutEpoch,
      endShortcuts: () => {
        ended++;
        tunnel.epoch = new ShortcutEpoch(tunnel);
      },
      handleShortcutSent: () => {},
      handleShortcutReceived: () => {},
    };
    tunnel.epoch = new ShortcutEpoch(tunnel);
    const table = new ContextTable(1);
    table.shortcuts.isWanted = true;
    const [slot, other] = [1, 2].map((port) =>
      table.allocate(0, "learn", 0, 2 * port, makeAddress("192.0.2.1", port)!, true, 0),
    );
    for (let i = 0; i < 4; i++) table.shortcuts.noteBatch(tunnel, slot, true);
    table.shortcuts.takeOffer()!.epoch.begin({ isOut: true }, () => {});
    change(table, other);
    expect(ended).toBe(0);
    change(table, slot);
    expect(ended).toBe(1);
  });
});
