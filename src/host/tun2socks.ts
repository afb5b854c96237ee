import { HostError } from "../core/errors.ts";
import { randomSeed } from "../core/handshakes/credentials.ts";
import type { PacketTap } from "../core/tap.ts";
import type { DeviceAddresses } from "../core/tun2socks/options.ts";
import { TUN2SOCKS_LIMITS } from "../core/tun2socks/options.ts";
import { ADDRESS_STRIDE } from "../core/tun2socks/packet-batch.ts";
import { ROUTE_DIRECT, ROUTE_SOCKS, ROUTE_TUNNEL } from "../core/tun2socks/rules.ts";
import { Tun2Socks } from "../core/tun2socks/tun2socks.ts";
import type { UnreachableKind } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { copyAddress, formatHost, ipAddress } from "../wire/socket-address.ts";
import type { Outgoing } from "./addresses/outgoing.ts";
import { outgoingOf } from "./addresses/outgoing.ts";
import type { Cancellation } from "./cancellation.ts";
import type { TcpWay } from "./carriers/carrier-chain.ts";
import { tcpWay } from "./carriers/carrier-chain.ts";
import { tcpWays } from "./carriers/tcp-ways.ts";
import type { Device, DeviceEvents } from "./devices/device.ts";
import type { ConnectFlow } from "./devices/flow-relay.ts";
import { KernelFlows } from "./devices/kernel-flows.ts";
import { StackFlows } from "./devices/stack-flows.ts";
import { STACK_COUNTS, TcpStack } from "./devices/tcp-stack.ts";
import { Driver } from "./driver.ts";
import type { Io } from "./io/io.ts";
import type { NativeModule } from "./io/native-module.ts";
import type { PacketEnd } from "./io/shortcuts.ts";
import { Listeners } from "./listeners.ts";
import type { Logger } from "./log.ts";
import type { Timer } from "./loop.ts";
import type { ResolvedTun2SocksOptions } from "./options/tun2socks.ts";
import { carriesTcp, carriesTcpAlone, describePlan } from "./options/tun2socks.ts";
import type { EndpointStatus, FlowStatus } from "./stats/status.ts";
import type { Tun2SocksStats } from "./stats/tunnel-stats.ts";
import { noTunnelStats, sumRecords } from "./stats/tunnel-stats.ts";
import type { ByteStream } from "./stream/byte-stream.ts";
import type { System } from "./system.ts";
import { HostTap } from "./tap/host-tap.ts";
import { openTap } from "./tap/open-tap.ts";
import type { TapWriter } from "./tap/tap-writer.ts";
import { SharedLatency } from "./udp/shared-latency.ts";
import type { UdpLocalEvents, UdpLocalFeatures } from "./udp-local.ts";
import { UdpLocalHost } from "./udp-local.ts";
import { DirectPath } from "./udp-paths/direct.ts";
import { DnsOverTcpPath } from "./udp-paths/dns-over-tcp.ts";
import { isBareRelay, Socks5Path } from "./udp-paths/socks5.ts";
import type { TunnelPathHost } from "./udp-paths/tunnel.ts";
import { TunnelPath } from "./udp-paths/tunnel.ts";
import type { UdpPath } from "./udp-paths/udp-path.ts";
import { OutgoingDatagram } from "./udp-paths/udp-path.ts";

const NO_STACK_COUNTS = Object.fromEntries(STACK_COUNTS.map((name) => [name, 0])) as ReturnType<
  TcpStack["counts"]
>;

/** How long applications wait for a session that is down; after that its route counts as down. */
const TUNNEL_PATIENCE_MS = 3_000;

export interface Tun2SocksEvents extends UdpLocalEvents {
  /** The device is gone. */
  readonly end: Error | undefined;
}

export interface Tun2SocksAddress {
  /** `tun:NAME` or similar, with the actual name. */
  readonly device: string;
  /** What goes where, one line each, without secrets. */
  readonly plan: readonly string[];
}

/** What a tun2socks gets besides its options. */
export interface Tun2SocksFeatures {
  /** Opens the device that the options name. @throws HostError */
  readonly openDevice: (
    options: ResolvedTun2SocksOptions,
    io: Io,
    events: DeviceEvents,
    log: Logger,
  ) => Promise<Device>;
  /** Features of its tunnel. */
  readonly tunnel?: UdpLocalFeatures;
}

/** Connects {@link Tun2Socks} with a device, TCP listeners, paths for UDP, and a timer. */
export class Tun2SocksHost implements TunnelPathHost {
  readonly events = new Listeners<Tun2SocksEvents>();
  readonly #options: ResolvedTun2SocksOptions;
  readonly #log: Logger;
  readonly #system: System;
  readonly #io: Io;
  readonly #outgoing: Outgoing | undefined;
  readonly #driver: Driver;
  readonly #features: Tun2SocksFeatures;
  #core!: Tun2Socks;
  #device: Device | undefined;
  #flows: KernelFlows | undefined;
  #stackFlows: StackFlows | undefined;
  #stack: TcpStack | undefined;
  #tunnel: UdpLocalHost | undefined;
  #tap: TapWriter | undefined;
  #packetTap: PacketTap | undefined;
  #patience: Timer | undefined;
  /** By route. */
  readonly #paths: (UdpPath | undefined)[] = [];
  /** By route, the next way for TCP. */
  readonly #tcpWays: TcpWay[] = [];
  /** By association. */
  readonly #pathOf: (UdpPath | undefined)[] = [];
  readonly #pathDrops = { send_error: 0, association_limit: 0, malformed: 0, wrong_source: 0 };
  #deviceDrops = 0;
  readonly #datagram = new OutgoingDatagram();
  /** Counts of datagrams that the paths for UDP have reported as not delivered. */
  readonly #refusals: Record<UnreachableKind, number> = { port: 0, host: 0, prohibited: 0, "too-big": 0 };
  /** Whether something waits for the end of this turn, and the time of the turn. */
  #isScheduled = false;
  #now = 0;
  #isClosing = false;
  /** The device is closed. */
  #isEnded = false;

  constructor(options: ResolvedTun2SocksOptions, log: Logger, system: System, features: Tun2SocksFeatures) {
    const { io } = system;
    this.#features = features;
    this.#driver = new Driver(system, io.udp, {
      drain: () => this.#carryOut(),
      handleTimeout: (now) => {
        this.#tunnel?.collectShortcuts();
        this.#core.handleTimeout(now);
        this.#stackFlows?.handleTimeout(now);
      },
      nextTimeout: () =>
        Math.min(this.#core.nextTimeout(), this.#stackFlows?.nextTimeout() ?? Number.POSITIVE_INFINITY),
    });
    this.#system = system;
    this.#options = options;
    this.#log = log;
    this.#io = io;
    this.#outgoing = outgoingOf(options.tunnel);
  }

  get address(): Tun2SocksAddress {
    return { device: this.#device?.description ?? "", plan: describePlan(this.#options) };
  }

  stats(): Tun2SocksStats {
    const core = this.#core;
    // Reports to core what shortcuts have carried.
    const tunnel = this.#tunnel?.stats() ?? noTunnelStats();
    const { drops, datagramsIn, datagramsOut, bytesIn, bytesOut, ...counts } = core.counters;
    const { associationsEvicted, flowsEvicted, halfOpenEvicted, icmpErrorsLimited, ...packets } = counts;
    const { resets, packetsOut, ...stackDrops } = this.#stack?.counts() ?? NO_STACK_COUNTS;
    return {
      ...tunnel,
      ...packets,
      resets: packets.resets + resets,
      packetsOut: packets.packetsOut + packetsOut,
      associations: core.associationCount,
      flows: core.flowCount,
      halfOpenFlows: core.halfOpenCount,
      // Packets into the device came out of a tunnel.
      datagramsIn: datagramsOut,
      datagramsOut: datagramsIn,
      bytesIn: bytesOut,
      bytesOut: bytesIn,
      drops: sumRecords([
        tunnel.drops,
        drops,
        stackDrops,
        this.#pathDrops,
        { device: this.#deviceDropCount() },
      ]),
      refused: { ...tunnel.refused, associationsEvicted, flowsEvicted, halfOpenEvicted },
      tapRecords: this.#tap?.written ?? 0,
      tapLost: this.#tap?.lost ?? 0,
      unreachable: { ...this.#refusals, limited: icmpErrorsLimited + (tunnel.unreachable.limited ?? 0) },
    };
  }

  /** The session of its tunnel; none without a tunnel. */
  async status(): Promise<EndpointStatus> {
    return (await this.#tunnel?.status()) ?? { sessions: [], sessionsLeftOut: 0 };
  }

  async flows(): Promise<FlowStatus> {
    return (await this.#tunnel?.flows()) ?? { flows: [], isCut: false };
  }

  async open(): Promise<void> {
    const options = this.#options;
    this.#tcpWays[ROUTE_DIRECT] = tcpWay(undefined, this.#system, this.#outgoing);
    for (const [index, url] of options.socks.entries()) {
      // A bare relay carries only UDP.
      if (isBareRelay(url)) continue;
      const route = ROUTE_SOCKS + index;
      const urls = [url, ...(route === options.tcpRoute ? options.otherTcpWays : [])];
      this.#tcpWays[route] = tcpWays(urls, this.#system, this.#outgoing, this.#log);
    }
    // Core needs to know whether the device's packets have virtio-net headers.
    const early: DeviceEvents = {
      onPackets: (...packets) => this.#handlePackets(...packets),
      onWritable: () => {
        if (!this.#isClosing) this.#stackFlows?.flush();
      },
      onEnd: (error) => this.#handleEnd(error),
      onListenerFailed: (error) => this.events.emit("listener-failed", error),
    };
    const device = await this.#features.openDevice(options, this.#io, early, this.#log);
    this.#device = device;
    const { descriptor, virtio, uso } = device;
    if (descriptor !== undefined) this.#io.native?.tunShortcuts?.(descriptor, options.mtu, virtio, uso);
    this.#core = await this.#makeCore(device);
    const { tap } = options.tunnel;
    if (tap !== undefined) {
      this.#tap = openTap(options.tunnel, tap, "tun2socks", this.#system, this.#log, undefined);
      this.#packetTap = new HostTap(this.#tap, { isServer: false });
      this.#core.tap = this.#packetTap;
    }
    if (leadsInACircle(options, this.#outgoing)) {
      this.#log.warn(
        {},
        "direct traffic would be routed back into the device: set --out-interface or --out-mark",
      );
    }
    if (options.usesTunnel) await this.#startTunnel();
    const seed = () => randomSeed(this.#system.cryptography);
    this.#paths[ROUTE_DIRECT] = new DirectPath(this.#system, this, this.#log, seed(), this.#outgoing);
    if (options.dnsRoute !== undefined) {
      this.#paths[options.dnsRoute] = new DnsOverTcpPath(this.#system, this, (server, cancellation) =>
        this.#connect(options.tcpRoute, server, cancellation),
      );
    }
    for (const [index, url] of options.socks.entries()) {
      if (carriesTcpAlone(url)) continue;
      this.#paths[ROUTE_SOCKS + index] = new Socks5Path(
        url,
        this.#system,
        this,
        this.#log,
        seed(),
        this.#outgoing,
      );
    }
  }

  /** Reconnects its tunnel at once. */
  reconnect(): void {
    this.#tunnel?.reconnect();
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#driver.stop();
    this.#patience?.cancel();
    await this.#flows?.close();
    this.#stackFlows?.close();
    await Promise.all(this.#paths.map((path) => path?.end()));
    await this.#tunnel?.close();
    await Promise.all(this.#tcpWays.map((way) => way?.close()));
    this.#isEnded = true;
    await this.#device?.close();
    await this.#tap?.close();
  }

  async #makeCore(device: Device): Promise<Tun2Socks> {
    const { mtu, addresses, rules, udpRoute, tcpRoute, maxFlows, tunnel } = this.#options;
    const native = this.#stackModule(device);
    const makeCore = (ports: readonly number[]) => {
      const of = (bytes: number): DeviceAddresses | undefined => {
        const index = addresses.findIndex(({ own }) => own.length === bytes);
        if (index < 0 || !device.hasKernel) return undefined;
        const { own, peer } = addresses[index];
        return { own, peer, listenerPort: ports[index] ?? 0 };
      };
      return new Tun2Socks({
        mtu,
        virtio: device.virtio,
        uso: device.uso,
        hasTcpStack: native !== undefined,
        ipv4: of(4),
        ipv6: of(16),
        rules,
        udpRoute,
        tcpRoute,
        limits: {
          ...TUN2SOCKS_LIMITS,
          maxFlows,
          maxHalfOpen: Math.min(maxFlows, TUN2SOCKS_LIMITS.maxHalfOpen),
          maxAssociations: tunnel.maxAssociations,
          udpIdleMs: tunnel.idleTimeoutS * 1000,
          udpActiveIdleMs: tunnel.activeIdleTimeoutS * 1000,
        },
        seed: randomSeed(this.#system.cryptography),
      });
    };
    const core = () => this.#core;
    const pacing = () => this.#tunnel?.pacing;
    const connect: ConnectFlow = ({ route, target }, cancellation) =>
      this.#connect(route, target, cancellation);
    const log = this.#log;
    if (native !== undefined) {
      const { virtio } = device;
      const secret = this.#system.cryptography.random(16);
      const stack = new TcpStack(native, {
        mtu,
        virtio,
        maxFlows,
        memoryBytes: this.#options.tcpMemoryBytes,
        secret,
      });
      this.#stack = stack;
      const turnAt = () => this.#turnAt();
      this.#stackFlows = new StackFlows({
        ...{ core, stack, device, system: this.#system, log, connect, pacing, turnAt },
      });
      return makeCore([]);
    }
    if (!device.hasKernel) return makeCore([]);
    const relay = new KernelFlows({
      core,
      loop: this.#system,
      tcp: this.#io.tcp,
      log,
      connect,
      pacing,
      drain: () => this.#drain(),
      onListenerFailed: (error) => this.events.emit("listener-failed", error),
    });
    this.#flows = relay;
    const ports: number[] = [];
    for (const { own } of addresses) ports.push(await relay.listen(ipText(own)));
    return makeCore(ports);
  }

  /**
   * The module whose stack terminates TCP; undefined if the kernel does, or nothing.
   *
   * @throws HostError
   */
  #stackModule(device: Device): NativeModule | undefined {
    const { native } = this.#io;
    const { tcpStack } = this.#options;
    if (tcpStack === "kernel" && !device.hasKernel)
      throw new HostError("ERR_DEVICE", `${device.description}: it has no kernel behind it to terminate TCP`);
    if (tcpStack === "kernel" || (tcpStack === undefined && device.hasKernel) || !carriesTcp(this.#options))
      return undefined;
    if (native?.tcpStackOpen !== undefined) return native;
    const reason = native === undefined ? "it needs native I/O" : "the native module was built without lwIP";
    if (tcpStack === "lwip") throw new HostError("ERR_NATIVE", `--tcp-stack lwip: ${reason}`);
    this.#log.warn(
      {},
      `TCP is refused because the device has no kernel behind it and no TCP stack is available: ${reason}`,
    );
    return undefined;
  }

  #deviceDropCount(): number {
    if (!this.#isEnded) this.#deviceDrops += this.#device?.takeDropped?.() ?? 0;
    return this.#deviceDrops + (this.#stackFlows?.deviceDrops ?? 0);
  }

  async #startTunnel(): Promise<void> {
    const tap = this.#tap;
    const flush = () => this.#writeDevice();
    const features = { ...this.#features.tunnel, tap, flush };
    const tunnel = new UdpLocalHost(this.#options.tunnel, this.#log, this.#system, features);
    this.#tunnel = tunnel;
    await tunnel.listen();
    const latency = new SharedLatency(tunnel.latency, (next) => this.#device?.setLatency?.(next));
    this.#paths[ROUTE_TUNNEL] = new TunnelPath(tunnel, this, latency);
    const isUp = () => {
      this.#patience?.cancel();
      this.#patience = undefined;
      this.#core.setRouteUp(ROUTE_TUNNEL, true);
    };
    const isDown = () => {
      this.#patience ??= this.#system.after(
        TUNNEL_PATIENCE_MS,
        () => this.#core.setRouteUp(ROUTE_TUNNEL, false),
        true,
      );
    };
    isDown();
    const { events } = this;
    for (const name of ["session-up", "session-resumed", "session-renewed"] as const) {
      tunnel.events.on(name, (value) => {
        isUp();
        events.emit(name, value as never);
      });
    }
    tunnel.events.on("session-down", (error) => {
      isDown();
      events.emit("session-down", error);
    });
    tunnel.events.on("error", (error) => events.emit("error", error));
  }

  #connect(route: number, target: AddressBytes, cancellation: Cancellation): Promise<ByteStream> {
    return this.#tcpWays[route].connect(target, cancellation);
  }

  // TunnelPathHost

  packetEnd(association: number, remote: AddressBytes, dscp: number): PacketEnd | undefined {
    const { descriptor } = this.#device!;
    const source = this.#core.sourceOf(association);
    if (descriptor === undefined || source === undefined) return undefined;
    return this.#core.mayCutShort(association, remote)
      ? { device: descriptor, source, remote, dscp }
      : undefined;
  }

  handleCarried(...carried: Parameters<Tun2Socks["handleShortcut"]>): void {
    this.#core.handleShortcut(...carried);
  }

  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void {
    const now = this.#turnAt();
    const core = this.#core;
    const before = core.counters.datagramsOut;
    while (!core.handleDatagram(now, association, remote, data, offset, length)) this.#writeDevice();
    if (this.#packetTap === undefined || core.counters.datagramsOut === before) return;
    const source = core.sourceOf(association);
    this.#packetTap.record(true, undefined, association, source, remote, data, offset, length);
  }

  refuse(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void {
    const now = this.#turnAt();
    this.#refusals[kind]++;
    while (!this.#core.handleUnreachable(now, association, remote, kind, mtu)) this.#writeDevice();
  }

  drop(reason: "send_error" | "association_limit" | "malformed" | "wrong_source", count: number): void {
    if (count > 0) this.#pathDrops[reason] += count;
  }

  // The loop

  #handlePackets(data: Uint8Array, offsets: Int32Array, lengths: Int32Array, count: number): void {
    if (this.#core === undefined || this.#isClosing) return;
    const now = this.#system.now();
    for (let first = 0; first < count; ) {
      first = this.#core.handlePackets(now, data, offsets, lengths, first, count);
      this.#stackFlows?.handleSegments(now, data);
      this.#writeDevice();
      this.#drainOutputs();
      this.#forward();
    }
    this.#stackFlows?.flush();
    this.#driver.arm();
  }

  #forward(): void {
    const { datagrams } = this.#core;
    const { count, association, offset, length, dscp, addresses, addressLength } = datagrams;
    if (count === 0) return;
    if (this.#packetTap !== undefined) this.#recordForwarded(this.#packetTap);
    const datagram = this.#datagram;
    for (let i = 0; i < count; i++) {
      datagram.setPayload(association[i], datagrams.buffer(i), offset[i], length[i], dscp[i]);
      datagram.setTarget(addresses, i * ADDRESS_STRIDE, addressLength[i]);
      const path = this.#pathOf[association[i]];
      if (path !== undefined) path.send(datagram);
      else this.drop(this.#lossOf(association[i]), 1);
    }
    for (const path of this.#paths) path?.flush();
  }

  /** Why a datagram from the device has no path: its association was evicted for a later packet, or its route carries no UDP. */
  #lossOf(association: number): "association_limit" | "send_error" {
    return this.#core.sourceOf(association) === undefined ? "association_limit" : "send_error";
  }

  #recordForwarded(tap: PacketTap): void {
    const { datagrams } = this.#core;
    const { count, association, offset, length, addresses, addressLength } = datagrams;
    for (let i = 0; i < count; i++) {
      const source = this.#core.sourceOf(association[i]);
      const remote = copyAddress(addresses, i * ADDRESS_STRIDE, addressLength[i]);
      const data = datagrams.buffer(i);
      const reason = this.#pathOf[association[i]] === undefined ? this.#lossOf(association[i]) : undefined;
      tap.record(false, reason, association[i], source, remote, data, offset[i], length[i]);
    }
  }

  #drain(): void {
    this.#driver.drain();
  }

  #carryOut(): void {
    this.#isScheduled = false;
    this.#writeDevice();
    this.#drainOutputs();
    this.#stackFlows?.flush();
  }

  #drainOutputs(): void {
    const core = this.#core;
    for (let output = core.pollOutput(); output !== undefined; output = core.pollOutput()) {
      switch (output.kind) {
        case "association-open": {
          const path = this.#paths[output.route];
          this.#pathOf[output.association] = path;
          path?.open(output.association, output.source);
          break;
        }
        case "association-closed":
          // Counts what shortcuts have carried for it, before its relay is gone.
          this.#tunnel?.collectShortcuts();
          this.#pathOf[output.association]?.close(output.association);
          this.#pathOf[output.association] = undefined;
          break;
        case "flow-closed":
          this.#flows?.forget(output.flow, output.reason);
          this.#stackFlows?.forget(output.flow, output.reason);
      }
    }
  }

  #writeDevice(): void {
    const { toDevice } = this.#core;
    if (toDevice.count > 0 && !this.#isEnded) this.#deviceDrops += this.#device!.write(toDevice);
    toDevice.clear();
  }

  /** The clock, read once per turn of the loop, at the end of which everything received is written. */
  #turnAt(): number {
    if (this.#isScheduled) return this.#now;
    this.#isScheduled = true;
    this.#now = this.#driver.now();
    this.#driver.schedule();
    return this.#now;
  }

  #handleEnd(error: Error | undefined): void {
    if (this.#isClosing) return;
    if (error !== undefined) this.#log.error({ error: error.message }, "the device is gone");
    this.events.emit("end", error);
  }
}

/** True if direct traffic would follow a route of the device back into it. */
function leadsInACircle(options: ResolvedTun2SocksOptions, outgoing: Outgoing | undefined): boolean {
  const { routes, tcpRoute, udpRoute, rules } = options;
  const isDirect = [tcpRoute, udpRoute, ...rules.map(({ route }) => route)].includes(ROUTE_DIRECT);
  return routes.length > 0 && isDirect && outgoing === undefined;
}

function ipText(ip: Uint8Array): string {
  return formatHost(ipAddress(ip, 0));
}
