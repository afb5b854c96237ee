import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { performance } from "node:perf_hooks";
import type { ServerOutput } from "../core/server.ts";
import { TunnelServer } from "../core/server.ts";
import { formatEndpoint, splitZone } from "../host/addresses/endpoint.ts";
import { listenHosts } from "../host/addresses/listen-hosts.ts";
import { publicIps } from "../host/addresses/public-addresses.ts";
import { TargetPolicy } from "../host/addresses/target-policy.ts";
import { parseDialectListen } from "../host/dialects/dialect-options.ts";
import { Driver } from "../host/driver.ts";
import type { Io } from "../host/io/io.ts";
import type { UdpSocket } from "../host/io/udp-io.ts";
import { Remote } from "../host/io/udp-io.ts";
import type { Logger } from "../host/log.ts";
import { silentLogger } from "../host/log.ts";
import { isExclusive, parseEgress } from "../host/options/egress-option.ts";
import type { ShadowsocksListen } from "../host/options/shadowsocks-listen.ts";
import {
  isShadowsocksListen,
  isTunnelTarget,
  parseShadowsocksListen,
} from "../host/options/shadowsocks-listen.ts";
import type { ResolvedUdpServerOptions, UdpServerOptions } from "../host/options/udp-server.ts";
import type { ByteStream } from "../host/stream/byte-stream.ts";
import { CodedByteStream } from "../host/stream/byte-stream-coded.ts";
import type { StreamListener } from "../host/stream/tcp.ts";
import type { System } from "../host/system.ts";
import type { TunnelStats } from "../host/tunnel-stats.ts";
import { tunnelStats } from "../host/tunnel-stats.ts";
import { AssociationSockets } from "../host/udp/association-sockets.ts";
import type { UdpPath, UdpPathHost } from "../host/udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../host/udp-paths/udp-path.ts";
import type { UnreachableKind } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { ATYP_IPV6, formatHost, makeAddress } from "../wire/socket-address.ts";
import { releaseSocket } from "./byte-stream-duplex.ts";
import { DescriptorStream } from "./byte-stream-native.ts";
import { tcpWay } from "./carrier-chain.ts";
import type { ConnectionLink } from "./connection-link.ts";
import { linkConnection } from "./connection-link.ts";
import { nodeCryptography } from "./cryptography.ts";
import { descriptorLimit } from "./descriptor-limit.ts";
import type { DialectHost } from "./dialects/dialect-host.ts";
import type { DialectProtocol } from "./dialects/server-dialects.ts";
import {
  dialectLimits,
  dialectOfConnect,
  dialectProtocols,
  hasDialects,
  openServerDialects,
} from "./dialects/server-dialects.ts";
import { FirstBytes } from "./first-bytes.ts";
import type { UdpServer } from "./handles.ts";
import { chooseIo } from "./io.ts";
import { MasqueHttp2Server } from "./masque/http2-server.ts";
import { NameLookups } from "./name-lookups.ts";
import { openShadowsocksListener } from "./shadowsocks-listener.ts";
import { nodeSystem } from "./system.ts";
import { TargetRelay } from "./target-relay.ts";
import type { TunnelListenerOptions } from "./tunnel-listener.ts";
import { openTunnelListener } from "./tunnel-listener.ts";
import { openEgress } from "./udp-egress.ts";
import { WebSocketByteStream } from "./web/byte-stream-web-socket.ts";
import { StrangerServer } from "./web/stranger-server.ts";
import type { AcceptWebSocket } from "./web/web-socket-acceptor.ts";
import { loadWebSocketAcceptor } from "./web/web-socket-acceptor.ts";
import type { HandedOver, WorkerPlace } from "./worker-group.ts";
import { sumStats, WorkerGroup } from "./worker-group.ts";

/** How long a connection that is being closed may take to send the rest. */
const CLOSE_MS = 1_000;

/** Starts a server. @throws UsageError for options, HostError when it cannot listen */
export async function startUdpServer(
  options: UdpServerOptions,
  log: Logger = silentLogger,
): Promise<UdpServer> {
  // Loaded only here: threads get checked options.
  const { resolveUdpServerOptions } = await import("./options/udp-server.ts");
  const resolved = resolveUdpServerOptions(options);
  const io = chooseIo(options.io, resolved.latency, log);
  const reason = findSingleThreadReason(resolved);
  const workers = reason === undefined ? resolved.workers : 1;
  if (resolved.workers > workers) log.warn({}, `workers: has no effect: ${reason}`);
  if (workers > 1 && resolved.wsPath !== undefined) {
    log.info({}, "sessions in WebSockets are served by the thread that listens");
  }
  if (workers === 1 || io.native?.tcpListen === undefined) {
    const server = new UdpServerHost(resolved, log, nodeSystem(io), undefined, undefined);
    await server.listen();
    return server;
  }
  // Only this thread listens. The others are started when the first session is theirs.
  const group = new WorkerGroup({
    program: "udp-server",
    count: workers,
    options: resolved,
    native: io.native,
    log,
    onEvent: (name, fields) => server.emit(name, fields),
  });
  const server = new UdpServerHost(resolved, log, nodeSystem(io), { index: 0, count: workers }, group);
  await server.listen();
  return server;
}

/** @returns why such a server has one thread; undefined when it may have more */
export function findSingleThreadReason({ egress, listen }: ResolvedUdpServerOptions): string | undefined {
  // What decodes a connection stays in its thread.
  if (listen.some(isShadowsocksListen)) return "a server with ss:// has one thread";
  return isExclusive(parseEgress(egress)!) ? "a server with this egress has one thread" : undefined;
}

/** Starts the part of a server that runs in another thread, which accepts connections that are handed over. */
export function startUdpServerWorker(
  options: ResolvedUdpServerOptions,
  log: Logger,
  place: WorkerPlace,
): UdpServer & { takeOver(connection: HandedOver): void } {
  const io = chooseIo(options.io, options.latency, log);
  return new UdpServerHost(options, log, nodeSystem(io), place, undefined);
}

/** Wires {@link TunnelServer} to TCP listeners, UDP sockets, a resolver and a timer. */
class UdpServerHost extends EventEmitter implements UdpServer, UdpPathHost {
  readonly #options: ResolvedUdpServerOptions;
  readonly #log: Logger;
  readonly #names: NameLookups;
  readonly #system: System;
  readonly #io: Io;
  readonly #core: TunnelServer;
  readonly #driver: Driver;
  readonly #listeners: StreamListener[] = [];
  /** `HOST:PORT` where tunnels are accepted without shadowsocks. */
  readonly #tunnelAddresses: string[] = [];
  readonly #policy: TargetPolicy;
  readonly #links: (ConnectionLink | undefined)[] = [];
  readonly #sockets: AssociationSockets;
  /** By context slot: where to, and for which generation of the slot that holds. */
  readonly #remotes: (Remote | undefined)[] = [];
  readonly #remoteGenerations: number[] = [];
  /** The egress, if it is not our own sockets, once it is open, and the associations that it knows. */
  #egress: UdpPath | undefined;
  readonly #datagram = new OutgoingDatagram();
  readonly #hasEgress: boolean;
  readonly #egressReady: Promise<void>;
  readonly #isOpen: boolean[] = [];
  #isClosing = false;

  #acceptWebSocket: AcceptWebSocket | undefined;
  #strangers: StrangerServer | undefined;
  #http2: MasqueHttp2Server | undefined;
  #dialects: DialectHost | undefined;
  readonly #firstBytes: FirstBytes<DialectProtocol>;
  /** The workers beside the one that listens. */
  readonly #others: WorkerGroup | undefined;

  constructor(
    options: ResolvedUdpServerOptions,
    log: Logger,
    system: System,
    place: WorkerPlace | undefined,
    others: WorkerGroup | undefined,
  ) {
    super();
    const { io } = system;
    this.#system = system;
    this.#others = others;
    this.#driver = new Driver(system, io.udp, {
      drain: (now) => this.#carryOut(now),
      handleTimeout: (now) => this.#core.handleTimeout(now),
      nextTimeout: () => this.#core.nextTimeout(),
    });
    this.#options = options;
    this.#log = log;
    this.#names = new NameLookups(log);
    this.#io = io;
    const { lingerS, idleTimeoutS, allow, deny, wsPath, decoy, ...rest } = this.#options;
    const policy = new TargetPolicy(allow, deny);
    this.#policy = policy;
    this.#core = new TunnelServer({
      ...rest,
      worker: place,
      webSocketPath: wsPath,
      hasDecoy: decoy !== undefined,
      // With a key it would serve nobody; strangers shall see one web server.
      offersHttp2: options.psk === undefined && decoy === undefined,
      crypto: nodeCryptography,
      permits: (target) => policy.permits(target),
      // Nobody knows here by which address and port the egress sends.
      offersBind: this.#options.egress === "sockets",
      lingerMs: lingerS * 1000,
      idleTimeoutMs: idleTimeoutS * 1000,
    });
    this.#sockets = new AssociationSockets(socketLimit(options, place?.count ?? 1));
    this.#firstBytes = new FirstBytes({
      protocols: dialectProtocols(options.dialects),
      timeoutMs: options.handshakeTimeoutMs,
      maxWaiting: options.maxHalfOpen,
      onTold: (stream, acceptedAt, protocol) => this.#accept(stream, acceptedAt, protocol),
      onRefused: (reason) => this.#core.counters.refused[reason]++,
    });
    this.#hasEgress = this.#options.egress !== "sockets";
    this.#egressReady = this.#openEgress();
    // Told here for threads, which do not wait for it.
    this.#egressReady.catch((error: Error) => log.error({ error: error.message }, "cannot open the egress"));
  }

  async #openEgress(): Promise<void> {
    const { egress, idleTimeoutS } = this.#options;
    this.#egress = await openEgress(parseEgress(egress)!, idleTimeoutS, this, this.#io, this.#log);
  }

  get address(): { listen: string[] } {
    return { listen: this.#listeners.map(({ address }) => address) };
  }

  stats(): TunnelStats {
    const core = this.#core;
    const own = tunnelStats(
      core.counters,
      {
        sessions: core.sessionCount,
        lanes: core.tunnelCount,
        associations: core.associationCount,
        contexts: core.contexts.size,
        rttMs: core.rttMs,
      },
      core.spread,
    );
    return this.#others === undefined ? own : sumStats([own, ...this.#others.stats()]);
  }

  async listen(): Promise<void> {
    try {
      await this.#egressReady;
      const { listen, ipv6Only, wsPath, decoy, maxHalfOpen } = this.#options;
      if (wsPath !== undefined) this.#acceptWebSocket = await loadWebSocketAcceptor();
      if (decoy !== undefined) this.#strangers = await StrangerServer.open(decoy, maxHalfOpen);
      const servers = listen.map(parseShadowsocksListen);
      const owns = listen.map(parseDialectListen);
      const texts = listen.map((text, index) => servers[index]?.listen ?? owns[index]?.listen ?? text);
      if (hasDialects(this.#options)) {
        const { counters } = this.#core;
        this.#dialects = await openServerDialects(
          this.#options,
          this.#policy,
          this.#names,
          counters,
          this.#io,
          this.#log,
        );
      }
      for (const [index, text] of texts.entries()) {
        const hosts = listenHosts(text, texts, ipv6Only);
        const options: TunnelListenerOptions = {
          io: this.#io,
          heartbeatMs: this.#options.heartbeatMs,
          onConnection: (stream) => this.#firstBytes.accept(stream),
          onError: (error) => this.#log.warn({ error: error.message }, "cannot accept"),
        };
        const server = servers[index];
        const own = owns[index];
        if (own !== undefined) {
          const how = own.dialect;
          const accept = (stream: ByteStream) => this.#dialects!.accept(stream, how);
          const listener = await openTunnelListener(text, hosts, { ...options, onConnection: accept });
          this.#listeners.push({ ...listener, address: `${how.name}://${listener.address}` });
        } else if (server === undefined) {
          const listener = await openTunnelListener(text, hosts, options);
          this.#listeners.push(listener);
          if (listener.port > 0) this.#tunnelAddresses.push(listener.address);
        } else this.#listeners.push(await this.#openShadowsocks(server, hosts, options));
      }
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  #openShadowsocks(
    server: ShadowsocksListen,
    hosts: readonly string[],
    options: TunnelListenerOptions,
  ): Promise<StreamListener> {
    const { maxHalfOpen, maxTunnels, ssRelay, dialects } = this.#options;
    const refused = this.#core.counters.refused;
    return openShadowsocksListener(server, hosts, {
      ...options,
      maxHalfOpen,
      isTunnel: (target) => isTunnelTarget(target, this.#tunnelAddresses),
      dialectServer: (target) => {
        const dialect = dialectOfConnect(dialects, target);
        return dialect && ((stream) => this.#dialects!.accept(stream, dialect, target));
      },
      relay: new TargetRelay({
        way: ssRelay === "off" ? undefined : tcpWay(ssRelay === "direct" ? undefined : ssRelay, this.#io),
        maxRelays: maxTunnels,
        permits: (target) => this.#policy.permits(target),
        lookUp: (name) => this.#names.lookUp(name),
        log: this.#log,
        onRefused: (reason) => refused[reason]++,
      }),
      log: this.#log,
      onRefused: (reason) => refused[reason]++,
    });
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#driver.stop();
    this.#core.close();
    this.#drain();
    const ends = this.#links.map((link) => link?.writer.endWithin(CLOSE_MS));
    const listeners = this.#listeners.map((listener) => listener.close());
    this.#strangers?.close();
    this.#firstBytes.close();
    ends.push(this.#dialects?.close());
    // The listeners wait for connections of HTTP/2, which have nothing left once their requests have ended.
    const requests = Promise.all(ends).then(() => this.#http2?.close());
    await Promise.all([requests, ...listeners, this.#others?.close()]);
    this.#sockets.close();
    await this.#egress?.end();
  }

  // UdpPathHost

  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void {
    if (!this.#isOpen[association]) return;
    this.#core.handleDatagram(this.#driver.now(), association, data, offset, length, remote);
    this.#driver.schedule();
  }

  refuse(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void {
    if (!this.#isOpen[association]) return;
    this.#core.handleUnreachable(performance.now(), association, remote, kind, mtu);
    this.#driver.schedule();
  }

  drop(reason: Parameters<UdpPathHost["drop"]>[0], count: number): void {
    this.#core.counters.drops[reason] += count;
  }

  /** Takes over a connection whose request another worker has read and accepted. */
  takeOver({ descriptor, head, surplus }: HandedOver): void {
    if (this.#isClosing) {
      this.#io.native!.descriptorClose!(descriptor);
      return;
    }
    const stream = this.#io.tcp.adopt!(descriptor);
    stream.unread(surplus);
    this.#attach(stream, this.#core.handleHandedOver(performance.now(), head));
  }

  #accept(stream: ByteStream, acceptedAt: number, protocol: DialectProtocol | undefined): void {
    if (protocol !== undefined) {
      this.#dialects!.accept(stream, protocol.how);
      return;
    }
    // The bytes of its descriptor are not the tunnel's, so that no other thread can continue with it.
    const isNested = stream instanceof CodedByteStream;
    this.#attach(stream, this.#core.handleAccept(acceptedAt, isNested));
  }

  #attach(stream: ByteStream, connection: number): void {
    const core = this.#core;
    const source = {
      pollTransmit: (now: number) => core.pollTransmit(now, connection),
      handleTransmitted: () => core.handleTransmitted(connection),
      isLimited: (now: number) => core.isLimited(now, connection),
    };
    linkConnection(this.#links, connection, stream, source, {
      onBytes: (chunk, length) => this.#handleStream(connection, chunk, length),
      onEnded: () => {
        core.handleEnded(performance.now(), connection);
        this.#drain();
      },
      onDisconnected: () => {
        core.handleDisconnected(performance.now(), connection);
        this.#drain();
      },
      onFailed: (error) => this.#log.debug({ error: error.message }, "connection failed"),
    });
    this.#drain();
  }

  #handleStream(connection: number, chunk: Uint8Array, end: number): void {
    const now = this.#driver.now();
    for (let at = 0; at < end; ) {
      at = this.#core.handleStream(now, connection, chunk, at, end);
      this.#sendOutgoing(chunk);
      // Sockets of what has ended are closed before more are opened.
      this.#handleOutputs();
    }
    this.#drain();
  }

  /** @param chunk  memory that does not change before it is sent; other memory is copied */
  #sendOutgoing(chunk: Uint8Array | undefined): void {
    const { outgoing, contexts, counters } = this.#core;
    const { count, association, context, offset, length } = outgoing;
    if (count === 0) return;
    const data = outgoing.data === chunk ? chunk : outgoing.data.slice();
    if (this.#hasEgress) {
      this.#sendByEgress(data);
      return;
    }
    for (let i = 0; i < count; i++) {
      const slot = context[i];
      let remote = this.#remotes[slot];
      if (remote === undefined || this.#remoteGenerations[slot] !== contexts.generation[slot] + 1) {
        const target = contexts.target[slot];
        if (target === undefined) continue;
        remote = new Remote(target);
        this.#remotes[slot] = remote;
        // Plus one, so that a slot's first generation differs from no generation.
        this.#remoteGenerations[slot] = contexts.generation[slot] + 1;
      }
      const socket = this.#socketFor(association[i], remote.address);
      if (socket === undefined) counters.drops.association_limit++;
      else if (!socket.send(undefined, data, offset[i], length[i], remote)) counters.drops.send_error++;
    }
    counters.drops.send_error += this.#io.udp.flush();
  }

  #sendByEgress(data: Uint8Array): void {
    const { outgoing, contexts, counters } = this.#core;
    const { count, association, context, offset, length } = outgoing;
    const egress = this.#egress;
    const datagram = this.#datagram;
    if (egress === undefined) {
      counters.drops.send_error += count;
      return;
    }
    for (let i = 0; i < count; i++) {
      const number = association[i];
      const target = contexts.target[context[i]];
      if (target === undefined) continue;
      if (!this.#isOpen[number]) {
        this.#isOpen[number] = true;
        egress.open(number, this.#core.source(number));
      }
      datagram.setPayload(number, data, offset[i], length[i], this.#core.dscpOf(number));
      datagram.setTarget(target, 0, target.length);
      egress.send(datagram);
    }
    egress.flush();
  }

  /** @returns undefined when the limit of sockets is reached and no other association can be evicted */
  #socketFor(association: number, target: AddressBytes): UdpSocket | undefined {
    const isIpv6 = target[0] === ATYP_IPV6;
    const sockets = this.#sockets;
    const known = sockets.find(association, isIpv6);
    if (known !== undefined) return known;
    if (sockets.isFull && !this.#makeRoomForSocket(association)) return undefined;
    const core = this.#core;
    const socket = this.#io.udp.open({
      family: isIpv6 ? 6 : 4,
      host: undefined,
      port: 0,
      reusePort: false,
      forbidsFragments: core.forbidsFragments(association),
      latency: core.latencyOf(association),
      dscp: core.dscpOf(association),
      onDatagrams: (received, first, end) => {
        if (sockets.find(association, isIpv6) !== socket) return;
        core.handleDatagrams(this.#driver.now(), association, received, first, end);
        this.#driver.schedule();
      },
      onUnreachable: (remote, kind, mtu) => {
        if (sockets.find(association, isIpv6) !== socket) return;
        core.handleUnreachable(performance.now(), association, remote, kind, mtu);
        this.#driver.schedule();
      },
      onBindError: (error) => {
        this.#log.warn({ error: error.message }, "cannot open a UDP socket");
        if (sockets.find(association, isIpv6) !== socket) return;
        core.handleSocketFailed(performance.now(), association);
        this.#drain();
      },
    });
    sockets.add(association, isIpv6, socket);
    return socket;
  }

  /** Evicts an association before the system refuses a socket; its sockets are closed at once. */
  #makeRoomForSocket(association: number): boolean {
    const isPossible = this.#core.makeRoomForSocket(this.#driver.now(), association);
    this.#handleOutputs();
    return isPossible && !this.#sockets.isFull;
  }

  #handleOutputs(): void {
    const core = this.#core;
    for (let output = core.pollOutput(); output !== undefined; output = core.pollOutput()) {
      this.#handleOutput(output);
    }
  }

  #drain(): void {
    this.#driver.drain();
  }

  #carryOut(now: number): void {
    const core = this.#core;
    this.#handleOutputs();
    while (core.takeReleased(now)) {
      this.#sendOutgoing(undefined);
      this.#handleOutputs();
    }
    for (let index = core.pollDirty(now); index >= 0; index = core.pollDirty(now))
      this.#links[index]?.writer.pump(now);
  }

  #handleOutput(output: ServerOutput): void {
    switch (output.kind) {
      case "close": {
        const link = this.#links[output.connection];
        if (output.error !== undefined) {
          this.#log.info({ code: output.error.code, error: output.error.message }, "closes a connection");
        }
        if (output.refusal !== undefined) this.#log.debug(output.refusal, "refuses a connection");
        if (link === undefined) return;
        link.writer.end();
        setTimeout(() => link.stream.destroy(), CLOSE_MS).unref();
        return;
      }
      case "hand-over": {
        const link = this.#links[output.connection];
        this.#links[output.connection] = undefined;
        this.#core.handleDisconnected(performance.now(), output.connection);
        const { worker, head, surplus } = output;
        const released = link?.stream instanceof DescriptorStream ? link.stream.release() : undefined;
        if (released === undefined) link?.stream.destroy();
        else this.#others!.handOver(worker, { descriptor: released.descriptor, head, surplus });
        return;
      }
      case "web-socket": {
        const socket = this.#takeSocket(output.connection);
        const web = socket && this.#acceptWebSocket!(socket, output.key, output.surplus);
        if (web !== undefined) this.#attachNested(new WebSocketByteStream(web));
        return;
      }
      case "http2": {
        const socket = this.#takeSocket(output.connection);
        if (socket !== undefined) this.#serveHttp2().take(socket, output.head, output.surplus);
        return;
      }
      case "stranger": {
        const { connection, refusal, head, surplus } = output;
        this.#log.debug(refusal, "refuses a connection");
        const socket = this.#takeSocket(connection);
        if (socket !== undefined) this.#strangers!.take(socket, head, surplus);
        return;
      }
      case "bind": {
        const link = this.#links[output.connection];
        this.#bind(output.association, output.target, link?.stream.localIp);
        return;
      }
      case "release": {
        if (this.#isOpen[output.association]) {
          this.#isOpen[output.association] = false;
          this.#egress?.close(output.association);
        }
        this.#sockets.release(output.association);
        return;
      }
      case "latency": {
        const latency = output.latency ?? this.#io.latency;
        for (const isIpv6 of [false, true]) {
          this.#sockets.find(output.association, isIpv6)?.setLatency(latency);
        }
        return;
      }
      case "dscp":
        for (const isIpv6 of [false, true]) {
          this.#sockets.find(output.association, isIpv6)?.setDscp(output.dscp);
        }
        return;
      case "resolve":
        void this.#resolve(output.query, output.name, output.port);
        return;
      default: {
        const { kind, ...fields } = output;
        this.#log.info(fields, kind);
        this.emit(kind, fields);
      }
    }
  }

  #attachNested(stream: ByteStream): void {
    this.#attach(stream, this.#core.handleAccept(performance.now(), true));
  }

  #serveHttp2(): MasqueHttp2Server {
    const { handshakeTimeoutMs, maxHalfOpen } = this.#options;
    this.#http2 ??= new MasqueHttp2Server({
      handshakeTimeoutMs,
      maxIdle: maxHalfOpen,
      onRequest: (stream) => this.#attachNested(stream),
      onRefused: (reason) => this.#core.counters.refused[reason]++,
    });
    return this.#http2;
  }

  /** Takes a connection out of the core. @returns undefined when it is closed */
  #takeSocket(connection: number): Socket | undefined {
    const link = this.#links[connection];
    this.#links[connection] = undefined;
    this.#core.handleDisconnected(performance.now(), connection);
    const socket = link === undefined ? undefined : releaseSocket(link.stream);
    if (socket === undefined) link?.stream.destroy();
    return socket;
  }

  /** @param target  undefined: of a bound tunnel, which gets a socket for each family */
  #bind(association: number, target: AddressBytes | undefined, localIp: string | undefined): void {
    const now = performance.now();
    if (this.#hasEgress) {
      this.#core.handleBound(now, association, []);
      return;
    }
    const { publicAddress } = this.#options;
    // In one form, as a socket for both families has its IPv4 addresses mapped.
    const local = localIp === undefined ? undefined : makeAddress(splitZone(localIp).ip, 0);
    const ips =
      publicAddress.length > 0
        ? publicAddress
        : publicIps(local && formatHost(local), this.#system.interfaces());
    const addresses = target === undefined ? ips.flatMap((ip) => makeAddress(ip, 0) ?? []) : [target];
    const bound: string[] = [];
    for (const address of addresses) {
      // No association is evicted for a second family.
      if (bound.length > 0 && this.#sockets.isFull) break;
      const port = this.#socketFor(association, address)?.port ?? 0;
      if (port > 0) bound.push(formatEndpoint(formatHost(address), port));
      // It reports later why it failed, and is no longer the association's then.
      else this.#sockets.remove(association, address[0] === ATYP_IPV6);
    }
    this.#core.handleBound(now, association, bound.length === 0 ? undefined : bound);
  }

  async #resolve(query: number, name: string, port: number): Promise<void> {
    const addresses = await this.#names.resolve(name, port);
    this.#core.handleResolved(performance.now(), query, addresses);
    this.#sendOutgoing(undefined);
    this.#drain();
  }
}

/** Sockets that associations of one of so many workers may have: what the system allows less what else needs some. */
function socketLimit(options: ResolvedUdpServerOptions, workers: number): number {
  const { maxTunnels } = options;
  const dialects = hasDialects(options) ? dialectLimits(options) : { connections: 0, flows: 0 };
  const limit = descriptorLimit() - dialects.connections - dialects.flows;
  const tunnels = Math.min(maxTunnels, limit / 4);
  const others = Math.min(128, limit / 4);
  return Math.max(1, Math.floor((limit - tunnels - others) / workers));
}
