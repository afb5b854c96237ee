import { UsageError } from "../core/errors.ts";
import { TunnelServer } from "../core/server/server.ts";
import type { ServerOutput } from "../core/server/server-output.ts";
import { NameLookups } from "./addresses/name-lookups.ts";
import { TargetPolicy } from "./addresses/target-policy.ts";
import { dialectLimits, hasDialects } from "./dialects/dialect-limits.ts";
import { Driver } from "./driver.ts";
import type { Io } from "./io/io.ts";
import { HostShortcuts } from "./io/shortcuts.ts";
import { keyEntries } from "./key-entries.ts";
import { Listeners } from "./listeners.ts";
import type { Logger } from "./log.ts";
import type { Timer } from "./loop.ts";
import { parseEgress } from "./options/egress-option.ts";
import type { KeyOption } from "./options/keys.ts";
import type { ResolvedUdpServerOptions } from "./options/udp-server.ts";
import type { HandingOn } from "./restart/hand-on.ts";
import { restoreState, saveState } from "./restart/hand-on.ts";
import type { KeptState } from "./restart/kept-state.ts";
import { AssociationSockets } from "./server/association-sockets.ts";
import { PathEgress } from "./server/path-egress.ts";
import type { EgressHost, ServerEgress } from "./server/server-egress.ts";
import { ServerListeners } from "./server/server-listeners.ts";
import { SocketEgress } from "./server/socket-egress.ts";
import { TunnelConnections } from "./server/tunnel-connections.ts";
import { keyStats } from "./stats/key-stats.ts";
import { withPathCounts } from "./stats/path-counts.ts";
import type { EndpointStatus, FlowStatus } from "./stats/status.ts";
import { joinFlows, joinStatus, listFlows, MAX_LISTED_SESSIONS } from "./stats/status.ts";
import type { TunnelStats } from "./stats/tunnel-stats.ts";
import { sumStats, tunnelStats } from "./stats/tunnel-stats.ts";
import type { OpenWebServer } from "./stream/web-server.ts";
import type { System } from "./system.ts";
import { required } from "./system.ts";
import { BatchRecords } from "./tap/batch-records.ts";
import { HostTap } from "./tap/host-tap.ts";
import { openTap } from "./tap/open-tap.ts";
import type { TapWriter } from "./tap/tap-writer.ts";
import type { OpenPacketEgress } from "./udp-paths/egress.ts";
import { openEgress } from "./udp-paths/egress.ts";
import type { HandedOver, OtherWorkers, WorkerPlace } from "./workers.ts";

/** Time limit for a connection to send the rest when another process continues the sessions; their clients wait meanwhile. */
const HAND_ON_MS = 250;
/** How often a server that waits for its clients to leave checks whether they have. */
const DRAIN_CHECK_MS = 20;
/** How often the system's clock is read again for the keys, because it may have been set. */
const WALL_CLOCK_MS = 30_000;

type SessionEvent = "session-up" | "session-resumed" | "session-down" | "session-ended";

/** Events of sessions, and of listeners. */
export type UdpServerEvents = {
  readonly [Kind in SessionEvent]: Omit<Extract<ServerOutput, { readonly kind: Kind }>, "kind">;
} & {
  /** Nothing more is accepted on one of its addresses. */
  readonly "listener-failed": Error;
};

/** What a server may get besides its options. */
export interface UdpServerFeatures {
  /** Which of several workers this is. */
  readonly place?: WorkerPlace | undefined;
  /** The workers besides the one that listens. */
  readonly others?: OtherWorkers | undefined;
  readonly openWebServer?: OpenWebServer;
  readonly openPacketEgress?: OpenPacketEgress;
}

/** Connects {@link TunnelServer} with TCP listeners, UDP sockets, a resolver and a timer. */
export class UdpServerHost {
  readonly events = new Listeners<UdpServerEvents>();
  readonly #options: ResolvedUdpServerOptions;
  readonly #features: UdpServerFeatures;
  readonly #log: Logger;
  readonly #system: System;
  readonly #io: Io;
  readonly #names: NameLookups;
  readonly #core: TunnelServer;
  readonly #driver: Driver;
  readonly #listeners: ServerListeners;
  readonly #connections: TunnelConnections;
  readonly #sockets: AssociationSockets;
  /** Undefined if an egress other than our sockets is open. */
  readonly #socketEgress: SocketEgress | undefined;
  readonly #egress: ServerEgress;
  readonly #shortcuts: HostShortcuts | undefined;
  readonly #tap: TapWriter | undefined;
  readonly #records: BatchRecords;
  /** The workers besides the one that listens. */
  readonly #others: OtherWorkers | undefined;
  #isEnding = false;
  #isClosing = false;
  #wallClock: Timer | undefined;

  constructor(
    options: ResolvedUdpServerOptions,
    log: Logger,
    system: System,
    features: UdpServerFeatures = {},
  ) {
    const { io } = system;
    const { place, others, openWebServer, openPacketEgress } = features;
    this.#options = options;
    this.#features = features;
    this.#log = log;
    this.#system = system;
    this.#io = io;
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
    this.#names = new NameLookups(system, log, place?.count);
    const { lingerS, idleTimeoutS, allow, deny, wsPath, decoy, ...rest } = options;
    const policy = new TargetPolicy(allow, deny);
    const hasSockets = options.egress === "sockets";
    const core = new TunnelServer({
      ...rest,
      keys: options.keys && keyEntries(options.keys),
      worker: place,
      webSocketPath: wsPath,
      hasDecoy: decoy !== undefined,
      // HTTP/2 carries no key, and strangers see only one web server.
      offersHttp2: !hasKey(options) && decoy === undefined && openWebServer !== undefined,
      crypto: system.cryptography,
      datapath: system.datapath,
      permits: (target) => policy.permits(target),
      // The address and port by which another egress sends are unknown here.
      offersBind: hasSockets,
      lingerMs: lingerS * 1000,
      idleTimeoutMs: idleTimeoutS * 1000,
    });
    this.#core = core;
    if (options.tap !== undefined)
      this.#tap = openTap(options, options.tap, "udp-server", system, log, place);
    if (this.#tap !== undefined) core.counters.tap = new HostTap(this.#tap, { isServer: true });
    this.#records = BatchRecords.ofServer(core);
    if (options.keys !== undefined) this.#handleWallClock();

    const parts = { core, driver: this.#driver, system, log };
    this.#connections = new TunnelConnections({
      ...parts,
      others,
      handleRead: (chunk) => {
        this.#sendOutgoing(chunk);
        // Closes the sockets of ended associations before others are opened.
        this.#handleOutputs();
      },
      handleAllRead: (connection) => this.#shortcuts?.resume(connection),
    });
    this.#listeners = new ServerListeners({
      options,
      counters: core.counters,
      policy,
      names: this.#names,
      system,
      log,
      openPacketEgress,
      accept: (stream, acceptedAt) => this.#connections.accept(stream, acceptedAt),
      onListenerFailed: (error) => this.events.emit("listener-failed", error),
    });
    const limit = hasSockets ? socketLimit(options, system.descriptorLimit(), place?.count ?? 1) : 0;
    this.#sockets = new AssociationSockets(limit);
    const egressHost: EgressHost = {
      ...parts,
      records: this.#records,
      handleOutputs: () => this.#handleOutputs(),
    };
    if (hasSockets) {
      const sockets = new SocketEgress(egressHost, this.#sockets, options.publicAddress);
      this.#socketEgress = sockets;
      this.#egress = sockets;
      this.#shortcuts =
        io.udp.shortcuts &&
        new HostShortcuts(io.udp.shortcuts, core, {
          flowEnd: ({ association, context }) => sockets.flowEnd(association, context),
          stream: (connection) => this.#connections.stream(connection),
        });
    } else {
      this.#egress = new PathEgress(egressHost, (host) =>
        openEgress(parseEgress(options.egress)!, idleTimeoutS, host, system, log, openPacketEgress),
      );
    }
  }

  get address(): { listen: string[] } {
    return { listen: this.#listeners.addresses };
  }

  stats(): TunnelStats {
    const core = this.#core;
    this.#shortcuts?.collect(this.#system.now());
    this.#tap?.count(core.counters);
    const counted = tunnelStats(
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
    const paths = [this.#egress.counts?.(), this.#listeners.pathCounts()];
    const own = withPathCounts(
      counted,
      paths.filter((counts) => counts !== undefined),
    );
    return this.#others === undefined ? own : sumStats([own, ...this.#others.stats()]);
  }

  /** The current sessions of this worker and of the others. */
  async status(): Promise<EndpointStatus> {
    const core = this.#core;
    const sessions = core.sessionReports(MAX_LISTED_SESSIONS).map(({ lanes, ...session }) => ({
      ...session,
      lanes: lanes.map(({ connection, ...lane }) => ({
        ...lane,
        carrier: this.#connections.carrier(connection!),
      })),
    }));
    const own = { sessions, sessionsLeftOut: Math.max(0, core.sessionCount - sessions.length) };
    return joinStatus([own, ...((await this.#others?.status()) ?? [])]);
  }

  /** The current associations of this worker and of the others, without flows in other programs' dialects. */
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
   * Replaces the keys of single clients. Sessions of names whose keys stay the same continue, and the others end at once.
   *
   * @param keys  checked
   * @throws UsageError ERR_STATE if the server was started without such keys
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

  /** Asks clients to begin sessions at other servers, if there is time for that. */
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
      await this.#egress.ready;
      await this.#openWebServer();
      await this.#listeners.open();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async #openWebServer(): Promise<void> {
    const { decoy, maxHalfOpen, handshakeTimeoutMs } = this.#options;
    const { openWebServer } = this.#features;
    if (decoy !== undefined) required(openWebServer, "a decoy");
    if (openWebServer === undefined) return;
    await this.#connections.openWebServer(openWebServer, { decoy, maxHalfOpen, handshakeTimeoutMs });
  }

  async close(): Promise<void> {
    await this.#end(false);
  }

  /**
   * Like {@link close}, but does not ask clients to end, because another process continues their sessions.
   *
   * @returns the sessions of this worker and of the others; their sockets belong to the caller
   */
  handOn(): Promise<readonly KeptState[]> {
    return this.#end(true);
  }

  async #end(keeps: boolean): Promise<readonly KeptState[]> {
    if (this.#isEnding) return [];
    this.#isEnding = true;
    // The other workers end at the same time.
    const others = keeps ? this.#others?.handOn() : this.#others?.close();
    if (!keeps) await this.#waitForClients();
    this.#isClosing = true;
    this.#wallClock?.cancel();
    this.#driver.stop();
    if (keeps) this.#core.suspend(this.#system.now());
    else this.#core.close(this.#system.now());
    this.#drain();
    const dialects = this.#listeners.closeDialects();
    const connections = this.#connections.end(dialects, keeps ? HAND_ON_MS : undefined);
    // The listeners wait for HTTP/2 connections.
    await Promise.all([connections, this.#listeners.close()]);
    const kept = keeps ? [this.#save()] : [];
    kept.push(...((await others) ?? []));
    await this.#egress.close();
    await this.#tap?.close();
    return kept;
  }

  #save(): KeptState {
    // Datagrams that were held for their order leave first.
    this.#drain();
    this.#io.udp.flush();
    this.#shortcuts?.collect(this.#system.now());
    return saveState(this.#handingOn);
  }

  /** Continues sessions that another process has handed on. Call it before {@link listen}. */
  restore(states: readonly KeptState[]): void {
    for (const state of states) {
      restoreState(this.#handingOn, state, (association, isIpv6, descriptor) => {
        this.#socketEgress!.open(association, isIpv6, descriptor);
      });
    }
    this.#drain();
  }

  get #handingOn(): HandingOn {
    return { core: this.#core, sockets: this.#sockets, system: this.#system, log: this.#log };
  }

  /** Takes over a connection whose request another worker has read and accepted. */
  takeOver(handedOver: HandedOver): void {
    if (this.#isClosing) this.#io.native!.descriptorClose!(handedOver.descriptor);
    else this.#connections.takeOver(handedOver);
  }

  /** @param chunk  memory that does not change before it is sent; other memory is copied */
  #sendOutgoing(chunk: Uint8Array | undefined): void {
    const { outgoing, counters } = this.#core;
    if (outgoing.count === 0) return;
    const data = outgoing.data === chunk ? chunk : outgoing.data.slice();
    if (counters.tap !== undefined) this.#records.recordAll(counters.tap, data);
    this.#egress.send(data);
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
    for (let index = core.pollDirty(now); index >= 0; index = core.pollDirty(now)) {
      this.#connections.pump(now, index);
    }
    this.#shortcuts?.give(now);
  }

  #handleOutput(output: ServerOutput): void {
    switch (output.kind) {
      case "close":
      case "hand-over":
      case "web-socket":
      case "http2":
      case "stranger":
        this.#connections.handleOutput(output);
        return;
      case "bind": {
        const { association, connection, target } = output;
        this.#egress.bind(association, target, this.#connections.stream(connection)?.localIp);
        return;
      }
      case "release":
        this.#egress.release(output.association);
        return;
      case "latency":
        this.#egress.setLatency(output.association, output.latency);
        return;
      case "dscp":
        this.#egress.setDscp(output.association, output.dscp);
        return;
      case "resolve":
        void this.#resolve(output.client, output.query, output.name, output.port);
        return;
      default: {
        const { kind, ...fields } = output;
        this.#log.info(fields, kind);
        this.events.emit(kind, fields as never);
      }
    }
  }

  async #resolve(client: string, query: number, name: string, port: number): Promise<void> {
    const addresses = await this.#names.resolve(client, name, port);
    this.#core.handleResolved(this.#system.now(), query, addresses);
    this.#sendOutgoing(undefined);
    this.#drain();
  }
}

/** Whether clients need a key. */
function hasKey({ psk, keys }: ResolvedUdpServerOptions): boolean {
  return psk !== undefined || keys !== undefined;
}

/** The limit of sockets for a worker's associations: its share of what the system allows and nothing else needs. */
function socketLimit(options: ResolvedUdpServerOptions, descriptors: number, workers: number): number {
  const { maxTunnels } = options;
  const dialects = hasDialects(options) ? dialectLimits(options, descriptors) : { connections: 0, flows: 0 };
  const limit = descriptors - dialects.connections - dialects.flows;
  const tunnels = Math.min(maxTunnels, limit / 4);
  const others = Math.min(128, limit / 4);
  return Math.max(1, Math.floor((limit - tunnels - others) / workers));
}
