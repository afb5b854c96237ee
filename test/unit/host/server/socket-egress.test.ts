import { describe, expect, it } from "vitest";
import { silentLogger } from "../../../../src/host/index.ts";
import { AssociationSockets } from "../../../../src/host/server/association-sockets.ts";
import type { EgressHost } from "../../../../src/host/server/server-egress.ts";
import { SocketEgress } from "../../../../src/host/server/socket-egress.ts";
import { MemoryNet } from "../../memory/memory-net.ts";

/** The egress of a server whose system permits two more sockets. Core has ended association 1 when no other can make room for it. */
function setUp(handleOutputs: () => void) {
  const { native, system } = new MemoryNet(1, false).process("198.51.100.1");
  const sockets = new AssociationSockets(Number.POSITIVE_INFINITY);
  const bound: unknown[] = [];
  const live = new Set([0, 1]);
  native.maxSockets = 2;
  const core = {
    ...{ counters: { drops: { send_error: 0 } }, forbidsFragments: () => false, dscpOf: () => 0 },
    ...{ latencyOf: () => undefined, handleSocketOpened: () => {} },
    handleBound: (_now: number, association: number, addresses: unknown) =>
      bound.push([association, addresses]),
    hasAssociation: (association: number) => live.has(association),
    makeRoomForSocket: () => {
      live.delete(1);
      sockets.release(1);
      // Something else has closed a descriptor since.
      native.maxSockets++;
      return false;
    },
  };
  const host = {
    ...{ core, system, log: silentLogger, handleOutputs },
    driver: { now: () => system.now(), schedule: () => {}, drain: () => {} },
  } as unknown as EgressHost;
  const egress = new SocketEgress(host, sockets, ["192.0.2.1", "2001:db8::1"]);
  egress.bind(0, undefined, undefined);
  expect(bound).toMatchObject([[0, [/^192/, /^\[2001/].map((ip) => expect.stringMatching(ip))]]);
  return { egress, live, sockets };
}

describe("A bound tunnel leaves no socket to the next association in its slot", () => {
  it("if it is refused for want of a socket, and then there is one", () => {
    const { egress, sockets } = setUp(() => {});
    egress.bind(1, undefined, undefined);
    expect(sockets.count).toBe(2);
    expect([false, true].map((isIpv6) => sockets.find(1, isIpv6))).toEqual([undefined, undefined]);
  });

  it("if it and the one with all sockets have ended in the same turn", () => {
    const { egress, live, sockets } = setUp(() => {
      live.clear();
      for (const association of [0, 1]) sockets.release(association);
    });
    egress.bind(1, undefined, undefined);
    expect(sockets.count).toBe(0);
  });
});
