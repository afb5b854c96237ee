import type { CloseReason, UnreachableKind } from "../wire/capsule.ts";
import {
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_DATAGRAM,
  CAPSULE_SHUTDOWN,
  CAPSULE_UNREACHABLE,
  closeReason,
  decodeWholeAddress,
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionAck,
  encodeCompressionClose,
  encodeContextAssign,
  encodeShutdown,
  MAX_DATAGRAM_BYTES,
  MAX_MTU,
  MAX_PAYLOAD_BYTES,
  readNumbers,
  unreachableKind,
} from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../wire/socket-address.ts";
import type { ExtensionResponse } from "../wire/upgrade.ts";
import { CONTEXT_ACKED, CONTEXT_REFUSED, CONTEXT_UNACKED, ContextTable } from "./context-table.ts";
import { Counters } from "./counters.ts";
import { randomSeed } from "./credentials.ts";
import { DatagramBatch } from "./datagram-batch.ts";
import { ProtocolError } from "./errors.ts";
import { grown } from "./grown.ts";
import type { LaneOptions, SessionCredentials } from "./lane.ts";
import { Lane } from "./lane.ts";
import type { ReceivedDatagrams } from "./received-datagrams.ts";
import { SendPool, SendQueue } from "./send-queue.ts";
import { TokenBucket } from "./token-bucket.ts";
import type { Tunnel } from "./tunnel.ts";

const NONE = -1;
const SWEEP_MS = 1_000;
/** A context that nothing used for so long is closed; above RFC 4787 REQ-5's two minutes. */
const CONTEXT_IDLE_MS = 300_000;
/** So long is a refusal of the server believed. */
const REFUSAL_MS = 30_000;
/** An association that the server refused is not asked for again sooner. */
const REOPEN_MS = 1_000;
/** Outputs of that kind, whatever the server says and applications send. */
const UNREACHABLE_PER_SECOND = 200;
const NEVER = Number.POSITIVE_INFINITY;

/** All durations in milliseconds, sizes in bytes. */
export interface TunnelClientOptions extends LaneOptions {
  readonly lanes: number;
  readonly ageBudgetMs: number;
  /** Bound of each lane's send queue. */
  readonly queueBytes: number;
  /** For associations that may expire: after so long without a datagram, ... */
  readonly idleTimeoutMs: number;
  /** ... or so long, once more than one answer came. */
  readonly activeIdleTimeoutMs: number;
}

export type ClientOutput =
  | { readonly kind: "connect"; readonly lane: number }
  | { readonly kind: "disconnect"; readonly lane: number; readonly error: ProtocolError | undefined }
  | { readonly kind: "session-up" }
  | { readonly kind: "session-resumed" }
  | { readonly kind: "session-down"; readonly error: Error | undefined }
  | { readonly kind: "association-closed"; readonly association: number; readonly reason: CloseReason }
  /**
   * A datagram of the association did not get to `remote`, which may be a name.
   * `mtu`: for too-big, the largest IP packet that would, as the server says; 0 where that is not known.
   */
  | {
      readonly kind: "unreachable";
      readonly association: number;
      readonly remote: AddressBytes;
      readonly reason: UnreachableKind;
      readonly mtu: number;
    };

/** States of an association. */
const FREE = 0;
/** The server does not know of it: nothing was sent yet, or the server closed it. */
const LOCAL = 1;
const OPEN = 2;
/** Ended here; the server has not said that it knows. */
const CLOSING = 3;
/** Ended, and free once the host has been told. */
const ENDED = 4;

/**
 * The client end of a session: lanes that come and go, associations and contexts that stay. Does no I/O and reads no
 * clock: after each `handle*` or verb, drain {@link pollOutput} and each lane's {@link pollTransmit}, then arm one
 * timer for {@link nextTimeout}. Bytes handed in are borrowed until the call returns.
 */
export class TunnelClient {
  readonly counters = new Counters();
  /** Filled by {@link handleStream}; to be sent on before its next call. */
  readonly received = new DatagramBatch(1024);
  readonly contexts: ContextTable;
  associationCount = 0;

  readonly #options: TunnelClientOptions;
  readonly #outputs: ClientOutput[] = [];
  readonly #pool = new SendPool();
  readonly #lanes: Lane[] = [];
  readonly #contextById = new Map<number, number>();
  readonly #associationById = new Map<number, number>();
  #session: SessionCredentials | undefined;
  #sessionUp = false;
  #everUp = false;
  #closed = false;
  #nextAssociationId = 1;
  #nextContextId = 2;
  #sweepAt = NEVER;
  #evictContextsAt = 0;

  #state = new Uint8Array(64);
  #wireId = new Int32Array(64);
  #lane = new Int32Array(64);
  #lastContext = new Int32Array(64).fill(NONE);
  #lastActive = new Float64Array(64);
  #reopenAt = new Float64Array(64);
  #answers = new Int32Array(64);
  #expires = new Uint8Array(64);
  readonly #source: (AddressBytes | undefined)[] = [];
  readonly #freeAssociations: number[] = [];
  #usedAssociations = 0;
  readonly #numbers: number[] = [0, 0, 0];
  readonly #unreachable = new TokenBucket(UNREACHABLE_PER_SECOND);
  /** Addresses of contexts in outputs that the host has not taken yet. */
  readonly #untold = new Set<AddressBytes>();

  constructor(options: TunnelClientOptions) {
    this.#options = options;
    this.contexts = new ContextTable(randomSeed(options.crypto));
    for (let index = 0; index < options.lanes; index++) {
      const queue = new SendQueue(this.#pool, this.counters, options.queueBytes, options.ageBudgetMs);
      this.#lanes.push(new Lane(index, queue, this.counters, options));
    }
  }

  // Getters

  /** True when at least one lane is up. */
  get isUp(): boolean {
    return this.#sessionUp;
  }

  get lanesUp(): number {
    return this.#lanes.filter((lane) => lane.state === "up").length;
  }

  /** The best lane's smoothed round-trip time in milliseconds. */
  get rttMs(): number | undefined {
    const times = this.#lanes.flatMap((lane) => (lane.state === "up" ? (lane.tunnel?.rttMs ?? []) : []));
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Id on the wire of an association, 0 before it has one. */
  wireId(association: number): number {
    return this.#state[association] === OPEN ? this.#wireId[association] : 0;
  }

  // Events

  /** Connects for the first time. */
  start(now: number): void {
    this.#sweepAt = now + SWEEP_MS;
    this.#connect(now, this.#lanes[0]);
  }

  /** The connection that a `connect` output asked for is there. */
  handleConnected(now: number, index: number): void {
    const lane = this.#lanes[index];
    if (this.#closed || lane.state !== "connecting") return;
    lane.handleConnected(now, this.#session);
  }

  /** Connecting failed, or the connection has ended, for whatever reason. */
  handleDisconnected(now: number, index: number, error: Error | undefined): void {
    const lane = this.#lanes[index];
    if (lane.state === "waiting" || lane.state === "held") return;
    this.#laneLost(now, lane, error);
  }

  /**
   * Bytes of a lane's connection, cut anywhere. Stops when {@link received} is full, or holds what cannot stand beside
   * the rest.
   *
   * @returns the offset up to which they were consumed: send on `received`, then call again with the rest
   */
  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const lane = this.#lanes[index];
    this.received.count = 0;
    let at = offset;
    if (lane.state === "handshake") {
      at = lane.handleHead(now, this.#session, chunk, offset, end);
      const { answer } = lane;
      if (answer?.kind === "failed") this.#failLane(now, lane, answer.error);
      else if (answer !== undefined) this.#laneUp(now, lane, answer.extension);
    }
    if (lane.state !== "up") return end;
    return this.#handleCapsules(now, lane, chunk, at, end);
  }

  /** A batch from {@link pollTransmit} is written. */
  handleTransmitted(index: number): void {
    this.#lanes[index].tunnel?.handleTransmitted();
  }

  handleTimeout(now: number): void {
    for (const lane of this.#lanes) {
      if (lane.state === "up") {
        lane.tunnel!.handleTimeout(now);
        this.#checkTunnel(now, lane);
      } else if (now >= lane.deadline) {
        if (lane.state === "waiting") this.#connect(now, lane);
        else this.#failLane(now, lane, new ProtocolError("ERR_HANDSHAKE_TIMEOUT", "connecting again"));
      }
    }
    if (now >= this.#sweepAt) {
      this.#sweepAt = now + SWEEP_MS;
      this.#sweep(now);
    }
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. */
  nextTimeout(): number {
    let next = this.#sweepAt;
    for (const lane of this.#lanes) {
      next = Math.min(next, lane.state === "up" ? lane.tunnel!.nextTimeout() : lane.deadline);
    }
    return next;
  }

  pollOutput(): ClientOutput | undefined {
    const output = this.#outputs.shift();
    if (output?.kind === "association-closed" && this.#state[output.association] === ENDED) {
      this.#forget(output.association);
    }
    if (output?.kind === "unreachable") this.#untold.delete(output.remote);
    return output;
  }

  /** Bytes for a lane's connection, lent until {@link handleTransmitted}. */
  pollTransmit(now: number, index: number): Uint8Array | undefined {
    return this.#lanes[index].tunnel?.pollTransmit(now);
  }

  /** True when nothing waits to be written on a lane. */
  isDrained(index: number): boolean {
    return this.#lanes[index].tunnel?.isDrained ?? true;
  }

  // Verbs

  /**
   * Begins an association.
   *
   * @param source   the application's own address, where it is known
   * @param expires  whether it ends when idle; otherwise only by {@link closeAssociation}
   * @returns its slot, or -1 when there are too many and none that may expire
   */
  openAssociation(now: number, source: AddressBytes | undefined, expires: boolean): number {
    if (this.associationCount >= this.#options.maxAssociations && !this.#evictAssociation(now)) {
      this.counters.refused.association_limit++;
      return NONE;
    }
    const slot = this.#freeAssociations.pop() ?? this.#usedAssociations++;
    if (slot >= this.#state.length) this.#growAssociations();
    const lane = this.#leastLoadedLane();
    lane.load++;
    this.#state[slot] = LOCAL;
    this.#lane[slot] = lane.index;
    this.#lastContext[slot] = NONE;
    this.#lastActive[slot] = now;
    this.#reopenAt[slot] = 0;
    this.#answers[slot] = 0;
    this.#expires[slot] = expires ? 1 : 0;
    this.#source[slot] = source;
    this.associationCount++;
    return slot;
  }

  closeAssociation(now: number, association: number): void {
    this.#endAssociation(now, association, "done");
    if (this.#state[association] === ENDED) this.#forget(association);
  }

  /**
   * Sends one datagram of an association into the tunnel, or into the queue while it is down.
   *
   * @param address  buffer that holds the remote address at `addressOffset`; borrowed, as `data` is
   */
  handleDatagram(
    now: number,
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    address: Uint8Array,
    addressOffset: number,
    addressLength: number,
  ): void {
    if (length > MAX_DATAGRAM_BYTES) {
      this.counters.drops.too_long++;
      return;
    }
    const context = this.#usableContext(now, association, address, addressOffset, addressLength, 1);
    if (context === NONE) return;
    const lane = this.#lanes[this.#lane[association]];
    const id = this.contexts.id[context];
    if (lane.state === "up") lane.tunnel!.writeDatagram(now, association, id, data, offset, length);
    else lane.queue.push(now, association, id, data, offset, length);
  }

  /** Sends rows `first` to before `end`, which are of one association and go to one remote address. */
  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    const context = this.#usableContext(now, association, address, 0, address.length, end - first);
    if (context === NONE) return;
    const lane = this.#lanes[this.#lane[association]];
    const id = this.contexts.id[context];
    if (lane.state === "up") lane.tunnel!.writeDatagrams(now, association, id, received, first, end);
    else lane.queue.pushAll(now, association, id, received, first, end);
  }

  /** Ends the session in an orderly way: drain the lanes, then close their connections. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#sweepAt = NEVER;
    for (const lane of this.#lanes) {
      if (lane.state === "up") lane.tunnel!.writeControl(encodeShutdown("done"));
      else if (lane.state === "connecting" || lane.state === "handshake") {
        this.#outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
        lane.state = "held";
      }
      lane.deadline = NEVER;
    }
  }

  // Handshake

  #connect(now: number, lane: Lane): void {
    lane.connect(now);
    this.#outputs.push({ kind: "connect", lane: lane.index });
  }

  #laneUp(now: number, lane: Lane, answer: ExtensionResponse): void {
    const { session, resumed } = answer;
    const isOurs = this.#session !== undefined && sameBytes(session, 0, this.#session.id, 0, session.length);
    if (!isOurs && this.#sessionUp) {
      // The server took this lane for a session of its own while another lane holds the real one.
      lane.tunnel!.open(now, true);
      lane.tunnel!.writeControl(encodeShutdown("done"));
      this.#failLane(
        now,
        lane,
        new ProtocolError("ERR_UPGRADE_REFUSED", "the lane did not join its session"),
      );
      return;
    }
    const isNew = !(resumed && isOurs);
    if (isNew) this.#beginSession(lane, answer);
    lane.open(now);
    const wasUp = this.#sessionUp;
    this.#sessionUp = true;
    if (!wasUp) {
      for (let slot = 0; slot < this.#usedAssociations; slot++) {
        if (this.#state[slot] !== FREE) this.#pin(slot, lane);
      }
      this.#registerPinned(lane);
      if (this.#everUp && !isNew) this.counters.resumed++;
      this.#outputs.push({ kind: isNew ? "session-up" : "session-resumed" });
      this.#everUp = true;
      for (const other of this.#lanes) {
        if (other.state === "held") this.#connect(now, other);
      }
    } else this.#rebalance(lane);
    lane.tunnel!.handleTimeout(now);
  }

  /** A session that the server knows nothing of yet: even contexts keep their ids, odd ones were the old server's. */
  #beginSession(lane: Lane, answer: ExtensionResponse): void {
    this.#session = { id: answer.session, key: lane.deriveSessionKey(answer) };
    for (const [id, slot] of [...this.#contextById]) {
      if (id % 2 === 1 || this.contexts.state[slot] === CONTEXT_REFUSED) this.#releaseContext(slot);
      else this.contexts.state[slot] = CONTEXT_UNACKED;
    }
    for (let slot = 0; slot < this.#usedAssociations; slot++) {
      if (this.#state[slot] === CLOSING) this.#forget(slot);
    }
  }

  /** Tells the server, on this lane, of every association that is pinned to it. */
  #registerPinned(lane: Lane): void {
    for (let slot = 0; slot < this.#usedAssociations; slot++) {
      if (this.#lane[slot] === lane.index) this.#register(slot, lane);
    }
  }

  #register(slot: number, lane: Lane): void {
    const tunnel = lane.tunnel!;
    if (this.#state[slot] === CLOSING)
      tunnel.writeControl(encodeAssociationClose(this.#wireId[slot], "done"));
    if (this.#state[slot] !== OPEN) return;
    tunnel.writeControl(encodeAssociationOpen(this.#wireId[slot], this.#source[slot]));
    for (let context = this.contexts.first(slot); context !== NONE; context = this.contexts.next(context)) {
      if (this.contexts.state[context] !== CONTEXT_UNACKED) continue;
      tunnel.writeControl(
        encodeContextAssign(this.contexts.id[context], this.#wireId[slot], this.contexts.address[context]!),
      );
    }
  }

  // Lanes

  #pin(slot: number, lane: Lane): void {
    const before = this.#lanes[this.#lane[slot]];
    if (before === lane) return;
    before.load--;
    lane.load++;
    this.#lane[slot] = lane.index;
    lane.queue.takeFlow(slot);
  }

  /** Takes its fair share of associations over from the lanes that are up. */
  #rebalance(lane: Lane): void {
    const share = Math.floor(this.associationCount / this.lanesUp);
    for (let slot = 0; slot < this.#usedAssociations && lane.load < share; slot++) {
      if (this.#state[slot] === FREE || this.#lanes[this.#lane[slot]].load <= share) continue;
      this.#pin(slot, lane);
      this.#register(slot, lane);
    }
  }

  #leastLoadedLane(): Lane {
    let best = this.#lanes[0];
    for (const lane of this.#lanes) {
      const better =
        (lane.state === "up") === (best.state === "up") ? lane.load < best.load : lane.state === "up";
      if (better) best = lane;
    }
    return best;
  }

  #failLane(now: number, lane: Lane, error: ProtocolError): void {
    this.#outputs.push({ kind: "disconnect", lane: lane.index, error });
    this.#laneLost(now, lane, error);
  }

  #laneLost(now: number, lane: Lane, error: Error | undefined): void {
    const wasUp = lane.state === "up";
    lane.handleLost(now, this.#closed);
    if (!wasUp) return;
    const heir = this.#leastLoadedLane();
    if (heir.state === "up") {
      for (let slot = 0; slot < this.#usedAssociations; slot++) {
        if (this.#state[slot] === FREE || this.#lane[slot] !== lane.index) continue;
        const target = this.#leastLoadedLane();
        this.#pin(slot, target);
        this.#register(slot, target);
      }
      return;
    }
    this.#sessionUp = false;
    for (const other of this.#lanes) {
      // One lane finds out whether the session lives; the others wait for it.
      if (other !== lane && other.state === "waiting") {
        other.hold();
      }
    }
    if (!this.#closed) this.#outputs.push({ kind: "session-down", error });
  }

  #checkTunnel(now: number, lane: Lane): void {
    const error = lane.tunnel?.error;
    if (error !== undefined) this.#failLane(now, lane, error);
  }

  // Capsules

  #handleCapsules(now: number, lane: Lane, chunk: Uint8Array, offset: number, end: number): number {
    const tunnel = lane.tunnel!;
    const { received } = this;
    let at = offset;
    received.data = chunk;
    while (!received.isFull && tunnel.next(now, chunk, at, end)) {
      const reader = tunnel.reader;
      if (reader.type !== CAPSULE_DATAGRAM) {
        // It may end what the rows before it stand for: those go first.
        if (received.count > 0 && reader.type !== CAPSULE_COMPRESSION_ACK) return reader.start;
        at = reader.offset;
        this.#handleControl(now, lane);
        if (lane.tunnel !== tunnel) return end;
        if (tunnel.error !== undefined) break;
        continue;
      }
      at = reader.offset;
      const { data } = reader;
      const payload = readNumbers(data, reader.valueOffset, reader.valueEnd, 1, this.#numbers);
      const length = reader.valueEnd - payload;
      if (payload < 0 || length > MAX_PAYLOAD_BYTES) {
        tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "DATAGRAM"));
        break;
      }
      const context = this.#contextById.get(this.#numbers[0]);
      if (context === undefined) {
        this.counters.drops.unknown_context++;
        continue;
      }
      const association = this.contexts.association[context];
      this.contexts.lastUsed[context] = now;
      this.#lastActive[association] = now;
      // More than one is all that matters.
      if (this.#answers[association] < 2) this.#answers[association]++;
      this.counters.datagramsIn++;
      this.counters.bytesIn += length;
      received.add(association, context, payload, length);
      if (data !== chunk) {
        // Put together from two chunks: it stands alone, as the batch has one buffer.
        received.data = data;
        return at;
      }
    }
    if (tunnel.error !== undefined) {
      this.#checkTunnel(now, lane);
      return end;
    }
    return received.isFull ? at : end;
  }

  #handleControl(now: number, lane: Lane): void {
    const { type, data, valueOffset, valueEnd } = lane.tunnel!.reader;
    const numbers = this.#numbers;
    switch (type) {
      case CAPSULE_COMPRESSION_ACK:
      case CAPSULE_COMPRESSION_CLOSE: {
        if (readNumbers(data, valueOffset, valueEnd, 1, numbers) !== valueEnd) {
          malformed(lane.tunnel!);
          return;
        }
        const slot = this.#contextById.get(numbers[0]);
        if (slot === undefined) return;
        if (type === CAPSULE_COMPRESSION_ACK) this.contexts.state[slot] = CONTEXT_ACKED;
        else if (this.contexts.state[slot] === CONTEXT_UNACKED) {
          this.contexts.state[slot] = CONTEXT_REFUSED;
          this.contexts.lastUsed[slot] = now;
          this.#tellUnreachable(now, slot, "prohibited", 0);
        } else this.#releaseContext(slot);
        return;
      }
      case CAPSULE_CONTEXT_ASSIGN: {
        const at = readNumbers(data, valueOffset, valueEnd, 2, numbers);
        const address = at < 0 ? undefined : decodeWholeAddress(data, at, valueEnd);
        if (address === undefined || numbers[0] % 2 === 0 || numbers[0] > 0x3fff_ffff) {
          malformed(lane.tunnel!);
          return;
        }
        this.#handleContextAssign(now, lane, numbers[0], numbers[1], address);
        return;
      }
      case CAPSULE_ASSOCIATION_CLOSE: {
        if (readNumbers(data, valueOffset, valueEnd, 2, numbers) !== valueEnd) {
          malformed(lane.tunnel!);
          return;
        }
        this.#handleAssociationClose(now, lane, numbers[0], closeReason(numbers[1]));
        return;
      }
      case CAPSULE_UNREACHABLE: {
        if (readNumbers(data, valueOffset, valueEnd, 3, numbers) !== valueEnd) {
          malformed(lane.tunnel!);
          return;
        }
        const slot = this.#contextById.get(numbers[0]);
        const reason = unreachableKind(numbers[1]);
        const mtu = reason === "too-big" ? Math.min(numbers[2], MAX_MTU) : 0;
        if (slot !== undefined) this.#tellUnreachable(now, slot, reason, mtu);
        return;
      }
      case CAPSULE_SHUTDOWN: {
        if (readNumbers(data, valueOffset, valueEnd, 1, numbers) !== valueEnd) {
          malformed(lane.tunnel!);
          return;
        }
        this.#failLane(now, lane, new ProtocolError("ERR_PEER_SHUTDOWN", closeReason(numbers[0])));
        return;
      }
      default:
        // COMPRESSION_ASSIGN and ASSOCIATION_OPEN are the client's to send.
        malformed(lane.tunnel!);
    }
  }

  #handleContextAssign(
    now: number,
    lane: Lane,
    id: number,
    associationId: number,
    address: AddressBytes,
  ): void {
    const association = this.#associationById.get(associationId);
    if (association === undefined || this.#state[association] !== OPEN) {
      lane.tunnel!.writeControl(encodeCompressionClose(id));
      return;
    }
    if (!this.#contextById.has(id)) {
      if (this.contexts.size >= this.#options.maxContexts) {
        this.counters.refused.context_limit++;
        lane.tunnel!.writeControl(encodeCompressionClose(id));
        return;
      }
      const twin = this.contexts.find(association, address, 0, address.length);
      const slot = this.contexts.allocate(now, association, id, address, twin === NONE);
      this.contexts.state[slot] = CONTEXT_ACKED;
      this.#contextById.set(id, slot);
    }
    lane.tunnel!.writeControl(encodeCompressionAck(id));
  }

  #handleAssociationClose(now: number, lane: Lane, id: number, reason: CloseReason): void {
    const association = this.#associationById.get(id);
    if (association === undefined) return;
    if (this.#state[association] === CLOSING) {
      this.#forget(association);
      return;
    }
    lane.tunnel!.writeControl(encodeAssociationClose(id, "done"));
    this.#associationById.delete(id);
    this.#pool.removeFlow(association);
    this.#releaseContexts(association);
    this.#state[association] = LOCAL;
    this.#reopenAt[association] = reason === "limit" || reason === "failed" ? now + REOPEN_MS : now;
  }

  /** Tells of a context's remote address, and not again before the host has heard of it. */
  #tellUnreachable(now: number, context: number, reason: UnreachableKind, mtu: number): void {
    const association = this.contexts.association[context];
    const remote = this.contexts.address[context]!;
    if (this.#untold.has(remote)) return;
    if (!this.#unreachable.take(now)) {
      this.counters.unreachable.limited++;
      return;
    }
    this.counters.unreachable[reason]++;
    this.#untold.add(remote);
    this.#outputs.push({ kind: "unreachable", association, remote, reason, mtu });
  }

  // Associations and contexts

  /** The context for `count` datagrams to an address, or -1 when they are dropped, and counted. */
  #usableContext(
    now: number,
    association: number,
    address: Uint8Array,
    addressOffset: number,
    addressLength: number,
    count: number,
  ): number {
    this.#lastActive[association] = now;
    let context = this.#lastContext[association];
    if (context === NONE || !isAddressOf(this.contexts, context, address, addressOffset, addressLength)) {
      context = this.#contextFor(now, association, address, addressOffset, addressLength, count);
      if (context === NONE) return NONE;
      this.#lastContext[association] = context;
    }
    if (this.contexts.state[context] === CONTEXT_REFUSED) {
      this.counters.drops.refused_target += count;
      this.#tellUnreachable(now, context, "prohibited", 0);
      return NONE;
    }
    this.contexts.lastUsed[context] = now;
    return context;
  }

  #contextFor(
    now: number,
    association: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
    count: number,
  ): number {
    const known = this.contexts.find(association, bytes, offset, length);
    if (known !== NONE) return known;
    if (now < this.#reopenAt[association]) {
      this.counters.drops.association_limit += count;
      return NONE;
    }
    if (this.contexts.size >= this.#options.maxContexts && !this.#evictContexts(now)) {
      this.counters.drops.context_limit += count;
      return NONE;
    }
    const lane = this.#lanes[this.#lane[association]];
    if (this.#state[association] === LOCAL) {
      this.#state[association] = OPEN;
      this.#wireId[association] = this.#nextAssociationId++;
      this.#associationById.set(this.#wireId[association], association);
      if (lane.state === "up") {
        lane.tunnel!.writeControl(
          encodeAssociationOpen(this.#wireId[association], this.#source[association]),
        );
      }
    }
    const id = this.#nextContextId;
    this.#nextContextId += 2;
    const address = copyAddress(bytes, offset, length);
    const slot = this.contexts.allocate(now, association, id, address, true);
    this.#contextById.set(id, slot);
    if (lane.state === "up") {
      lane.tunnel!.writeControl(encodeContextAssign(id, this.#wireId[association], address));
    }
    return slot;
  }

  #releaseContext(slot: number): void {
    const association = this.contexts.association[slot];
    if (this.#lastContext[association] === slot) this.#lastContext[association] = NONE;
    this.#contextById.delete(this.contexts.id[slot]);
    this.contexts.release(slot);
  }

  #releaseContexts(association: number): void {
    for (
      let slot = this.contexts.first(association);
      slot !== NONE;
      slot = this.contexts.first(association)
    ) {
      this.#releaseContext(slot);
    }
  }

  #endAssociation(now: number, association: number, reason: CloseReason): void {
    const state = this.#state[association];
    if (state !== LOCAL && state !== OPEN) return;
    const lane = this.#lanes[this.#lane[association]];
    this.#pool.removeFlow(association);
    this.#releaseContexts(association);
    this.associationCount--;
    this.#forgetUnreachable(association);
    if (state === LOCAL) {
      this.#state[association] = ENDED;
      return;
    }
    this.#state[association] = CLOSING;
    this.#lastActive[association] = now;
    this.#source[association] = undefined;
    if (lane.state === "up") {
      lane.tunnel!.writeControl(encodeAssociationClose(this.#wireId[association], reason));
    }
  }

  /** Its slot may stand for another association by the time that the host hears of it. */
  #forgetUnreachable(association: number): void {
    for (let i = this.#outputs.length - 1; i >= 0; i--) {
      const output = this.#outputs[i];
      if (output.kind !== "unreachable" || output.association !== association) continue;
      this.#untold.delete(output.remote);
      this.#outputs.splice(i, 1);
    }
  }

  #forget(association: number): void {
    this.#associationById.delete(this.#wireId[association]);
    this.#lanes[this.#lane[association]].load--;
    this.#state[association] = FREE;
    this.#source[association] = undefined;
    this.#freeAssociations.push(association);
  }

  /** Ends the idlest association that may expire. */
  #evictAssociation(now: number): boolean {
    let idlest = NONE;
    for (let slot = 0; slot < this.#usedAssociations; slot++) {
      const live = this.#state[slot] === LOCAL || this.#state[slot] === OPEN;
      if (!live || this.#expires[slot] === 0) continue;
      if (idlest === NONE || this.#lastActive[slot] < this.#lastActive[idlest]) idlest = slot;
    }
    if (idlest === NONE) return false;
    this.counters.refused.association_evicted++;
    this.#endAssociation(now, idlest, "evicted");
    this.#outputs.push({ kind: "association-closed", association: idlest, reason: "evicted" });
    return true;
  }

  /** Closes the contexts that were not used for the last ten seconds; asked for at most ten times a second. */
  #evictContexts(now: number): boolean {
    if (now < this.#evictContextsAt) return false;
    this.#evictContextsAt = now + 100;
    this.#closeIdleContexts(now, 10_000);
    return this.contexts.size < this.#options.maxContexts;
  }

  #closeIdleContexts(now: number, idleMs: number): void {
    for (const [id, slot] of [...this.#contextById]) {
      const isRefused = this.contexts.state[slot] === CONTEXT_REFUSED;
      const limit = isRefused ? Math.min(idleMs, REFUSAL_MS) : idleMs;
      if (now - this.contexts.lastUsed[slot] < limit) continue;
      const lane = this.#lanes[this.#lane[this.contexts.association[slot]]];
      if (!isRefused && lane.state === "up") lane.tunnel!.writeControl(encodeCompressionClose(id));
      this.#releaseContext(slot);
    }
  }

  #sweep(now: number): void {
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#options;
    for (let slot = 0; slot < this.#usedAssociations; slot++) {
      const state = this.#state[slot];
      if ((state !== LOCAL && state !== OPEN) || this.#expires[slot] === 0) continue;
      const limit = this.#answers[slot] > 1 ? activeIdleTimeoutMs : idleTimeoutMs;
      if (now - this.#lastActive[slot] < limit) continue;
      this.#endAssociation(now, slot, "idle");
      this.#outputs.push({ kind: "association-closed", association: slot, reason: "idle" });
    }
    this.#closeIdleContexts(now, CONTEXT_IDLE_MS);
    for (const lane of this.#lanes) lane.queue.expire(now);
  }

  #growAssociations(): void {
    const size = this.#state.length * 2;
    const from = this.#state.length;
    this.#state = grown(this.#state, new Uint8Array(size));
    this.#expires = grown(this.#expires, new Uint8Array(size));
    this.#wireId = grown(this.#wireId, new Int32Array(size));
    this.#lane = grown(this.#lane, new Int32Array(size));
    this.#lastContext = grown(this.#lastContext, new Int32Array(size)).fill(NONE, from);
    this.#answers = grown(this.#answers, new Int32Array(size));
    this.#lastActive = grown(this.#lastActive, new Float64Array(size));
    this.#reopenAt = grown(this.#reopenAt, new Float64Array(size));
  }
}

function isAddressOf(
  contexts: ContextTable,
  slot: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
): boolean {
  const address = contexts.address[slot]!;
  return address.length === length && sameBytes(address, 0, bytes, offset, length);
}

/** A capsule that cannot be read ends its tunnel. */
function malformed(tunnel: Tunnel): void {
  tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", `type ${tunnel.reader.type}`));
}
