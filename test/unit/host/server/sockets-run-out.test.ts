import { describe, expect, it } from "vitest";
import type { Outgoing } from "../../../../src/host/addresses/outgoing.ts";
import { silentLogger, UdpLocalHost, UdpServerHost } from "../../../../src/host/index.ts";
import { DirectPath } from "../../../../src/host/udp-paths/direct.ts";
import { OutgoingDatagram } from "../../../../src/host/udp-paths/udp-path.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { LOCAL, SERVER } from "../../memory/memory-exchange.ts";
import { MemoryNet } from "../../memory/memory-net.ts";

const APPLICATIONS = 40;
const SOCKETS = 8;
/** At this limit of descriptors, a quarter is left for tunnels and a quarter for everything else. */
const DESCRIPTORS = 2 * SOCKETS;
const FORWARD = makeAddress("127.0.0.1", 5000)!;
const SLOW_FORWARD = makeAddress("127.0.0.1", 5001)!;
const TARGET = makeAddress("192.0.2.1", 53)!;

const bytesOf = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const textOf = (bytes: Uint8Array) => String.fromCharCode(...bytes);

/** Both hosts in memory, applications behind one forward, and a target that echoes and records what it gets. */
class World {
  readonly net = new MemoryNet(1, false);
  readonly local: UdpLocalHost;
  readonly server: UdpServerHost;
  readonly serverNative;
  readonly asked: string[] = [];
  readonly answered: string[] = [];
  /** Ends the look-up of a name without an address. */
  failLookUp = () => {};
  readonly #applications: ((bytes: Uint8Array) => void)[] = [];

  /** @param target  of the forward for the applications; those of `waiting` have another forward, to a name whose look-up lasts */
  constructor(
    descriptors: number,
    options: Partial<typeof SERVER> = {},
    target = "192.0.2.1:53",
    waiting: readonly number[] = [],
  ) {
    const server = this.net.process("198.51.100.1");
    const local = this.net.process("127.0.0.1");
    this.serverNative = server.native;
    this.server = new UdpServerHost({ ...SERVER, ...options }, silentLogger, {
      ...server.system,
      descriptorLimit: () => descriptors,
      lookUp: () =>
        new Promise((_done, failed) => (this.failLookUp = () => failed(new Error("no such name")))),
    });
    const forwards = [
      { listen: "127.0.0.1:5000", target },
      { listen: "127.0.0.1:5001", target: "slow.example:53" },
    ];
    this.local = new UdpLocalHost({ ...LOCAL, forwards }, silentLogger, local.system);
    const echo = this.net.open("192.0.2.1", 53, (bytes, from) => {
      this.asked.push(textOf(bytes));
      echo(bytes, from);
    });
    for (let i = 0; i < APPLICATIONS; i++) {
      const send = this.net.open("127.0.0.1", 6000 + i, (bytes) => this.answered.push(textOf(bytes)));
      const forward = waiting.includes(i) ? SLOW_FORWARD : FORWARD;
      this.#applications.push((bytes) => send(bytes, forward));
    }
  }

  async start(): Promise<void> {
    const listening = this.server.listen().then(() => this.local.listen());
    await this.net.settle();
    await listening;
    await this.net.settle();
  }

  /** Each of these applications sends at once. */
  async send(first: number, end: number, text: string): Promise<void> {
    for (let i = first; i < end; i++) this.#applications[i](bytesOf(`${text}${i}`));
    await this.net.settle();
  }

  get drops() {
    return [this.local.stats(), this.server.stats()].map(({ drops }) =>
      Object.entries(drops).filter(([, count]) => count > 0),
    );
  }

  async close(): Promise<void> {
    const closing = Promise.all([this.local.close(), this.server.close()]);
    await this.net.advance(2_000);
    await closing;
  }
}

async function started(...parameters: ConstructorParameters<typeof World>): Promise<World> {
  const world = new World(...parameters);
  await world.start();
  return world;
}

const sentBy = (first: number, end: number, text: string) =>
  Array.from({ length: end - first }, (_, i) => `${text}${first + i}`);

describe("a server whose sockets run out", () => {
  const LIMITS = [
    ["its limit of descriptors", DESCRIPTORS, Number.POSITIVE_INFINITY],
    ["the system", Number.POSITIVE_INFINITY, SOCKETS],
  ] as const;

  it.each(LIMITS)(
    "sends the first datagram of 40 new associations at once from 8 sockets, limited by %s",
    async (_by, descriptors, maxSockets) => {
      const world = await started(descriptors);
      world.serverNative.maxSockets = maxSockets;
      await world.send(0, APPLICATIONS, "a");
      expect(world.asked).toEqual(sentBy(0, APPLICATIONS, "a"));
      expect(world.drops).toEqual([[], []]);
      expect(world.server.stats().refused.association_evicted).toBe(APPLICATIONS - SOCKETS);
      // Evicted ones open again. The client hears too late that the last eight are evicted for them.
      await world.send(0, APPLICATIONS, "b");
      expect(world.asked.slice(APPLICATIONS)).toEqual(sentBy(0, APPLICATIONS - SOCKETS, "b"));
      expect(world.drops).toEqual([[], [["association_limit", SOCKETS]]]);
      world.asked.length = 0;
      await world.send(APPLICATIONS - SOCKETS, APPLICATIONS, "c");
      expect(world.asked).toEqual(sentBy(APPLICATIONS - SOCKETS, APPLICATIONS, "c"));
      await world.close();
    },
  );

  it.each(LIMITS)(
    "refuses new associations while all 8 are in use, counts why, and informs the client, limited by %s",
    async (_by, descriptors, maxSockets) => {
      const world = await started(descriptors);
      world.serverNative.maxSockets = maxSockets;
      for (const text of ["a", "b"]) await world.send(0, SOCKETS, text);
      world.asked.length = 0;
      // All in one batch: the association is refused with the first.
      for (const text of ["c", "d", "e"]) void world.send(SOCKETS, SOCKETS + 1, text);
      await world.net.settle();
      expect(world.asked).toEqual([]);
      expect(world.drops).toEqual([[], [["association_limit", 3]]]);
      expect(world.server.stats().refused.association_limit).toBe(1);
      // The client waits for a second.
      await world.send(SOCKETS, SOCKETS + 1, "f");
      expect(world.drops[0]).toEqual([["association_limit", 1]]);
      expect(world.drops[1]).toEqual([["association_limit", 3]]);
      await world.close();
    },
  );

  it.each(LIMITS)(
    "evicts one association with a socket, and none of 20 idler ones that have none yet, limited by %s",
    async (_by, descriptors, maxSockets) => {
      const waiting = Array.from({ length: 20 }, (_, i) => i);
      const world = await started(descriptors, {}, undefined, waiting);
      world.serverNative.maxSockets = maxSockets;
      await world.send(0, 20, "a");
      await world.net.advance(2_000);
      await world.send(20, 20 + SOCKETS + 1, "b");
      expect(world.asked).toEqual(sentBy(20, 20 + SOCKETS + 1, "b"));
      const { associations, refused } = world.server.stats();
      expect({ associations, evicted: refused.association_evicted }).toEqual({
        associations: 20 + SOCKETS,
        evicted: 1,
      });
      await world.close();
    },
  );

  it("counts datagrams behind the refused registration of an association under the limit", async () => {
    const world = await started(Number.POSITIVE_INFINITY, { maxAssociationsPerSession: SOCKETS });
    for (const text of ["a", "b"]) await world.send(0, SOCKETS, text);
    for (const text of ["c", "d"]) void world.send(SOCKETS, SOCKETS + 2, text);
    await world.net.settle();
    expect(world.drops).toEqual([[], [["association_limit", 4]]]);
    expect(world.server.stats().refused.association_limit).toBe(2);
    await world.close();
  });

  it("refuses an association if the system has no socket at all", async () => {
    const world = await started(Number.POSITIVE_INFINITY);
    world.serverNative.maxSockets = 0;
    await world.send(0, 1, "a");
    expect(world.drops).toEqual([[], [["association_limit", 1]]]);
    expect(world.server.stats().refused.association_limit).toBe(1);
    world.serverNative.maxSockets = 1;
    await world.net.advance(1_000);
    await world.send(0, 1, "b");
    expect(world.asked).toEqual(["b0"]);
    await world.close();
  });
});

describe("datagrams behind a refused registration are counted under its reason:", () => {
  it("a target that the policy denies", async () => {
    const world = await started(Number.POSITIVE_INFINITY, { deny: ["192.0.2.1"] });
    for (const text of ["a", "b"]) void world.send(0, 1, text);
    await world.net.settle();
    expect(world.drops[1]).toEqual([["refused_target", 2]]);
    await world.close();
  });

  it("a name without an address, both those that waited and those that come later", async () => {
    const world = await started(Number.POSITIVE_INFINITY, {}, "none.example:53");
    await world.send(0, 1, "a");
    world.failLookUp();
    await world.send(0, 1, "b");
    expect(world.drops[1]).toEqual([["unresolved", 2]]);
    await world.close();
  });
});

describe("a path through sockets of this machine", () => {
  /** A path, what it has dropped and logged, and what its target has got. */
  function setUp(outgoing?: Outgoing) {
    const net = new MemoryNet(1, false);
    const { native, system } = net.process("198.51.100.1");
    const asked: string[] = [];
    net.open("192.0.2.1", 53, (bytes) => asked.push(textOf(bytes)));
    const drops: string[] = [];
    const host = {
      ...{ deliver: () => {}, refuse: () => {} },
      drop: (reason: string, count: number) => void (count > 0 && drops.push(`${count} ${reason}`)),
    };
    const warnings: object[] = [];
    const log = { ...silentLogger, warn: (fields: object) => void warnings.push(fields) };
    const path = new DirectPath(system, host, log, 1, outgoing);
    const send = (association: number, text: string) => {
      const datagram = new OutgoingDatagram();
      datagram.setPayload(association, bytesOf(text), 0, text.length, 0);
      datagram.setTarget(TARGET, 0, TARGET.length);
      path.send(datagram);
      path.flush();
    };
    return { net, native, asked, drops, warnings, send };
  }

  it("counts a datagram that got no socket once, and opens one for the next", async () => {
    const { net, native, asked, drops, warnings, send } = setUp();
    native.maxSockets = 0;
    send(0, "a");
    await net.settle();
    expect(drops).toEqual(["1 association_limit"]);
    native.maxSockets = 1;
    send(0, "b");
    await net.settle();
    expect(drops).toHaveLength(1);
    expect(asked).toEqual(["b"]);
    expect(warnings).toEqual([]);
  });

  it("opens one socket a second while none can be used, logs that once, and goes on when one can be", async () => {
    const { net, native, asked, drops, warnings, send } = setUp({ interfaceName: "wlan0", mark: 0 });
    let opened = 0;
    let isGone = true;
    Object.assign(native.module, {
      udpRestrict: () => {
        opened++;
        if (isGone) throw Object.assign(new Error("no such device"), { code: "ENODEV" });
      },
    });
    const turns = async (count: number) => {
      for (let turn = 0; turn < count; turn++) {
        for (const association of [0, 1, 2]) send(association, "a");
        await net.advance(100);
      }
    };
    await turns(25);
    expect(opened).toBe(3);
    expect(native.closed).toHaveLength(3);
    expect(drops).toEqual(new Array(75).fill("1 send_error"));
    expect(warnings).toEqual([{ error: "no such device" }]);
    isGone = false;
    await net.advance(1_000);
    await turns(1);
    expect(asked).toEqual(["a", "a", "a"]);
    expect(opened).toBe(6);
    isGone = true;
    send(3, "b");
    expect(warnings).toHaveLength(2);
  });
});
