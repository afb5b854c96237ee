import { describe, expect, it } from "vitest";
import { silentLogger, UdpLocalHost, UdpServerHost } from "../../../../src/host/index.ts";
import type { AddressBytes } from "../../../../src/wire/socket-address.ts";
import { copyAddress, formatAddress, makeAddress } from "../../../../src/wire/socket-address.ts";
import { writeUdpHeader } from "../../../../src/wire/socks5.ts";
import { LOCAL, SERVER } from "../../memory/memory-exchange.ts";
import type { MemoryNative } from "../../memory/memory-native.ts";
import { WHOLE } from "../../memory/memory-native.ts";
import { MemoryNet } from "../../memory/memory-net.ts";
import { seededIntegers } from "../../random.ts";

const TARGETS = ["192.0.2.1", "192.0.2.2"].map((ip) => makeAddress(ip, 53)!);
const FORWARDS = [5000, 5001].map((port) => makeAddress("127.0.0.1", port)!);
/** Tolerance for expiry times: the grain of idleness. */
const GRAIN_MS = 1_000;

/** Both hosts with native I/O in memory, applications and targets, which echo, unless a datagram begins with `2/` or `3/`. */
class World {
  readonly net: MemoryNet;
  readonly local: UdpLocalHost;
  readonly server: UdpServerHost;
  readonly localNative: MemoryNative;
  readonly serverNative: MemoryNative;
  /** The datagrams that each application and each target received. */
  readonly got: string[][] = [];
  readonly asked: string[][] = TARGETS.map(() => []);
  /** By the number of the application with which a datagram begins: the function that answers it. */
  readonly #answer: ((text: string) => void)[] = [];
  readonly #apps: ((bytes: Uint8Array, to: AddressBytes) => void)[] = [];

  constructor(
    seed: number,
    hasShortcuts: boolean,
    localOptions: Partial<typeof LOCAL> = {},
    serverOptions: Partial<typeof SERVER> = {},
  ) {
    this.net = new MemoryNet(seed, hasShortcuts);
    const server = this.net.process("198.51.100.1");
    const local = this.net.process("127.0.0.1");
    this.localNative = local.native;
    this.serverNative = server.native;
    this.server = new UdpServerHost({ ...SERVER, ...serverOptions }, silentLogger, server.system);
    const forwards = TARGETS.map((target, i) => ({
      listen: formatAddress(FORWARDS[i]),
      target: formatAddress(target),
    }));
    this.local = new UdpLocalHost(
      { ...LOCAL, listen: "127.0.0.1:1080", forwards, ...localOptions },
      silentLogger,
      local.system,
    );
    for (const i of TARGETS.keys()) {
      const send = this.net.open(`192.0.2.${i + 1}`, 53, (bytes, from) => {
        const text = textOf(bytes);
        this.asked[i].push(text);
        this.#answer[Number(text[0])] = (answer) => send(bytesOf(answer), from);
        if (!/^[23]\//.test(text)) send(Uint8Array.of(0x21, ...bytes), from);
      });
    }
    for (let app = 0; app < 6; app++) {
      const got: string[] = [];
      this.got.push(got);
      this.#apps.push(this.net.open("127.0.0.1", 6000 + app, (bytes) => got.push(textOf(bytes))));
    }
  }

  async start(): Promise<void> {
    const listening = this.server.listen().then(() => this.local.listen());
    await this.net.settle();
    await listening;
    await this.net.settle();
  }

  send(app: number, to: AddressBytes, bytes: Uint8Array): void {
    this.#apps[app](bytes, to);
  }

  /** @returns false if its target does not know the application */
  push(app: number, text: string): boolean {
    this.#answer[app]?.(text);
    return this.#answer[app] !== undefined;
  }

  async burst(app: number, forward: number, count: number, text = "x"): Promise<void> {
    for (let i = 0; i < count; i++) this.send(app, FORWARDS[forward], bytesOf(`${text}${i}`));
    await this.net.settle();
  }

  /** The number of bursts after which a flow has shortcuts both ways at both ends. */
  async warmUp(app: number, forward: number): Promise<void> {
    for (let i = 0; i < 8; i++) await this.burst(app, forward, 1, `w${i}-`);
  }

  get actives(): number[] {
    return [this.localNative.active, this.serverNative.active];
  }

  /** Rows and reads that scripts handle for one exchange of a flow. */
  async costOf(app: number, forward: number): Promise<number> {
    const before = this.localNative.entered + this.serverNative.entered;
    await this.burst(app, forward, 1, "cost");
    return this.localNative.entered + this.serverNative.entered - before;
  }

  get counts() {
    return [this.local.stats(), this.server.stats()].map(
      ({ datagramsIn, datagramsOut, bytesIn, bytesOut, drops, refused, unreachable }) => ({
        ...{ datagramsIn, datagramsOut, bytesIn, bytesOut, drops, refused, unreachable },
      }),
    );
  }
}

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

async function started(
  localOptions: Partial<typeof LOCAL> = {},
  serverOptions: Partial<typeof SERVER> = {},
): Promise<World> {
  const world = new World(1, true, localOptions, serverOptions);
  await world.start();
  return world;
}

describe("a shortcut", () => {
  it("is given both ways at both ends after four batches, after which no script runs", async () => {
    const world = await started();
    await world.burst(0, 0, 1);
    expect(world.actives).toEqual([0, 0]);
    await world.warmUp(0, 0);
    expect(world.actives).toEqual([2, 2]);
    expect(await world.costOf(0, 0)).toBe(0);
    expect(world.got[0].at(-1)).toBe("!cost0");
    expect(world.got[0].length).toBe(10);
  });

  it("updates statistics as soon as they are read", async () => {
    const world = await started();
    await world.warmUp(0, 0);
    await world.burst(0, 0, 7);
    const [local, server] = world.counts;
    expect(local).toMatchObject({ datagramsOut: 15, datagramsIn: 15 });
    expect(server).toMatchObject({ datagramsOut: 15, datagramsIn: 15 });
    expect(local.bytesIn).toBe(local.bytesOut + 15);
    expect(server.bytesOut).toBe(server.bytesIn + 15);
  });

  it("ends with a heartbeat, and is given again after four batches", async () => {
    const world = await started();
    await world.warmUp(0, 0);
    await world.net.advance(5_100);
    expect(world.actives).toEqual([0, 0]);
    expect(await world.costOf(0, 0)).toBe(4);
    await world.warmUp(0, 0);
    expect(world.actives).toEqual([2, 2]);
    expect(world.got[0].length).toBe(17);
  });

  it("ends when another flow registers a context on its tunnel", async () => {
    const world = await started();
    await world.warmUp(0, 0);
    await world.burst(1, 1, 1);
    expect(world.actives).toEqual([0, 0]);
    expect(world.got[1]).toEqual(["!x0"]);
  });

  it("keeps its association from expiring, and lets it expire when the flow is idle", async () => {
    const world = await started(
      { idleTimeoutS: 20, activeIdleTimeoutS: 20, heartbeatMs: 600_000 },
      { heartbeatMs: 600_000 },
    );
    await world.warmUp(0, 0);
    for (let i = 0; i < 6; i++) {
      await world.net.advance(9_000);
      expect(await world.costOf(0, 0)).toBe(0);
    }
    expect(world.local.stats().associations).toBe(1);
    await world.net.advance(22_000);
    expect(world.local.stats().associations).toBe(0);
    expect(world.server.stats().associations).toBe(0);
  });

  it("loses nothing while heartbeats end it and it is given again, for 40 s", async () => {
    const world = await started();
    await world.warmUp(0, 0);
    for (let i = 0; i < 40; i++) {
      await world.net.advance(1_000);
      await world.burst(0, 0, 1);
    }
    expect(world.local.stats().resumed).toBe(0);
    expect(world.got[0].length).toBe(48);
  });

  it("gives its place back after 10 s without datagrams, and is given again", async () => {
    const world = await started({ heartbeatMs: 600_000 }, { heartbeatMs: 600_000 });
    await world.warmUp(0, 0);
    await world.net.advance(11_000);
    world.counts;
    expect(world.actives).toEqual([0, 0]);
    await world.warmUp(0, 0);
    expect(world.actives).toEqual([2, 2]);
  });

  it.each([
    ["two lanes", { lanes: 2 }, {}],
    ["receipts", { lanes: 3 }, {}],
  ])("is not given in a session with %s", async (_, localOptions, serverOptions) => {
    const world = await started(localOptions, serverOptions);
    await world.net.advance(1_000);
    await world.warmUp(0, 0);
    await world.warmUp(0, 0);
    expect(world.actives).toEqual([0, 0]);
    expect(world.got[0].length).toBe(16);
  });

  it("is not given at a server for a session of a key with a name", async () => {
    const key = "a key of their own";
    const psk = bytesOf(key);
    const world = await started(
      { psk, keyName: "somebody" },
      { psk: undefined, keys: [{ name: "somebody", key }] },
    );
    await world.net.advance(1_000);
    await world.warmUp(0, 0);
    expect(world.got[0].length).toBe(8);
    expect(world.actives).toEqual([2, 0]);
  });

  it("is not given while datagrams are recorded", async () => {
    const world = await started();
    world.local.core.counters.tap = { record: () => {} } as never;
    await world.warmUp(0, 0);
    expect(world.localNative.active).toBe(0);
  });

  it("is not given by a module without shortcuts", async () => {
    const world = new World(1, false);
    await world.start();
    await world.warmUp(0, 0);
    expect(world.actives).toEqual([0, 0]);
    expect(world.got[0].length).toBe(8);
  });

  it("ends when the server asks its clients to move", async () => {
    const world = await started({}, { drainS: 5 } as Partial<typeof SERVER>);
    await world.warmUp(0, 0);
    const closing = world.server.close();
    await world.net.settle();
    expect(world.serverNative.active).toBe(0);
    await world.warmUp(0, 0);
    expect(world.serverNative.active).toBe(0);
    await world.net.advance(20_000);
    await closing;
  });

  it("ends with its lane; the flow continues on the next one, and gets shortcuts there", async () => {
    const world = await started();
    await world.warmUp(0, 0);
    const [connection] = world.localNative.descriptors;
    world.localNative.cut(connection === undefined ? -1 : laneOf(world));
    await world.net.advance(2_000);
    expect(world.local.stats().resumed).toBe(1);
    await world.warmUp(0, 0);
    expect(world.actives).toEqual([2, 2]);
    expect(world.got[0].length).toBe(16);
  });
});

/** The descriptor of the client's only lane: the most recently opened one. */
function laneOf(world: World): number {
  return world.localNative.descriptors.at(-1)!;
}

describe("a SOCKS5 client", () => {
  async function associate(world: World): Promise<{ relay: AddressBytes; leave: () => void }> {
    const client = world.net.process("127.0.0.1").native;
    const heard: number[] = [];
    const descriptor = client.connectionTo("127.0.0.1:1080");
    const buffer = new Uint8Array(1_024);
    const { module } = client;
    module.streamOpen!(
      descriptor,
      buffer,
      (count) => void heard.push(...buffer.subarray(0, Math.max(0, count))),
      () => {},
    );
    module.streamPause!(descriptor, false);
    await world.net.settle();
    const write = (...bytes: number[]) =>
      module.streamWrite!(descriptor, Uint8Array.from(bytes), bytes.length, false);
    write(5, 1, 0);
    await world.net.settle();
    write(5, 3, 0, 1, 0, 0, 0, 0, 0, 0);
    await world.net.settle();
    expect(heard.slice(0, 5)).toEqual([5, 0, 5, 0, 0]);
    return { relay: copyAddress(Uint8Array.from(heard), 5, 7), leave: () => module.streamClose!(descriptor) };
  }

  function headed(target: AddressBytes, text: string): Uint8Array {
    const header = new Uint8Array(3 + target.length);
    writeUdpHeader(header, 0, target);
    return Uint8Array.of(...header, ...bytesOf(text));
  }

  it("has shortcuts for each of its targets, whose headers they write and take off", async () => {
    const world = await started();
    const { relay, leave } = await associate(world);
    for (let i = 0; i < 10; i++) {
      for (const target of TARGETS) world.send(0, relay, headed(target, `s${i}`));
      await world.net.settle();
    }
    expect(world.localNative.active).toBe(4);
    const before = world.localNative.entered;
    for (const target of TARGETS) world.send(0, relay, headed(target, "now"));
    await world.net.settle();
    expect(world.localNative.entered).toBe(before);
    expect(world.got[0].slice(-2)).toEqual(TARGETS.map((target) => textOf(headed(target, "!now"))));
    leave();
    await world.net.settle();
    expect(world.localNative.active).toBe(0);
    expect(world.local.stats().associations).toBe(0);
  });

  it("whose port changes gets nothing at the old one, because its shortcuts have ended", async () => {
    const world = await started();
    const { relay } = await associate(world);
    for (let i = 0; i < 8; i++) {
      world.send(0, relay, headed(TARGETS[0], `s${i}`));
      await world.net.settle();
    }
    expect(world.localNative.active).toBe(2);
    world.send(1, relay, headed(TARGETS[0], "moved"));
    await world.net.settle();
    expect(world.localNative.active).toBe(0);
    expect(world.got[1]).toEqual([textOf(headed(TARGETS[0], "!moved"))]);
    expect(world.got[0].length).toBe(8);
  });
});

/**
 * A DATAGRAM capsule of the first context that a client registers, as the content of datagrams, so that any part of them may look like one.
 */
const CAPSULE = "\u0000\u0004\u0002abc";

describe("random traffic", () => {
  async function run(seed: number, hasShortcuts: boolean) {
    // The evicted association depends on the order of flows in a batch.
    const isFull = seed % 2 === 0;
    const limits = { maxAssociations: isFull ? 4 : 64, idleTimeoutS: 30, activeIdleTimeoutS: 45 };
    // Rarely, so that some flows are idle for longer than an epoch allows.
    const heartbeatMs = 40_000;
    const world = new World(
      seed,
      hasShortcuts,
      { ...limits, heartbeatMs },
      { idleTimeoutS: 20, heartbeatMs },
    );
    await world.start();
    const random = seededIntegers(seed);
    const counts: unknown[] = [];
    for (let step = 0; step < 40; step++) {
      world.net.chunkBytes = random(3) === 0 ? WHOLE : 1 + random(random(2) === 0 ? 120 : 4_000);
      world.net.pipeBytes = random(4) === 0 ? 20 + random(200) : 65_536;
      const flows = isFull ? 1 : 1 + random(3);
      const rounds = 1 + random(6);
      const first = random(6);
      for (let round = 0; round < rounds; round++) {
        for (let flow = 0; flow < flows; flow++) {
          const app = (first + flow) % 6;
          const length = random(10) === 0 ? random(3_000) : random(60);
          const count = 1 + random(12);
          for (let i = 0; i < count; i++) {
            const text = `${app}/${step}.${round}.${i}`.padEnd(length, CAPSULE);
            // The last two get unrequested datagrams once their target knows them.
            if (app < 4 || !world.push(app, text)) world.send(app, FORWARDS[app % 2], bytesOf(text));
          }
        }
        await world.net.settle();
      }
      const event = random(12);
      if (event === 0) world.localNative.cut(laneOf(world));
      await world.net.advance(event === 1 ? 50_000 : 1_100 + random(4_000));
      counts.push(world.counts);
    }
    await world.net.advance(200_000);
    counts.push(world.counts);
    const { local, server, localNative, serverNative, got, asked } = world;
    const states = [local.stats(), server.stats()].map(({ associations, contexts, resumed }) => ({
      ...{ associations, contexts, resumed },
    }));
    const { carried } = localNative;
    // Flows may overtake each other; their mutual order is undefined.
    const flows = got.map((_, app) => asked.flat().filter((text) => text.startsWith(`${app}/`)));
    return { got, flows, counts, states, closed: serverNative.closed, carried };
  }

  it.each([1, 2, 3, 4])("arrives, counts and expires as without shortcuts (seed %i)", async (seed) => {
    const reference = await run(seed, false);
    const { carried, ...result } = await run(seed, true);
    expect(reference.carried).toBe(0);
    expect(carried).toBeGreaterThan(100);
    expect(result.got).toEqual(reference.got);
    expect(result.flows).toEqual(reference.flows);
    expect(result.counts).toEqual(reference.counts);
    expect(result.states).toEqual(reference.states);
    expect(result.closed.length).toBe(reference.closed.length);
    const timesOf = (closed: readonly string[]) => closed.map((text) => Number(text.split(" ")[0]));
    const expected = timesOf(reference.closed);
    for (const [i, time] of timesOf(result.closed).entries()) {
      expect(Math.abs(time - expected[i])).toBeLessThanOrEqual(GRAIN_MS);
    }
  });
});
