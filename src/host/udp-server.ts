import type { Datapath } from "../core/datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../core/datapath/typescript-datapath.ts";
import { UsageError } from "../core/errors.ts";
import { TunnelServer } from "../core/server/server.ts";
import type { ServerOutput } from "../core/server/server-output.ts";
import type { DatagramTap, TapReason } from "../core/tap.ts";
import type { UnreachableKind } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { ATYP_IPV6, formatHost, makeAddress } from "../wire/socket-address.ts";
import { formatEndpoint, hasScheme, splitZone } from "./addresses/endpoint.ts";
import { listenHosts } from "./addresses/listen-hosts.ts";
import { NameLookups } from "./addresses/name-lookups.ts";
import { publicIps } from "./addresses/public-addresses.ts";
import { TargetPolicy } from "./addresses/target-policy.ts";
import type { DialectHost } from "./dialects/dialect-host.ts";
import { dialectLimits, hasDialects } from "./dialects/dialect-limits.ts";
import { parseDialectListen } from "./dialects/dialect-listen.ts";
import type { DialectProtocol } from "./dialects/server-dialects.ts";
import { dialectOfConnect, dialectProtocols, openServerDialects } from "./dialects/server-dialects.ts";
import { Driver } from "./driver.ts";
import type { Io } from "./io/io.ts";
import type { FlowEnd } from "./io/shortcuts.ts";
import { HostShortcuts } from "./io/shortcuts.ts";
import type { UdpSocket } from "./io/udp-io.ts";
import { Remote } from "./io/udp-io.ts";
import { keyEntries } from "./key-entries.ts";
import { keyStats } from "./key-stats.ts";
import { Listeners } from "./listeners.ts";
import type { Logger } from "./log.ts";
import type { Timer } from "./loop.ts";
import { parseEgress } from "./options/egress-option.ts";
import type { KeyOption } from "./options/keys.ts";
import type { ShadowsocksListen } from "./options/shadowsocks-listen.ts";
import { isTunnelTarget, parseShadowsocksListen } from "./options/shadowsocks-listen.ts";
import type { ResolvedUdpServerOptions } from "./options/udp-server.ts";
import type { HandingOn } from "./restart/hand-on.ts";
import { restoreState, saveState } from "./restart/hand-on.ts";
import type { KeptState } from "./restart/kept-state.ts";
import { openShadowsocksListener } from "./shadowsocks/shadowsocks-listener.ts";
import type { EndpointStatus, FlowStatus } from "./status.ts";
import { joinFlows, joinStatus, listFlows, MAX_LISTED_SESSIONS } from "./status.ts";
import type { ByteStream } from "./stream/byte-stream.ts";
import { CodedByteStream } from "./stream/byte-stream-coded.ts";
import { DescriptorStream } from "./stream/byte-stream-native.ts";
import type { ConnectionLink } from "./stream/connection-link.ts";
import { linkConnection } from "./stream/connection-link.ts";
import { FirstBytes } from "./stream/first-bytes.ts";
import type { StreamListener } from "./stream/tcp.ts";
import type { TunnelListenerOptions } from "./stream/tunnel-listener.ts";
import { openTunnelListener } from "./stream/tunnel-listener.ts";
import type { OpenWebServer, WebServer } from "./stream/web-server.ts";
import type { System } from "./system.ts";
import { required } from "./system.ts";
import { HostTap } from "./tap/host-tap.ts";
import { openTap } from "./tap/open-tap.ts";
import type { TapWriter } from "./tap/tap-writer.ts";
import type { TunnelStats } from "./tunnel-stats.ts";
import { sumStats, tunnelStats } from "./tunnel-stats.ts";
import { AssociationSockets } from "./udp/association-sockets.ts";
import type { OpenPacketEgress } from "./udp-paths/egress.ts";
import { openEgress } from "./udp-paths/egress.ts";
import type { UdpPath, UdpPathHost } from "./udp-paths/udp-path.ts";
import { OutgoingDatagram } from "./udp-paths/udp-path.ts";
import { acceptWebSocket } from "./web-socket/open.ts";
import type { HandedOver, OtherWorkers, WorkerPlace } from "./workers.ts";

/** How long a connection that is being closed may take to send the rest. */
const CLOSE_MS = 1_000;
/** The same when another process goes on with the sessions, whose clients wait meanwhile. */
const HAND_ON_MS = 250;
/** How often a server that waits for its clients to go looks whether they have gone. */
const DRAIN_CHECK_MS = 20;
/** How often keys are judged by the system's clock anew, as it may have been set. */
const WALL_CLOCK_MS = 30_000;

type SessionEvent = "session-up" | "session-resumed" | "session-down" | "session-ended";

/** Of sessions. */
export type UdpServerEvents = {
  readonly [Kind in SessionEvent]: Omit<Extract<ServerOutput, { readonly kind: Kind }>, "kind">;
};

/** What a server may be given beside its options. */
export interface UdpServerFeatures {
  /** Which of several workers this is. */
  readonly place?: WorkerPlace | undefined;
  /** The workers beside the one that listens. */
  readonly others?: OtherWorkers | undefined;
  readonly openWebServer?: OpenWebServer;
  readonly openPacketEgress?: OpenPacketEgress;
}

/** Wires {@link TunnelServer} to TCP listeners, UDP sockets, a resolver and a timer. */
export class UdpServerHost implements UdpPathHost {
  readonly events = new Listeners<UdpServerEvents>();
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
  /** By connection: what it is, for operators. */
  readonly #carriers: string[] = [];
  readonly #sockets: AssociationSockets;
  /** By context slot: where to, and for which generation of the slot that holds. */
  readonly #remotes: (Remote | undefined)[] = [];
  readonly #remoteGenerations: number[] = [];
  /** The egress, if it is not our own sockets, once it is open, and the associations that it knows. */
  #egress: UdpPath | undefined;
  readonly #datagram = new OutgoingDatagram();
  readonly #hasEgress: boolean;
  readonly #shortcuts: HostShortcuts | undefined;
  readonly #datapath: Datapath;
  readonly #egressReady: Promise<void>;
  readonly #isOpen: boolean[] = [];
  #isEnding = false;
  #isClosing = false;
  #wallClock: Timer | undefined;

  #web: WebServer | undefined;
  #dialects: DialectHost | undefined;
  readonly #firstBytes: FirstBytes<DialectProtocol>;
  readonly #tap: TapWriter | undefined;
  /** The workers beside the one that listens. */
  readonly #others: OtherWorkers | undefined;
  readonly #features: UdpServerFeatures;

  constructor(
    options: ResolvedUdpServerOptions,
    log: Logger,
    system: System,
    features: UdpServerFeatures = {},
  ) {
    const { io } = system;
    const { place, others, openWebServer } = features;
    this.#features = features;
    this.#system = system;
    this.#datapath = system.datapath ?? TYPESCRIPT_DATAPATH;
    this.#others = others;
    this.#driver = new Driver(system, io.udp, {
      begin: (now) => this.#shortcuts?.refresh(now),
      drain: (now) => this.#carryOut(now),
      handleTimeout: (now) => {
        this.#shortcuts?.collect(now);
        this.#core.handleTimeout(now);
      },
      nextTimeout: () => this.#core.nextTimeout(),
    });
    this.#options = options;
    this.#log = log;
    this.#names = new NameLookups(system, log);
    this.#io = io;
    const { lingerS, idleTimeoutS, allow, deny, wsPath, decoy, ...rest } = this.#options;
    const policy = new TargetPolicy(allow, deny);
    this.#policy = policy;
    this.#core = new TunnelServer({
      ...rest,
      keys: options.keys && keyEntries(options.keys),
      worker: place,
      webSocketPath: wsPath,
      hasDecoy: decoy !== undefined,
      // With a key it would serve nobody; strangers shall see one web server.
      offersHttp2: !hasKey(options) && decoy === undefined && openWebServer !== undefined,
      crypto: system.cryptography,
      datapath: system.datapath,
      permits: (target) => policy.permits(target),
      // Nobody knows here by which address and port the egress sends.
      offersBind: this.#options.egress === "sockets",
      lingerMs: lingerS * 1000,
      idleTimeoutMs: idleTimeoutS * 1000,
    });
    if (options.tap !== undefined)
      this.#tap = openTap(options, options.tap, "udp-server", system, log, place);
    if (this.#tap !== undefined) this.#core.counters.tap = new HostTap(this.#tap, { isServer: true });
    if (options.keys !== undefined) this.#handleWallClock();
    this.#sockets = new AssociationSockets(socketLimit(options, system.descriptorLimit(), place?.count ?? 1));
    this.#firstBytes = new FirstBytes({
      loop: system,
      protocols: options.dialects.length === 0 ? [] : dialectProtocols(options.dialects),
      timeoutMs: options.handshakeTimeoutMs,
      maxWaiting: options.maxHalfOpen,
      onTold: (stream, acceptedAt, protocol) => this.#accept(stream, acceptedAt, protocol),
      onRefused: (reason) => this.#core.counters.refused[reason]++,
    });
    this.#hasEgress = this.#options.egress !== "sockets";
    this.#shortcuts =
      this.#hasEgress || io.udp.shortcuts === undefined
        ? undefined
        : new HostShortcuts(io.udp.shortcuts, this.#core, {
            flowEnd: ({ association, context }) => this.#flowEnd(association, context),
            stream: (connection) => this.#links[connection]?.stream,
          });
    this.#egressReady = this.#openEgress();
    // Told here for threads, which do not wait for it.
    this.#egressReady.catch((error: Error) => log.error({ error: error.message }, "cannot open the egress"));
  }

  async #openEgress(): Promise<void> {
    if (!this.#hasEgress) return;
    const { egress, idleTimeoutS } = this.#options;
    this.#egress = await openEgress(
      parseEgress(egress)!,
      idleTimeoutS,
      this,
      this.#system,
      this.#log,
      this.#features.openPacketEgress,
    );
  }

  get address(): { listen: string[] } {
    return { listen: this.#listeners.map(({ address }) => address) };
  }

  stats(): TunnelStats {
    const core = this.#core;
    this.#shortcuts?.collect(this.#system.now());
    this.#tap?.count(core.counters);
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
      core.keys && keyStats(core.keys),
    );
    return this.#others === undefined ? own : sumStats([own, ...this.#others.stats()]);
  }

  /** Its sessions now, and those of the other workers. */
  async status(): Promise<EndpointStatus> {
    const core = this.#core;
    const sessions = core.sessionReports(MAX_LISTED_SESSIONS).map(({ lanes, ...session }) => ({
      ...session,
      lanes: lanes.map(({ connection, ...lane }) => ({ ...lane, carrier: this.#carriers[connection!] })),
    }));
    const own = { sessions, sessionsLeftOut: Math.max(0, core.sessionCount - sessions.length) };
    return joinStatus([own, ...((await this.#others?.status()) ?? [])]);
  }

  /** Its associations now, and those of the other workers, but for flows in other programs' dialects. */
  async flows(): Promise<FlowStatus> {
    const own = await listFlows(this.#system, (now, ...part) => {
      this.#shortcuts?.collect(now);
      return this.#core.associationReports(now, ...part);
    });
    return joinFlows([own, ...((await this.#others?.flows()) ?? [])]);
  }

  #handleWallClock(): void {
    this.#core.handleWallClock(this.#system.now(), this.#system.unixMs());
    this.#wallClock = this.#system.after(
      WALL_CLOCK_MS,
      () => {
        this.#handleWallClock();
        this.#drain();
      },
      true,
    );
  }

  /**
   * Other keys of single clients from now on. Sessions of names whose keys stay go on, and those of others end at once.
   *
   * @param keys  checked
   * @throws UsageError ERR_STATE when the server was started without such keys
   */
  replaceKeys(keys: readonly KeyOption[]): void {
    if (this.#options.keys === undefined) {
      throw new UsageError("ERR_STATE", "keys: the server was started without them");
    }
    if (this.#isClosing) return;
    this.#core.replaceKeys(this.#system.now(), keyEntries(keys));
    this.#others?.replaceKeys(keys);
    this.#drain();
  }

  /** Has clients begin sessions at other servers, if there is time for that. */
  async #waitForClients(): Promise<void> {
    const endsAt = this.#system.now() + (this.#options.drainS ?? 0) * 1000;
    if (this.#core.tunnelCount === 0 || this.#system.now() >= endsAt) return;
    this.#core.drain();
    this.#drain();
    while (this.#core.tunnelCount > 0 && this.#system.now() < endsAt) {
      await new Promise<void>((done) => void this.#system.after(DRAIN_CHECK_MS, done));
    }
  }

  async listen(): Promise<void> {
    try {
      await this.#egressReady;
      const { listen, ipv6Only } = this.#options;
      this.#web = await this.#openWebServer();
      const servers = listen.map((text) => (hasScheme(text) ? parseShadowsocksListen(text) : undefined));
      const owns = listen.map((text) => (hasScheme(text) ? parseDialectListen(text) : undefined));
      const texts = listen.map((text, index) => servers[index]?.listen ?? owns[index]?.listen ?? text);
      if (hasDialects(this.#options)) {
        const { counters } = this.#core;
        this.#dialects = await openServerDialects(
          this.#options,
          this.#policy,
          this.#names,
          counters,
          this.#system,
          this.#log,
          this.#features.openPacketEgress,
        );
      }
      for (const [index, text] of texts.entries()) {
        const hosts = listenHosts(text, texts, ipv6Only);
        const options: TunnelListenerOptions = {
          system: this.#system,
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
      relaysBy: ssRelay,
      relay: {
        loop: this.#system,
        maxRelays: maxTunnels,
        permits: (target) => this.#policy.permits(target),
        lookUp: (name) => this.#names.lookUp(name),
        log: this.#log,
        onRefused: (reason) => refused[reason]++,
      },
      log: this.#log,
      onRefused: (reason) => refused[reason]++,
    });
  }

  async close(): Promise<void> {
    await this.#end(false);
  }

  /**
   * As {@link close}, but clients are not told to end, as another process goes on with their sessions.
   *
   * @returns these, of this thread and the others; the sockets are the caller's
   */
  handOn(): Promise<readonly KeptState[]> {
    return this.#end(true);
  }

  async #end(keeps: boolean): Promise<readonly KeptState[]> {
    if (this.#isEnding) return [];
    this.#isEnding = true;
    // Threads do the same.
    const others = keeps ? this.#others?.handOn() : this.#others?.close();
    if (!keeps) await this.#waitForClients();
    this.#isClosing = true;
    this.#wallClock?.cancel();
    this.#driver.stop();
    if (keeps) this.#core.suspend(this.#system.now());
    else this.#core.close();
    this.#drain();
    const ends = this.#links.map((link) => link?.writer.endWithin(keeps ? HAND_ON_MS : CLOSE_MS));
    const listeners = this.#listeners.map((listener) => listener.close());
    this.#web?.closeStrangers();
    this.#firstBytes.close();
    ends.push(this.#dialects?.close());
    // The listeners wait for connections of HTTP/2, which have nothing left once their requests have ended.
    const requests = Promise.all(ends).then(() => this.#web?.close());
    await Promise.all([requests, ...listeners]);
    const kept = keeps ? [this.#save()] : [];
    kept.push(...((await others) ?? []));
    this.#sockets.close();
    await this.#egress?.end();
    await this.#tap?.close();
    return kept;
  }

  #save(): KeptState {
    // What was held for order goes before.
    this.#drain();
    this.#io.udp.flush();
    this.#shortcuts?.collect(this.#system.now());
    return saveState(this.#handingOn);
  }

  /** Goes on with sessions that another process has handed on. To be called before {@link listen}. */
  restore(states: readonly KeptState[]): void {
    for (const state of states) {
      restoreState(this.#handingOn, state, (association, isIpv6, descriptor) => {
        this.#openSocket(association, isIpv6, descriptor);
      });
    }
    this.#drain();
  }

  get #handingOn(): HandingOn {
    return { core: this.#core, sockets: this.#sockets, system: this.#system, log: this.#log };
  }

  // UdpPathHost

  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void {
    if (!this.#isOpen[association]) return;
    this.#core.handleDatagram(this.#driver.now(), association, data, offset, length, remote);
    this.#driver.schedule();
  }

  refuse(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void {
    if (!this.#isOpen[association]) return;
    this.#core.handleUnreachable(this.#system.now(), association, remote, kind, mtu);
    this.#driver.schedule();
  }

  drop(reason: Parameters<UdpPathHost["drop"]>[0], count: number): void {
    this.#core.counters.drops[reason] += count;
  }

  /** Takes over a connection whose request another worker has read and accepted. */
  takeOver({ descriptor, head, holder, surplus }: HandedOver): void {
    if (this.#isClosing) {
      this.#io.native!.descriptorClose!(descriptor);
      return;
    }
    const stream = this.#io.tcp.adopt!(descriptor);
    stream.unread(surplus);
    const connection = this.#core.handleHandedOver(this.#system.now(), head, holder);
    this.#attach(stream, connection, carrierOf(stream));
  }

  #accept(stream: ByteStream, acceptedAt: number, protocol: DialectProtocol | undefined): void {
    if (protocol !== undefined) {
      this.#dialects!.accept(stream, protocol.how);
      return;
    }
    // The bytes of its descriptor are not the tunnel's, so that no other thread can continue with it.
    const isNested = stream instanceof CodedByteStream;
    this.#attach(stream, this.#core.handleAccept(acceptedAt, isNested), carrierOf(stream));
  }

  #attach(stream: ByteStream, connection: number, carrier: string): void {
    const core = this.#core;
    this.#carriers[connection] = carrier;
    const source = {
      pollTransmit: (now: number) => core.pollTransmit(now, connection),
      handleTransmitted: () => core.handleTransmitted(connection),
      isLimited: (now: number) => core.isLimited(now, connection),
    };
    linkConnection(this.#links, connection, stream, source, this.#system, {
      onBytes: (chunk, length) => this.#handleStream(connection, chunk, length),
      onEnded: () => {
        core.handleEnded(this.#system.now(), connection);
        this.#drain();
      },
      onDisconnected: () => {
        core.handleDisconnected(this.#system.now(), connection);
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
    this.#shortcuts?.resume(connection);
  }

  /** @param chunk  memory that does not change before it is sent; other memory is copied */
  #sendOutgoing(chunk: Uint8Array | undefined): void {
    const { outgoing, contexts, counters } = this.#core;
    const { count, association, context, offset, length } = outgoing;
    if (count === 0) return;
    const data = outgoing.data === chunk ? chunk : outgoing.data.slice();
    const { tap } = counters;
    if (tap !== undefined) this.#recordOutgoing(tap, data);
    if (this.#hasEgress) {
      this.#sendByEgress(data);
      return;
    }
    for (let first = 0; first < count; ) {
      // A tap has to know which one was dropped.
      const end = tap !== undefined ? first + 1 : this.#endOfRun(context, first, count);
      const at = first;
      const slot = context[at];
      first = end;
      let remote = this.#remotes[slot];
      if (remote === undefined || this.#remoteGenerations[slot] !== contexts.generation[slot] + 1) {
        const target = contexts.target[slot];
        if (target === undefined) continue;
        remote = new Remote(target);
        this.#remotes[slot] = remote;
        // Plus one, so that a slot's first generation differs from no generation.
        this.#remoteGenerations[slot] = contexts.generation[slot] + 1;
      }
      const socket = this.#socketFor(association[at], remote.address);
      const dropped =
        socket === undefined ? end - at : socket.sendAll(undefined, data, offset, length, at, end, remote);
      if (dropped === 0) continue;
      const reason = socket === undefined ? "association_limit" : "send_error";
      counters.drops[reason] += dropped;
      if (tap !== undefined) this.#record(tap, reason, data, at);
    }
    counters.drops.send_error += this.#io.udp.flush();
  }

  #flowEnd(association: number, context: number): FlowEnd | undefined {
    const target = this.#core.contexts.target[context];
    const socket = target && this.#sockets.find(association, target[0] === ATYP_IPV6);
    return socket && { socket, remote: new Remote(target!), header: undefined };
  }

  #endOfRun(contexts: Int32Array, first: number, end: number): number {
    return end - first === 1 ? end : this.#datapath.endOfEqual(contexts, 1, 0, first, end);
  }

  #recordOutgoing(tap: DatagramTap, data: Uint8Array): void {
    for (let i = 0; i < this.#core.outgoing.count; i++) this.#record(tap, undefined, data, i);
  }

  #record(tap: DatagramTap, reason: TapReason | undefined, data: Uint8Array, index: number): void {
    const { outgoing, contexts } = this.#core;
    const { association, context, offset, length } = outgoing;
    const local = this.#core.source(association[index]);
    const remote = contexts.target[context[index]];
    tap.record(true, reason, association[index], local, remote, data, offset[index], length[index]);
  }

  #sendByEgress(data: Uint8Array): void {
    const { outgoing, contexts, counters } = this.#core;
    const { count, association, context, offset, length } = outgoing;
    const egress = this.#egress;
    const datagram = this.#datagram;
    if (egress === undefined) {
      counters.drops.send_error += count;
      if (counters.tap === undefined) return;
      for (let i = 0; i < count; i++) this.#record(counters.tap, "send_error", data, i);
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
    return this.#openSocket(association, isIpv6, undefined);
  }

  /** @param descriptor  of a socket that another process had; undefined for a new one */
  #openSocket(association: number, isIpv6: boolean, descriptor: number | undefined): UdpSocket {
    const sockets = this.#sockets;
    const core = this.#core;
    const socket = this.#io.udp.open({
      family: isIpv6 ? 6 : 4,
      host: undefined,
      port: 0,
      reusePort: false,
      descriptor,
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
        core.handleUnreachable(this.#system.now(), association, remote, kind, mtu);
        this.#driver.schedule();
      },
      onBindError: (error) => {
        this.#log.warn({ error: error.message }, "cannot open a UDP socket");
        if (sockets.find(association, isIpv6) !== socket) return;
        core.handleSocketFailed(this.#system.now(), association);
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
    this.#shortcuts?.give(now);
  }

  #handleOutput(output: ServerOutput): void {
    switch (output.kind) {
      case "close": {
        const link = this.#links[output.connection];
        if (output.error !== undefined) {
          this.#log.info({ code: output.error.code, error: output.error.message }, "closing a connection");
        }
        if (output.refusal !== undefined) this.#log.debug(output.refusal, "refused a connection");
        if (link === undefined) return;
        link.writer.end();
        this.#system.after(CLOSE_MS, () => link.stream.destroy(), true);
        return;
      }
      case "hand-over": {
        const link = this.#links[output.connection];
        this.#links[output.connection] = undefined;
        this.#core.handleDisconnected(this.#system.now(), output.connection);
        const { worker, head, holder, surplus } = output;
        const released = link?.stream instanceof DescriptorStream ? link.stream.release() : undefined;
        if (released === undefined) link?.stream.destroy();
        else this.#others!.handOver(worker, { descriptor: released.descriptor, head, holder, surplus });
        return;
      }
      case "web-socket": {
        const stream = this.#takeStream(output.connection);
        if (stream === undefined) return;
        this.#attachNested(acceptWebSocket(this.#system, stream, output.key, output.surplus), "WebSocket");
        return;
      }
      case "http2": {
        const stream = this.#takeStream(output.connection);
        if (stream !== undefined) this.#web!.serveHttp2(stream, output.head, output.surplus);
        return;
      }
      case "stranger": {
        const { connection, refusal, head, surplus } = output;
        this.#log.debug(refusal, "refused a connection");
        const stream = this.#takeStream(connection);
        if (stream !== undefined) this.#web!.answerStranger(stream, head, surplus);
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
        this.events.emit(kind, fields as never);
      }
    }
  }

  #attachNested(stream: ByteStream, carrier: string): void {
    this.#attach(stream, this.#core.handleAccept(this.#system.now(), true), carrier);
  }

  async #openWebServer(): Promise<WebServer | undefined> {
    const { decoy, maxHalfOpen, handshakeTimeoutMs } = this.#options;
    const { openWebServer } = this.#features;
    if (decoy !== undefined) required(openWebServer, "a decoy");
    return openWebServer?.({
      decoy,
      maxHalfOpen,
      handshakeTimeoutMs,
      onRequest: (stream) => this.#attachNested(stream, "HTTP/2"),
      onRefused: (reason) => this.#core.counters.refused[reason]++,
    });
  }

  /** Takes a connection out of the core. @returns undefined when it is closed */
  #takeStream(connection: number): ByteStream | undefined {
    const link = this.#links[connection];
    this.#links[connection] = undefined;
    this.#core.handleDisconnected(this.#system.now(), connection);
    return link?.stream;
  }

  /** @param target  undefined: of a bound tunnel, which gets a socket for each family */
  #bind(association: number, target: AddressBytes | undefined, localIp: string | undefined): void {
    const now = this.#system.now();
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
    this.#core.handleResolved(this.#system.now(), query, addresses);
    this.#sendOutgoing(undefined);
    this.#drain();
  }
}

/** Whether clients need a key. */
function hasKey({ psk, keys }: ResolvedUdpServerOptions): boolean {
  return psk !== undefined || keys !== undefined;
}

/** Sockets that associations of one of so many workers may have: what the system allows less what else needs some. */
function socketLimit(options: ResolvedUdpServerOptions, descriptors: number, workers: number): number {
  const { maxTunnels } = options;
  const dialects = hasDialects(options) ? dialectLimits(options, descriptors) : { connections: 0, flows: 0 };
  const limit = descriptors - dialects.connections - dialects.flows;
  const tunnels = Math.min(maxTunnels, limit / 4);
  const others = Math.min(128, limit / 4);
  return Math.max(1, Math.floor((limit - tunnels - others) / workers));
}

/** What a connection is, for operators. */
function carrierOf(stream: ByteStream): string {
  if (stream instanceof CodedByteStream) return "shadowsocks";
  return stream.localIp === undefined ? "Unix socket" : "TCP";
}
