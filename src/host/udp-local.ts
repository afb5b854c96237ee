import type { AssociationClient } from "../core/client/association-client.ts";
import { TunnelClient } from "../core/client/client.ts";
import type { ClientOutput } from "../core/client/client-parts.ts";
import type { Datapath } from "../core/datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../core/datapath/typescript-datapath.ts";
import { HostError, ProtocolError } from "../core/errors.ts";
import { parseLatencyRule } from "../core/session/latency-rules.ts";
import type { LatencyClass } from "../wire/latency-class.ts";
import { outgoingOf } from "./addresses/outgoing.ts";
import { Cancellation } from "./cancellation.ts";
import type { Carrier, Connection } from "./carriers/carrier.ts";
import { openCarrierChain } from "./carriers/carrier-chain.ts";
import { openDialectClient } from "./dialects/local-dialects.ts";
import type { Turn } from "./driver.ts";
import { Driver } from "./driver.ts";
import type { Io } from "./io/io.ts";
import { HostShortcuts } from "./io/shortcuts.ts";
import { Listeners } from "./listeners.ts";
import { LocalListeners } from "./local/local-listeners.ts";
import type { Logger } from "./log.ts";
import { openMasqueClient } from "./masque/open-masque-client.ts";
import type { ResolvedUdpLocalOptions } from "./options/udp-local.ts";
import type { EndpointStatus, FlowStatus } from "./stats/status.ts";
import { joinFlows, joinStatus, listFlows } from "./stats/status.ts";
import type { TunnelStats } from "./stats/tunnel-stats.ts";
import { sumStats, tunnelStats } from "./stats/tunnel-stats.ts";
import { BatchWriter } from "./stream/batch-writer.ts";
import type { ByteStream } from "./stream/byte-stream.ts";
import { TransferPacing } from "./stream/transfer-pacer.ts";
import type { System } from "./system.ts";
import { BatchRecords } from "./tap/batch-records.ts";
import { HostTap } from "./tap/host-tap.ts";
import { openTap } from "./tap/open-tap.ts";
import type { TapWriter } from "./tap/tap-writer.ts";
import type { Relay, RelayHost } from "./udp/fixed-forward.ts";
import type { OtherWorkers, WorkerPlace } from "./workers.ts";

const HANDSHAKE_MS = 5_000;
/** Time limit for the lanes to send the rest when closing. */
const CLOSE_MS = 1_000;

/** Events of the session and of the way to the server. */
export interface UdpLocalEvents {
  /** `isAnother`: the server did not know the former session, and targets see other source ports. */
  readonly "session-up": { readonly isAnother: boolean };
  readonly "session-down": Error | undefined;
  readonly "session-resumed": undefined;
  /** A new session has replaced one that was in use, and targets see other source ports; `moved`: because its server has asked for that. */
  readonly "session-renewed": { readonly reason: "ids" | "receipts" | "moved" };
  /** A lane, or an attempt to connect one, has failed; it will be retried. */
  readonly error: Error;
  /** Nothing more is accepted on one of its addresses. */
  readonly "listener-failed": Error;
}

/** The actual addresses, with the port that the system chose instead of port 0. */
export interface UdpLocalAddress {
  /** Where SOCKS5 listens; undefined when it is off. */
  readonly socks5: string | undefined;
  readonly forwards: { readonly listen: string; readonly target: string }[];
  readonly server: string;
}

/** What a client may get besides its options. */
export interface UdpLocalFeatures {
  /** Which of several threads on the same ports this is. */
  readonly place?: WorkerPlace | undefined;
  /** Makes the connections of lanes, instead of the ways in the options. */
  readonly carrier?: Carrier | undefined;
  /** The tap of the host that contains this one; that host records the datagrams that are not dropped. */
  readonly tap?: TapWriter | undefined;
  /** Time limit for an upgrade, in milliseconds. Default 5,000. */
  readonly handshakeMs?: number | undefined;
  /** Sends the datagrams that relays keep until the end of the turn. Called before shortcuts may send more. */
  readonly flush?: (() => void) | undefined;
}

/** A lane's connection, or the attempt to make one. */
interface Link {
  readonly way: number;
  readonly cancellation: Cancellation;
  stream: ByteStream | undefined;
  writer: BatchWriter | undefined;
}

/** Connects {@link TunnelClient}, or a client of another protocol, with carriers, UDP sockets, a SOCKS5 listener and a timer. */
export class UdpLocalHost implements RelayHost {
  readonly core: AssociationClient;
  readonly events = new Listeners<UdpLocalEvents>();
  readonly turn: Turn;
  readonly datapath: Datapath;

  readonly #options: ResolvedUdpLocalOptions;
  readonly #log: Logger;
  readonly #system: System;
  readonly #io: Io;
  /** By way. */
  readonly #carriers: readonly Carrier[];
  readonly #driver: Driver;
  readonly #links: (Link | undefined)[] = [];
  readonly #relays: (Relay | undefined)[] = [];
  readonly #listeners: LocalListeners;
  /** For TCP that is relayed beside the session. */
  readonly pacing: TransferPacing;
  #isClosing = false;
  /** By way: the last logged reason for having no connection; empty while there is one. */
  readonly #saidFailures: string[] = [];

  /** Which of several threads on the same ports this is. */
  readonly #place: WorkerPlace | undefined;
  readonly #shortcuts: HostShortcuts | undefined;
  readonly #tap: TapWriter | undefined;
  readonly #ownsTap: boolean;
  #records!: BatchRecords;
  /** The workers in other threads. */
  others: Pick<OtherWorkers, "stats" | "status" | "flows" | "close"> | undefined;

  constructor(
    options: ResolvedUdpLocalOptions,
    log: Logger,
    system: System,
    { place, carrier, tap, handshakeMs = HANDSHAKE_MS, flush }: UdpLocalFeatures = {},
  ) {
    const { io } = system;
    this.#system = system;
    this.pacing = new TransferPacing(system, () =>
      options.latency === "bulk" ? undefined : this.core.pathWatch,
    );
    this.datapath = system.datapath ?? TYPESCRIPT_DATAPATH;
    this.#driver = new Driver(system, io.udp, {
      begin: (now) => this.#shortcuts?.refresh(now),
      drain: (now) => this.#carryOut(now),
      handleTimeout: (now) => {
        this.#shortcuts?.collect(now);
        this.core.handleTimeout(now);
      },
      nextTimeout: () => this.core.nextTimeout(),
    });
    this.turn = this.#driver;
    this.#place = place;
    this.#listeners = new LocalListeners(this, options, system, log, place);
    this.#options = options;
    this.#log = log;
    this.#io = io;
    if (options.latencyRules.length > 0 && io.native?.udpLatency === undefined && (place?.index ?? 0) === 0) {
      log.warn({}, "latency-rule: has no effect at this end without native I/O on Linux");
    }
    this.#ownsTap = tap === undefined;
    this.#tap =
      tap ??
      (options.tap === undefined
        ? undefined
        : openTap(options, options.tap, "udp-local", system, log, place));
    const { ways, idleTimeoutS, activeIdleTimeoutS, latencyRules, ...rest } = this.#options;
    const outgoing = outgoingOf(options);
    if (options.masque !== undefined) {
      const masque = openMasqueClient({ ...options, masque: options.masque }, system, log);
      this.core = masque.core;
      this.#carriers = [masque.carrier];
      this.#useTap();
      return;
    }
    this.#carriers =
      carrier === undefined ? ways.map((way) => openCarrierChain({ ...way, outgoing }, system)) : [carrier];
    if (options.dialect !== undefined) {
      this.core = openDialectClient(options.dialect, options, this.#carriers.length, handshakeMs, system);
      this.#useTap();
      return;
    }
    const servers = ways.map(({ server }) => server);
    const core = new TunnelClient({
      ...rest,
      latencyRules: latencyRules.map((text) => parseLatencyRule(text)!),
      ways: this.#carriers.map(({ authority }, way) => ({
        authority,
        server: servers.indexOf(servers[way]),
      })),
      isLocal: this.#carriers.every(({ isLocal }) => isLocal),
      crypto: system.cryptography,
      datapath: system.datapath,
      handshakeTimeoutMs: handshakeMs,
      idleTimeoutMs: idleTimeoutS * 1000,
      activeIdleTimeoutMs: activeIdleTimeoutS * 1000,
    });
    this.core = core;
    this.#useTap();
    this.#shortcuts =
      io.udp.shortcuts &&
      new HostShortcuts(io.udp.shortcuts, core, {
        flowEnd: ({ association, context }) => this.#relays[association]?.flowEnd?.(association, context),
        stream: (lane) => this.#links[lane]?.stream,
        handleCarried: (time, { association, isOut }, ...carried) =>
          this.#relays[association]?.handleCarried?.(time, association, isOut, ...carried),
        flush,
      });
  }

  #useTap(): void {
    this.#records = BatchRecords.ofClient(this.core);
    if (this.#tap === undefined) return;
    this.core.counters.tap = new HostTap(this.#tap, {
      isServer: false,
      hasOnlyDropped: !this.#ownsTap,
      localOf: (association) => this.#relays[association]?.sourceOf?.(association),
    });
  }

  get address(): UdpLocalAddress {
    return {
      socks5: this.#listeners.socks5Address,
      forwards: this.#listeners.forwardAddresses,
      server: this.#carriers.map(({ description }) => description).join(", or "),
    };
  }

  /** Reports to core and to the relays what shortcuts have carried so far. */
  collectShortcuts(): void {
    this.#shortcuts?.collect(this.#system.now());
  }

  stats(): TunnelStats {
    const { core } = this;
    this.collectShortcuts();
    if (this.#ownsTap) this.#tap?.count(core.counters);
    const own = tunnelStats(
      core.counters,
      {
        sessions: core.isUp ? 1 : 0,
        lanes: core.lanesUp,
        associations: core.associationCount,
        contexts: core.contexts.size,
        rttMs: core.rttMs,
      },
      core.spread,
    );
    return this.others === undefined ? own : sumStats([own, ...this.others.stats()]);
  }

  /** The current session with its lanes, and those of the other workers. */
  async status(): Promise<EndpointStatus> {
    const { core } = this;
    const lanes = (core.laneReports?.() ?? []).map(({ way = 0, ...lane }) => ({
      ...lane,
      carrier: this.#carriers[way].description,
    }));
    const session = {
      session: String(this.#place?.index ?? 0),
      kind: this.#options.masque !== undefined ? "masque" : (this.#options.dialect ?? "native"),
      state: core.isUp ? "up" : "down",
      associations: core.associationCount,
      lanes,
    };
    return joinStatus([
      { sessions: [session], sessionsLeftOut: 0 },
      ...((await this.others?.status()) ?? []),
    ]);
  }

  /** The current associations, and those of the other workers; none with a server in another program's dialect. */
  async flows(): Promise<FlowStatus> {
    const { core } = this;
    const own = await listFlows(this.#system, (now, ...part) => {
      this.#shortcuts?.collect(now);
      return core.associationReports?.(now, ...part) ?? { reports: [], next: undefined };
    });
    return joinFlows([own, ...((await this.others?.flows()) ?? [])]);
  }

  async listen(): Promise<void> {
    try {
      await this.#listeners.open();
    } catch (error) {
      await this.close();
      throw error;
    }
    this.core.start(this.#system.now());
    this.#drain();
  }

  /** Reconnects at once, instead of waiting until connections over a lost network prove dead. */
  reconnect(): void {
    if (this.#isClosing) return;
    const error = new HostError("ERR_CONNECTION_LOST", "the network has changed");
    const links = this.#links.slice();
    this.#links.length = 0;
    for (const [lane, link] of links.entries()) {
      if (link === undefined) continue;
      link.cancellation.cancel();
      link.stream?.destroy();
      this.core.handleDisconnected(this.#system.now(), lane, error);
    }
    this.core.handleNetworkChange?.(this.#system.now());
    this.#drain();
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#driver.stop();
    this.core.close();
    this.#drain();
    await this.#listeners.closeSocks5();
    for (const relay of new Set(this.#relays)) relay?.socket.close();
    this.#listeners.closeForwards();
    await Promise.all([
      ...this.#links.map((link) => {
        link?.cancellation.cancel();
        return link?.writer?.endWithin(CLOSE_MS);
      }),
      this.others?.close(),
    ]);
    await Promise.all([...this.#carriers.map((carrier) => carrier.close()), this.#listeners.closeTcp()]);
    if (this.#ownsTap) await this.#tap?.close();
  }

  // RelayHost

  get latency(): LatencyClass {
    return this.#options.latency;
  }

  register(association: number, relay: Relay | undefined): void {
    this.#relays[association] = relay;
  }

  // The loop

  #drain(): void {
    this.#driver.drain();
  }

  #carryOut(now: number): void {
    const { core } = this;
    if (core.isPlain !== true) {
      this.#handleOutputs();
      while (core.takeReleased(now)) this.#deliver(undefined);
    }
    const links = this.#links;
    const steadyLanes = core.steadyLanes ?? links.length;
    for (let lane = 0; lane < steadyLanes; lane++) {
      const writer = links[lane]?.writer;
      if (writer !== undefined && (core.mayTransmit?.(now, lane) ?? true)) writer.pump(now);
    }
    this.#shortcuts?.give(now);
    if (core.isPlain === true) return;
    for (let lane = core.pollReady(now); lane >= 0; lane = core.pollReady(now)) {
      links[lane]?.writer?.pump(now);
    }
    // Late lanes make the session ask for more lanes, idle ones for fewer.
    this.#handleOutputs();
  }

  #handleOutputs(): void {
    const { core } = this;
    for (let output = core.pollOutput(); output !== undefined; output = core.pollOutput()) {
      this.#handleOutput(output);
    }
  }

  #handleOutput(output: ClientOutput): void {
    switch (output.kind) {
      case "connect":
        void this.#connect(output.lane, output.way);
        return;
      case "disconnect": {
        const link = this.#links[output.lane];
        this.#links[output.lane] = undefined;
        if (output.error !== undefined) this.#reportFailure(output.error, output.lane, link?.way ?? 0);
        link?.cancellation.cancel();
        link?.stream?.destroy();
        return;
      }
      case "association-closed": {
        const relay = this.#relays[output.association];
        this.#relays[output.association] = undefined;
        relay?.forget(output.association);
        return;
      }
      case "latency":
        this.#relays[output.association]?.setLatency?.(
          output.association,
          this.core.latencyOf(output.association),
        );
        return;
      case "unreachable": {
        const { association, remote, reason, mtu } = output;
        this.#relays[association]?.refuse?.(association, remote, reason, mtu);
        return;
      }
      case "session-down":
        this.#log.warn({ error: output.error?.message }, "session down");
        this.events.emit("session-down", output.error);
        return;
      case "session-up":
        if (this.#options.dialect === undefined) {
          this.#reportSession(output.kind, output.isAnother ? { sourcePorts: "new" } : {});
        } else this.#log.info({ dialect: this.#options.dialect }, "connecting when a datagram comes");
        this.events.emit(output.kind, { isAnother: output.isAnother });
        return;
      case "session-renewed":
        this.#reportSession(output.kind, { reason: output.reason, sourcePorts: "new" });
        this.events.emit(output.kind, { reason: output.reason });
        return;
      default:
        this.#reportSession(output.kind, {});
        this.events.emit(output.kind, undefined);
    }
  }

  #reportSession(kind: string, fields: object): void {
    this.#saidFailures.length = 0;
    const { rttMs, way } = this.core;
    this.#log.info({ rttMs, ...this.#wayField(way), ...fields }, kind.replace("-", " "));
  }

  /** For logs, if there are several. */
  #wayField(way: number): { way?: string } {
    return this.#carriers.length === 1 ? {} : { way: this.#carriers[way].description };
  }

  /** See LocalListenersHost. */
  handleListenerFailed(error: Error): void {
    this.events.emit("listener-failed", error);
  }

  /** Logs a failure as a warning, or at debug level if it repeats the last one of that way. */
  #reportFailure(error: Error, lane: number, way: number): void {
    if (this.#isClosing) return;
    const fields = { lane, ...this.#wayField(way), error: error.message };
    const level = this.#saidFailures[way] === error.message ? "debug" : "warn";
    this.#saidFailures[way] = error.message;
    const code = error instanceof ProtocolError ? error.code : undefined;
    const what =
      code === "ERR_PEER_SHUTDOWN" ? "the server has ended the connection" : "cannot reach the server";
    // This concerns a single target, and others may work.
    if (code === "ERR_MASQUE_REFUSED") this.#log[level](fields, "no way to a target");
    else this.#log[level](fields, `${what}; trying again`);
    this.events.emit("error", error);
  }

  async #connect(lane: number, way: number): Promise<void> {
    const link: Link = {
      way,
      cancellation: new Cancellation(),
      stream: undefined,
      writer: undefined,
    };
    this.#links[lane] = link;
    const isCurrent = () => this.#links[lane] === link;
    try {
      const connection = await this.#carriers[way].connect(link.cancellation, lane);
      if (isCurrent()) this.#attach(lane, link, connection);
      else connection.stream.destroy();
    } catch (error) {
      if (!isCurrent()) return;
      this.#links[lane] = undefined;
      this.#reportFailure(error as Error, lane, way);
      this.core.handleDisconnected(this.#system.now(), lane, error as Error);
      this.#drain();
    }
  }

  #attach(lane: number, link: Link, connection: Connection): void {
    const { core } = this;
    const isCurrent = () => this.#links[lane] === link;
    const source = {
      pollTransmit: (now: number) => (isCurrent() ? core.pollTransmit(now, lane) : undefined),
      handleTransmitted: () => isCurrent() && core.handleTransmitted(lane),
      isLimited: (now: number) => core.isLimited?.(now, lane) ?? false,
    };
    const { stream } = connection;
    stream.tune(this.#options.heartbeatMs);
    const writer = new BatchWriter(stream, source, this.#system);
    link.stream = stream;
    link.writer = writer;
    if (this.#options.keyName !== undefined) {
      core.handleWallClock?.(this.#system.now(), this.#system.unixMs());
    }
    core.handleConnected(this.#system.now(), lane, connection.isBound);
    stream.start({
      onBytes: (chunk, length) => {
        if (isCurrent()) this.#handleStream(lane, chunk, length);
      },
      onEnd: () => stream.destroy(),
      onWritten: () => writer.handleWritten(),
      onClose: (failure) => {
        writer.handleClosed();
        if (!isCurrent()) return;
        this.#links[lane] = undefined;
        const error = new HostError("ERR_CONNECTION_LOST", failure?.message ?? "closed by the other end");
        if (core.handleDisconnected(this.#system.now(), lane, error)) {
          this.#log.debug({ lane, error: error.message }, "a connection ended as expected");
        } else this.#reportFailure(error, lane, link.way);
        this.#drain();
      },
    });
    this.#drain();
  }

  #handleStream(lane: number, chunk: Uint8Array, end: number): void {
    const now = this.#driver.now();
    for (let at = 0; at < end; ) {
      at = this.core.handleStream(now, lane, chunk, at, end);
      this.#deliver(chunk);
    }
    this.#drain();
    this.#shortcuts?.resume(lane);
  }

  /** @param chunk  memory that does not change before it is sent; other memory is copied */
  #deliver(chunk: Uint8Array | undefined): void {
    const { received, counters } = this.core;
    const { count, association, context, offset, length } = received;
    if (count === 0) return;
    const data = received.data === chunk ? chunk : received.data.slice();
    const { tap } = counters;
    if (tap !== undefined) this.#records.recordAll(tap, data);
    for (let first = 0; first < count; ) {
      // A tap needs to know which datagram was dropped.
      const end = tap !== undefined ? first + 1 : received.endOfRun(this.datapath, first);
      const relay = this.#relays[association[first]];
      const dropped =
        relay?.deliver(association[first], context[first], data, offset, length, first, end) ?? end - first;
      if (dropped > 0) {
        // Without a relay, the association has ended since the datagrams came.
        const reason = relay === undefined ? "unknown_context" : "send_error";
        counters.drops[reason] += dropped;
        if (tap !== undefined) this.#records.record(tap, reason, data, first);
      }
      first = end;
    }
    counters.drops.send_error += this.#io.udp.flush();
  }
}
