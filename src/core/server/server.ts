import type { UnreachableKind } from "../../wire/capsule.ts";
import { encodeShutdown } from "../../wire/capsule.ts";
import type { ExtensionRequest } from "../../wire/http/upgrade.ts";
import { encodeRefusal, encodeUpgradeResponse } from "../../wire/http/upgrade.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { RefusalReason } from "../counters.ts";
import { Counters } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import {
  constantTimeEqual,
  deriveSessionKey,
  NONCE_BYTES,
  responseMac,
  resumeMac,
  SESSION_ID_BYTES,
} from "../handshakes/credentials.ts";
import { HeadBuffer } from "../handshakes/head-buffer.ts";
import { KeyTable } from "../keys/key-table.ts";
import type { KeyEntry, NamedKey } from "../keys/named-key.ts";
import { MAX_LANES } from "../lanes/lane-bits.ts";
import type { LanePort } from "../lanes/lane-port.ts";
import type { CapsuleSet } from "../session/capsule-reader.ts";
import type { ContextTable } from "../session/context-table.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import { NameLookups } from "../session/name-lookups.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { SendPool, SendQueue } from "../session/send-queue.ts";
import { CONTEXT_ACKED, MAX_ID, SESSION } from "../session/session-model.ts";
import type { ConnectionOfOffer, Shortcut, Shortcuts } from "../session/shortcuts.ts";
import { MAX_SHORTCUT_CONTEXTS } from "../session/shortcuts.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import { Tunnel } from "../session/tunnel.ts";
import type { AssociationReport, AssociationReports, SessionReport } from "../status.ts";
import { reportOf } from "../status.ts";
import type { ProvenKey, Verdict } from "./handshake.ts";
import { Handshake } from "./handshake.ts";
import type { PlainVerdict } from "./plain-tunnels.ts";
import { judgePlainRequest, judgeResolvedTarget } from "./plain-tunnels.ts";
import type { KeptSession } from "./restart/kept-sessions.ts";
import type { Ports, RestoredAssociation } from "./restart/session-keeper.ts";
import { SessionKeeper } from "./restart/session-keeper.ts";
import { ServerAssociations } from "./server-associations.ts";
import { ServerCapsules } from "./server-capsules.ts";
import { ServerFlows } from "./server-flows.ts";
import { ServerLanes } from "./server-lanes.ts";
import type { TunnelServerOptions } from "./server-options.ts";
import type { ServerOutput, WhatFor } from "./server-output.ts";
import type { ServerParts } from "./server-parts.ts";
import {
  DEADLINE_ASSOCIATIONS,
  DEADLINE_CONNECTION,
  DEADLINE_CONTEXTS,
  DEADLINE_DISPATCH,
  DEADLINE_KEYS,
  DEADLINE_KINDS,
  DEADLINE_LINGER,
  DEADLINE_QUEUE,
  deadlineOf,
} from "./server-parts.ts";
import { ServerReplies } from "./server-replies.ts";
import type { Connection, Session } from "./server-session.ts";
import { ServerSessions } from "./server-sessions.ts";

const NONE = -1;
/** How long a tunnel whose client has ended its side lasts after the last answer. */
const HALF_CLOSED_MS = 10_000;
/** The system's clock may be set, so no key is waited for longer. */
const MAX_EXPIRY_WAIT_MS = 3_600_000;
/** Share of the tunnels that may be further lanes of sessions. */
const SPARE_SHARE = 3 / 4;
/** Bytes of control capsules that may wait for a client that does not read. */
const CONTROL_BYTES = 1_048_576;

/**
 * The server end of all tunnels and sessions of a process. Does no I/O and reads no clock: after each `handle*`, send
 * on {@link outgoing}, drain {@link pollOutput} and {@link pollDirty}, then arm one timer for {@link nextTimeout}.
 * Bytes passed in are borrowed until the call returns. An error of a peer ends only its own connection.
 */
export class TunnelServer {
  readonly counters = new Counters();
  /** Datagrams for targets, filled by {@link handleStream} and {@link handleResolved}. */
  readonly outgoing = new DatagramBatch(1024);
  tunnelCount = 0;
  #isDraining = false;
  #isSuspending = false;
  #isClosed = false;

  readonly #options: TunnelServerOptions;
  readonly #outputs: ServerOutput[] = [];
  readonly #dirty: number[] = [];
  readonly #pool: SendPool;
  readonly #associations: ServerAssociations;
  readonly #deadlines = new Deadlines();
  readonly #handshake: Handshake;
  readonly #keys: KeyTable | undefined;
  readonly #connections: (Connection | undefined)[] = [];
  readonly #freeConnections: number[] = [];
  readonly #halfOpen = new Set<Connection>();
  /** Open tunnels whose clients have ended their side, oldest first. */
  readonly #halfClosed = new Set<Connection>();
  readonly #sessions = new ServerSessions();
  readonly #names: NameLookups<Connection>;

  readonly #lanes: ServerLanes;
  readonly #flows: ServerFlows;
  readonly #capsules: ServerCapsules;
  readonly #replies: ServerReplies;
  readonly #keeper: SessionKeeper;

  constructor(options: TunnelServerOptions) {
    this.#options = options;
    this.#pool = new SendPool(options.datapath);
    this.#associations = new ServerAssociations(options, options.crypto);
    this.#names = new NameLookups(this.contexts, (query, name, port) => {
      this.#outputs.push({ kind: "resolve", query, name, port });
    });
    this.#keys = options.keys && new KeyTable(options.crypto, options.keys);
    this.#handshake = new Handshake(options, this.#keys);
    const parts: ServerParts = {
      options,
      maxId: options.maxId ?? MAX_ID,
      counters: this.counters,
      outgoing: this.outgoing,
      associations: this.#associations,
      names: this.#names,
      deadlines: this.#deadlines,
      pool: this.#pool,
      queueOwner: {
        associationOf: (flow) => flow,
        localOf: (flow) => this.#associations.source[flow],
        remoteOf: (flow, id) => this.#remoteOf(flow, id),
      },
      port: {
        send: (connection, bytes) => this.#sendControl(connection, bytes),
        markDirty: (connection) => this.#markDirty(connection),
        arm: (connection) => this.#armTunnel(connection),
        release: (association) => this.#outputs.push({ kind: "release", association }),
        handleLatency: (association) => {
          this.#outputs.push({ kind: "latency", association, latency: this.latencyOf(association) });
        },
        handleDscp: (association) => {
          this.#outputs.push({ kind: "dscp", association, dscp: this.dscpOf(association) });
        },
        endSession: (now, session, reason) => this.#endSession(now, session, reason),
        sessions: () => this.#sessions.values(),
      },
    };
    this.#pool.owner = parts.queueOwner;
    this.#lanes = new ServerLanes(parts);
    this.#flows = new ServerFlows(parts, this.#lanes);
    this.#capsules = new ServerCapsules(parts, this.#flows, this.#lanes);
    this.#replies = new ServerReplies(parts, this.#flows, this.#lanes);
    this.#keeper = new SessionKeeper(parts, options, this.#sessions, this.#lanes, this.#flows, this.#keys);
  }

  #remoteOf(association: number, id: number): AddressBytes | undefined {
    const slot = this.#associations.sessionOf[association]?.contextById.get(id);
    return slot === undefined ? undefined : this.contexts.target[slot];
  }

  // Getters

  get shortcuts(): Shortcuts {
    return this.contexts.shortcuts;
  }

  get contexts(): ContextTable {
    return this.#associations.contexts;
  }

  get associationCount(): number {
    return this.#associations.count;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  get lingeringCount(): number {
    return this.#sessions.lingering.size;
  }

  /** Mean of the tunnels' smoothed round-trip times in milliseconds. */
  get rttMs(): number | undefined {
    let sum = 0;
    let count = 0;
    for (const connection of this.#connections) {
      if (connection?.tunnel.rttMs === undefined) continue;
      sum += connection.tunnel.rttMs;
      count++;
    }
    return count === 0 ? undefined : sum / count;
  }

  /** The first `limit` of the sessions that can be resumed, as they are now. */
  sessionReports(limit: number): SessionReport[] {
    return this.#sessions.reports(limit);
  }

  /** Associations of `slots` slots from `first` on. */
  associationReports(now: number, first: number, slots: number): AssociationReports {
    const { sessionOf, source, idle } = this.#associations;
    const end = Math.min(sessionOf.length, first + slots);
    const reports: AssociationReport[] = [];
    for (let association = first; association < end; association++) {
      const session = sessionOf[association];
      if (session === undefined) continue;
      reports.push(reportOf(now, session.name, association, source[association], this.contexts, idle));
    }
    return { reports, next: end < sessionOf.length ? end : undefined };
  }

  get spread(): SpreadState {
    return spreadState([...this.#sessions.values()].flatMap(({ lanes }) => lanes?.scheduler ?? []));
  }

  /** Bytes of datagrams that wait for lanes, or are on lanes and not receipted, of sessions with receipts. */
  get storedBytes(): number {
    return this.#lanes.storedBytes;
  }

  get halfOpenCount(): number {
    return this.#halfOpen.size;
  }

  /** The keys of single clients, with what each does here; undefined where there are none. */
  get keys(): Iterable<NamedKey> | undefined {
    return this.#keys?.keys;
  }

  /** The latency class that the client gave an association; undefined if it gave none. */
  latencyOf(association: number): LatencyClass | undefined {
    return LATENCY_CLASSES[this.#associations.latency[association]];
  }

  /** The DSCP of an association's datagrams to targets. */
  dscpOf(association: number): number {
    return this.#associations.dscp[association];
  }

  /** The application's own address of an association, if its client sent it. */
  source(association: number): AddressBytes | undefined {
    return this.#associations.source[association];
  }

  /** True if the datagrams of an association must not be fragmented, as in tunnels of RFC 9298 (§3.1). */
  forbidsFragments(association: number): boolean {
    return this.#associations.sessionOf[association]?.kind !== "native";
  }

  // Events

  /**
   * A connection was accepted.
   *
   * @param isNested  true for what another protocol carries, such as a WebSocket: it stays with this worker, and its strangers are refused
   * @returns its number, for all later calls
   */
  handleAccept(now: number, isNested = false): number {
    if (this.#halfOpen.size >= this.#options.maxHalfOpen) {
      // The oldest is the most likely to be slow on purpose.
      const [oldest] = this.#halfOpen;
      this.#refuse(now, oldest, "half_open_limit", undefined);
    }
    const connection = this.#addConnection(now, isNested);
    this.#halfOpen.add(connection);
    return connection.index;
  }

  /**
   * A connection that another worker has accepted and handed over, with the request that it has judged.
   *
   * @param head    the whole head of the request
   * @param holder  name of the key that the client has proved; undefined for that of everybody, or none
   * @returns its number, for all later calls
   */
  handleHandedOver(now: number, head: Uint8Array, holder?: string): number {
    const connection = this.#addConnection(now, false);
    this.#follow(now, connection, this.#handshake.judgeHandedOver(head, holder), new Uint8Array(0));
    return connection.index;
  }

  #addConnection(now: number, isNested: boolean): Connection {
    const { counters } = this;
    const { queueBytes, ageBudgetMs, heartbeatMs, handshakeTimeoutMs } = this.#options;
    const index = this.#freeConnections.pop() ?? this.#connections.length;
    const queue = new SendQueue(this.#pool, counters, queueBytes, ageBudgetMs);
    const connection: Connection = {
      index,
      state: "head",
      tunnel: new Tunnel(queue, counters, { heartbeatMs, controlBytes: CONTROL_BYTES }),
      head: new HeadBuffer(),
      lane: 0,
      session: undefined,
      request: undefined,
      isDirty: false,
      hasEnded: false,
      isNested,
    };
    this.#connections[index] = connection;
    this.#deadlines.set(deadlineOf(index, DEADLINE_CONNECTION), now + handshakeTimeoutMs);
    return connection;
  }

  /**
   * Bytes of a connection, cut anywhere. Stops when {@link outgoing} is full, or contains something that cannot be combined
   * with the rest.
   *
   * @returns the offset up to which they were consumed: send on `outgoing`, then call again with the rest
   */
  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const connection = this.#connections[index];
    this.outgoing.count = 0;
    if (connection === undefined || connection.state === "closing") return end;
    let at = offset;
    while (connection.state === "head" && at < end) {
      const headEnd = connection.head.take(chunk, at, end);
      if (headEnd === -1) return end;
      at = headEnd;
      if (headEnd === -2)
        this.#refuse(now, connection, "not_upgrade", encodeRefusal(400, undefined), "over 8 KiB");
      else {
        const verdict = this.#handshake.judge(now, connection.head, connection.isNested);
        this.#follow(now, connection, verdict, chunk.subarray(at, end));
      }
    }
    if (connection.state === "open") {
      this.#lanes.stir(connection.session);
      at = connection.tunnel.readCapsules(now, connection, chunk, at, end, this.outgoing, this.#capsules);
      if (!this.#isOpen(connection)) return end;
      if (!connection.tunnel.isDrained) this.#markDirty(connection);
      this.#checkTunnel(now, connection);
      return at;
    }
    if ((connection.state === "resolving" || connection.state === "binding") && at < end) {
      // RFC 9931 §6.3: over HTTP/1.1 nothing may follow the request before the 101.
      this.#refuse(now, connection, "protocol_error", encodeRefusal(400, undefined));
    }
    return end;
  }

  /**
   * In sessions with receipts: datagrams that were held until it was their turn. To be called after the batches of
   * {@link handleStream} and after {@link handleTimeout}, before anything is polled for sending.
   *
   * @returns true when {@link outgoing} may have some: send them on, then call again
   */
  takeReleased(now: number): boolean {
    return this.#lanes.isStirred && this.#capsules.takeReleased(now);
  }

  /**
   * The client has ended its side of a connection. A tunnel of RFC 9298 still gets answers to what was sent before; a lane of
   * our own protocol is closed, as its session continues without it.
   */
  handleEnded(now: number, index: number): void {
    const connection = this.#connections[index];
    if (connection === undefined || connection.state === "closing" || connection.hasEnded) return;
    connection.hasEnded = true;
    if (connection.state === "head" || connection.session?.kind === "native") {
      this.#closeConnection(now, connection, undefined);
    } else if (connection.state === "open") this.#halfClose(now, connection);
  }

  #halfClose(now: number, connection: Connection): void {
    const { tunnel } = connection;
    if (!tunnel.reader.atBoundary) {
      // RFC 9297 §3.3.
      tunnel.fail(new ProtocolError("ERR_STREAM_TRUNCATED", "the client has ended its side"));
      this.#checkTunnel(now, connection);
      return;
    }
    this.#halfClosed.add(connection);
    this.#deadlines.set(deadlineOf(connection.index, DEADLINE_CONNECTION), now + HALF_CLOSED_MS);
  }

  /** The connection has ended, for any reason. */
  handleDisconnected(now: number, index: number): void {
    const connection = this.#connections[index];
    if (connection === undefined) return;
    this.#connections[index] = undefined;
    this.#freeConnections.push(index);
    this.#deadlines.clear(deadlineOf(index, DEADLINE_CONNECTION));
    this.#deadlines.clear(deadlineOf(index, DEADLINE_QUEUE));
    this.#detach(now, connection);
    // An answer for it may still arrive.
    connection.state = "closing";
  }

  /** A batch from {@link pollTransmit} is written. @returns whether there may be another */
  handleTransmitted(index: number): boolean {
    const connection = this.#connections[index];
    if (connection === undefined) return false;
    if (connection.session?.lanes !== undefined) this.#lanes.stir(connection.session);
    const hasMore = connection.tunnel.handleTransmitted();
    if (hasMore) this.#markDirty(connection);
    return hasMore;
  }

  /**
   * A datagram arrived at an association's socket.
   *
   * @param remote  its source, IPv4 or IPv6; borrowed
   */
  handleDatagram(
    now: number,
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: AddressBytes,
  ): void {
    this.#replies.handleDatagram(now, association, data, offset, length, remote);
  }

  /** Rows `first` to `end - 1` arrived at an association's sockets, from IPv4 or IPv6 sources. */
  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    this.#replies.handleDatagrams(now, association, received, first, end);
  }

  /**
   * A datagram of an association did not reach `remote`, an IPv4 or IPv6 address. Its client gets a report if it knows our
   * extension and the association has a lane.
   *
   * @param mtu  for too-big: the largest IP packet that would get through, 0 if unknown
   */
  handleUnreachable(
    now: number,
    association: number,
    remote: AddressBytes,
    kind: UnreachableKind,
    mtu: number,
  ): void {
    this.#replies.handleUnreachable(now, association, remote, kind, mtu);
  }

  /**
   * The host is out of sockets, and the association needs one more, so another has to end.
   *
   * @returns false when none may end; then the association itself has ended
   */
  makeRoomForSocket(now: number, association: number): boolean {
    return this.#flows.makeRoomForSocket(now, association);
  }

  /** The association's socket has failed for good. */
  handleSocketFailed(now: number, association: number): void {
    this.#flows.handleSocketFailed(now, association);
  }

  /**
   * The sockets requested by a `bind` output are open.
   *
   * @param publicAddresses  of a bound tunnel, `192.0.2.45:54321`; undefined when no socket could be opened
   */
  handleBound(now: number, association: number, publicAddresses: readonly string[] | undefined): void {
    const connection = this.#associations.connectionOf[association];
    if (connection === undefined || connection.state !== "binding") return;
    if (publicAddresses === undefined) {
      this.#refuse(now, connection, "association_limit", encodeRefusal(502, "proxy_internal_error"));
      return;
    }
    const bind = connection.session!.bound !== undefined;
    connection.tunnel.writeControl(encodeUpgradeResponse(bind, bind ? publicAddresses : [], undefined));
    this.#open(now, connection, bind ? "bind" : "datagram");
  }

  /** The answer to a `resolve` output. @param addresses  in order of preference; empty when there are none */
  handleResolved(now: number, number: number, addresses: readonly AddressBytes[]): void {
    this.outgoing.count = 0;
    const lookup = this.#names.finish(number);
    if (lookup === undefined) return;
    if (lookup.kind === "target") {
      const { connection } = lookup;
      if (connection.state !== "resolving") return;
      const { bind } = connection.request!;
      this.#followPlain(now, connection, judgeResolvedTarget(addresses, bind, this.#options));
      return;
    }
    this.#capsules.handleResolved(now, lookup.slot, addresses);
  }

  /**
   * The system's time is `unixMs`, in milliseconds since 1970, at `now`: by it keys expire, and have other ids each hour. To be
   * called before the first connection, and again from time to time, as that clock may be set.
   */
  handleWallClock(now: number, unixMs: number): void {
    this.#keys?.handleWallClock(now, unixMs);
    this.#endExpired(now);
  }

  /**
   * Other keys of single clients from now on. Sessions of a name whose key stays are not touched, and have the new limits; those of
   * others end.
   */
  replaceKeys(now: number, entries: readonly KeyEntry[]): void {
    const gone = new Set(this.#keys?.replace(entries));
    if (gone.size > 0) this.#endSessionsOf(now, (holder) => gone.has(holder));
    this.#endExpired(now);
  }

  #endExpired(now: number): void {
    const keys = this.#keys;
    if (keys === undefined) return;
    this.#endSessionsOf(now, (holder) => keys.isExpired(now, holder));
    // A millisecond later where rounding puts it at this moment.
    const next = Math.max(now + 1, Math.min(keys.nextExpiry(now), now + MAX_EXPIRY_WAIT_MS));
    this.#deadlines.set(deadlineOf(0, DEADLINE_KEYS), next);
  }

  #endSessionsOf(now: number, isGone: (holder: NamedKey) => boolean): void {
    for (const session of [...this.#sessions.values()]) {
      if (session.holder === undefined || !isGone(session.holder)) continue;
      for (const connection of session.connections) this.#sendControl(connection, encodeShutdown("key"));
      this.counters.refused.key_session_ended++;
      this.#endSession(now, session, "key");
    }
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      const index = Math.floor(key / DEADLINE_KINDS);
      const kind = key % DEADLINE_KINDS;
      if (kind === DEADLINE_CONNECTION) this.#handleConnectionTimeout(now, this.#connections[index]!);
      else if (kind === DEADLINE_QUEUE) this.#expireQueue(now, this.#connections[index]!);
      else if (kind === DEADLINE_DISPATCH) this.#lanes.stir(this.#sessions.byIndex[index]);
      else if (kind === DEADLINE_KEYS) this.#endExpired(now);
      else if (kind === DEADLINE_LINGER) this.#endSession(now, this.#sessions.byIndex[index]!, "linger");
      else if (kind === DEADLINE_ASSOCIATIONS)
        this.#flows.expireAssociations(now, this.#sessions.byIndex[index]!);
      else this.#flows.expireContexts(now, this.#sessions.byIndex[index]!);
    }
  }

  #handleConnectionTimeout(now: number, connection: Connection): void {
    if (connection.state === "closing") return;
    if (connection.state !== "open") {
      this.#refuse(now, connection, "handshake_timeout", undefined);
      return;
    }
    if (connection.hasEnded) {
      const association = connection.session!.associationById.get(0)!;
      const endsAt = this.#associations.idle.lastUsed(association) + HALF_CLOSED_MS;
      if (now >= endsAt) this.#closeConnection(now, connection, undefined);
      else this.#deadlines.set(deadlineOf(connection.index, DEADLINE_CONNECTION), endsAt);
      return;
    }
    connection.tunnel.handleTimeout(now);
    this.#markDirty(connection);
    this.#checkTunnel(now, connection);
    if (this.#isOpen(connection)) this.#armTunnel(connection);
  }

  #armTunnel({ index, tunnel }: Connection): void {
    this.#deadlines.set(deadlineOf(index, DEADLINE_CONNECTION), tunnel.nextTimeout());
  }

  #expireQueue(now: number, { index, tunnel: { queue } }: Connection): void {
    queue.expire(now);
    this.#deadlines.set(deadlineOf(index, DEADLINE_QUEUE), queue.expiresAt);
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. */
  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): ServerOutput | undefined {
    if (this.#outputs.length === 0) return undefined;
    const output = this.#outputs.shift();
    // The slot may be reused only now that the host closes its sockets.
    if (output?.kind === "release") this.#associations.handleReleased(output.association);
    return output;
  }

  /** The next connection that may have data to write, or -1. */
  pollDirty(now: number): number {
    do {
      const index = this.#takeDirty();
      if (index !== NONE) return index;
    } while (this.#lanes.dispatch(now));
    return NONE;
  }

  #takeDirty(): number {
    for (let index = this.#dirty.pop(); index !== undefined; index = this.#dirty.pop()) {
      const connection = this.#connections[index];
      if (connection === undefined) continue;
      connection.isDirty = false;
      return index;
    }
    return NONE;
  }

  /** Bytes for a connection, on loan until {@link handleTransmitted}. */
  pollTransmit(now: number, index: number): Uint8Array | undefined {
    const connection = this.#connections[index];
    if (connection === undefined) return undefined;
    const { tunnel } = connection;
    const bytes = tunnel.pollTransmit(now);
    if (!tunnel.queue.isEmpty) {
      this.#deadlines.setEarlier(deadlineOf(index, DEADLINE_QUEUE), tunnel.queue.expiresAt);
    }
    return bytes;
  }

  /** As {@link TunnelClient.pollShortcut}. */
  pollShortcut(): Shortcut | undefined {
    return this.contexts.pollShortcut(this.#connectionOfOffer);
  }

  readonly #connectionOfOffer: ConnectionOfOffer = ({ epoch, context }, association) => {
    const connection = this.#associations.connectionOf[association];
    const isGiven = connection?.tunnel === epoch.tunnel && this.#mayCutShort(connection, context);
    return isGiven ? connection.index : undefined;
  };

  #mayCutShort({ session, state, hasEnded, tunnel }: Connection, context: number): boolean {
    return (
      !(this.#isDraining || this.#isSuspending || this.#isClosed) &&
      session?.kind === "native" &&
      session.lanes === undefined &&
      session.holder === undefined &&
      session.connections.size === 1 &&
      session.contextById.size <= MAX_SHORTCUT_CONTEXTS &&
      this.counters.tap === undefined &&
      state === "open" &&
      !hasEnded &&
      tunnel.error === undefined &&
      this.contexts.state[context] === CONTEXT_ACKED
    );
  }

  /** Whether what a connection reads next may go to shortcuts. Only when all that it has read has been handled. */
  mayReadShortcuts(index: number): boolean {
    return this.#connections[index]?.tunnel.mayReadShortcuts ?? false;
  }

  /** As {@link TunnelClient.handleShortcut}. */
  handleShortcut(time: number, shortcut: Shortcut, count: number, bytes: number, length: number): void {
    const { epoch, isOut, context, generation } = shortcut;
    const isKnown = this.contexts.generation[context] === generation;
    if (isOut) {
      epoch.tunnel.handleShortcutSent(count, bytes, length);
      if (isKnown) this.#associations.noteReplies(time, context, count);
    } else {
      epoch.tunnel.handleShortcutReceived(time, length);
      this.#capsules.noteReceived(time, isKnown ? context : NONE, count, bytes);
    }
  }

  /** Whether more is to be sent in the connection's session than the path takes. */
  isLimited(now: number, index: number): boolean {
    return this.#connections[index]?.tunnel.isLimited(now) ?? false;
  }

  /**
   * Asks every client to begin a session at another server, and accepts no more lanes. Those that are up go on. A client takes some
   * seconds, after which {@link sessionCount} no longer includes its session.
   */
  drain(): void {
    this.#isDraining = true;
    for (const connection of this.#connections) {
      if (connection?.state !== "open" || connection.session?.kind !== "native") continue;
      this.#sendControl(connection, encodeShutdown("moving"));
    }
  }

  /**
   * Another process is about to go on with the sessions: no more lanes are accepted, and connections without a lane are closed.
   * Those that are up go on until the host has ended them; then {@link saveSessions}.
   */
  suspend(now: number): void {
    this.#isSuspending = true;
    for (const connection of this.#connections) connection?.tunnel.endShortcuts();
    for (const connection of [...this.#halfOpen]) this.#closeConnection(now, connection, undefined);
  }

  /**
   * The sessions that can be resumed, with their associations and contexts, for {@link restoreSessions}. Lost are what waits in
   * queues, what lanes have not delivered, and what names were being resolved for.
   *
   * @param portsOf  the ports of an association's sockets
   */
  saveSessions(now: number, portsOf: (association: number) => Ports): KeptSession[] {
    return this.#keeper.save(now, portsOf);
  }

  /**
   * Goes on with sessions of another process, each until the end of its linger time at the latest, as far as keys, policy and
   * bounds permit. To be called before the first connection.
   *
   * @param elapsedMs  since they were saved
   * @returns their associations, whose sockets are the host's to find
   */
  restoreSessions(now: number, kept: readonly KeptSession[], elapsedMs: number): RestoredAssociation[] {
    return this.#keeper.restore(now, kept, elapsedMs);
  }

  /** Announces to every client that this server shuts down; then drain and close. */
  close(): void {
    this.#isClosed = true;
    for (const connection of this.#connections) {
      if (connection?.state !== "open" || connection.session?.kind !== "native") continue;
      this.#sendControl(connection, encodeShutdown("done"));
    }
  }

  // Handshake

  /** @param surplus  bytes behind the request; borrowed */
  #follow(now: number, connection: Connection, verdict: Verdict, surplus: Uint8Array): void {
    switch (verdict.kind) {
      case "refuse": {
        const { reason, detail } = verdict;
        // Only a client with valid credentials meets that limit.
        const isStranger = reason !== "nonce_limit" && verdict.isProven !== true;
        if (!this.#options.hasDecoy || connection.isNested || !isStranger) {
          this.#refuse(now, connection, reason, verdict.response, detail);
          return;
        }
        this.counters.refused[reason]++;
        this.#giveAway(now, connection, surplus, { kind: "stranger", refusal: { reason, detail } });
        return;
      }
      case "web-socket":
      case "http2":
        this.#giveAway(now, connection, surplus, verdict);
        return;
      case "challenge":
        connection.head.clear();
        this.counters.refused.challenged++;
        this.#sendControl(connection, verdict.response);
        return;
      case "hand-over":
        if (this.#isDraining) {
          this.#refuse(now, connection, "draining", encodeRefusal(503, undefined));
          return;
        }
        this.#giveAway(now, connection, surplus, { ...verdict, holder: verdict.holder?.name });
        return;
      case "lane":
        this.#acceptLane(now, connection, verdict.extension, verdict.proven);
        return;
      case "plain":
        connection.request = verdict.request;
        this.#followPlain(now, connection, judgePlainRequest(verdict.request, this.#options));
    }
  }

  #acceptLane(
    now: number,
    connection: Connection,
    extension: ExtensionRequest,
    proven: ProvenKey | undefined,
  ): void {
    if (this.#isSuspending) {
      // It is to ask again, at the next process.
      this.#refuse(now, connection, "draining", undefined);
      return;
    }
    if (this.#isDraining) {
      this.#refuse(now, connection, "draining", encodeRefusal(503, undefined));
      return;
    }
    const { crypto } = this.#options;
    const psk = proven?.key;
    const holder = proven?.holder;
    const nonce = crypto.random(NONCE_BYTES);
    const receipts = extension.receipts && this.#options.hasReceipts !== false;
    if (receipts && extension.lane >= MAX_LANES) {
      this.#refuse(now, connection, "protocol_error", encodeRefusal(400, undefined), "lane over 31");
      return;
    }
    const known = extension.session === undefined ? undefined : this.#sessions.find(extension.session);
    const isResumed =
      known !== undefined &&
      (known.lanes !== undefined) === receipts &&
      known.holder === holder &&
      constantTimeEqual(extension.resumeMac, resumeMac(crypto, known.key, extension));
    let session = isResumed ? known : undefined;
    // The client has given up that lane, although its end has not reached us.
    const predecessor = [...(session?.connections ?? [])].find(({ lane }) => lane === extension.lane);
    const isSpare = session !== undefined && session.connections.size > 0;
    if (predecessor === undefined && !this.#makeRoomForTunnel(now, isSpare)) {
      this.#refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    if (session === undefined) {
      if (!this.#makeRoomForSession(now)) {
        this.#refuse(now, connection, "session_limit", encodeRefusal(503, undefined));
        return;
      }
      const id = this.#handshake.newSessionId();
      const key = deriveSessionKey(crypto, psk ?? new Uint8Array(0), extension.nonce, nonce, id);
      session = this.#beginSession("native", id, key, receipts, holder);
    }
    const answer = { nonce, session: session.id, resumed: isResumed, receipts };
    const mac = psk === undefined ? undefined : responseMac(crypto, psk, extension.mac!, answer);
    connection.tunnel.writeControl(encodeUpgradeResponse(true, [], { ...answer, mac }));
    const isReturn = session.connections.size === 0 && isResumed;
    connection.lane = extension.lane;
    // Without receipts it is only a name; there are no more labels than lanes.
    connection.tunnel.queue.lane = Math.min(extension.lane, MAX_LANES - 1);
    connection.session = session;
    // Only the single lane of a session has shortcuts.
    for (const other of session.connections) other.tunnel.endShortcuts();
    session.connections.add(connection);
    if (predecessor !== undefined) this.#closeConnection(now, predecessor, undefined);
    session.state = SESSION.after(session.state, "join");
    this.#sessions.lingering.delete(session);
    this.#deadlines.clear(deadlineOf(session.index, DEADLINE_LINGER));
    if (isReturn) this.counters.resumed++;
    this.#outputs.push({
      kind: isReturn ? "session-resumed" : "session-up",
      session: session.name,
      lane: extension.lane,
    });
    for (const association of session.associationById.values()) {
      this.#associations.connectionOf[association] ??= connection;
    }
    const firstCount = (extension.nonce[0] << 8) | extension.nonce[1];
    const port = this.#lanes.handleLaneUp(now, session, connection, firstCount);
    this.#open(now, connection, port === undefined ? "extension" : "receipts", port);
    this.#lanes.registerLost(session);
  }

  /** Closes the oldest tunnel whose client has ended its side, to make room for a new one. */
  #makeRoomForTunnel(now: number, isSpare = false): boolean {
    const { maxSessions, maxAssociations } = this.#options;
    // More lanes of one session leave room for the first ones of others.
    const maxTunnels = (isSpare ? SPARE_SHARE : 1) * this.#options.maxTunnels;
    const isFull = () =>
      this.tunnelCount >= maxTunnels ||
      this.sessionCount >= maxSessions ||
      this.associationCount >= maxAssociations;
    for (const connection of this.#halfClosed) {
      if (!isFull()) break;
      this.#closeConnection(now, connection, undefined);
    }
    return this.tunnelCount < maxTunnels;
  }

  #makeRoomForSession(now: number): boolean {
    if (this.#sessions.size < this.#options.maxSessions) return true;
    const [oldest] = this.#sessions.lingering;
    if (oldest === undefined) return false;
    this.counters.refused.session_evicted++;
    this.#endSession(now, oldest, "evicted");
    return true;
  }

  #beginSession(
    kind: Session["kind"],
    id: Uint8Array,
    key: Uint8Array,
    receipts: boolean,
    holder: NamedKey | undefined,
  ): Session {
    const scheduler = receipts ? this.#lanes.makeScheduler() : undefined;
    return this.#sessions.begin(kind, id, key, scheduler, holder);
  }

  #followPlain(now: number, connection: Connection, verdict: PlainVerdict): void {
    if (verdict.kind === "accept") this.#bindPlain(now, connection, verdict.target, verdict.bind);
    else if (verdict.kind === "refuse") this.#refuse(now, connection, verdict.reason, verdict.response);
    else {
      connection.state = "resolving";
      this.#names.addTarget(connection, verdict.name);
    }
  }

  /** RFC 9298 without our extension: one association, which begins and ends with the tunnel. */
  #bindPlain(now: number, connection: Connection, target: AddressBytes | undefined, bind: boolean): void {
    if (this.#isDraining) {
      this.#refuse(now, connection, "draining", encodeRefusal(503, undefined));
      return;
    }
    if (!this.#makeRoomForTunnel(now) || !this.#makeRoomForSession(now)) {
      this.#refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    const session = this.#beginSession(
      bind ? "bound" : "fixed",
      this.#options.crypto.random(SESSION_ID_BYTES),
      new Uint8Array(0),
      false,
      undefined,
    );
    connection.session = session;
    session.connections.add(connection);
    const association = this.#flows.openAssociation(now, session, connection, 0, undefined);
    if (association === NONE) {
      this.#refuse(now, connection, "association_limit", encodeRefusal(503, undefined));
      return;
    }
    if (target !== undefined) {
      this.#associations.addClientContext(now, session, association, 0, target, true);
    }
    connection.state = "binding";
    this.#outputs.push({
      kind: "bind",
      association,
      connection: connection.index,
      target: bind ? undefined : target,
    });
  }

  #open(now: number, connection: Connection, known: CapsuleSet, port?: LanePort): void {
    this.#halfOpen.delete(connection);
    connection.state = "open";
    this.tunnelCount++;
    connection.tunnel.open(now, known, port);
    connection.tunnel.handleTimeout(now);
    this.#armTunnel(connection);
    this.#markDirty(connection);
    if (connection.hasEnded) this.#halfClose(now, connection);
  }

  #isOpen(connection: Connection): boolean {
    return connection.state === "open";
  }

  // Ends

  /** Leaves a connection to the host, with all that was read from it. */
  #giveAway(now: number, connection: Connection, surplus: Uint8Array, what: WhatFor): void {
    const { index, head } = connection;
    this.#detach(now, connection);
    connection.state = "closing";
    this.#outputs.push({
      ...what,
      ...{ connection: index, head: head.bytes.slice(0, head.length), surplus: surplus.slice() },
    });
  }

  /** Counts the reason, sends a response if there is one, and closes. */
  #refuse(
    now: number,
    connection: Connection,
    reason: RefusalReason,
    response: Uint8Array | undefined,
    detail = "",
  ): void {
    this.counters.refused[reason]++;
    if (response !== undefined) this.#sendControl(connection, response);
    this.#closeConnection(now, connection, undefined, { reason, detail });
  }

  #closeConnection(
    now: number,
    connection: Connection,
    error: ProtocolError | undefined,
    refusal: { reason: RefusalReason; detail: string } | undefined = undefined,
  ): void {
    if (connection.state === "closing") return;
    this.#detach(now, connection);
    connection.state = "closing";
    this.#outputs.push({ kind: "close", connection: connection.index, error, refusal });
  }

  /** Removes a connection from its session. */
  #detach(now: number, connection: Connection): void {
    connection.tunnel.endShortcuts();
    this.#halfOpen.delete(connection);
    this.#halfClosed.delete(connection);
    if (connection.state === "open") this.tunnelCount--;
    const session = connection.session;
    connection.session = undefined;
    if (session === undefined || !session.connections.delete(connection)) return;
    if (session.kind !== "native") {
      this.#endSession(now, session, "closed");
      return;
    }
    this.#lanes.handleLaneDown(now, session, connection);
    const [heir] = session.connections;
    for (const association of session.associationById.values()) {
      if (this.#associations.connectionOf[association] !== connection) continue;
      this.#associations.connectionOf[association] = heir;
      if (heir === undefined) this.#pool.removeFlow(association);
      else heir.tunnel.queue.takeFlow(association);
    }
    if (heir !== undefined) {
      this.#lanes.registerLost(session);
      this.#markDirty(heir);
    } else if (session.isLive) this.#linger(now, session);
  }

  #linger(now: number, session: Session): void {
    this.#outputs.push({ kind: "session-down", session: session.name });
    session.state = SESSION.after(session.state, "last lane lost");
    if (session.associationById.size === 0) {
      this.#endSession(now, session, "empty");
      return;
    }
    if (!this.#isSuspending && this.#sessions.lingering.size >= this.#options.maxLingering) {
      const [oldest] = this.#sessions.lingering;
      this.counters.refused.session_evicted++;
      this.#endSession(now, oldest, "evicted");
    }
    session.lingersUntil = now + this.#options.lingerMs;
    this.#deadlines.set(deadlineOf(session.index, DEADLINE_LINGER), session.lingersUntil);
    this.#sessions.lingering.add(session);
  }

  #endSession(now: number, session: Session, reason: string): void {
    if (!this.#sessions.end(session)) return;
    for (const kind of [DEADLINE_LINGER, DEADLINE_ASSOCIATIONS, DEADLINE_CONTEXTS, DEADLINE_DISPATCH]) {
      this.#deadlines.clear(deadlineOf(session.index, kind));
    }
    for (const association of [...session.associationById.values()])
      this.#flows.closeAssociation(association);
    for (const connection of [...session.connections]) {
      session.connections.delete(connection);
      connection.session = undefined;
      this.#closeConnection(now, connection, undefined);
    }
    session.lanes?.scheduler.close();
    this.#outputs.push({ kind: "session-ended", session: session.name, reason });
  }

  #checkTunnel(now: number, connection: Connection): void {
    const { error } = connection.tunnel;
    if (error === undefined) return;
    this.counters.refused.protocol_error++;
    this.#closeConnection(now, connection, error);
  }

  #sendControl(connection: Connection, bytes: Uint8Array): void {
    connection.tunnel.writeControl(bytes);
    this.#markDirty(connection);
  }

  #markDirty(connection: Connection): void {
    if (connection.isDirty) return;
    connection.isDirty = true;
    this.#dirty.push(connection.index);
  }
}
