import type { CloseReason, UnreachableKind } from "../wire/capsule.ts";
import {
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_ASSOCIATION_OPEN,
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_ASSIGN,
  CAPSULE_COMPRESSION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_DATAGRAM,
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
  MAX_PAYLOAD_BYTES,
  readNumbers,
} from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../wire/socket-address.ts";
import type { ExtensionRequest, UpgradeRequest } from "../wire/upgrade.ts";
import { encodeRefusal, encodeUpgradeResponse } from "../wire/upgrade.ts";
import { CONTEXT_ACKED, CONTEXT_RESOLVING, ContextTable } from "./context-table.ts";
import type { RefusalReason } from "./counters.ts";
import { Counters } from "./counters.ts";
import type { Transcript } from "./credentials.ts";
import {
  constantTimeEqual,
  deriveSessionKey,
  hexKey,
  NONCE_BYTES,
  randomSeed,
  responseMac,
  resumeMac,
  SESSION_ID_BYTES,
} from "./credentials.ts";
import { DatagramBatch } from "./datagram-batch.ts";
import { ProtocolError } from "./errors.ts";
import { grown } from "./grown.ts";
import type { HandshakeOptions, Verdict } from "./handshake.ts";
import { Handshake } from "./handshake.ts";
import { HeadBuffer } from "./head-buffer.ts";
import { LookupTurns, NameLookups } from "./name-lookups.ts";
import { Permissions } from "./permissions.ts";
import type { PlainVerdict } from "./plain-tunnels.ts";
import {
  decodeCompressionAssign,
  judgePlainRequest,
  judgeResolvedTarget,
  UncompressedPayload,
} from "./plain-tunnels.ts";
import type { ReceivedDatagrams } from "./received-datagrams.ts";
import { SendPool, SendQueue } from "./send-queue.ts";
import { TokenBucket } from "./token-bucket.ts";
import { Tunnel } from "./tunnel.ts";

const NONE = -1;
/** How often deadlines are looked at; all of them are seconds long. */
const TICK_MS = 250;
const CONTEXT_IDLE_MS = 300_000;
/** Of each session. */
const UNREACHABLE_PER_SECOND = 100;
/** Bytes of control capsules that may wait for a client that does not read. */
const CONTROL_BYTES = 1_048_576;
/** Largest id that fits the tables. */
const MAX_ID = 0x3fff_ffff;
/** Id of a context that stands for an address of uncompressed datagrams; never on the wire. */
const HIDDEN_ID = -1;
const NEVER = Number.POSITIVE_INFINITY;

/** Which senders an association hears, RFC 4787 §5. */
export type Filtering = "endpoint-independent" | "address-dependent" | "address-and-port-dependent";

/** All durations in milliseconds, sizes in bytes. */
export interface TunnelServerOptions extends HandshakeOptions {
  readonly filtering: Filtering;
  /** Whether an IPv4 or IPv6 address may be sent to; asked once for each context. */
  readonly permits: (target: AddressBytes) => boolean;
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
  readonly maxAssociations: number;
  readonly maxAssociationsPerSession: number;
  readonly maxContextsPerSession: number;
}

export type ServerOutput =
  /** Write what is left of `connection`'s batches, then close it. */
  | { readonly kind: "close"; readonly connection: number; readonly error: ProtocolError | undefined }
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
  /** Open the association's UDP socket now and answer {@link TunnelServer.handleBound}. */
  | { readonly kind: "bind"; readonly association: number; readonly connection: number }
  /** The association has ended: close its sockets. */
  | { readonly kind: "release"; readonly association: number }
  /** Look a name up and answer {@link TunnelServer.handleResolved}. */
  | { readonly kind: "resolve"; readonly query: number; readonly name: string; readonly port: number }
  | { readonly kind: "session-up"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-resumed"; readonly session: string; readonly lane: number }
  | { readonly kind: "session-down"; readonly session: string }
  | { readonly kind: "session-ended"; readonly session: string; readonly reason: string };

interface Session {
  /** Short name for logs: it tells nothing that could be used. */
  readonly name: string;
  readonly id: Uint8Array;
  readonly key: Uint8Array;
  /** native: ours, resumable. bound, fixed: RFC 9298 without our extension, one association, ends with its tunnel. */
  readonly kind: "native" | "bound" | "fixed";
  readonly connections: Set<Connection>;
  readonly associationById: Map<number, number>;
  readonly contextById: Map<number, number>;
  contextCount: number;
  nextContextId: number;
  /** Id of the context with uncompressed semantics, 0 for none. */
  uncompressed: number;
  readonly unreachable: TokenBucket;
  readonly lookups: LookupTurns;
  lingerUntil: number;
}

interface Connection {
  readonly index: number;
  state: "head" | "resolving" | "binding" | "open" | "closing";
  readonly tunnel: Tunnel;
  readonly head: HeadBuffer;
  deadline: number;
  lane: number;
  challenge: Uint8Array | undefined;
  session: Session | undefined;
  request: UpgradeRequest | undefined;
  isDirty: boolean;
}

/**
 * The server end of all tunnels and sessions of a process. Does no I/O and reads no clock: after each `handle*`, send
 * on {@link outgoing}, drain {@link pollOutput} and {@link pollDirty}, then arm one timer for {@link nextTimeout}.
 * Bytes handed in are borrowed until the call returns. What a peer does wrong ends its own connection only.
 */
export class TunnelServer {
  readonly counters = new Counters();
  /** Datagrams for targets, filled by {@link handleStream} and {@link handleResolved}. */
  readonly outgoing = new DatagramBatch(1024);
  readonly contexts: ContextTable;
  associationCount = 0;
  tunnelCount = 0;

  readonly #options: TunnelServerOptions;
  readonly #outputs: ServerOutput[] = [];
  readonly #dirty: number[] = [];
  readonly #pool = new SendPool();
  readonly #permissions: Permissions;
  readonly #handshake: Handshake;
  readonly #connections: (Connection | undefined)[] = [];
  readonly #freeConnections: number[] = [];
  readonly #halfOpen = new Set<Connection>();
  readonly #sessions = new Map<string, Session>();
  readonly #lingering = new Set<Session>();
  readonly #names: NameLookups<Connection>;
  #nextName = 1;
  #tickAt = NEVER;
  #sweepAt = 0;

  readonly #sessionOf: (Session | undefined)[] = [];
  readonly #connectionOf: (Connection | undefined)[] = [];
  readonly #source: (AddressBytes | undefined)[] = [];
  #wireId = new Int32Array(64);
  #lastReply = new Int32Array(64).fill(NONE);
  #lastActive = new Float64Array(64);
  /** Permission that a context granted, by context slot. */
  readonly #permissionOf: number[] = [];
  readonly #freeAssociations: number[] = [];
  readonly #uncompressed = new UncompressedPayload();
  readonly #numbers: number[] = [0, 0];

  constructor(options: TunnelServerOptions) {
    this.#options = options;
    this.contexts = new ContextTable(randomSeed(options.crypto));
    this.#names = new NameLookups(this.contexts, (query, name, port) => {
      this.#outputs.push({ kind: "resolve", query, name, port });
    });
    this.#permissions = new Permissions(randomSeed(options.crypto));
    this.#handshake = new Handshake(options);
  }

  // Getters

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
    return this.#source[association];
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
      deadline: now + handshakeTimeoutMs,
      lane: 0,
      challenge: undefined,
      session: undefined,
      request: undefined,
      isDirty: false,
    };
    this.#connections[index] = connection;
    if (this.#tickAt === NEVER) this.#tickAt = now + TICK_MS;
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
      if (headEnd === -2) this.#refuse(now, connection, "not_upgrade", encodeRefusal(400, undefined));
      else {
        const verdict = this.#handshake.judge(now, connection.head, connection.challenge);
        this.#follow(now, connection, verdict, chunk.subarray(at, end));
      }
    }
    if (connection.state === "open") return this.#handleCapsules(now, connection, chunk, at, end);
    if ((connection.state === "resolving" || connection.state === "binding") && at < end) {
      // RFC 9931 §6.3: over HTTP/1.1 nothing may follow the request before the 101.
      this.#refuse(now, connection, "protocol_error", encodeRefusal(400, undefined));
    }
    return end;
  }

  /** The connection has ended, for whatever reason. */
  handleDisconnected(now: number, index: number): void {
    const connection = this.#connections[index];
    if (connection === undefined) return;
    this.#connections[index] = undefined;
    this.#freeConnections.push(index);
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
    const connection = this.#connectionOf[association]!;
    const id = this.contexts.id[context];
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
      const connection = this.#connectionOf[association]!;
      const id = this.contexts.id[context];
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
    const session = this.#sessionOf[association];
    const connection = this.#connectionOf[association];
    if (session?.kind !== "native" || connection === undefined) return;
    // Before the search, which takes time where an association has many contexts.
    if (!session.unreachable.take(now)) {
      this.counters.unreachable.limited++;
      return;
    }
    let slot = this.contexts.find(association, remote, 0, remote.length);
    if (slot === NONE) slot = this.#nameOf(association, remote);
    if (slot === NONE) return;
    this.counters.unreachable[kind]++;
    this.#sendControl(connection, encodeUnreachable(this.contexts.id[slot], kind, mtu));
  }

  /**
   * The socket that a `bind` output asked for is open.
   *
   * @param publicAddresses  `192.0.2.45:54321`; empty when it could not be opened
   */
  handleBound(now: number, association: number, publicAddresses: readonly string[]): void {
    const connection = this.#connectionOf[association];
    if (connection === undefined || connection.state !== "binding") return;
    if (publicAddresses.length === 0) {
      this.#refuse(now, connection, "association_limit", encodeRefusal(502, "proxy_internal_error"));
      return;
    }
    const bind = connection.request!.bind;
    connection.tunnel.writeControl(encodeUpgradeResponse(bind, bind ? publicAddresses : [], undefined));
    this.#open(now, connection, false);
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
      this.#followPlain(now, connection, judgeResolvedTarget(addresses, permits));
      return;
    }
    const target = addresses.find(permits);
    const { slot } = lookup;
    const association = this.contexts.association[slot];
    const connection = this.#connectionOf[association];
    const held = this.#names.takeHeld(slot);
    if (target === undefined) {
      if (addresses.length > 0) this.counters.refused.target_denied++;
      this.counters.drops[addresses.length > 0 ? "refused_target" : "unresolved"] += held.length;
      if (connection !== undefined)
        this.#sendControl(connection, encodeCompressionClose(this.contexts.id[slot]));
      this.#releaseContext(slot);
      return;
    }
    this.contexts.state[slot] = CONTEXT_ACKED;
    this.contexts.target[slot] = target;
    this.#permissionOf[slot] = this.#permissions.grant(association, target);
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
    if (now < this.#tickAt) return;
    for (const connection of this.#connections) {
      if (connection === undefined || connection.state === "closing") continue;
      if (connection.state !== "open") {
        if (now >= connection.deadline) this.#refuse(now, connection, "handshake_timeout", undefined);
        continue;
      }
      connection.tunnel.handleTimeout(now);
      this.#markDirty(connection);
      this.#checkTunnel(now, connection);
    }
    for (const session of this.#lingering) {
      if (now >= session.lingerUntil) this.#endSession(now, session, "linger");
    }
    if (now >= this.#sweepAt) {
      this.#sweepAt = now + 1_000;
      this.#sweep(now);
    }
    const isIdle = this.#sessions.size === 0 && this.#connections.every((one) => one === undefined);
    this.#tickAt = isIdle ? NEVER : now + TICK_MS;
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. */
  nextTimeout(): number {
    return this.#tickAt;
  }

  pollOutput(): ServerOutput | undefined {
    const output = this.#outputs.shift();
    // Only now that the host closes its sockets may the slot stand for another association.
    if (output?.kind === "release") this.#freeAssociations.push(output.association);
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
    return this.#connections[index]?.tunnel.pollTransmit(now);
  }

  /** Tells every client that this server goes away; then drain and close. */
  close(): void {
    for (const connection of this.#connections) {
      if (connection?.state !== "open" || connection.session?.kind !== "native") continue;
      this.#sendControl(connection, encodeShutdown("done"));
    }
    this.#tickAt = NEVER;
  }

  // Handshake

  /** @param surplus  what came behind the request; borrowed */
  #follow(now: number, connection: Connection, verdict: Verdict, surplus: Uint8Array): void {
    switch (verdict.kind) {
      case "refuse":
        this.#refuse(now, connection, verdict.reason, verdict.response);
        return;
      case "challenge":
        connection.challenge = verdict.challenge;
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
        this.#acceptLane(now, connection, verdict.extension, verdict.transcript);
        return;
      case "plain":
        connection.request = verdict.request;
        this.#followPlain(now, connection, judgePlainRequest(verdict.request, this.#options.permits));
    }
  }

  #acceptLane(
    now: number,
    connection: Connection,
    extension: ExtensionRequest,
    transcript: Transcript,
  ): void {
    const { psk, crypto, maxTunnels } = this.#options;
    if (this.tunnelCount >= maxTunnels) {
      this.#refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    const nonce = crypto.random(NONCE_BYTES);
    const known = extension.session === undefined ? undefined : this.#sessions.get(hexKey(extension.session));
    const isResumed =
      known !== undefined && constantTimeEqual(extension.resumeMac, resumeMac(crypto, known.key, transcript));
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
    this.#lingering.delete(session);
    session.lingerUntil = NEVER;
    if (isReturn) this.counters.resumed++;
    this.#outputs.push({
      kind: isReturn ? "session-resumed" : "session-up",
      session: session.name,
      lane: extension.lane,
    });
    for (const association of session.associationById.values()) {
      this.#connectionOf[association] ??= connection;
    }
    this.#open(now, connection, true);
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
    const session: Session = {
      name: `s${this.#nextName++}`,
      id,
      key,
      kind,
      connections: new Set(),
      associationById: new Map(),
      contextById: new Map(),
      contextCount: 0,
      nextContextId: 1,
      uncompressed: 0,
      unreachable: new TokenBucket(UNREACHABLE_PER_SECOND),
      lookups: new LookupTurns(),
      lingerUntil: NEVER,
    };
    this.#sessions.set(hexKey(id), session);
    return session;
  }

  #followPlain(now: number, connection: Connection, verdict: PlainVerdict): void {
    if (verdict.kind === "accept") this.#bindPlain(now, connection, verdict.target);
    else if (verdict.kind === "refuse") this.#refuse(now, connection, verdict.reason, verdict.response);
    else {
      connection.state = "resolving";
      this.#names.addTarget(connection, verdict.name);
    }
  }

  /** RFC 9298 without our extension: one association, which begins and ends with the tunnel. */
  #bindPlain(now: number, connection: Connection, target: AddressBytes | undefined): void {
    if (this.tunnelCount >= this.#options.maxTunnels || !this.#makeRoomForSession(now)) {
      this.#refuse(now, connection, "tunnel_limit", encodeRefusal(503, undefined));
      return;
    }
    const isBound = connection.request!.bind;
    const session = this.#beginSession(
      isBound ? "bound" : "fixed",
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
      const slot = this.#addContext(now, session, association, 0, target);
      this.#grant(slot, association, target);
    }
    connection.state = "binding";
    this.#outputs.push({ kind: "bind", association, connection: connection.index });
  }

  #open(now: number, connection: Connection, extension: boolean): void {
    this.#halfOpen.delete(connection);
    connection.state = "open";
    connection.deadline = NEVER;
    this.tunnelCount++;
    connection.tunnel.open(now, extension);
    connection.tunnel.handleTimeout(now);
    this.#markDirty(connection);
  }

  // Ends

  /** Counts why, says so where there is something to say, and closes. */
  #refuse(
    now: number,
    connection: Connection,
    reason: RefusalReason,
    response: Uint8Array | undefined,
  ): void {
    this.counters.refused[reason]++;
    if (response !== undefined) this.#sendControl(connection, response);
    this.#closeConnection(now, connection, undefined);
  }

  #closeConnection(now: number, connection: Connection, error: ProtocolError | undefined): void {
    if (connection.state === "closing") return;
    this.#detach(now, connection);
    connection.state = "closing";
    this.#outputs.push({ kind: "close", connection: connection.index, error });
  }

  /** Takes a connection out of its session. */
  #detach(now: number, connection: Connection): void {
    this.#halfOpen.delete(connection);
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
      if (this.#connectionOf[association] !== connection) continue;
      this.#connectionOf[association] = heir;
      if (heir === undefined) this.#pool.removeFlow(association);
      else heir.tunnel.queue.takeFlow(association);
    }
    if (heir !== undefined) this.#markDirty(heir);
    else if (this.#sessions.has(hexKey(session.id))) this.#linger(now, session);
  }

  #linger(now: number, session: Session): void {
    this.#outputs.push({ kind: "session-down", session: session.name });
    if (session.associationById.size === 0 && session.contextCount === 0) {
      this.#endSession(now, session, "empty");
      return;
    }
    if (this.#lingering.size >= this.#options.maxLingering) {
      const [oldest] = this.#lingering;
      this.counters.refused.session_evicted++;
      this.#endSession(now, oldest, "evicted");
    }
    session.lingerUntil = now + this.#options.lingerMs;
    this.#lingering.add(session);
  }

  #endSession(now: number, session: Session, reason: string): void {
    if (!this.#sessions.delete(hexKey(session.id))) return;
    this.#lingering.delete(session);
    for (const association of [...session.associationById.values()]) this.#closeAssociation(association);
    for (const connection of [...session.connections]) {
      session.connections.delete(connection);
      connection.session = undefined;
      this.#closeConnection(now, connection, undefined);
    }
    this.#outputs.push({ kind: "session-ended", session: session.name, reason });
  }

  #checkTunnel(now: number, connection: Connection): void {
    const { error } = connection.tunnel;
    if (error === undefined) return;
    this.counters.refused.protocol_error++;
    this.#closeConnection(now, connection, error);
  }

  // Capsules

  #handleCapsules(
    now: number,
    connection: Connection,
    chunk: Uint8Array,
    offset: number,
    end: number,
  ): number {
    const { tunnel } = connection;
    const session = connection.session!;
    const { outgoing } = this;
    let at = offset;
    outgoing.data = chunk;
    while (!outgoing.isFull && tunnel.next(now, chunk, at, end)) {
      const { reader } = tunnel;
      if (reader.type !== CAPSULE_DATAGRAM) {
        // It may end what the rows before it stand for: those go first.
        if (outgoing.count > 0 && reader.type !== CAPSULE_COMPRESSION_ACK) {
          this.#markDirty(connection);
          return reader.start;
        }
        at = reader.offset;
        this.#handleControl(now, connection, session);
        if (connection.state !== "open") return end;
        if (tunnel.error !== undefined) break;
        continue;
      }
      at = reader.offset;
      const { data } = reader;
      const payload = readNumbers(data, reader.valueOffset, reader.valueEnd, 1, this.#numbers);
      if (payload < 0 || reader.valueEnd - payload > MAX_PAYLOAD_BYTES) {
        tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "DATAGRAM"));
        break;
      }
      this.#handleDatagramCapsule(now, connection, session, this.#numbers[0], data, payload, reader.valueEnd);
      if (data !== chunk && outgoing.count > 0) {
        // Put together from two chunks: it stands alone, as the batch has one buffer.
        outgoing.data = data;
        this.#markDirty(connection);
        return at;
      }
    }
    this.#markDirty(connection);
    if (tunnel.error !== undefined) {
      this.#checkTunnel(now, connection);
      return end;
    }
    return outgoing.isFull ? at : end;
  }

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
      if (id === 0 || id !== session.uncompressed) {
        this.counters.drops.unknown_context++;
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
    this.contexts.lastUsed[slot] = now;
    this.#lastActive[association] = now;
    if (this.#connectionOf[association] !== connection) this.#moveTo(connection, association);
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
        // Contexts of our own are used at once, and those of the client are not the client's to acknowledge.
        if (!isWhole || (session.kind !== "native" && id % 2 === 0)) fault = "COMPRESSION_ACK";
        break;
      case CAPSULE_COMPRESSION_CLOSE: {
        if (!isWhole || id === 0) fault = "COMPRESSION_CLOSE";
        else if (id === session.uncompressed) session.uncompressed = 0;
        else {
          const slot = session.contextById.get(id);
          if (slot !== undefined) this.#releaseContext(slot);
        }
        break;
      }
      case CAPSULE_COMPRESSION_ASSIGN:
        fault =
          at < 0 || session.kind !== "bound"
            ? "COMPRESSION_ASSIGN"
            : this.#handleCompressionAssign(now, connection, session, id, at);
        break;
      case CAPSULE_ASSOCIATION_OPEN: {
        const hasSource = at >= 0 && !(valueEnd === at + 1 && data[at] === 0);
        const source = hasSource ? decodeWholeAddress(data, at, valueEnd) : undefined;
        if (at < 0 || id < 1 || id > MAX_ID || (hasSource && source === undefined))
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
        const isValidId = id > 0 && id % 2 === 0 && id <= MAX_ID;
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
    id: number,
    at: number,
  ): string | undefined {
    const { data, valueEnd } = connection.tunnel.reader;
    const isKnown = session.contextById.has(id) || session.uncompressed === id;
    const address = decodeCompressionAssign(data, at, valueEnd);
    if (id === 0 || id % 2 === 1 || id > MAX_ID || isKnown || address === undefined) {
      return "COMPRESSION_ASSIGN";
    }
    if (address === "uncompressed") {
      if (session.uncompressed !== 0) return "COMPRESSION_ASSIGN, uncompressed";
      session.uncompressed = id;
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
    this.counters.refused.association_limit++;
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
    if (association === undefined) this.#sendControl(connection, encodeCompressionClose(id));
    else this.#registerContext(now, connection, session, association, id, address);
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
    if (isDenied || session.contextCount >= this.#options.maxContextsPerSession) {
      this.counters.refused[isDenied ? "target_denied" : "context_limit"]++;
      this.#sendControl(connection, encodeCompressionClose(id));
      return;
    }
    const twin = this.contexts.find(association, address, 0, address.length);
    const slot = this.#addContext(now, session, association, id, address, twin === NONE);
    if (twin !== NONE && this.contexts.id[twin] % 2 === 1) {
      // Both ends registered the same address at once: ours goes.
      this.contexts.takeIndex(slot, twin);
      this.#sendControl(connection, encodeCompressionClose(this.contexts.id[twin]));
      this.#releaseContext(twin);
    }
    if (isName) {
      this.contexts.state[slot] = CONTEXT_RESOLVING;
      this.#names.addContext(session.lookups, slot);
      return;
    }
    this.#grant(slot, association, address);
    this.#sendControl(connection, encodeCompressionAck(id));
  }

  // Contexts

  #addContext(
    now: number,
    session: Session,
    association: number,
    id: number,
    address: AddressBytes,
    indexed = true,
  ): number {
    const slot = this.contexts.allocate(now, association, id, address, indexed);
    this.#permissionOf[slot] = NONE;
    if (id !== HIDDEN_ID) session.contextById.set(id, slot);
    session.contextCount++;
    return slot;
  }

  #grant(slot: number, association: number, target: AddressBytes): void {
    this.contexts.state[slot] = CONTEXT_ACKED;
    this.#permissionOf[slot] = this.#permissions.grant(association, target);
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
    if (session.contextCount >= this.#options.maxContextsPerSession) {
      this.counters.drops.context_limit++;
      return NONE;
    }
    const slot = this.#addContext(now, session, association, HIDDEN_ID, address);
    this.#grant(slot, association, address);
    return slot;
  }

  /** The context for a sender that has none yet; -1 when the filter keeps it out. */
  /** The context that stands for a source, or -1 when `count` datagrams of it are dropped, and counted. */
  #contextOfReply(
    now: number,
    association: number,
    addresses: Uint8Array,
    offset: number,
    length: number,
    count: number,
  ): number {
    const session = this.#sessionOf[association];
    const connection = this.#connectionOf[association];
    if (session === undefined || connection === undefined) {
      this.counters.drops.no_lane += count;
      return NONE;
    }
    let context = this.#lastReply[association];
    if (context === NONE || !isAddress(this.contexts.target[context]!, addresses, offset, length)) {
      context = this.contexts.find(association, addresses, offset, length);
      if (context === NONE) {
        const remote = copyAddress(addresses, offset, length);
        context = this.#replyContext(now, association, session, connection, remote, count);
        if (context === NONE) return NONE;
      }
      this.#lastReply[association] = context;
    }
    this.contexts.lastUsed[context] = now;
    this.#lastActive[association] = now;
    return context;
  }

  #replyContext(
    now: number,
    association: number,
    session: Session,
    connection: Connection,
    remote: AddressBytes,
    count: number,
  ): number {
    const { filtering, maxContextsPerSession } = this.#options;
    const isHeard =
      filtering === "endpoint-independent" ||
      (filtering === "address-dependent" && this.#permissions.has(association, remote)) ||
      this.#nameOf(association, remote) !== NONE;
    // Whom we hear can be answered: nobody gets around the policy by a source that is made up.
    const isLet = isHeard && this.#options.permits(remote);
    if (session.kind === "fixed" || !isLet || (session.kind === "bound" && session.uncompressed === 0)) {
      this.counters.drops.filtered += count;
      return NONE;
    }
    if (session.contextCount >= maxContextsPerSession) {
      this.counters.drops.context_limit += count;
      return NONE;
    }
    const address = remote;
    if (session.kind === "bound") return this.#addContext(now, session, association, HIDDEN_ID, address);
    const id = session.nextContextId;
    session.nextContextId += 2;
    const slot = this.#addContext(now, session, association, id, address);
    this.#sendControl(connection, encodeContextAssign(id, this.#wireId[association], address));
    return slot;
  }

  /** The context of a name of this association that was resolved to just this address, or -1. */
  #nameOf(association: number, remote: AddressBytes): number {
    for (let slot = this.contexts.first(association); slot !== NONE; slot = this.contexts.next(slot)) {
      const address = this.contexts.address[slot]!;
      if (isDomain(address) && isAddress(this.contexts.target[slot]!, remote, 0, remote.length)) return slot;
    }
    return NONE;
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
    const { uncompressed } = this.#sessionOf[association]!;
    if (uncompressed === 0) {
      this.counters.drops.filtered++;
      return;
    }
    const size = this.#uncompressed.write(remote, data, offset, length);
    connection.tunnel.writeDatagram(now, association, uncompressed, this.#uncompressed.bytes, 0, size);
  }

  #releaseContext(slot: number): void {
    const association = this.contexts.association[slot];
    const session = this.#sessionOf[association];
    if (this.#permissionOf[slot] !== NONE) this.#permissions.revoke(this.#permissionOf[slot]);
    if (this.#lastReply[association] === slot) this.#lastReply[association] = NONE;
    this.#names.forget(session?.lookups, slot);
    if (session !== undefined) {
      session.contextCount--;
      if (this.contexts.id[slot] !== HIDDEN_ID) session.contextById.delete(this.contexts.id[slot]);
    }
    this.contexts.release(slot);
  }

  // Associations

  #openAssociation(
    now: number,
    session: Session,
    connection: Connection,
    id: number,
    source: AddressBytes | undefined,
  ): number {
    const { maxAssociations, maxAssociationsPerSession } = this.#options;
    if (this.associationCount >= maxAssociations) return NONE;
    if (session.associationById.size >= maxAssociationsPerSession) return NONE;
    const slot = this.#freeAssociations.pop() ?? this.#sessionOf.length;
    if (slot >= this.#wireId.length) this.#growAssociations();
    this.#sessionOf[slot] = session;
    this.#connectionOf[slot] = connection;
    this.#source[slot] = source;
    this.#wireId[slot] = id;
    this.#lastReply[slot] = NONE;
    this.#lastActive[slot] = now;
    session.associationById.set(id, slot);
    this.associationCount++;
    return slot;
  }

  /** Answers to an association, and what waits for it, go on `connection` from now on. */
  #moveTo(connection: Connection, association: number): void {
    this.#connectionOf[association] = connection;
    connection.tunnel.queue.takeFlow(association);
  }

  #closeAssociation(slot: number): void {
    const session = this.#sessionOf[slot]!;
    for (let context = this.contexts.first(slot); context !== NONE; context = this.contexts.first(slot)) {
      this.#releaseContext(context);
    }
    this.#pool.removeFlow(slot);
    session.associationById.delete(this.#wireId[slot]);
    this.#sessionOf[slot] = undefined;
    this.#connectionOf[slot] = undefined;
    this.#source[slot] = undefined;
    this.associationCount--;
    this.#outputs.push({ kind: "release", association: slot });
  }

  /** The association's socket has failed for good. */
  handleSocketFailed(now: number, association: number): void {
    if (this.#sessionOf[association] !== undefined) this.#dismiss(now, association, "failed");
  }

  /** Ends an association that the client still holds, and tells it why. */
  #dismiss(now: number, association: number, reason: CloseReason): void {
    const connection = this.#connectionOf[association];
    const session = this.#sessionOf[association]!;
    if (session.kind !== "native") {
      this.#endSession(now, session, reason);
      return;
    }
    if (connection !== undefined) {
      this.#sendControl(connection, encodeAssociationClose(this.#wireId[association], reason));
    }
    this.#closeAssociation(association);
  }

  #sweep(now: number): void {
    for (let slot = 0; slot < this.#sessionOf.length; slot++) {
      if (this.#sessionOf[slot] === undefined) continue;
      if (now - this.#lastActive[slot] >= this.#options.idleTimeoutMs) {
        this.#dismiss(now, slot, "idle");
        continue;
      }
      this.#closeIdleContexts(now, slot);
    }
    for (const connection of this.#connections) connection?.tunnel.queue.expire(now);
  }

  /** Contexts that this end made are this end's to close; the client looks after its own. */
  #closeIdleContexts(now: number, association: number): void {
    let next = NONE;
    for (let slot = this.contexts.first(association); slot !== NONE; slot = next) {
      next = this.contexts.next(slot);
      const id = this.contexts.id[slot];
      if ((id !== HIDDEN_ID && id % 2 === 0) || now - this.contexts.lastUsed[slot] < CONTEXT_IDLE_MS)
        continue;
      const connection = this.#connectionOf[association];
      if (id !== HIDDEN_ID && connection !== undefined) {
        this.#sendControl(connection, encodeCompressionClose(id));
      }
      this.#releaseContext(slot);
    }
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

  #growAssociations(): void {
    const from = this.#wireId.length;
    this.#wireId = grown(this.#wireId, new Int32Array(from * 2));
    this.#lastReply = grown(this.#lastReply, new Int32Array(from * 2)).fill(NONE, from);
    this.#lastActive = grown(this.#lastActive, new Float64Array(from * 2));
  }
}

function isAddress(address: AddressBytes, other: Uint8Array, offset: number, length: number): boolean {
  return address.length === length && sameBytes(address, 0, other, offset, length);
}
