import { describe, expect, it } from "vitest";
import { ROUTE_REJECT, ROUTE_TUNNEL } from "../../../../src/core/tun2socks/rules.ts";
import type { ResolvedTun2SocksOptions } from "../../../../src/host/index.ts";
import { silentLogger, Tun2SocksHost, UdpServerHost } from "../../../../src/host/index.ts";
import type { MemoryDevice } from "../../memory/memory-device.ts";
import { LOCAL, SERVER } from "../../memory/memory-exchange.ts";
import type { MemoryNative } from "../../memory/memory-native.ts";
import { WHOLE } from "../../memory/memory-native.ts";
import { MemoryNet } from "../../memory/memory-net.ts";
import type { IpFields } from "../../packet-oracle.ts";
import { inspect, ipPacket, tcpPacket, udpMessage, udpPacket } from "../../packet-oracle.ts";
import { seededIntegers } from "../../random.ts";

const MTU = 1_280;
const TARGETS = ["192.0.2.1", "192.0.2.2"];
const TARGET_PORT = 53;
const SOURCE = "10.0.0.9";
const FIRST_PORT = 5_000;
const APPS = 5;
const EF = 46 << 2;

/** A tun2socks with native I/O in memory, applications behind its device, and targets that echo, three times as much after "3". */
class World {
  readonly net: MemoryNet;
  readonly host: Tun2SocksHost;
  readonly server: UdpServerHost;
  readonly native: MemoryNative;
  /** The packets that targets received from an application, and it from them, as text. */
  readonly asked: string[] = [];
  #device!: MemoryDevice;

  constructor(
    seed: number,
    hasShortcuts: boolean,
    tunnel: Partial<typeof LOCAL> = {},
    options: Partial<ResolvedTun2SocksOptions> = {},
  ) {
    this.net = new MemoryNet(seed, hasShortcuts);
    const server = this.net.process("198.51.100.1");
    const local = this.net.process("127.0.0.1");
    this.native = local.native;
    this.server = new UdpServerHost({ ...SERVER, idleTimeoutS: 20 }, silentLogger, server.system);
    const all: ResolvedTun2SocksOptions = {
      ...{ device: "fd:9", mtu: MTU, addresses: [], routes: [], offload: "off", familyHeader: false },
      ...{ socks: [], tcpRoute: ROUTE_REJECT, otherTcpWays: [], udpRoute: ROUTE_TUNNEL, rules: [] },
      ...{ dnsRoute: undefined, maxFlows: 8, tcpStack: undefined, tcpMemoryBytes: 1 << 20, usesTunnel: true },
      ...options,
      tunnel: { ...LOCAL, forwards: [], ...tunnel },
    };
    this.host = new Tun2SocksHost(all, silentLogger, local.system, {
      openDevice: async (_options, _io, events) => {
        this.#device = this.native.openDevice(events);
        return this.#device;
      },
    });
    for (const target of TARGETS) {
      const answer = this.net.open(target, TARGET_PORT, (bytes, from) => {
        const text = String.fromCharCode(...bytes);
        this.asked.push(text);
        answer(text.startsWith("3") ? Uint8Array.of(...bytes, ...bytes, ...bytes) : bytes.slice(), from);
      });
    }
  }

  async start(): Promise<void> {
    const listening = this.server.listen().then(() => this.host.open());
    await this.net.settle();
    await listening;
    await this.net.settle();
  }

  send(...packets: Uint8Array[]): void {
    this.#device.sent.push(...packets);
  }

  datagram(app: number, text: string, target = 0, more: Partial<IpFields> = {}): Uint8Array {
    return udpPacket(
      SOURCE,
      FIRST_PORT + app,
      TARGETS[target],
      TARGET_PORT,
      Buffer.from(text, "latin1"),
      more,
    );
  }

  /** The packets that were written to the device for an application: payloads, or fragments. */
  gotOf(app: number): string[] {
    return this.#device.written
      .map((packet) => inspect(packet, "unseen"))
      .filter(
        ({ fragment, destinationPort }) => fragment !== undefined || destinationPort === FIRST_PORT + app,
      )
      .map(({ fragment, payload, message }) =>
        fragment === undefined
          ? payload.toString("latin1")
          : `${fragment.offset}: ${message.toString("hex")}`,
      );
  }

  async exchange(...packets: Uint8Array[]): Promise<void> {
    this.send(...packets);
    await this.net.settle();
  }

  /** The number of exchanges after which a flow has shortcuts both ways. */
  async warmUp(app: number, target = 0, more: Partial<IpFields> = {}): Promise<void> {
    for (let i = 0; i < 8; i++) await this.exchange(this.datagram(app, `w${i}`, target, more));
  }

  /** How often the script is called for one exchange. */
  async costOf(packet: Uint8Array): Promise<number> {
    const before = this.native.entered;
    await this.exchange(packet);
    return this.native.entered - before;
  }

  get counts() {
    const { datagramsIn, datagramsOut, bytesIn, bytesOut, packetsIn, packetsOut, drops, refused } =
      this.host.stats();
    const { associations } = this.host.stats();
    return {
      datagramsIn,
      datagramsOut,
      bytesIn,
      bytesOut,
      packetsIn,
      packetsOut,
      drops,
      refused,
      associations,
    };
  }
}

async function started(
  tunnel: Partial<typeof LOCAL> = {},
  options: Partial<ResolvedTun2SocksOptions> = {},
  hasShortcuts = true,
): Promise<World> {
  const world = new World(1, hasShortcuts, tunnel, options);
  await world.start();
  return world;
}

describe("a shortcut of a device", () => {
  it("is given both ways after four datagrams, and then the script is not entered", async () => {
    const world = await started();
    await world.warmUp(0);
    expect(world.native.active).toBe(2);
    expect(await world.costOf(world.datagram(0, "now"))).toBe(0);
    expect(world.gotOf(0).at(-1)).toBe("now");
    expect(world.counts).toMatchObject({
      datagramsIn: 9,
      datagramsOut: 9,
      packetsIn: 9,
      packetsOut: 9,
      bytesIn: 19,
    });
  });

  it("leaves packets of other protocols and flows, fragments, and what would be fragmented, to the script", async () => {
    const world = await started();
    await world.warmUp(0);
    const to = { source: SOURCE, destination: TARGETS[0] };
    const message = udpMessage(SOURCE, FIRST_PORT, TARGETS[0], TARGET_PORT, Buffer.alloc(64, "f"));
    const fragments = [
      ipPacket({ ...to, protocol: 17, flags: 0x2000 }, message.subarray(0, 40)),
      ipPacket({ ...to, protocol: 17, flags: 5 }, message.subarray(40)),
    ];
    await world.exchange(
      world.datagram(0, "a"),
      ...fragments,
      world.datagram(0, "b"),
      world.datagram(1, "x"),
    );
    expect(world.asked.slice(-4)).toEqual(["a", "f".repeat(64), "b", "x"]);
    expect(world.gotOf(0).slice(-3)).toEqual(["a", "f".repeat(64), "b"]);
    expect(world.gotOf(1)).toEqual(["x"]);
    const segment = { ...to, sourcePort: 1, destinationPort: 1, flags: 2, sequence: 1, acknowledgment: 0 };
    await world.warmUp(0);
    await world.exchange(
      tcpPacket(segment),
      world.datagram(0, `3${"l".repeat(999)}`),
      world.datagram(0, "c"),
    );
    expect(world.host.stats().resets).toBe(1);
    const got = world.gotOf(0);
    expect(got.at(-1)).toBe("c");
    expect(got.filter((text) => /^\d+: /.test(text)).length).toBe(3);
  });

  it("ends when the DSCP of its packets changes, and is given anew", async () => {
    const world = await started();
    await world.warmUp(0);
    expect(await world.costOf(world.datagram(0, "other", 0, { tos: EF }))).toBeGreaterThan(0);
    expect(world.native.active).toBe(0);
    await world.warmUp(0, 0, { tos: EF });
    expect(await world.costOf(world.datagram(0, "same", 0, { tos: EF }))).toBe(0);
    await world.exchange(
      ...["1", "2"].map((text) => world.datagram(0, text, 0, { tos: EF })),
      world.datagram(0, "3", 0, { tos: 0 }),
      world.datagram(0, "4", 0, { tos: EF }),
    );
    expect(world.asked.slice(-4)).toEqual(["1", "2", "3", "4"]);
  });

  it("keeps its association from expiring, and lets it expire when the flow rests", async () => {
    const world = await started({ idleTimeoutS: 20, activeIdleTimeoutS: 20, heartbeatMs: 600_000 });
    await world.warmUp(0);
    for (let i = 0; i < 6; i++) {
      await world.net.advance(4_000);
      await world.warmUp(0);
    }
    expect(world.counts.associations).toBe(1);
    await world.net.advance(22_000);
    expect(world.counts.associations).toBe(0);
    expect(world.native.active).toBe(0);
  });

  it("counts what it carried for an association that is evicted", async () => {
    const world = await started({ maxAssociations: 1 });
    await world.warmUp(0);
    expect(await world.costOf(world.datagram(0, "now"))).toBe(0);
    await world.exchange(world.datagram(1, "new"));
    expect(world.counts).toMatchObject({ datagramsIn: 10, datagramsOut: 10, associations: 1 });
  });

  it.each([
    ["a rule looks into its datagrams", {}, { rules: "domain" }],
    ["the session has receipts", { lanes: 3 }, {}],
  ])("is not given where %s", async (_, tunnel, { rules }: { rules?: string }) => {
    const target = { network: new Uint8Array(0), prefixLength: 0, ports: [[53, 53]] } as never;
    const domain = Uint8Array.of(3, 108, 97, 110, 0);
    const options =
      rules === undefined
        ? {}
        : { rules: [{ protocol: "udp", target, domain, route: ROUTE_TUNNEL } as const] };
    const world = await started(tunnel, options);
    await world.net.advance(1_000);
    await world.warmUp(0);
    expect(world.native.active).toBe(0);
    expect(world.gotOf(0).length).toBe(8);
  });
});

describe("random packets", () => {
  async function run(seed: number, hasShortcuts: boolean) {
    const limits = { maxAssociations: seed % 2 === 0 ? 3 : 64, idleTimeoutS: 30, activeIdleTimeoutS: 45 };
    const world = new World(seed, hasShortcuts, { ...limits, heartbeatMs: 40_000 });
    await world.start();
    const random = seededIntegers(seed);
    const counts: unknown[] = [];
    for (let step = 0; step < 40; step++) {
      world.net.chunkBytes = random(3) === 0 ? WHOLE : 1 + random(random(2) === 0 ? 120 : 4_000);
      world.net.pipeBytes = random(4) === 0 ? 20 + random(200) : 65_536;
      world.net.readRounds = 1 + random(4);
      const app = random(APPS);
      const target = random(2);
      const tos = random(8) === 0 ? EF : 0;
      for (let round = 1 + random(6); round > 0; round--) {
        for (let i = 1 + random(12); i > 0; i--) {
          const length = random(8) === 0 ? random(1_200) : random(40);
          const text = `${random(6) === 0 ? 3 : 1}/${app}/${step}.${round}.${i}`.padEnd(length, "x");
          const ttl = random(40) === 0 ? 1 : 64;
          world.send(world.datagram(app, text, target, { ttl, tos: random(9) === 0 ? EF - tos : tos }));
        }
        await world.net.settle();
      }
      await world.net.advance(random(12) === 0 ? 50_000 : 1_100 + random(4_000));
      // Expiry is exact to a second.
      const { associations: _, ...exact } = world.counts;
      counts.push(exact);
    }
    await world.net.advance(200_000);
    counts.push(world.counts);
    const got = Array.from({ length: APPS }, (_, app) => world.gotOf(app));
    return { got, asked: world.asked, counts, carried: world.native.carried };
  }

  it.each([1, 2, 3, 4])("arrive and count as without shortcuts (seed %i)", async (seed) => {
    const reference = await run(seed, false);
    const { carried, ...result } = await run(seed, true);
    expect(reference.carried).toBe(0);
    expect(carried).toBeGreaterThan(50);
    expect(result.asked).toEqual(reference.asked);
    expect(result.got).toEqual(reference.got);
    expect(result.counts).toEqual(reference.counts);
  });
});
