import type { CloseReason, UnreachableKind } from "../wire/capsule.ts";
import {
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_ASSOCIATION_OPEN,
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_ASSIGN,
  CAPSULE_COMPRESSION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_SHUTDOWN,
  CAPSULE_UNREACHABLE,
  decodeWholeAddress,
  encodeAssociationClose,
  encodeCompressionAck,
  encodeCompressionClose,
  encodeContextAssign,
  encodeShutdown,
  encodeUnreachable,
  fromIpVersionForm,
  ipVersionFormLength,
  isDomain,
  MAX_DATAGRAM_BYTES,
  readNumbers,
} from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { copyAddress } from "../wire/socket-address.ts";
import type { ExtensionRequest } from "../wire/upgrade.ts";
import { encodeRefusal, encodeUpgradeResponse } from "../wire/upgrade.ts";
import type { CapsuleSet } from "./capsule-reader.ts";
import type { ContextTable } from "./context-table.ts";
import type { RefusalReason } from "./counters.ts";
import { Counters } from "./counters.ts";
import {
  constantTimeEqual,
  deriveSessionKey,
  hexKey,
  NONCE_BYTES,
  responseMac,
  resumeMac,
  SESSION_ID_BYTES,
} from "./credentials.ts";
import { DatagramBatch } from "./datagram-batch.ts";
import { Deadlines } from "./deadlines.ts";
import { ProtocolError } from "./errors.ts";
import type { HandshakeOptions, Verdict } from "./handshake.ts";
import { Handshake } from "./handshake.ts";
import { HeadBuffer } from "./head-buffer.ts";
import { NameLookups } from "./name-lookups.ts";
import type { BoundIds, PlainPolicy, PlainVerdict } from "./plain-tunnels.ts";
import {
  decodeCompressionAssign,
  judgePlainRequest,
  judgeResolvedTarget,
  UncompressedPayload,
} from "./plain-tunnels.ts";
import type { ReceivedDatagrams } from "./received-datagrams.ts";
import { SendPool, SendQueue } from "./send-queue.ts";
import type { AssociationLimits } from "./server-associations.ts";
import {
  answeredAssociations,
  HIDDEN_ID,
  isAddress,
  quietAssociations,
  ServerAssociations,
  senderContexts,
} from "./server-associations.ts";
import type { Connection } from "./server-session.ts";
import { Session } from "./server-session.ts";
import { CONTEXT_RESOLVING, MAX_ID, SESSION } from "./session-model.ts";
import type { CapsuleReceiver } from "./tunnel.ts";
import { Tunnel } from "./tunnel.ts";

const NONE = -1;
/** In place of a context slot: no context, but the uncompressed one of a bound tunnel will do. */
const UNCOMPRESSED = -2;
const CONTEXT_IDLE_MS = 300_000;
/** How long after the last answer a tunnel ends whose client has ended its side. */
const HALF_CLOSED_MS = 10_000;
/** Bytes of control capsules that may wait for a client that does not read. */
const CONTROL_BYTES = 1_048_576;

/** Keys of deadlines: kinds of a connection and of a session, by their index. */
const DEADLINE_CONNECTION = 0;
const DEADLINE_QUEUE = 1;
const DEADLINE_LINGER = 2;
const DEADLINE_ASSOCIATIONS = 3;
const DEADLINE_CONTEXTS = 4;
const DEADLINE_KINDS = 5;
const deadlineOf = (index: number, kind: number): number => DEADLINE_KINDS * index + kind;

/** All durations in milliseconds, sizes in bytes. */
export interface TunnelServerOptions extends HandshakeOptions, AssociationLimits, PlainPolicy {
  readonly heartbeatMs: number;
  readonly handshakeTimeoutMs: number;
  readonly lingerMs: number;
  readonly idleTimeoutMs: number;
  readonly ageBudgetMs: number;
  /** Bound of each tunnel's send queue. */
  readonly queueBytes: number;
  readonly maxHalfOpen: number;
  readonly maxTunnels: number;
  readonly maxSessions: number;
  readonly maxLingering: number;
  /** Largest id of an association or context; lower in tests alone. */
  readonly maxId?: number;
}

export type ServerOutput =
  /** Write what is left of `connection`'s batches, then close it. */
  | {
      readonly kind: "close";
      readonly connection: number;
      /** What its client did wrong in an open tunnel. */
      readonly error: ProtocolError | undefined;
      /** Why it got no tunnel; for this end alone. */
      readonly refusal: { readonly reason: RefusalReason; readonly detail: string } | undefined;
    }
  /**
   * The connection, whose client is proven, is for another worker: {@link TunnelServer.handleHandedOver} of that one
   * takes `head`, and `surplus` as what comes next. Call {@link TunnelServer.handleDisconnected} here.
   */
  | {
      readonly kind: "hand-over";
      readonly connection: number;
      readonly worker: number;
      readonly head: Uint8Array;
      readonly surplus: Uint8Array;
    }
  /**
   * Open the association's UDP sockets now and answer {@link TunnelServer.handleBound}: the one for `target`, or for a
   * bound tunnel, which has none, one for each family that the server has.
   */
  | {
      readonly kind: "bind";
      readonly association: number;
      readonly connection: number;
      readonly target: AddressBytes | undefined;
    }
  /** The association has ended: close its sockets. */
  | { readonly kind: "release"; readonly association: number }
  /** Look a name up and answer {@link TunnelServer.handleResolved}. */
  | { readonly kind: "resolve"; readonly query: number; readonly name: string; readonly port: number }
  | { readonly kind: "session-up"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-resumed"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-down"; readonly session: string }
  | { readonly kind: "session-ended"; readonly session: string; readonly reason: string };

/**
 * The server end of all tunnels and sessions of a process. Does no I/O and reads no clock: after each `handle*`, send
 * on {@link outgoing}, drain {@link pollOutput} and {@link pollDirty}, then arm one timer for {@link nextTimeout}.
 * Bytes handed in are borrowed until the call returns. What a peer does wrong ends its own connection only.
 */
export class TunnelServer {
  readonly counters = new Counters();
  /** Datagrams for targets, filled by {@link handleStream} and {@link handleResolved}. */
  readonly outgoing = new DatagramBatch(1024);
  tunnelCount = 0;

  readonly #options: TunnelServerOptions;
  readonly #outputs: ServerOutput[] = [];
  readonly #dirty: number[] = [];
  readonly #pool = new SendPool();
  readonly #associations: ServerAssociations;
  readonly #deadlines = new Deadlines();
  readonly #maxId: number;
  readonly #handshake: Handshake;
  readonly #connections: (Connection | undefined)[] = [];
  readonly #freeConnections: number[] = [];
  readonly #halfOpen = new Set<Connection>();
  /** Open tunnels whose clients have ended their side, in that order. */
  readonly #halfClosed = new Set<Connection>();
  readonly #sessions = new Map<string, Session>();
  readonly #lingering = new Set<Session>();
  readonly #sessionByIndex: (Session | undefined)[] = [];
  readonly #freeSessions: number[] = [];
  readonly #names: NameLookups<Connection>;
  #nextName = 1;

  readonly #uncompressed = new UncompressedPayload();
  readonly #numbers: number[] = [0, 0];
  readonly #receiver: CapsuleReceiver<Connection> = {
    handleDatagramCapsule: (now, connection, id, data, payload, end) =>
      this.#handleDatagramCapsule(now, connection, connection.session!, id, data, payload, end),
    handleControlCapsule: (now, connection) => {
      this.#handleControl(now, connection, connection.session!);
      return connection.state === "open";
    },
  };

  constructor(options: TunnelServerOptions) {
    this.#options = options;
    this.#maxId = options.maxId ?? MAX_ID;
    this.#associations = new ServerAssociations(options, options.crypto);
    this.#names = new NameLookups(this.contexts, (query, name, port) => {
      this.#outputs.push({ kind: "resolve", query, name, port });
    });
    this.#handshake = new Handshake(options);
  }

  // Getters

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
    return this.#lingering.size;
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

  get halfOpenCount(): number {
    return this.#halfOpen.size;
  }

  /** The application's own address of an association, where its client told it. */
  source(association: number): AddressBytes | undefined {
    return this.#associations.source[association];
  }

  /** Whether the datagrams that an association sends may not be fragmented: in tunnels of RFC 9298, by its §3.1. */
  forbidsFragments(association: number): boolean {
    return this.#associations.sessionOf[association]?.kind !== "native";
  }

  // Events

  /** A connection was accepted. @returns its number, for all later calls */
  handleAccept(now: number): number {
    if (this.#halfOpen.size >= this.#options.maxHalfOpen) {
      // Who has waited longest is likeliest to be slow on purpose.
      const [oldest] = this.#halfOpen;
      this.#refuse(now, oldest, "half_open_limit", undefined);
    }
    const connection = this.#addConnection(now);
    this.#halfOpen.add(connection);
    return connection.index;
  }

  /**
   * A connection that another worker has accepted, and handed over with the request that it has judged.
   *
   * @param head  the request's, whole
   * @returns its number, for all later calls
   */
  handleHandedOver(now: number, head: Uint8Array): number {
    const connection = this.#addConnection(now);
    this.#follow(now, connection, this.#handshake.judgeHandedOver(head), new Uint8Array(0));
    return connection.index;
  }

  #addConnection(now: number): Connection {
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
    };
    this.#connections[index] = connection;
    this.#deadlines.set(deadlineOf(index, DEADLINE_CONNECTION), now + handshakeTimeoutMs);
    return connection;
  }

  /**
   * Bytes of a connection, cut anywhere. Stops when {@link outgoing} is full, or holds what cannot stand beside the
   * rest.
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
        const verdict = this.#handshake.judge(now, connection.head);
        this.#follow(now, connection, verdict, chunk.subarray(at, end));
      }
    }
    if (connection.state === "open") {
      at = connection.tunnel.readCapsules(now, connection, chunk, at, end, this.outgoing, this.#receiver);
      if (!this.#isOpen(connection)) return end;
      this.#markDirty(connection);
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
   * The client has ended its side of a connection. What it sent before is still answered (RFC 9298); a lane of our own
   * protocol is closed, as its session goes on without it.
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

  /** The connection has ended, for whatever reason. */
  handleDisconnected(now: number, index: number): void {
    const connection = this.#connections[index];
    if (connection === undefined) return;
    this.#connections[index] = undefined;
    this.#freeConnections.push(index);
    this.#deadlines.clear(deadlineOf(index, DEADLINE_CONNECTION));
    this.#deadlines.clear(deadlineOf(index, DEADLINE_QUEUE));
    this.#detach(now, connection);
    // An answer may still come for it.
    connection.state = "closing";
  }

  /** A batch from {@link pollTransmit} is written. */
  handleTransmitted(index: number): void {
    const connection = this.#connections[index];
    if (connection === undefined) return;
    connection.tunnel.handleTransmitted();
    this.#markDirty(connection);
  }

  /**
   * A datagram came to an association's socket.
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
    const context = this.#contextOfReply(now, association, remote, 0, remote.length, 1);
    if (context === NONE) return;
    const connection = this.#associations.connectionOf[association]!;
    const id = context === UNCOMPRESSED ? HIDDEN_ID : this.contexts.id[context];
    if (id !== HIDDEN_ID) connection.tunnel.writeDatagram(now, association, id, data, offset, length);
    else this.#sendUncompressed(now, association, connection, data, offset, length, remote);
    this.#markDirty(connection);
  }

  /** Rows `first` to before `end` came to an association's sockets, from IPv4 or IPv6 sources. */
  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    const { data, addresses } = received;
    for (let row = first; row < end; ) {
      const runEnd = received.endOfRun(row, end);
      const at = received.addressOffset(row);
      const length = received.addressLength(row);
      const context = this.#contextOfReply(now, association, addresses, at, length, runEnd - row);
      if (context === NONE) {
        row = runEnd;
        continue;
      }
      const connection = this.#associations.connectionOf[association]!;
      const id = context === UNCOMPRESSED ? HIDDEN_ID : this.contexts.id[context];
      if (id !== HIDDEN_ID) connection.tunnel.writeDatagrams(now, association, id, received, row, runEnd);
      else {
        const remote = copyAddress(addresses, at, length);
        for (let one = row; one < runEnd; one++) {
          const offset = received.offset(one);
          this.#sendUncompressed(now, association, connection, data, offset, received.length(one), remote);
        }
      }
      row = runEnd;
      this.#markDirty(connection);
    }
  }

  /**
   * A datagram of an association did not get to `remote`, an IPv4 or IPv6 address: its client is told, if it knows our
   * extension and the association has a lane.
   *
   * @param mtu  for too-big: the largest IP packet that would get through, 0 where that is not known
   */
  handleUnreachable(
    now: number,
    association: number,
    remote: AddressBytes,
    kind: UnreachableKind,
    mtu: number,
  ): void {
    const session = this.#associations.sessionOf[association];
    const connection = this.#associations.connectionOf[association];
    if (session?.kind !== "native" || connection === undefined) return;
    if (!session.unreachable.take(now)) {
      this.counters.unreachable.limited++;
      return;
    }
    const slot = this.#associations.contextFor(association, remote);
    if (slot === NONE) return;
    this.counters.unreachable[kind]++;
    this.#sendControl(connection, encodeUnreachable(this.contexts.id[slot], kind, mtu));
  }

  /**
   * The sockets that a `bind` output asked for are open.
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

  /** The answer to a `resolve` output. @param addresses  in the order of preference; empty when there are none */
  handleResolved(now: number, number: number, addresses: readonly AddressBytes[]): void {
    this.outgoing.count = 0;
    const lookup = this.#names.finish(number);
    if (lookup === undefined) return;
    const { permits } = this.#options;
    if (lookup.kind === "target") {
      const { connection } = lookup;
      if (connection.state !== "resolving") return;
      const { bind } = connection.request!;
      this.#followPlain(now, connection, judgeResolvedTarget(addresses, bind, this.#options));
      return;
    }
    const target = addresses.find(permits);
    const { slot } = lookup;
    const association = this.contexts.association[slot];
    const connection = this.#associations.connectionOf[association];
    const held = this.#names.takeHeld(slot);
    if (target === undefined) {
      if (addresses.length > 0) this.counters.refused.target_denied++;
      this.counters.drops[addresses.length > 0 ? "refused_target" : "unresolved"] += held.length;
      if (connection !== undefined)
        this.#sendControl(connection, encodeCompressionClose(this.contexts.id[slot]));
      this.#releaseContext(slot);
      return;
    }
    this.contexts.resolve(slot, target);
    this.#associations.grant(slot);
    if (connection !== undefined) this.#sendControl(connection, encodeCompressionAck(this.contexts.id[slot]));
    let total = 0;
    for (const datagram of held) total += datagram.length;
    this.outgoing.data = new Uint8Array(total);
    let at = 0;
    for (const datagram of held) {
      this.outgoing.data.set(datagram, at);
      this.#countIn(datagram.length);
      this.outgoing.add(association, slot, at, datagram.length);
      at += datagram.length;
    }
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      const index = Math.floor(key / DEADLINE_KINDS);
      const kind = key % DEADLINE_KINDS;
      if (kind === DEADLINE_CONNECTION) this.#handleConnectionTimeout(now, this.#connections[index]!);
      else if (kind === DEADLINE_QUEUE) this.#expireQueue(now, this.#connections[index]!);
      else if (kind === DEADLINE_LINGER) this.#endSession(now, this.#sessionByIndex[index]!, "linger");
      else if (kind === DEADLINE_ASSOCIATIONS) this.#expireAssociations(now, this.#sessionByIndex[index]!);
      else this.#expireContexts(now, this.#sessionByIndex[index]!);
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
    const output = this.#outputs.shift();
    // Only now that the host closes its sockets may the slot stand for another association.
    if (output?.kind === "release") this.#associations.handleReleased(output.association);
    return output;
  }

  /** The next connection that may have something to write, or -1. */
  pollDirty(): number {
    for (let index = this.#dirty.pop(); index !== undefined; index = this.#dirty.pop()) {
      const connection = this.#connections[index];
      if (connection === undefined) continue;
      connection.isDirty = false;
      return index;
    }
    return NONE;
  }

  /** Bytes for a connection, lent until {@link handleTransmitted}. */
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

  /** Tells every client that this server goes away; then drain and close. */
  close(): void {
    for (const connection of this.#connections) {
      if (connection?.state !== "open" || connection.session?.kind !== "native") continue;
      this.#sendControl(connection, encodeShutdown("done"));
    }
  }

  // Handshake

  /** @param surplus  what came behind the request; borrowed */
  #follow(now: number, connection: Connection, verdict: Verdict, surplus: Uint8Array): void {
    switch (verdict.kind) {
      case "refuse":
        this.#refuse(now, connection, verdict.reason, verdict.response, verdict.detail);
        return;
      case "challenge":
        connection.head.clear();
        this.counters.refused.challenged++;
        this.#sendControl(connection, verdict.response);
        return;
      case "hand-over": {
        const { head } = connection;
        this.#detach(now, connection);
        connection.state = "closing";
        this.#outputs.push({
          kind: "hand-over",
          connection: connection.index,
          worker: verdict.worker,
          head: head.bytes.slice(0, head.length),
          surplus: surplus.slice(),
        });
        return;
      }
      case "lane":
        this.#acceptLane(now, connection, verdict.extension);
        return;
      case "plain":
        connection.request = verdict.request;
        this.#followPlain(now, connection, judgePlainRequest(verdict.request, this.#options));
    }
  }

  #acceptLane(now: number, connection: Connection, extension: ExtensionRequest): void {
    const { psk, crypto } = this.#options;
    if (!this.#makeRoomForTunnel(now)) {
      this.#refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    const nonce = crypto.random(NONCE_BYTES);
    const known = extension.session === undefined ? undefined : this.#sessions.get(hexKey(extension.session));
    const isResumed =
      known !== undefined && constantTimeEqual(extension.resumeMac, resumeMac(crypto, known.key, extension));
    let session = isResumed ? known : undefined;
    if (session === undefined) {
      if (!this.#makeRoomForSession(now)) {
        this.#refuse(now, connection, "session_limit", encodeRefusal(503, undefined));
        return;
      }
      const id = this.#handshake.newSessionId();
      const key = deriveSessionKey(crypto, psk ?? new Uint8Array(0), extension.nonce, nonce, id);
      session = this.#beginSession("native", id, key);
    }
    const mac =
      psk === undefined ? undefined : responseMac(crypto, psk, extension.mac!, nonce, session.id, isResumed);
    connection.tunnel.writeControl(
      encodeUpgradeResponse(true, [], { nonce, session: session.id, resumed: isResumed, mac }),
    );
    const isReturn = session.connections.size === 0 && isResumed;
    connection.lane = extension.lane;
    connection.session = session;
    session.connections.add(connection);
    for (const other of session.connections) {
      // The client has given that lane up, though its end has not reached us.
      if (other !== connection && other.lane === extension.lane) {
        this.#closeConnection(now, other, undefined);
      }
    }
    session.state = SESSION.after(session.state, "join");
    this.#lingering.delete(session);
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
    this.#open(now, connection, "extension");
  }

  /** Tunnels whose clients have ended their side give way to new ones. */
  #makeRoomForTunnel(now: number): boolean {
    const { maxTunnels, maxSessions, maxAssociations } = this.#options;
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
    const [oldest] = this.#lingering;
    if (oldest === undefined) return false;
    this.counters.refused.session_evicted++;
    this.#endSession(now, oldest, "evicted");
    return true;
  }

  #beginSession(kind: Session["kind"], id: Uint8Array, key: Uint8Array): Session {
    const index = this.#freeSessions.pop() ?? this.#sessionByIndex.length;
    const session = new Session(index, `s${this.#nextName++}`, kind, id, key);
    this.#sessionByIndex[index] = session;
    this.#sessions.set(hexKey(id), session);
    return session;
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
    if (!this.#makeRoomForTunnel(now) || !this.#makeRoomForSession(now)) {
      this.#refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    const session = this.#beginSession(
      bind ? "bound" : "fixed",
      this.#options.crypto.random(SESSION_ID_BYTES),
      new Uint8Array(0),
    );
    connection.session = session;
    session.connections.add(connection);
    const association = this.#openAssociation(now, session, connection, 0, undefined);
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

  #open(now: number, connection: Connection, known: CapsuleSet): void {
    this.#halfOpen.delete(connection);
    connection.state = "open";
    this.tunnelCount++;
    connection.tunnel.open(now, known);
    connection.tunnel.handleTimeout(now);
    this.#armTunnel(connection);
    this.#markDirty(connection);
    if (connection.hasEnded) this.#halfClose(now, connection);
  }

  #isOpen(connection: Connection): boolean {
    return connection.state === "open";
  }

  // Ends

  /** Counts why, says so where there is something to say, and closes. */
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

  /** Takes a connection out of its session. */
  #detach(now: number, connection: Connection): void {
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
    const [heir] = session.connections;
    for (const association of session.associationById.values()) {
      if (this.#associations.connectionOf[association] !== connection) continue;
      this.#associations.connectionOf[association] = heir;
      if (heir === undefined) this.#pool.removeFlow(association);
      else heir.tunnel.queue.takeFlow(association);
    }
    if (heir !== undefined) this.#markDirty(heir);
    else if (this.#sessions.has(hexKey(session.id))) this.#linger(now, session);
  }

  #linger(now: number, session: Session): void {
    this.#outputs.push({ kind: "session-down", session: session.name });
    session.state = SESSION.after(session.state, "last lane lost");
    if (session.associationById.size === 0) {
      this.#endSession(now, session, "empty");
      return;
    }
    if (this.#lingering.size >= this.#options.maxLingering) {
      const [oldest] = this.#lingering;
      this.counters.refused.session_evicted++;
      this.#endSession(now, oldest, "evicted");
    }
    this.#deadlines.set(deadlineOf(session.index, DEADLINE_LINGER), now + this.#options.lingerMs);
    this.#lingering.add(session);
  }

  #endSession(now: number, session: Session, reason: string): void {
    if (!this.#sessions.delete(hexKey(session.id))) return;
    session.state = SESSION.after(session.state, "end");
    this.#lingering.delete(session);
    for (const kind of [DEADLINE_LINGER, DEADLINE_ASSOCIATIONS, DEADLINE_CONTEXTS]) {
      this.#deadlines.clear(deadlineOf(session.index, kind));
    }
    for (const association of [...session.associationById.values()]) this.#closeAssociation(association);
    for (const connection of [...session.connections]) {
      session.connections.delete(connection);
      connection.session = undefined;
      this.#closeConnection(now, connection, undefined);
    }
    this.#sessionByIndex[session.index] = undefined;
    this.#freeSessions.push(session.index);
    this.#outputs.push({ kind: "session-ended", session: session.name, reason });
  }

  #checkTunnel(now: number, connection: Connection): void {
    const { error } = connection.tunnel;
    if (error === undefined) return;
    this.counters.refused.protocol_error++;
    this.#closeConnection(now, connection, error);
  }

  // Capsules

  #handleDatagramCapsule(
    now: number,
    connection: Connection,
    session: Session,
    id: number,
    data: Uint8Array,
    payload: number,
    end: number,
  ): void {
    let slot = session.contextById.get(id);
    let at = payload;
    if (slot === undefined) {
      if (id === 0 && session.kind === "bound") {
        connection.tunnel.fail(new ProtocolError("ERR_CONTEXT_MALFORMED", "context 0 in a bound tunnel"));
        return;
      }
      if (id === 0 || id !== session.bound?.uncompressed) {
        this.counters.drops.unknown_context++;
        if (session.kind === "native" && id <= this.#maxId && session.unknown.shallAnswer(now, id)) {
          this.#sendControl(connection, encodeCompressionClose(id));
        }
        return;
      }
      const length = ipVersionFormLength(data, payload, end);
      if (length === 0) {
        connection.tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "uncompressed DATAGRAM"));
        return;
      }
      slot = this.#hiddenContext(now, session, fromIpVersionForm(data, payload, length));
      if (slot === NONE) return;
      at += length;
    }
    const length = end - at;
    if (length > MAX_DATAGRAM_BYTES) {
      this.counters.drops.too_long++;
      return;
    }
    const association = this.contexts.association[slot];
    this.contexts.idle.refresh(now, slot);
    this.#associations.handleSent(now, association);
    if (this.#associations.connectionOf[association] !== connection) this.#moveTo(connection, association);
    if (this.contexts.state[slot] === CONTEXT_RESOLVING) {
      if (!this.#names.hold(slot, data, at, length)) this.counters.drops.unresolved++;
      return;
    }
    this.#countIn(length);
    this.outgoing.add(association, slot, at, length);
  }

  #countIn(length: number): void {
    this.counters.datagramsIn++;
    this.counters.bytesIn += length;
  }

  #handleControl(now: number, connection: Connection, session: Session): void {
    const { tunnel } = connection;
    const { type, data, valueOffset, valueEnd } = tunnel.reader;
    const numbers = this.#numbers;
    const count = type === CAPSULE_ASSOCIATION_CLOSE || type === CAPSULE_CONTEXT_ASSIGN ? 2 : 1;
    const at = readNumbers(data, valueOffset, valueEnd, count, numbers);
    const isWhole = at === valueEnd;
    const [id, second] = numbers;
    let fault: string | undefined;
    switch (type) {
      case CAPSULE_COMPRESSION_ACK:
        // Contexts of our own are used at once; in a bound tunnel there are none to acknowledge.
        if (!isWhole || session.kind !== "native") fault = "COMPRESSION_ACK";
        break;
      case CAPSULE_COMPRESSION_CLOSE: {
        if (!isWhole || id === 0) fault = "COMPRESSION_CLOSE";
        else if (id === session.bound?.uncompressed) session.bound.uncompressed = 0;
        else {
          const slot = session.contextById.get(id);
          if (slot !== undefined) this.#releaseContext(slot);
        }
        break;
      }
      case CAPSULE_COMPRESSION_ASSIGN:
        fault =
          at < 0 || session.bound === undefined
            ? "COMPRESSION_ASSIGN"
            : this.#handleCompressionAssign(now, connection, session, session.bound, id, at);
        break;
      case CAPSULE_ASSOCIATION_OPEN: {
        const hasSource = at >= 0 && !(valueEnd === at + 1 && data[at] === 0);
        const source = hasSource ? decodeWholeAddress(data, at, valueEnd) : undefined;
        if (at < 0 || id < 1 || id > this.#maxId || (hasSource && source === undefined))
          fault = "ASSOCIATION_OPEN";
        else this.#handleAssociationOpen(now, connection, session, id, source);
        break;
      }
      case CAPSULE_ASSOCIATION_CLOSE: {
        if (!isWhole) {
          fault = "ASSOCIATION_CLOSE";
          break;
        }
        const association = session.associationById.get(id);
        if (association !== undefined) this.#closeAssociation(association);
        // Said even of one that is unknown, so that the client can forget it; an echo is not echoed by the client.
        this.#sendControl(connection, encodeAssociationClose(id, "done"));
        break;
      }
      case CAPSULE_CONTEXT_ASSIGN: {
        const address = at < 0 ? undefined : decodeWholeAddress(data, at, valueEnd);
        const isValidId = id > 0 && id % 2 === 0 && id <= this.#maxId;
        if (address === undefined || !isValidId) fault = "CONTEXT_ASSIGN";
        else if (!this.#handleContextAssign(now, connection, session, id, second, address)) {
          fault = "CONTEXT_ASSIGN again for another address";
        }
        break;
      }
      case CAPSULE_SHUTDOWN:
        if (isWhole) this.#endSession(now, session, "client");
        else fault = "SHUTDOWN";
        break;
      case CAPSULE_UNREACHABLE:
        fault = "UNREACHABLE is the server's to send";
        break;
    }
    if (fault !== undefined) tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", fault));
  }

  #handleCompressionAssign(
    now: number,
    connection: Connection,
    session: Session,
    bound: BoundIds,
    id: number,
    at: number,
  ): string | undefined {
    const { data, valueEnd } = connection.tunnel.reader;
    const address = decodeCompressionAssign(data, at, valueEnd);
    if (address === undefined) return "COMPRESSION_ASSIGN";
    if (!bound.register(id)) return "COMPRESSION_ASSIGN, id";
    if (id > this.#maxId) {
      this.counters.refused.context_limit++;
      this.#sendControl(connection, encodeCompressionClose(id));
      return undefined;
    }
    if (address === "uncompressed") {
      if (bound.uncompressed !== 0) return "COMPRESSION_ASSIGN, uncompressed";
      bound.uncompressed = id;
      this.#sendControl(connection, encodeCompressionAck(id));
      return undefined;
    }
    const association = session.associationById.get(0)!;
    const known = this.contexts.find(association, address, 0, address.length);
    if (known !== NONE && this.contexts.id[known] !== HIDDEN_ID) return "COMPRESSION_ASSIGN, address in use";
    if (known !== NONE) this.#releaseContext(known);
    this.#registerContext(now, connection, session, association, id, address);
    return undefined;
  }

  #handleAssociationOpen(
    now: number,
    connection: Connection,
    session: Session,
    id: number,
    source: AddressBytes | undefined,
  ): void {
    const known = session.associationById.get(id);
    if (known !== undefined) {
      // Said again: the association moves to this lane, with what waits for it.
      this.#moveTo(connection, known);
      return;
    }
    if (this.#openAssociation(now, session, connection, id, source) !== NONE) return;
    this.#sendControl(connection, encodeAssociationClose(id, "limit"));
  }

  /** @returns false when the id already stands for something else */
  #handleContextAssign(
    now: number,
    connection: Connection,
    session: Session,
    id: number,
    associationId: number,
    address: AddressBytes,
  ): boolean {
    const association = session.associationById.get(associationId);
    const known = session.contextById.get(id);
    if (known !== undefined) {
      const isSame =
        this.contexts.association[known] === association &&
        isAddress(this.contexts.address[known]!, address, 0, address.length);
      if (isSame && this.contexts.state[known] !== CONTEXT_RESOLVING) {
        this.#sendControl(connection, encodeCompressionAck(id));
      }
      return isSame;
    }
    if (association === undefined) {
      // The client believes that it is open: it opens it again, or ends it.
      this.#sendControl(connection, encodeAssociationClose(associationId, "idle"));
      this.#sendControl(connection, encodeCompressionClose(id));
    } else this.#registerContext(now, connection, session, association, id, address);
    return true;
  }

  #registerContext(
    now: number,
    connection: Connection,
    session: Session,
    association: number,
    id: number,
    address: AddressBytes,
  ): void {
    const isName = isDomain(address);
    const isDenied = !isName && !this.#options.permits(address);
    if (isDenied) {
      this.counters.refused.target_denied++;
      this.#sendControl(connection, encodeCompressionClose(id));
      return;
    }
    this.#makeRoomForClientContext(session);
    const twin = this.contexts.find(association, address, 0, address.length);
    const isFirst = twin === NONE;
    const slot = this.#associations.addClientContext(now, session, association, id, address, isFirst);
    if (twin !== NONE) {
      // Both ends registered the same address at once, or the client forgot its own: the older one goes.
      this.contexts.takeIndex(slot, twin);
      this.#sendControl(connection, encodeCompressionClose(this.contexts.id[twin]));
      this.#releaseContext(twin);
    }
    if (isName) this.#names.addContext(session.lookups, slot);
    else this.#sendControl(connection, encodeCompressionAck(id));
  }

  // Contexts

  #makeRoomForClientContext(session: Session): void {
    const victim = this.#associations.victimForClient(session);
    if (victim !== NONE) this.#closeContext(victim);
  }

  #makeRoomForSenderContext(now: number, session: Session, isAnswer: boolean): boolean {
    const victim = this.#associations.victimForSender(now, session, isAnswer);
    if (victim === "refused") return false;
    if (victim !== NONE) this.#closeContext(victim);
    return true;
  }

  /** Releases a context, and says so where the client knows it. */
  #closeContext(slot: number): void {
    const id = this.contexts.id[slot];
    const connection = this.#associations.connectionOf[this.contexts.association[slot]];
    if (id !== HIDDEN_ID && connection !== undefined) {
      // Unacknowledged it would be taken for refused.
      if (this.contexts.state[slot] === CONTEXT_RESOLVING)
        this.#sendControl(connection, encodeCompressionAck(id));
      this.#sendControl(connection, encodeCompressionClose(id));
    }
    this.#releaseContext(slot);
  }

  /** The context that stands for the target of an uncompressed datagram, made on first use; -1 when it is refused. */
  #hiddenContext(now: number, session: Session, address: AddressBytes): number {
    const association = session.associationById.get(0)!;
    const known = this.contexts.find(association, address, 0, address.length);
    if (known !== NONE) return known;
    if (!this.#options.permits(address)) {
      this.counters.drops.refused_target++;
      return NONE;
    }
    if (!this.#makeRoomForSenderContext(now, session, false)) {
      this.counters.drops.context_limit++;
      return NONE;
    }
    const slot = this.#addSenderContext(now, session, association, HIDDEN_ID, address);
    this.#associations.grant(slot);
    return slot;
  }

  #addSenderContext(
    now: number,
    session: Session,
    association: number,
    id: number,
    address: AddressBytes,
  ): number {
    const slot = this.#associations.addSenderContext(now, session, association, id, address);
    const expiresAt = this.contexts.idle.expiresAt(senderContexts(session), CONTEXT_IDLE_MS);
    this.#deadlines.setEarlier(deadlineOf(session.index, DEADLINE_CONTEXTS), expiresAt);
    return slot;
  }

  /** The context that stands for a source, {@link UNCOMPRESSED}, or -1 when `count` datagrams of it are dropped, and counted. */
  #contextOfReply(
    now: number,
    association: number,
    addresses: Uint8Array,
    offset: number,
    length: number,
    count: number,
  ): number {
    const associations = this.#associations;
    const session = associations.sessionOf[association];
    const connection = associations.connectionOf[association];
    if (session === undefined || connection === undefined) {
      this.counters.drops.no_lane += count;
      return NONE;
    }
    const known = associations.contextOfReply(now, association, addresses, offset, length, count);
    if (known !== NONE) return known;
    if (session.bound !== undefined) {
      return this.#strangerOf(now, association, session.bound, copyAddress(addresses, offset, length), count);
    }
    const sender =
      session.kind === "fixed" ? undefined : associations.hears(association, addresses, offset, length);
    if (sender === undefined) {
      this.counters.drops.filtered += count;
      return NONE;
    }
    const isAnswer = this.contexts.findResolved(association, addresses, offset, length) !== NONE;
    if (!this.#makeRoomForSenderContext(now, session, isAnswer)) {
      this.counters.drops.context_limit += count;
      return NONE;
    }
    const id = session.nextContextId;
    if (id > this.#maxId) {
      this.counters.drops.context_limit += count;
      return NONE;
    }
    session.nextContextId += 2;
    this.#addSenderContext(now, session, association, id, sender);
    this.#sendControl(connection, encodeContextAssign(id, associations.wireId[association], sender));
    return associations.contextOfReply(now, association, addresses, offset, length, count);
  }

  /** The same for a sender that a bound tunnel's client has not registered: the client opens and closes to all of them. */
  #strangerOf(
    now: number,
    association: number,
    bound: BoundIds,
    remote: AddressBytes,
    count: number,
  ): number {
    // Whom we hear can be answered: nobody gets around the policy by a source that is made up.
    if (bound.uncompressed === 0 || !this.#options.permits(remote)) {
      this.counters.drops.filtered += count;
      return NONE;
    }
    this.#associations.idle.refresh(now, association);
    return UNCOMPRESSED;
  }

  #sendUncompressed(
    now: number,
    association: number,
    connection: Connection,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: AddressBytes,
  ): void {
    const { uncompressed } = this.#associations.sessionOf[association]!.bound!;
    if (uncompressed === 0) {
      this.counters.drops.filtered++;
      return;
    }
    const size = this.#uncompressed.write(remote, data, offset, length);
    connection.tunnel.writeDatagram(now, association, uncompressed, this.#uncompressed.bytes, 0, size);
  }

  #releaseContext(slot: number): void {
    const session = this.#associations.sessionOf[this.contexts.association[slot]];
    this.#names.forget(session?.lookups, slot);
    this.#associations.releaseContext(slot);
  }

  // Associations

  /** @returns -1 when there is no room, which is counted */
  #openAssociation(
    now: number,
    session: Session,
    connection: Connection,
    id: number,
    source: AddressBytes | undefined,
  ): number {
    const victim = this.#associations.victimFor(session, this.#sessions.values());
    if (victim === "refused") {
      this.counters.refused.association_limit++;
      return NONE;
    }
    if (victim !== NONE) this.#evict(now, victim);
    const slot = this.#associations.open(now, session, connection, id, source);
    this.#armAssociations(session);
    return slot;
  }

  #evict(now: number, association: number): void {
    this.counters.refused.association_evicted++;
    this.#dismiss(now, association, "evicted");
  }

  /** Answers to an association, and what waits for it, go on `connection` from now on. */
  #moveTo(connection: Connection, association: number): void {
    this.#associations.connectionOf[association] = connection;
    connection.tunnel.queue.takeFlow(association);
  }

  #closeAssociation(slot: number): void {
    const session = this.#associations.sessionOf[slot]!;
    const { contexts } = this;
    for (let context = contexts.first(slot); context !== NONE; context = contexts.next(context)) {
      this.#names.forget(session.lookups, context);
    }
    this.#pool.removeFlow(slot);
    this.#associations.close(slot);
    this.#outputs.push({ kind: "release", association: slot });
  }

  /**
   * The host runs out of sockets, and the association wants one more: another has to end.
   *
   * @returns false when none may; the association has then ended itself
   */
  makeRoomForSocket(now: number, association: number): boolean {
    const session = this.#associations.sessionOf[association];
    if (session === undefined) return false;
    const victim = this.#associations.victimAmong(session, this.#sessions.values());
    if (victim === "refused" || victim === association) {
      this.counters.refused.association_limit++;
      this.#dismiss(now, association, "limit");
      return false;
    }
    this.#evict(now, victim);
    return true;
  }

  /** The association's socket has failed for good. */
  handleSocketFailed(now: number, association: number): void {
    if (this.#associations.sessionOf[association] !== undefined) this.#dismiss(now, association, "failed");
  }

  /** Ends an association that the client still holds, and tells it why. */
  #dismiss(now: number, association: number, reason: CloseReason): void {
    const connection = this.#associations.connectionOf[association];
    const session = this.#associations.sessionOf[association]!;
    if (session.kind !== "native") {
      if (connection?.state === "binding") this.#sendControl(connection, encodeRefusal(503, undefined));
      this.#endSession(now, session, reason);
      return;
    }
    if (connection !== undefined) {
      this.#sendControl(connection, encodeAssociationClose(this.#associations.wireId[association], reason));
    }
    this.#closeAssociation(association);
  }

  #armAssociations(session: Session): void {
    const { idle } = this.#associations;
    const { idleTimeoutMs } = this.#options;
    const quietAt = idle.expiresAt(quietAssociations(session), idleTimeoutMs);
    const answeredAt = idle.expiresAt(answeredAssociations(session), idleTimeoutMs);
    const key = deadlineOf(session.index, DEADLINE_ASSOCIATIONS);
    this.#deadlines.setEarlier(key, Math.min(quietAt, answeredAt));
  }

  #expireAssociations(now: number, session: Session): void {
    const { idle } = this.#associations;
    const { idleTimeoutMs } = this.#options;
    for (const list of [quietAssociations(session), answeredAssociations(session)]) {
      for (;;) {
        const slot = idle.expired(now, list, idleTimeoutMs);
        if (slot === NONE) break;
        this.#dismiss(now, slot, "idle");
      }
    }
    if (this.#sessionByIndex[session.index] === session) this.#armAssociations(session);
  }

  /** Contexts that this end made are this end's to close; the client looks after its own. */
  #expireContexts(now: number, session: Session): void {
    const { idle } = this.contexts;
    const list = senderContexts(session);
    for (;;) {
      const slot = idle.expired(now, list, CONTEXT_IDLE_MS);
      if (slot === NONE) break;
      this.#closeContext(slot);
    }
    const key = deadlineOf(session.index, DEADLINE_CONTEXTS);
    this.#deadlines.setEarlier(key, idle.expiresAt(list, CONTEXT_IDLE_MS));
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
