import type { UnreachableKind } from "../../wire/capsule.ts";
import { encodeRefusal } from "../../wire/http/upgrade.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import { Counters } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { Fifo } from "../fifo.ts";
import { KeyTable } from "../keys/key-table.ts";
import type { KeyEntry, NamedKey } from "../keys/named-key.ts";
import type { ContextTable } from "../session/context-table.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import { NameLookups } from "../session/name-lookups.ts";
import { SendPool } from "../session/queue/send-pool.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { MAX_ID } from "../session/session-model.ts";
import type { Shortcut, Shortcuts } from "../session/shortcuts.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import type { AssociationReports, SessionReport } from "../status.ts";
import { serverAssociations } from "../status.ts";
import { Admission } from "./admission/admission.ts";
import { KeyExpiry } from "./admission/key-expiry.ts";
import type { KeptSession } from "./restart/kept-sessions.ts";
import type { Ports, RestoredAssociation } from "./restart/session-keeper.ts";
import { SessionKeeper } from "./restart/session-keeper.ts";
import { ServerAssociations } from "./server-associations.ts";
import { ServerCapsules } from "./server-capsules.ts";
import { ServerConnections } from "./server-connections.ts";
import { ServerFlows } from "./server-flows.ts";
import { ServerLanes } from "./server-lanes.ts";
import type { TunnelServerOptions } from "./server-options.ts";
import type { ServerOutput } from "./server-output.ts";
import type { ServerParts, Shutdown } from "./server-parts.ts";
import {
  DEADLINE_ASSOCIATIONS,
  DEADLINE_CONNECTION,
  DEADLINE_DISPATCH,
  DEADLINE_KEYS,
  DEADLINE_KINDS,
  DEADLINE_LINGER,
  DEADLINE_QUEUE,
  deadlineOf,
} from "./server-parts.ts";
import { ServerReplies } from "./server-replies.ts";
import { ServerShortcuts } from "./server-shortcuts.ts";
import type { Connection } from "./sessions/server-session.ts";
import { ServerSessions } from "./sessions/server-sessions.ts";
import { SessionLifetimes } from "./sessions/session-lifetimes.ts";

const NONE = -1;

/**
 * The server end of all tunnels and sessions of a process. Does no I/O and reads no clock: after each `handle*`, send
 * on {@link outgoing}, drain {@link pollOutput} and {@link pollDirty}, then arm one timer for {@link nextTimeout}.
 * Bytes passed in are borrowed until the call returns. An error of a peer ends only its own connection.
 */
export class TunnelServer {
  readonly counters = new Counters();
  /** Datagrams for targets, filled by {@link handleStream} and {@link handleResolved}. */
  readonly outgoing = new DatagramBatch(1024);

  readonly #outputs = new Fifo<ServerOutput>();
  readonly #sessions: ServerSessions;
  readonly #deadlines = new Deadlines();
  readonly #shutdown: Shutdown = { isDraining: false, isSuspending: false, isClosed: false };
  readonly #associations: ServerAssociations;
  readonly #names: NameLookups<Connection>;
  readonly #keys: KeyTable | undefined;

  readonly #lanes: ServerLanes;
  readonly #flows: ServerFlows;
  readonly #capsules: ServerCapsules;
  readonly #replies: ServerReplies;
  readonly #shortcuts: ServerShortcuts;
  readonly #lifetimes: SessionLifetimes;
  readonly #connections: ServerConnections;
  readonly #admission: Admission;
  readonly #keyExpiry: KeyExpiry | undefined;
  readonly #keeper: SessionKeeper;

  constructor(options: TunnelServerOptions) {
    this.#sessions = new ServerSessions(options.worker);
    this.#associations = new ServerAssociations(options, options.crypto);
    this.#names = new NameLookups(this.contexts, (client, query, name, port) => {
      this.#outputs.push({ kind: "resolve", client, query, name, port });
    });
    this.#keys = options.keys && new KeyTable(options.crypto, options.keys);
    const parts: ServerParts = {
      options,
      maxId: options.maxId ?? MAX_ID,
      counters: this.counters,
      outgoing: this.outgoing,
      outputs: this.#outputs,
      associations: this.#associations,
      sessions: this.#sessions,
      names: this.#names,
      deadlines: this.#deadlines,
      pool: new SendPool(options.datapath),
      queueOwner: {
        associationOf: (flow) => flow,
        localOf: (flow) => this.#associations.source[flow],
        remoteOf: (flow, id) => this.#remoteOf(flow, id),
      },
      shutdown: this.#shutdown,
      port: {
        send: (connection, bytes) => this.#connections.send(connection, bytes),
        markDirty: (connection) => this.#connections.markDirty(connection),
        arm: (connection) => this.#connections.arm(connection),
        close: (now, connection) => this.#connections.close(now, connection),
        endSession: (now, session, reason) => this.#lifetimes.end(now, session, reason),
      },
    };
    parts.pool.owner = parts.queueOwner;
    this.#lanes = new ServerLanes(parts);
    this.#flows = new ServerFlows(parts, this.#lanes);
    this.#capsules = new ServerCapsules(parts, this.#flows, this.#lanes);
    this.#replies = new ServerReplies(parts, this.#flows, this.#lanes);
    this.#shortcuts = new ServerShortcuts(parts, this.#capsules);
    this.#lifetimes = new SessionLifetimes(parts, this.#lanes, this.#flows);
    this.#connections = new ServerConnections(parts, this.#lifetimes);
    this.#admission = new Admission(
      parts,
      this.#keys,
      this.#connections,
      this.#lifetimes,
      this.#lanes,
      this.#flows,
    );
    this.#keyExpiry = this.#keys && new KeyExpiry(parts, this.#keys, this.#lifetimes);
    this.#keeper = new SessionKeeper(parts, this.#lanes, this.#flows, this.#keys);
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

  get tunnelCount(): number {
    return this.#connections.tunnelCount;
  }

  get halfOpenCount(): number {
    return this.#connections.halfOpen.size;
  }

  /** Mean of the tunnels' smoothed round-trip times in milliseconds. */
  get rttMs(): number | undefined {
    return this.#connections.rttMs;
  }

  /** The current state of the first `limit` sessions. */
  sessionReports(limit: number): SessionReport[] {
    return this.#sessions.reports(limit);
  }

  /** The associations in the `slots` slots from `first` on. */
  associationReports(now: number, first: number, slots: number): AssociationReports {
    return serverAssociations(now, this.#associations, first, slots);
  }

  get spread(): SpreadState {
    return spreadState([...this.#sessions.values()].flatMap(({ lanes }) => lanes?.scheduler ?? []));
  }

  /** Bytes of the datagrams that wait for lanes or are on lanes without a receipt, in all sessions with receipts. */
  get storedBytes(): number {
    return this.#lanes.storedBytes;
  }

  /** The keys of single clients, with their current use; undefined if the server has none. */
  get keys(): Iterable<NamedKey> | undefined {
    return this.#keys?.keys;
  }

  /** The latency class that the client set for an association; undefined if it set none. */
  latencyOf(association: number): LatencyClass | undefined {
    return LATENCY_CLASSES[this.#associations.latency[association]];
  }

  /** The DSCP of an association's datagrams to targets. */
  dscpOf(association: number): number {
    return this.#associations.dscp[association];
  }

  /** The address of an association's application, if the client sent it. */
  source(association: number): AddressBytes | undefined {
    return this.#associations.source[association];
  }

  /** Whether the datagrams of an association must not be fragmented, as in tunnels without our extension (RFC 9298 §3.1). */
  forbidsFragments(association: number): boolean {
    return this.#associations.sessionOf[association]?.kind !== "native";
  }

  // Events

  /**
   * Accepts a connection.
   *
   * @param isNested  whether another protocol carries it, such as a WebSocket. It then stays with this worker, and strangers are refused
   * @returns its number, for all later calls
   */
  handleAccept(now: number, isNested = false): number {
    const connection = this.#connections.accept(now, isNested);
    if (this.#shutdown.isClosed) this.#connections.close(now, connection);
    return connection.index;
  }

  /**
   * Accepts a connection that another worker has handed over after judging its request.
   *
   * @param head    the complete head of the request
   * @param holder  name of the key that the client has proved; undefined for the shared key, or none
   * @returns its number, for all later calls
   */
  handleHandedOver(now: number, head: Uint8Array, holder?: string): number {
    const connection = this.#connections.add(now, false);
    this.#admission.handleHandedOver(now, connection, head, holder);
    return connection.index;
  }

  /**
   * Handles bytes of a connection, which may be split anywhere. Stops once {@link outgoing} is full or must be sent on before the next
   * capsule.
   *
   * @returns the end offset of the consumed bytes: send on `outgoing`, then call again with the rest
   */
  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const connection = this.#connections.at(index);
    this.outgoing.count = 0;
    if (connection === undefined || connection.state === "closing") return end;
    let at = offset;
    while (connection.state === "head" && at < end) {
      const headEnd = connection.head.take(chunk, at, end);
      if (headEnd === -1) return end;
      at = headEnd;
      if (headEnd === -2) this.#refuse(now, connection, "not_upgrade", "over 8 KiB");
      else this.#admission.handleRequest(now, connection, chunk.subarray(at, end));
    }
    if (connection.state === "open") {
      this.#lanes.stir(connection.session);
      at = connection.tunnel.readCapsules(now, connection, chunk, at, end, this.outgoing, this.#capsules);
      if (!isOpen(connection)) return end;
      if (!connection.tunnel.isDrained) this.#connections.markDirty(connection);
      this.#connections.check(now, connection);
      return at;
    }
    if ((connection.state === "resolving" || connection.state === "binding") && at < end) {
      // Over HTTP/1.1 nothing may follow the request before the 101 (RFC 9931 §6.3).
      this.#refuse(now, connection, "protocol_error");
    }
    return end;
  }

  /** Answers 400 and closes. */
  #refuse(
    now: number,
    connection: Connection,
    reason: "not_upgrade" | "protocol_error",
    detail?: string,
  ): void {
    this.#connections.refuse(now, connection, reason, encodeRefusal(400, undefined), detail);
  }

  /**
   * Moves datagrams that sessions with receipts held to restore order, and that are due now, to {@link outgoing}. Call it after the
   * batches of {@link handleStream} and after {@link handleTimeout}, before polling for anything to send.
   *
   * @returns whether {@link outgoing} may contain any: send them on, then call again
   */
  takeReleased(now: number): boolean {
    return this.#lanes.isStirred && this.#capsules.takeReleased(now);
  }

  /**
   * Handles that the client has ended its side of a connection. A tunnel without our extension still gets answers to what it sent
   * before. A lane is closed, and its session continues without it.
   */
  handleEnded(now: number, index: number): void {
    this.#connections.handleEnded(now, index);
  }

  /** Handles the end of a connection, for any reason. */
  handleDisconnected(now: number, index: number): void {
    this.#connections.handleDisconnected(now, index);
  }

  /** Takes back the batch from {@link pollTransmit}, which has been written. @returns whether there may be another */
  handleTransmitted(index: number): boolean {
    const connection = this.#connections.at(index);
    if (connection === undefined) return false;
    if (connection.session?.lanes !== undefined) this.#lanes.stir(connection.session);
    const hasMore = connection.tunnel.handleTransmitted();
    if (hasMore) this.#connections.markDirty(connection);
    return hasMore;
  }

  /**
   * Sends a datagram that arrived at an association's socket to the client.
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

  /** As {@link handleDatagram}, for rows `first` to `end - 1`, from IPv4 or IPv6 sources. */
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
   * Reports to the client that a datagram did not reach `remote`, an IPv4 or IPv6 address (UNREACHABLE). Nothing is sent to a client
   * without our extension, or while the association has no lane.
   *
   * @param mtu  for "too-big": size of the largest IP packet that would pass, 0 if unknown
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

  /** Whether an association that the host knows has not ended since, though its `release` may still be to come. */
  hasAssociation(association: number): boolean {
    return this.#associations.sessionOf[association] !== undefined;
  }

  /** The host has opened a socket for an association, which {@link makeRoomForSocket} may end from now on. */
  handleSocketOpened(association: number): void {
    this.#associations.handleSocketOpened(association);
  }

  /**
   * Ends an association with a socket because the host is out of sockets and `association` needs another one.
   *
   * @returns false if no other may end, so `association` itself has ended
   */
  makeRoomForSocket(now: number, association: number): boolean {
    return this.#flows.makeRoomForSocket(now, association);
  }

  /**
   * Ends an association whose socket has failed for good.
   *
   * @param isLimit  whether the system has no more sockets; the client is informed of a limit then
   */
  handleSocketFailed(now: number, association: number, isLimit = false): void {
    this.#flows.handleSocketFailed(now, association, isLimit);
  }

  /** The reason for which datagrams are dropped that the host still has of an association that has ended. */
  dropReasonOf(association: number): DropReason {
    return this.#associations.droppedAs[association];
  }

  /**
   * Handles that the sockets of a `bind` output are open.
   *
   * @param publicAddresses  for a bound tunnel, such as `192.0.2.45:54321`; undefined if no socket could be opened
   */
  handleBound(now: number, association: number, publicAddresses: readonly string[] | undefined): void {
    this.#admission.handleBound(now, association, publicAddresses);
  }

  /** Handles the answer to a `resolve` output. @param addresses  in order of preference; empty if there are none */
  handleResolved(now: number, number: number, addresses: readonly AddressBytes[]): void {
    this.outgoing.count = 0;
    const lookup = this.#names.finish(number);
    if (lookup === undefined) return;
    if (lookup.kind === "target") this.#admission.handleTargetResolved(now, lookup.connection, addresses);
    else this.#capsules.handleResolved(now, lookup.slot, addresses);
  }

  /**
   * Sets the system's time, which decides when keys expire and which ids they have in the current hour. Call it before the first
   * connection, and again from time to time, because that clock may be changed.
   *
   * @param unixMs  milliseconds since 1970, at `now`
   */
  handleWallClock(now: number, unixMs: number): void {
    this.#keyExpiry?.handleWallClock(now, unixMs);
  }

  /**
   * Replaces the keys of single clients. A session continues, with the new limits, if its name still has the same key. All others
   * end.
   */
  replaceKeys(now: number, entries: readonly KeyEntry[]): void {
    this.#keyExpiry?.replace(now, entries);
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      const index = Math.floor(key / DEADLINE_KINDS);
      const kind = key % DEADLINE_KINDS;
      if (kind === DEADLINE_CONNECTION) this.#connections.handleTimeout(now, index);
      else if (kind === DEADLINE_QUEUE) this.#connections.expireQueue(now, index);
      else if (kind === DEADLINE_DISPATCH) this.#lanes.stir(this.#sessions.byIndex[index]);
      else if (kind === DEADLINE_KEYS) this.#keyExpiry?.endExpired(now);
      else if (kind === DEADLINE_LINGER) this.#lifetimes.end(now, this.#sessions.byIndex[index]!, "linger");
      else if (kind === DEADLINE_ASSOCIATIONS)
        this.#flows.expireAssociations(now, this.#sessions.byIndex[index]!);
      else this.#flows.expireContexts(now, this.#sessions.byIndex[index]!);
    }
  }

  /** When to call {@link handleTimeout}; Infinity for never. */
  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): ServerOutput | undefined {
    const output = this.#outputs.shift();
    // Freed only now, as the host must close the sockets before the slot is used again.
    if (output?.kind === "release") this.#associations.handleReleased(output.association);
    return output;
  }

  /** The next connection that may have data to write, or -1. */
  pollDirty(now: number): number {
    do {
      const index = this.#connections.takeDirty();
      if (index !== NONE) return index;
    } while (this.#lanes.dispatch(now));
    return NONE;
  }

  /** Bytes for a connection, on loan until {@link handleTransmitted}. */
  pollTransmit(now: number, index: number): Uint8Array | undefined {
    const connection = this.#connections.at(index);
    if (connection === undefined) return undefined;
    const { tunnel } = connection;
    const bytes = tunnel.pollTransmit(now);
    if (!tunnel.queue.isEmpty) {
      this.#deadlines.setEarlier(deadlineOf(index, DEADLINE_QUEUE), tunnel.queue.expiresAt);
    }
    return bytes;
  }

  /** See {@link TunnelClient.pollShortcut}. */
  pollShortcut(): Shortcut | undefined {
    return this.#shortcuts.poll();
  }

  /** Whether shortcuts may read from a connection next. Call it only once all bytes read from the connection have been handled. */
  mayReadShortcuts(index: number): boolean {
    return this.#connections.at(index)?.tunnel.mayReadShortcuts ?? false;
  }

  /** See {@link TunnelClient.handleShortcut}. */
  handleShortcut(time: number, shortcut: Shortcut, count: number, bytes: number, length: number): void {
    this.#shortcuts.handleCarried(time, shortcut, count, bytes, length);
  }

  /** Whether the connection's session has more to send than its path carries. */
  isLimited(now: number, index: number): boolean {
    return this.#connections.at(index)?.tunnel.isLimited(now) ?? false;
  }

  /**
   * Asks every client to begin a session at another server, and accepts no more lanes. Open lanes continue. A client takes a few seconds
   * to leave; {@link sessionCount} then no longer includes its session.
   */
  drain(): void {
    this.#shutdown.isDraining = true;
    this.#connections.announceShutdown("moving");
  }

  /**
   * Prepares for another process that will continue the sessions: accepts no more lanes, and closes connections that are no lane.
   * Open lanes continue until the host ends them; then call {@link saveSessions}.
   */
  suspend(now: number): void {
    this.#shutdown.isSuspending = true;
    this.#connections.endShortcuts();
    this.#connections.closeHalfOpen(now);
  }

  /**
   * Saves the sessions that can be resumed, with their associations and contexts, for {@link restoreSessions}. Datagrams in queues and
   * on lanes are lost, and those that wait for a name.
   *
   * @param portsOf  the ports of an association's sockets
   */
  saveSessions(now: number, portsOf: (association: number) => Ports): KeptSession[] {
    return this.#keeper.save(now, portsOf);
  }

  /**
   * Restores sessions of another process, as far as keys, policy and bounds permit. They linger for what is left of their time.
   * Call it before the first connection.
   *
   * @param elapsedMs  milliseconds since the sessions were saved
   * @returns their associations, for which the host finds the sockets
   */
  restoreSessions(now: number, kept: readonly KeptSession[], elapsedMs: number): RestoredAssociation[] {
    return this.#keeper.restore(now, kept, elapsedMs);
  }

  /**
   * Announces to every client that this server shuts down, and closes connections that are no lane, now and later. Then drain, and end the
   * lanes.
   */
  close(now: number): void {
    this.#shutdown.isClosed = true;
    this.#connections.announceShutdown("done");
    this.#connections.closeHalfOpen(now);
  }
}

/** A function of its own, because TypeScript would assume that the state has not changed since the last comparison. */
function isOpen(connection: Connection): boolean {
  return connection.state === "open";
}
