import { EventEmitter } from "node:events";
import { performance } from "node:perf_hooks";
import { randomSeed } from "../core/credentials.ts";
import { HostError } from "../core/errors.ts";
import type { DeviceAddresses } from "../core/tun2socks/options.ts";
import { TUN2SOCKS_LIMITS } from "../core/tun2socks/options.ts";
import { ADDRESS_STRIDE } from "../core/tun2socks/packet-batch.ts";
import { ROUTE_DIRECT, ROUTE_SOCKS, ROUTE_TUNNEL } from "../core/tun2socks/rules.ts";
import { Tun2Socks } from "../core/tun2socks/tun2socks.ts";
import type { Outgoing } from "../host/addresses/outgoing.ts";
import { outgoingOf } from "../host/addresses/outgoing.ts";
import type { Cancellation } from "../host/cancellation.ts";
import { DeadlineTimer } from "../host/deadline-timer.ts";
import type { Device, DeviceEvents } from "../host/devices/device.ts";
import { openCustomDevice } from "../host/devices/device.ts";
import type { Io } from "../host/io/io.ts";
import type { Logger } from "../host/log.ts";
import { silentLogger } from "../host/log.ts";
import type { ByteStream } from "../host/stream/byte-stream.ts";
import type { Tun2SocksStats } from "../host/tunnel-stats.ts";
import type { RelayHost } from "../host/udp/fixed-forward.ts";
import { SharedLatency } from "../host/udp/shared-latency.ts";
import { DirectPath } from "../host/udp-paths/direct.ts";
import { TunnelPath } from "../host/udp-paths/tunnel.ts";
import type { UdpPath, UdpPathHost } from "../host/udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../host/udp-paths/udp-path.ts";
import type { UnreachableKind } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { formatHost, ipAddress } from "../wire/socket-address.ts";
import type { TcpWay } from "./carrier-chain.ts";
import { tcpWay } from "./carrier-chain.ts";
import { nodeCryptography } from "./cryptography.ts";
import { openPacketListener, openPipe } from "./devices/packet-stream.ts";
import { openDescriptor, openTun } from "./devices/tun.ts";
import { FlowRelay } from "./flow-relay.ts";
import type { Tun2SocksHandle, UdpLocal } from "./handles.ts";
import { chooseIo } from "./io.ts";
import type { ResolvedTun2SocksOptions, Tun2SocksOptions } from "./options/tun2socks.ts";
import { carriesTcpAlone, describePlan, resolveTun2SocksOptions } from "./options/tun2socks.ts";
import { nodeLoop } from "./system.ts";
import { startTunnelClient } from "./udp-local.ts";
import { DnsOverTcpPath } from "./udp-paths/dns-over-tcp.ts";
import { isBareRelay, Socks5Path } from "./udp-paths/socks5.ts";

/** How long applications wait for a session that is down; after that its route counts as down. */
const TUNNEL_PATIENCE_MS = 3_000;

/** Starts tun2socks. @throws UsageError for options, HostError when the device cannot be opened */
export async function startTun2Socks(
  options: Tun2SocksOptions,
  log: Logger = silentLogger,
): Promise<Tun2SocksHandle> {
  const resolved = resolveTun2SocksOptions(options);
  const host = new Tun2SocksHost(resolved, log, chooseIo(options.io, resolved.tunnel.latency, log));
  try {
    await host.open();
  } catch (error) {
    await host.close();
    throw error;
  }
  return host;
}

/** Wires {@link Tun2Socks} to a device, TCP listeners, paths for UDP, and a timer. */
class Tun2SocksHost extends EventEmitter implements Tun2SocksHandle, UdpPathHost {
  readonly #options: ResolvedTun2SocksOptions;
  readonly #log: Logger;
  readonly #io: Io;
  readonly #outgoing: Outgoing | undefined;
  readonly #timer = new DeadlineTimer(nodeLoop, () => this.#handleTimeout());
  #core!: Tun2Socks;
  #device: Device | undefined;
  #flows: FlowRelay | undefined;
  #tunnel: (UdpLocal & RelayHost) | undefined;
  #patience: NodeJS.Timeout | undefined;
  /** By route. */
  readonly #paths: (UdpPath | undefined)[] = [];
  /** By route, where TCP goes on. */
  readonly #tcpWays: TcpWay[] = [];
  /** By association. */
  readonly #pathOf: (UdpPath | undefined)[] = [];
  readonly #pathDrops = { send_error: 0, association_limit: 0, malformed: 0, wrong_source: 0 };
  #deviceDrops = 0;
  readonly #datagram = new OutgoingDatagram();
  /** Datagrams that the paths for UDP have reported as not delivered. */
  readonly #refusals: Record<UnreachableKind, number> = { port: 0, host: 0, prohibited: 0, "too-big": 0 };
  #isFlushing = false;
  #now = 0;
  #isClosing = false;

  constructor(options: ResolvedTun2SocksOptions, log: Logger, io: Io) {
    super();
    this.#options = options;
    this.#log = log;
    this.#io = io;
    this.#outgoing = outgoingOf(options.tunnel);
  }

  get address(): Tun2SocksHandle["address"] {
    return { device: this.#device?.description ?? "", plan: describePlan(this.#options) };
  }

  stats(): Tun2SocksStats {
    const core = this.#core;
    const { drops, datagramsIn, datagramsOut, bytesIn, bytesOut, ...counts } = core.counters;
    const tunnel = this.#tunnel?.stats();
    const { flowsOpened, associationsOpened, associationsEvicted, flowsEvicted, halfOpenEvicted } = counts;
    return {
      sessions: tunnel?.sessions ?? 0,
      lanes: tunnel?.lanes ?? 0,
      contexts: tunnel?.contexts ?? 0,
      rttMs: tunnel?.rttMs,
      spread: tunnel?.spread ?? { modes: {}, bitsPerSecond: 0, lanesLate: 0, counts: {} },
      resumed: tunnel?.resumed ?? 0,
      associations: core.associationCount,
      flows: core.flowCount,
      halfOpenFlows: core.halfOpenCount,
      packetsIn: counts.packetsIn,
      packetsOut: counts.packetsOut,
      associationsOpened,
      flowsOpened,
      // What goes into the device came out of a tunnel.
      datagramsIn: datagramsOut,
      datagramsOut: datagramsIn,
      bytesIn: bytesOut,
      bytesOut: bytesIn,
      drops: { ...sum(tunnel?.drops, drops, this.#pathDrops), device: this.#deviceDrops },
      refused: { ...tunnel?.refused, associationsEvicted, flowsEvicted, halfOpenEvicted },
      unreachable: {
        ...this.#refusals,
        limited: counts.icmpErrorsLimited + (tunnel?.unreachable.limited ?? 0),
      },
    };
  }

  async open(): Promise<void> {
    const options = this.#options;
    this.#tcpWays[ROUTE_DIRECT] = tcpWay(undefined, this.#io, this.#outgoing);
    for (const [index, url] of options.socks.entries()) {
      // A bare relay is for UDP alone.
      if (!isBareRelay(url)) this.#tcpWays[ROUTE_SOCKS + index] = tcpWay(url, this.#io, this.#outgoing);
    }
    // Core needs to know whether the device's packets have virtio-net headers.
    const early: DeviceEvents = {
      onPackets: (...packets) => this.#handlePackets(...packets),
      onEnd: (error) => this.#handleEnd(error),
    };
    const device = await openDevice(options, this.#io, early, this.#log);
    this.#device = device;
    this.#core = await this.#makeCore(device);
    if (leadsInACircle(options, this.#outgoing)) {
      this.#log.warn(
        {},
        "direct traffic would be routed back into the device: set --out-interface or --out-mark",
      );
    }
    if (options.usesTunnel) await this.#startTunnel();
    const seed = () => randomSeed(nodeCryptography);
    this.#paths[ROUTE_DIRECT] = new DirectPath(this.#io.udp, this, seed(), this.#outgoing);
    if (options.dnsRoute !== undefined) {
      this.#paths[options.dnsRoute] = new DnsOverTcpPath(this, (server, cancellation) =>
        this.#connect(options.tcpRoute, server, cancellation),
      );
    }
    for (const [index, url] of options.socks.entries()) {
      if (carriesTcpAlone(url)) continue;
      this.#paths[ROUTE_SOCKS + index] = new Socks5Path(
        url,
        this.#io,
        this,
        this.#log,
        seed(),
        this.#outgoing,
      );
    }
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#timer.stop();
    clearTimeout(this.#patience);
    await this.#flows?.close();
    await Promise.all(this.#paths.map((path) => path?.end()));
    await this.#tunnel?.close();
    await Promise.all(this.#tcpWays.map((way) => way?.close()));
    await this.#device?.close();
  }

  async #makeCore(device: Device): Promise<Tun2Socks> {
    const { mtu, addresses, rules, udpRoute, tcpRoute, maxFlows, tunnel } = this.#options;
    const makeCore = (ports: readonly number[]) => {
      const of = (bytes: number): DeviceAddresses | undefined => {
        const index = addresses.findIndex(({ own }) => own.length === bytes);
        if (index < 0 || !device.hasKernel) return undefined;
        const { own, peer } = addresses[index];
        return { own, peer, listenerPort: ports[index] };
      };
      return new Tun2Socks({
        mtu,
        virtio: device.virtio,
        uso: device.uso,
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
        seed: randomSeed(nodeCryptography),
      });
    };
    if (!device.hasKernel) return makeCore([]);
    const relay = new FlowRelay({
      core: () => this.#core,
      tcp: this.#io.tcp,
      log: this.#log,
      connect: ({ route, target }, cancellation) => this.#connect(route, target, cancellation),
      drain: () => this.#drain(),
    });
    this.#flows = relay;
    const ports: number[] = [];
    for (const { own } of addresses) ports.push(await relay.listen(ipText(own)));
    return makeCore(ports);
  }

  async #startTunnel(): Promise<void> {
    const tunnel = await startTunnelClient(this.#options.tunnel, this.#log, this.#io);
    this.#tunnel = tunnel;
    const latency = new SharedLatency(tunnel.latency, (next) => this.#device?.setLatency?.(next));
    this.#paths[ROUTE_TUNNEL] = new TunnelPath(tunnel, this, latency);
    const isUp = () => {
      clearTimeout(this.#patience);
      this.#patience = undefined;
      this.#core.setRouteUp(ROUTE_TUNNEL, true);
    };
    const isDown = () => {
      this.#patience ??= setTimeout(
        () => this.#core.setRouteUp(ROUTE_TUNNEL, false),
        TUNNEL_PATIENCE_MS,
      ).unref();
    };
    isDown();
    for (const name of [
      "session-up",
      "session-resumed",
      "session-renewed",
      "session-down",
      "error",
    ] as const) {
      tunnel.on(name, (fields: unknown) => {
        if (name === "session-down") isDown();
        else if (name !== "error") isUp();
        if (name !== "error" || this.listenerCount("error") > 0) this.emit(name, fields);
      });
    }
  }

  #connect(route: number, target: AddressBytes, cancellation: Cancellation): Promise<ByteStream> {
    return this.#tcpWays[route].connect(target, cancellation);
  }

  // UdpPathHost

  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void {
    const now = this.#turnAt();
    while (!this.#core.handleDatagram(now, association, remote, data, offset, length)) this.#writeDevice();
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
    const now = performance.now();
    for (let first = 0; first < count; ) {
      first = this.#core.handlePackets(now, data, offsets, lengths, first, count);
      this.#writeDevice();
      this.#drainOutputs();
      this.#forward();
    }
    this.#timer.arm(this.#core.nextTimeout());
  }

  #forward(): void {
    const { datagrams } = this.#core;
    const { count, association, offset, length, dscp, addresses, addressLength } = datagrams;
    if (count === 0) return;
    const datagram = this.#datagram;
    for (let i = 0; i < count; i++) {
      datagram.setPayload(association[i], datagrams.buffer(i), offset[i], length[i], dscp[i]);
      datagram.setTarget(addresses, i * ADDRESS_STRIDE, addressLength[i]);
      this.#pathOf[association[i]]?.send(datagram);
    }
    for (const path of this.#paths) path?.flush();
  }

  #drain(): void {
    this.#writeDevice();
    this.#drainOutputs();
    if (!this.#isClosing) this.#timer.arm(this.#core.nextTimeout());
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
          this.#pathOf[output.association]?.close(output.association);
          this.#pathOf[output.association] = undefined;
          break;
        case "flow-closed":
          this.#flows?.forget(output.flow, output.reason);
      }
    }
  }

  #writeDevice(): void {
    const { toDevice } = this.#core;
    if (toDevice.count > 0) this.#deviceDrops += this.#device!.write(toDevice);
    toDevice.clear();
  }

  /** The clock, read once per turn of the loop, at whose end everything received is written. */
  #turnAt(): number {
    if (this.#isFlushing) return this.#now;
    this.#isFlushing = true;
    this.#now = performance.now();
    setImmediate(this.#flush);
    return this.#now;
  }

  readonly #flush = (): void => {
    this.#isFlushing = false;
    if (!this.#isClosing) this.#drain();
  };

  #handleTimeout(): void {
    this.#core.handleTimeout(performance.now());
    this.#drain();
  }

  #handleEnd(error: Error | undefined): void {
    if (this.#isClosing) return;
    if (error !== undefined) this.#log.error({ error: error.message }, "the device is gone");
    this.emit("end", error);
  }
}

async function openDevice(
  options: ResolvedTun2SocksOptions,
  io: Io,
  events: DeviceEvents,
  log: Logger,
): Promise<Device> {
  const { device, familyHeader, offload } = options;
  const { latency } = options.tunnel;
  if (typeof device !== "string") return openCustomDevice(device, events);
  if (device === "pipe:") return openPipe(events, log);
  if (device.startsWith("unix:")) return openPacketListener(device.slice(5), events, log);
  if (io.native?.tunWatch === undefined) {
    throw new HostError("ERR_NATIVE", `${device} needs native I/O: build it with "npm run build:native"`);
  }
  if (device.startsWith("fd:")) {
    return openDescriptor(Number(device.slice(3)), familyHeader, latency, io.native, events);
  }
  return openTun(
    { ...options, latency, name: device.slice(4), hasOffload: offload === "on" },
    io.native,
    events,
    log,
  );
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

/** Adds counts by name. */
function sum(...records: (Readonly<Record<string, number>> | undefined)[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const record of records) {
    for (const [name, count] of Object.entries(record ?? {})) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}
