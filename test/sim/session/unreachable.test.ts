import { describe, expect, it } from "vitest";
import { encodeCompressionClose, encodeUnreachable } from "../../../src/wire/capsule.ts";
import { BIND_PATH, encodeUpgradeRequest } from "../../../src/wire/http/upgrade.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import { Network } from "../network.ts";

const TARGET = "192.0.2.1:53";

/** A session with one association, number 0 at both ends, that has sent to {@link TARGET}. */
function started(...options: ConstructorParameters<typeof Network>): Network {
  const network = new Network(...options);
  network.start();
  network.advance(100);
  expect(network.client.openAssociation(network.now, undefined, false)).toBe(0);
  network.send(0, TARGET, "x");
  network.settle();
  return network;
}

/** Delivers bytes to the client as if the server had sent them on lane 0. */
function inject(network: Network, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) {
    at = network.client.handleStream(network.now, 0, bytes, at, bytes.length);
  }
  network.settle();
}

function repeated(bytes: Uint8Array, count: number): Uint8Array {
  const all = new Uint8Array(bytes.length * count);
  for (let i = 0; i < count; i++) all.set(bytes, i * bytes.length);
  return all;
}

describe("a target that cannot be reached", () => {
  it.each([
    ["port", 0, 0],
    ["host", 0, 0],
    ["prohibited", 0, 0],
    ["too-big", 1300, 1300],
    ["too-big", 0xffff_ffff, 65_535],
    ["port", 1300, 0],
  ] as const)("is reported to the application: %s, MTU %d as %d", (kind, mtu, wanted) => {
    const network = started();
    network.unreachable(0, TARGET, kind, mtu);
    network.settle();
    expect(network.told).toEqual([`0 ${TARGET} ${kind} ${wanted}`]);
    expect(network.server.counters.unreachable[kind]).toBe(1);
    expect(network.client.counters.unreachable[kind]).toBe(1);
    network.send(0, TARGET, "still sent");
    network.settle();
    expect(network.arrived.at(-1)?.payload).toBe("still sent");
  });

  it("is reported for the association that sent there, on any lane", () => {
    const network = started({ client: { lanes: 3 } });
    const others = Array.from({ length: 5 }, () =>
      network.client.openAssociation(network.now, undefined, false),
    );
    for (const [i, association] of others.entries()) {
      network.send(association, TARGET, "x");
      network.send(association, `192.0.2.${i + 10}:9`, "x");
    }
    network.settle();
    const { address, association } = network.server.contexts;
    for (const i of others.keys()) {
      const target = `192.0.2.${i + 10}:9`;
      // Associations have different numbers at the server.
      const slot = address.findIndex((one) => one !== undefined && formatAddress(one) === target);
      network.unreachable(association[slot], target, "port");
    }
    network.settle();
    expect(network.told.sort()).toEqual(others.map((one, i) => `${one} 192.0.2.${i + 10}:9 port 0`).sort());
  });

  it("is reported under the name that resolved to it", () => {
    const network = started();
    network.names.set("example.test", "192.0.2.7");
    network.echoes = false;
    network.send(0, "example.test:53", "x");
    network.settle();
    network.unreachable(0, "192.0.2.7:53", "host");
    network.settle();
    expect(network.told).toEqual(["0 example.test:53 host 0"]);
  });

  it("is reported for an answered sender through the server's own context", () => {
    const network = started();
    network.receive(0, "192.0.2.1:54", "hello");
    network.settle();
    network.send(0, "192.0.2.1:54", "hello");
    network.unreachable(0, "192.0.2.1:54", "port");
    network.settle();
    expect(network.told).toEqual(["0 192.0.2.1:54 port 0"]);
  });

  it("is not reported if nobody sent there or no lane is up", () => {
    const network = started();
    network.unreachable(0, "192.0.2.99:53", "port");
    network.unreachable(77, TARGET, "port");
    network.settle();
    network.cutConnections();
    network.unreachable(0, TARGET, "port");
    network.advance(2_000);
    expect(network.client.isUp).toBe(true);
    expect(network.told).toEqual([]);
    expect(network.server.counters.unreachable.port).toBe(0);
  });

  it("is reported at most 100 times a second in a session; the rest is counted", () => {
    const network = started();
    for (let i = 0; i < 1000; i++) {
      network.unreachable(0, TARGET, "port");
      if (i % 10 === 0) network.settle();
    }
    network.settle();
    const { unreachable } = network.server.counters;
    expect([unreachable.port, unreachable.limited]).toEqual([100, 900]);
    network.advance(500);
    for (let i = 0; i < 1000; i++) network.unreachable(0, TARGET, "port");
    expect(unreachable.port).toBe(150);
  });
});

describe("a target that the server refuses", () => {
  it("is reported as prohibited at once, and once for each later batch of datagrams", () => {
    const network = started();
    network.send(0, "10.0.0.1:53", "x");
    network.settle();
    expect(network.told).toEqual(["0 10.0.0.1:53 prohibited 0"]);
    for (let i = 0; i < 5; i++) network.send(0, "10.0.0.1:53", "x");
    network.settle();
    expect(network.told).toHaveLength(2);
    network.send(0, "10.0.0.1:53", "x");
    network.settle();
    expect(network.told).toHaveLength(3);
    expect(network.client.counters.drops.refused_target).toBe(6);
    expect(network.client.counters.unreachable.prohibited).toBe(3);
  });

  it("is registered again after 30 s", () => {
    const network = started();
    network.send(0, "10.0.0.1:53", "x");
    network.advance(32_000);
    network.send(0, "10.0.0.1:53", "x");
    network.settle();
    expect(network.server.counters.refused.target_denied).toBe(2);
    expect(network.told).toHaveLength(2);
  });

  it("is reported as prohibited also for an unknown name", () => {
    const network = started();
    network.send(0, "nowhere.test:53", "x");
    network.settle();
    expect(network.told).toEqual(["0 nowhere.test:53 prohibited 0"]);
  });

  it("is not reported at the limit of contexts, where the idlest context makes room", () => {
    const network = started({ server: { maxContextsPerSession: 1 } });
    network.send(0, "192.0.2.2:53", "x");
    network.send(0, "192.0.2.3:53", "x");
    network.settle();
    expect(network.told).toEqual([]);
    expect(network.atTargets).toHaveLength(3);
    expect(network.server.contexts.size).toBe(1);
  });

  it("is not reported to an association that reuses the sender's slot", () => {
    const network = started();
    network.send(0, "10.0.0.1:53", "x");
    network.settle();
    network.send(0, "10.0.0.1:53", "x");
    // The host does not know of it yet.
    network.client.closeAssociation(network.now, 0);
    network.settle();
    expect(network.told).toHaveLength(1);
  });
});

describe("a server that sends wrong UNREACHABLE capsules", () => {
  it("makes the client report and keep at most 200 a second", () => {
    const network = started();
    const others = Array.from({ length: 300 }, (_, i) => `192.0.2.5:${1000 + i}`);
    for (const target of others) network.send(0, target, "x");
    network.settle();
    const capsules = others.map((_, i) => encodeUnreachable(4 + 2 * i, "port", 0));
    for (let round = 0; round < 20; round++) {
      for (const capsule of capsules) inject(network, repeated(capsule, 50));
    }
    const { unreachable } = network.client.counters;
    expect(unreachable.port).toBe(200);
    expect(unreachable.limited).toBeGreaterThan(1000);
    expect(network.told).toHaveLength(200);
  });

  it("is ignored for unknown contexts, and its unknown kinds count as host", () => {
    const network = started();
    inject(network, encodeUnreachable(4, "port", 0));
    inject(network, encodeUnreachable(1, "port", 0));
    expect(network.told).toEqual([]);
    inject(network, Uint8Array.of(0x80, 0x55, 0x50, 0x06, 3, 2, 63, 0));
    inject(network, Uint8Array.of(0x80, 0x55, 0x50, 0x06, 4, 2, 63, 0x40, 0xff));
    expect(network.told).toEqual([`0 ${TARGET} host 0`, `0 ${TARGET} host 0`]);
  });

  it("does no harm if it closes the context in the same chunk", () => {
    const network = started();
    inject(network, Uint8Array.of(...encodeUnreachable(2, "port", 0), ...encodeCompressionClose(2)));
    expect(network.told).toEqual([`0 ${TARGET} port 0`]);
    expect(network.client.contexts.size).toBe(0);
  });

  it.each([
    ["has no MTU", [2, 2, 0]],
    ["has bytes left over", [4, 2, 0, 0, 0]],
    ["is empty", [0]],
    ["has a varint that is cut short", [3, 2, 0, 0x40]],
  ])("loses its tunnel for an UNREACHABLE that %s", (_, tail) => {
    const network = started();
    inject(network, Uint8Array.of(0x80, 0x55, 0x50, 0x06, ...tail));
    const [event] = network.clientEvents.filter(({ kind }) => kind === "disconnect");
    expect(event).toMatchObject({ error: { code: "ERR_CAPSULE_MALFORMED" } });
    network.advance(2_000);
    expect(network.client.isUp).toBe(true);
  });
});

describe("a client without the extension", () => {
  it("gets no UNREACHABLE capsules", () => {
    const network = new Network();
    const { server } = network;
    const connection = server.handleAccept(network.now);
    const path = "/.well-known/masque/udp/192.0.2.1/53/";
    const request = encodeUpgradeRequest("a", path, false, undefined);
    server.handleStream(network.now, connection, request, 0, request.length);
    server.handleBound(network.now, 0, ["192.0.2.45:1"]);
    server.pollTransmit(network.now, connection);
    server.handleTransmitted(connection);
    network.unreachable(0, TARGET, "port");
    expect(server.pollTransmit(network.now, connection)).toBeUndefined();
    expect(server.counters.unreachable.port).toBe(0);
  });
});

describe("a client that sends UNREACHABLE", () => {
  it("loses its tunnel", () => {
    const network = new Network();
    const { server } = network;
    const connection = server.handleAccept(network.now);
    const request = encodeUpgradeRequest("a", BIND_PATH, true, {
      nonce: new Uint8Array(16).fill(9),
      lane: 0,
      ticket: undefined,
      session: undefined,
      receipts: false,
      mac: undefined,
      resumeMac: undefined,
    });
    server.handleStream(network.now, connection, request, 0, request.length);
    const capsule = encodeUnreachable(2, "port", 0);
    server.handleStream(network.now, connection, capsule, 0, capsule.length);
    expect(server.counters.refused.protocol_error).toBe(1);
  });
});
