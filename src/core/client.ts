import type { CloseReason, UnreachableKind } from "../wire/capsule.ts";
import {
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
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
  readNumbers,
  unreachableKind,
} from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../wire/socket-address.ts";
import type { ExtensionResponse } from "../wire/upgrade.ts";
import { ClientAssociations, IDLE_ANSWERED, IDLE_CLOSING, IDLE_QUIET } from "./client-associations.ts";
import { ContextTable } from "./context-table.ts";
import { Counters } from "./counters.ts";
import { randomSeed } from "./credentials.ts";
import { DatagramBatch } from "./datagram-batch.ts";
import { Deadlines } from "./deadlines.ts";
import { ProtocolError } from "./errors.ts";
import type { LaneOptions, SessionCredentials, TicketHolder } from "./lane.ts";
import { Lane } from "./lane.ts";
import type { ReceivedDatagrams } from "./received-datagrams.ts";
import { SendPool, SendQueue } from "./send-queue.ts";
import {
  ASSOCIATION_CLOSING,
  ASSOCIATION_ENDED,
  ASSOCIATION_FREE,
  ASSOCIATION_LOCAL,
  ASSOCIATION_OPEN,
  CONTEXT_ACKED,
  CONTEXT_REFUSED,
  CONTEXT_UNACKED,
  LANE_CONNECTING,
  LANE_HANDSHAKE,
  LANE_HELD,
  LANE_WAITING,
  MAX_ID,
} from "./session-model.ts";
import { TokenBucket } from "./token-bucket.ts";
import type { CapsuleReceiver, Tunnel } from "./tunnel.ts";
import { UnknownContexts } from "./unknown-contexts.ts";

const NONE = -1;
/** A context that nothing used for so long is closed; above RFC 4787 REQ-5's two minutes. */
const CONTEXT_IDLE_MS = 300_000;
/** So long is a refusal of the server believed. */
const REFUSAL_MS = 30_000;
/** An association that the server refused is not asked for again sooner. */
const REOPEN_MS = 1_000;
/** How long an ASSOCIATION_CLOSE that was sent awaits its confirmation. */
const CLOSING_MS = 60_000;
/** Most ended associations that await the server's confirmation. */
const MAX_CLOSING = 8_192;
/** Outputs of that kind, whatever the server says and applications send. */
const UNREACHABLE_PER_SECOND = 200;
/** Where ids of a session are this near their end, a new session takes its place. */
const RENEW_SHARE = 7 / 8;
/** How long answers to what went by the former session are waited for, and then for its connections to end. */
const FORMER_MS = 2_000;
const FORMER_END_MS = 1_000;
const NEVER = Number.POSITIVE_INFINITY;

/** Lists of idle contexts: ours, the server's, and those that it refused. */
const OWN = 0;
const PEER = 1;
const REFUSED = 2;

/** Keys of deadlines: the machine's own, then two for each lane. */
const DEADLINE_ASSOCIATIONS = 0;
const DEADLINE_CONTEXTS = 1;
const DEADLINE_FORMER = 2;
const DEADLINE_FIRST_LANE = 4;
const deadlineOfLane = (index: number): number => DEADLINE_FIRST_LANE + 2 * index;
const deadlineOfQueue = (index: number): number => DEADLINE_FIRST_LANE + 2 * index + 1;

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
  /** Largest id of an association or context; lower in tests alone. */
  readonly maxId?: number;
}

export type ClientOutput =
  | { readonly kind: "connect"; readonly lane: number }
  | { readonly kind: "disconnect"; readonly lane: number; readonly error: ProtocolError | undefined }
  | { readonly kind: "session-up" }
  | { readonly kind: "session-resumed" }
  /** A new session has taken the place of one whose ids were nearly used up; associations leave from other ports now. */
  | { readonly kind: "session-renewed" }
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

/** A session that a new one took the place of: its lanes bring the last answers. */
interface FormerSession {
  readonly lanes: readonly Lane[];
  readonly contextById: ReadonlyMap<number, number>;
  /** Of each context's slot at that time: one that stands for something else by now is unknown. */
  readonly generation: Int32Array;
  isEnding: boolean;
}

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

  readonly #options: TunnelClientOptions;
  readonly #maxId: number;
  readonly #outputs: ClientOutput[] = [];
  readonly #deadlines = new Deadlines();
  readonly #associations = new ClientAssociations();
  /** By index: of this session, of the one that takes its place, and of the former one. */
  readonly #laneByIndex: Lane[] = [];
  #lanes: readonly Lane[];
  #pool: SendPool;
  #contextById = new Map<number, number>();
  #associationById = new Map<number, number>();
  #session: SessionCredentials | undefined;
  #sessionUp = false;
  #everUp = false;
  #closed = false;
  #nextAssociationId = 1;
  #nextContextId = 2;
  /** Lanes of the session that is to take the place of this one, whose ids are nearly used up. */
  #renewal: { readonly lanes: readonly Lane[]; readonly pool: SendPool } | undefined;
  #former: FormerSession | undefined;

  readonly #ticketHolder: TicketHolder = { ticket: undefined };
  readonly #unknown = new UnknownContexts();
  readonly #numbers: number[] = [0, 0, 0];
  readonly #unreachable = new TokenBucket(UNREACHABLE_PER_SECOND);
  /** Addresses of contexts in outputs that the host has not taken yet. */
  readonly #untold = new Set<AddressBytes>();
  readonly #receiver: CapsuleReceiver<Lane> = {
    handleDatagramCapsule: (now, lane, id, data, payload, end) =>
      this.#handleDatagramCapsule(now, lane, id, data, payload, end),
    handleControlCapsule: (now, lane) => this.#handleControlCapsule(now, lane),
  };

  constructor(options: TunnelClientOptions) {
    this.#options = options;
    this.#maxId = options.maxId ?? MAX_ID;
    this.contexts = new ContextTable(randomSeed(options.crypto));
    this.#pool = new SendPool();
    this.#lanes = this.#makeLanes(0, this.#pool);
  }

  // Getters

  /** True when at least one lane is up. */
  get isUp(): boolean {
    return this.#sessionUp;
  }

  get associationCount(): number {
    return this.#associations.count;
  }

  get lanesUp(): number {
    return this.#lanes.filter((lane) => lane.isUp).length;
  }

  /** The best lane's smoothed round-trip time in milliseconds. */
  get rttMs(): number | undefined {
    const times = this.#lanes.flatMap((lane) => (lane.isUp ? (lane.tunnel?.rttMs ?? []) : []));
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Id on the wire of an association, 0 before it has one. */
  wireId(association: number): number {
    const { state, wireId } = this.#associations;
    return state[association] === ASSOCIATION_OPEN ? wireId[association] : 0;
  }

  // Events

  /** Connects for the first time. */
  start(now: number): void {
    this.#connect(now, this.#lanes[0]);
  }

  /** The connection that a `connect` output asked for is there. */
  handleConnected(now: number, index: number): void {
    const lane = this.#laneByIndex[index];
    if (this.#closed || lane.state !== LANE_CONNECTING) return;
    lane.handleConnected(now, this.#credentialsFor(lane));
    this.#armLane(lane);
  }

  /** Connecting failed, or the connection has ended, for whatever reason. */
  handleDisconnected(now: number, index: number, error: Error | undefined): void {
    const lane = this.#laneByIndex[index];
    if (lane.state === LANE_WAITING || lane.state === LANE_HELD) return;
    this.#laneLost(now, lane, error);
  }

  /**
   * Bytes of a lane's connection, cut anywhere. Stops when {@link received} is full, or holds what cannot stand beside
   * the rest.
   *
   * @returns the offset up to which they were consumed: send on `received`, then call again with the rest
   */
  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const lane = this.#laneByIndex[index];
    this.received.count = 0;
    let at = offset;
    if (lane.state === LANE_HANDSHAKE) {
      at = lane.handleHead(now, this.#credentialsFor(lane), chunk, offset, end);
      const { answer } = lane;
      if (answer?.kind === "accepted") this.#laneUp(now, lane, answer.extension);
      else if (answer?.kind === "failed") this.#failLane(now, lane, answer.error);
      else if (answer?.kind === "reconnect") this.#failLaneSilently(now, lane);
    }
    if (!lane.isUp) return end;
    at = lane.tunnel!.readCapsules(now, lane, chunk, at, end, this.received, this.#receiver);
    if (!lane.isUp) return end;
    this.#checkTunnel(now, lane);
    return at;
  }

  /** A batch from {@link pollTransmit} is written. */
  handleTransmitted(index: number): void {
    this.#laneByIndex[index].tunnel?.handleTransmitted();
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      if (key === DEADLINE_ASSOCIATIONS) this.#expireAssociations(now);
      else if (key === DEADLINE_CONTEXTS) this.#expireContexts(now);
      else if (key === DEADLINE_FORMER) this.#endFormer(now);
      else {
        const lane = this.#laneByIndex[(key - DEADLINE_FIRST_LANE) >> 1];
        if (key === deadlineOfLane(lane.index)) this.#handleLaneTimeout(now, lane);
        else this.#expireQueue(now, lane);
      }
    }
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. */
  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): ClientOutput | undefined {
    const output = this.#outputs.shift();
    if (output?.kind === "association-closed") {
      const { association } = output;
      if (this.#associations.state[association] === ASSOCIATION_ENDED) this.#forget(association, "forget");
    }
    if (output?.kind === "unreachable") this.#untold.delete(output.remote);
    return output;
  }

  /** Bytes for a lane's connection, lent until {@link handleTransmitted}. */
  pollTransmit(now: number, index: number): Uint8Array | undefined {
    const lane = this.#laneByIndex[index];
    const bytes = lane.tunnel?.pollTransmit(now);
    if (!lane.queue.isEmpty) this.#deadlines.setEarlier(deadlineOfQueue(index), lane.queue.expiresAt);
    return bytes;
  }

  /** True when nothing waits to be written on a lane. */
  isDrained(index: number): boolean {
    return this.#laneByIndex[index].tunnel?.isDrained ?? true;
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
    const lane = this.#leastLoadedLane();
    lane.load++;
    const slot = this.#associations.open(now, source, expires, lane.index);
    if (expires) this.#armAssociations();
    return slot;
  }

  closeAssociation(now: number, association: number): void {
    this.#endAssociation(now, association, "done");
    if (this.#associations.state[association] === ASSOCIATION_ENDED) this.#forget(association, "forget");
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
    const lane = this.#laneOf(association);
    const id = this.contexts.id[context];
    if (lane.isUp) lane.tunnel!.writeDatagram(now, association, id, data, offset, length);
    else {
      lane.queue.push(now, association, id, data, offset, length);
      this.#deadlines.setEarlier(deadlineOfQueue(lane.index), lane.queue.expiresAt);
    }
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
    const lane = this.#laneOf(association);
    const id = this.contexts.id[context];
    if (lane.isUp) lane.tunnel!.writeDatagrams(now, association, id, received, first, end);
    else {
      lane.queue.pushAll(now, association, id, received, first, end);
      this.#deadlines.setEarlier(deadlineOfQueue(lane.index), lane.queue.expiresAt);
    }
  }

  /** Ends the session in an orderly way: drain the lanes, then close their connections. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const lane of this.#laneByIndex) {
      if (lane.isUp) lane.tunnel!.writeControl(encodeShutdown("done"));
      else if (lane.state === LANE_CONNECTING || lane.state === LANE_HANDSHAKE) {
        this.#outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
        lane.close();
      }
      lane.deadline = NEVER;
      this.#deadlines.clear(deadlineOfLane(lane.index));
    }
    this.#deadlines.clear(DEADLINE_ASSOCIATIONS);
    this.#deadlines.clear(DEADLINE_CONTEXTS);
    this.#deadlines.clear(DEADLINE_FORMER);
  }

  // Lanes

  #makeLanes(firstIndex: number, pool: SendPool): readonly Lane[] {
    const { lanes, queueBytes, ageBudgetMs } = this.#options;
    return Array.from({ length: lanes }, (_, i) => {
      const queue = new SendQueue(pool, this.counters, queueBytes, ageBudgetMs);
      const lane = new Lane(firstIndex + i, queue, this.counters, this.#ticketHolder, this.#options);
      this.#laneByIndex[lane.index] = lane;
      return lane;
    });
  }

  #laneOf(association: number): Lane {
    return this.#laneByIndex[this.#associations.lane[association]];
  }

  /** The session that a lane joins; undefined for a new one. */
  #credentialsFor(lane: Lane): SessionCredentials | undefined {
    return this.#renewal?.lanes.includes(lane) ? undefined : this.#session;
  }

  #armLane(lane: Lane): void {
    this.#deadlines.set(deadlineOfLane(lane.index), lane.nextTimeout());
  }

  #connect(now: number, lane: Lane): void {
    lane.connect(now);
    this.#armLane(lane);
    this.#outputs.push({ kind: "connect", lane: lane.index });
  }

  #handleLaneTimeout(now: number, lane: Lane): void {
    if (lane.isUp) {
      lane.tunnel!.handleTimeout(now);
      this.#checkTunnel(now, lane);
    } else if (lane.state === LANE_WAITING) this.#connect(now, lane);
    else this.#failLane(now, lane, new ProtocolError("ERR_HANDSHAKE_TIMEOUT", "connecting again"));
    this.#armLane(lane);
  }

  #expireQueue(now: number, lane: Lane): void {
    lane.queue.expire(now);
    this.#deadlines.set(deadlineOfQueue(lane.index), lane.queue.expiresAt);
  }

  #laneUp(now: number, lane: Lane, answer: ExtensionResponse): void {
    if (this.#renewal?.lanes.includes(lane)) {
      this.#switchSession(now, lane, answer);
      return;
    }
    const { session, resumed } = answer;
    const isOurs = this.#session !== undefined && sameBytes(session, 0, this.#session.id, 0, session.length);
    if (!isOurs && this.#sessionUp) {
      // The server took this lane for a session of its own while another lane holds the real one.
      lane.tunnel!.open(now, "extension");
      lane.tunnel!.writeControl(encodeShutdown("done"));
      const error = new ProtocolError("ERR_UPGRADE_REFUSED", "the lane did not join its session");
      this.#failLane(now, lane, error);
      return;
    }
    const isNew = !(resumed && isOurs);
    if (isNew) this.#beginSession(lane, answer);
    lane.open(now);
    const wasUp = this.#sessionUp;
    this.#sessionUp = true;
    if (wasUp) this.#rebalance(now, lane);
    else {
      this.#registerAll(now, lane);
      if (this.#everUp && !isNew) this.counters.resumed++;
      this.#outputs.push({ kind: isNew ? "session-up" : "session-resumed" });
      this.#everUp = true;
      this.#connectHeld(now);
    }
    lane.tunnel!.handleTimeout(now);
    this.#armLane(lane);
    this.#renewBeforeIdsRunOut(now);
  }

  #connectHeld(now: number): void {
    for (const other of this.#lanes) if (other.state === LANE_HELD) this.#connect(now, other);
  }

  /** A session that the server knows nothing of yet: even contexts keep their ids, odd ones were the old server's. */
  #beginSession(lane: Lane, answer: ExtensionResponse): void {
    this.#session = { id: answer.session, key: lane.deriveSessionKey(answer) };
    // In the new session these numbers may stand for other addresses.
    for (const { queue } of this.#lanes) queue.dropContexts(isServersId);
    for (const [id, slot] of [...this.#contextById]) {
      if (isServersId(id) || this.contexts.state[slot] === CONTEXT_REFUSED) this.#releaseContext(slot);
      else this.contexts.handle(slot, "new session");
    }
    for (let slot = 0; slot < this.#associations.used; slot++) {
      if (this.#associations.state[slot] === ASSOCIATION_CLOSING) this.#forget(slot, "new session");
    }
  }

  /** Pins every association to a lane and tells the server of it there. */
  #registerAll(now: number, lane: Lane): void {
    for (let slot = 0; slot < this.#associations.used; slot++) {
      if (this.#associations.state[slot] === ASSOCIATION_FREE) continue;
      this.#pin(slot, lane);
      this.#register(now, slot, lane);
    }
    this.#armAssociations();
  }

  #register(now: number, slot: number, lane: Lane): void {
    const { state, wireId, source, idle, isRegistered } = this.#associations;
    const tunnel = lane.tunnel!;
    if (state[slot] === ASSOCIATION_CLOSING) {
      tunnel.writeControl(encodeAssociationClose(wireId[slot], "done"));
      idle.touch(now, slot, IDLE_CLOSING);
    }
    if (state[slot] !== ASSOCIATION_OPEN) return;
    tunnel.writeControl(encodeAssociationOpen(wireId[slot], source[slot]));
    isRegistered[slot] = 1;
    for (let context = this.contexts.first(slot); context !== NONE; context = this.contexts.next(context)) {
      if (this.contexts.state[context] !== CONTEXT_UNACKED) continue;
      tunnel.writeControl(
        encodeContextAssign(this.contexts.id[context], wireId[slot], this.contexts.address[context]!),
      );
    }
  }

  #pin(slot: number, lane: Lane): void {
    const before = this.#laneOf(slot);
    if (before === lane) return;
    before.load--;
    lane.load++;
    this.#associations.lane[slot] = lane.index;
    lane.queue.takeFlow(slot);
  }

  /** Takes its fair share of associations over from the lanes that are up. */
  #rebalance(now: number, lane: Lane): void {
    const share = Math.floor(this.associationCount / this.lanesUp);
    for (let slot = 0; slot < this.#associations.used && lane.load < share; slot++) {
      if (this.#associations.state[slot] === ASSOCIATION_FREE || this.#laneOf(slot).load <= share) continue;
      this.#pin(slot, lane);
      this.#register(now, slot, lane);
    }
  }

  #leastLoadedLane(): Lane {
    let best = this.#lanes[0];
    for (const lane of this.#lanes) {
      const isBetter = lane.isUp === best.isUp ? lane.load < best.load : lane.isUp;
      if (isBetter) best = lane;
    }
    return best;
  }

  #failLane(now: number, lane: Lane, error: ProtocolError): void {
    this.#outputs.push({ kind: "disconnect", lane: lane.index, error });
    this.#laneLost(now, lane, error);
  }

  #laneLost(now: number, lane: Lane, error: Error | undefined): void {
    const wasUp = lane.isUp;
    const isFormer = this.#former?.lanes.includes(lane) ?? false;
    lane.handleLost(now, this.#closed || isFormer);
    this.#armLane(lane);
    if (!wasUp || isFormer) return;
    const heir = this.#leastLoadedLane();
    if (heir.isUp) {
      for (let slot = 0; slot < this.#associations.used; slot++) {
        if (this.#associations.state[slot] === ASSOCIATION_FREE || this.#laneOf(slot) !== lane) continue;
        const target = this.#leastLoadedLane();
        this.#pin(slot, target);
        this.#register(now, slot, target);
      }
      return;
    }
    this.#sessionUp = false;
    this.#giveUpRenewal();
    for (const other of this.#lanes) {
      // One lane finds out whether the session lives; the others wait for it.
      if (other === lane || other.state !== LANE_WAITING) continue;
      other.hold();
      this.#armLane(other);
    }
    if (!this.#closed) this.#outputs.push({ kind: "session-down", error });
  }

  #checkTunnel(now: number, lane: Lane): void {
    const error = lane.tunnel?.error;
    if (error !== undefined) this.#failLane(now, lane, error);
  }

  // A new session in place of one whose ids run out

  /** Connects the first lane of the session that is to take over, while this one goes on. */
  #renewBeforeIdsRunOut(now: number, serversId = 0): void {
    const highest = Math.max(this.#nextAssociationId, this.#nextContextId, serversId);
    if (highest < this.#maxId * RENEW_SHARE || !this.#sessionUp || this.#closed) return;
    if (this.#renewal !== undefined || this.#former !== undefined) return;
    const pool = new SendPool();
    const firstIndex = this.#lanes[0].index === 0 ? this.#lanes.length : 0;
    const lanes = this.#makeLanes(firstIndex, pool);
    this.#renewal = { lanes, pool };
    this.#connect(now, lanes[0]);
  }

  #giveUpRenewal(): void {
    for (const lane of this.#renewal?.lanes ?? []) {
      if (lane.state === LANE_CONNECTING || lane.state === LANE_HANDSHAKE) {
        this.#outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
        lane.close();
      }
      lane.deadline = NEVER;
      this.#armLane(lane);
    }
    this.#renewal = undefined;
  }

  /**
   * The new session is up: associations and contexts get new ids there. The former one sends what waits, brings what
   * still comes, and ends soon. Its contexts of the server's numbering stay behind.
   */
  #switchSession(now: number, lane: Lane, answer: ExtensionResponse): void {
    const { lanes, pool } = this.#renewal!;
    this.#renewal = undefined;
    this.#former = {
      lanes: this.#lanes,
      contextById: this.#contextById,
      generation: this.contexts.generation.slice(),
      isEnding: false,
    };
    for (const former of this.#lanes) this.#retire(former);
    this.#deadlines.set(DEADLINE_FORMER, now + FORMER_MS);
    this.#lanes = lanes;
    this.#pool = pool;
    this.#session = { id: answer.session, key: lane.deriveSessionKey(answer) };
    this.#giveNewIds();
    lane.open(now);
    this.#registerAll(now, lane);
    this.#outputs.push({ kind: "session-renewed" });
    this.#connectHeld(now);
    lane.tunnel!.handleTimeout(now);
    this.#armLane(lane);
  }

  /** A lane of a session that is being replaced: it is not connected again. */
  #retire(lane: Lane): void {
    if (lane.isUp) return;
    if (lane.state === LANE_CONNECTING || lane.state === LANE_HANDSHAKE) {
      this.#outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
      lane.close();
    }
    lane.deadline = NEVER;
    this.#armLane(lane);
  }

  #giveNewIds(): void {
    const associations = this.#associations;
    const before = this.#contextById;
    this.#contextById = new Map();
    this.#associationById = new Map();
    this.#nextAssociationId = 1;
    this.#nextContextId = 2;
    for (let slot = 0; slot < associations.used; slot++) {
      if (associations.state[slot] === ASSOCIATION_CLOSING) this.#forget(slot, "new session");
      if (associations.state[slot] !== ASSOCIATION_OPEN) continue;
      associations.wireId[slot] = this.#nextAssociationId++;
      this.#associationById.set(associations.wireId[slot], slot);
    }
    for (const [id, slot] of before) {
      if (isServersId(id) || this.contexts.state[slot] === CONTEXT_REFUSED) this.#releaseContext(slot);
      else {
        this.contexts.handle(slot, "new session");
        this.#numberContext(slot);
      }
    }
  }

  /** Has the former session end, or, where its server has not done so in time, its connections. */
  #endFormer(now: number): void {
    const former = this.#former!;
    if (former.isEnding) {
      for (const lane of former.lanes) if (lane.isUp) this.#failLaneSilently(now, lane);
      this.#former = undefined;
      this.#renewBeforeIdsRunOut(now);
      return;
    }
    former.isEnding = true;
    for (const lane of former.lanes) if (lane.isUp) lane.tunnel!.writeControl(encodeShutdown("done"));
    this.#deadlines.set(DEADLINE_FORMER, now + FORMER_END_MS);
  }

  #failLaneSilently(now: number, lane: Lane): void {
    this.#outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
    this.#laneLost(now, lane, undefined);
  }

  // Capsules

  #handleDatagramCapsule(
    now: number,
    lane: Lane,
    id: number,
    _data: Uint8Array,
    payload: number,
    end: number,
  ): void {
    const context = this.#contextOfDatagram(lane, id);
    if (context === undefined) {
      this.counters.drops.unknown_context++;
      if (id <= MAX_ID && !this.#isFormer(lane) && this.#unknown.shallAnswer(now, id)) {
        lane.tunnel!.writeControl(encodeCompressionClose(id));
      }
      return;
    }
    const association = this.contexts.association[context];
    this.contexts.idle.refresh(now, context);
    this.#associations.handleAnswer(now, association);
    this.counters.datagramsIn++;
    this.counters.bytesIn += end - payload;
    this.received.add(association, context, payload, end - payload);
  }

  #contextOfDatagram(lane: Lane, id: number): number | undefined {
    const former = this.#former;
    if (former === undefined || !former.lanes.includes(lane)) return this.#contextById.get(id);
    const slot = former.contextById.get(id);
    const isSame = slot !== undefined && former.generation[slot] === this.contexts.generation[slot];
    return isSame ? slot : undefined;
  }

  #isFormer(lane: Lane): boolean {
    return this.#former?.lanes.includes(lane) ?? false;
  }

  /** @returns false when the lane is gone */
  #handleControlCapsule(now: number, lane: Lane): boolean {
    const tunnel = lane.tunnel!;
    const { type, data, valueOffset, valueEnd } = tunnel.reader;
    const numbers = this.#numbers;
    const fields = CONTROL_FIELDS.get(type);
    const at = fields === undefined ? -1 : readNumbers(data, valueOffset, valueEnd, fields, numbers);
    const isWhole = type === CAPSULE_CONTEXT_ASSIGN ? at >= 0 : at === valueEnd;
    if (!isWhole) {
      // COMPRESSION_ASSIGN and ASSOCIATION_OPEN are the client's to send.
      malformed(tunnel);
      return true;
    }
    const [first, second, third] = numbers;
    if (type === CAPSULE_SHUTDOWN) {
      this.#failLane(now, lane, new ProtocolError("ERR_PEER_SHUTDOWN", closeReason(first)));
      return false;
    }
    // What the server says of a session that was replaced changes nothing any more.
    if (this.#isFormer(lane)) return true;
    switch (type) {
      case CAPSULE_COMPRESSION_ACK:
      case CAPSULE_COMPRESSION_CLOSE: {
        const slot = this.#contextById.get(first);
        if (slot !== undefined) this.#handleContextAnswer(now, slot, type === CAPSULE_COMPRESSION_ACK);
        break;
      }
      case CAPSULE_CONTEXT_ASSIGN: {
        const address = decodeWholeAddress(data, at, valueEnd);
        if (address === undefined || !isServersId(first) || first > this.#maxId) malformed(tunnel);
        else this.#handleContextAssign(now, lane, first, second, address);
        break;
      }
      case CAPSULE_ASSOCIATION_CLOSE:
        this.#handleAssociationClose(now, lane, first, closeReason(second));
        break;
      case CAPSULE_UNREACHABLE: {
        const slot = this.#contextById.get(first);
        const reason = unreachableKind(second);
        const mtu = reason === "too-big" ? Math.min(third, MAX_MTU) : 0;
        if (slot !== undefined) this.#reportUnreachable(now, slot, reason, mtu);
        break;
      }
    }
    return true;
  }

  #handleContextAnswer(now: number, slot: number, isAck: boolean): void {
    const { contexts } = this;
    const before = contexts.state[slot];
    if (isAck) {
      contexts.handle(slot, "ack");
      if (before === CONTEXT_REFUSED) contexts.idle.touch(now, slot, OWN);
      return;
    }
    if (before === CONTEXT_ACKED) {
      // The server forgot it, or never knew it: the next datagram registers the address anew.
      if (!isServersId(contexts.id[slot])) this.#associations.isDoubtful[contexts.association[slot]] = 1;
      this.#releaseContext(slot);
      return;
    }
    contexts.handle(slot, "close");
    contexts.idle.touch(now, slot, REFUSED);
    this.#armContexts();
    if (before === CONTEXT_UNACKED) this.#reportUnreachable(now, slot, "prohibited", 0);
  }

  #handleContextAssign(
    now: number,
    lane: Lane,
    id: number,
    associationId: number,
    address: AddressBytes,
  ): void {
    const tunnel = lane.tunnel!;
    const association = this.#associationById.get(associationId);
    if (association === undefined || this.#associations.state[association] !== ASSOCIATION_OPEN) {
      tunnel.writeControl(encodeCompressionClose(id));
      return;
    }
    if (!this.#contextById.has(id)) {
      this.#makeRoomForPeer();
      const twin = this.contexts.find(association, address, 0, address.length);
      const slot = this.contexts.allocate(now, "learn", association, id, address, twin === NONE, PEER);
      this.#contextById.set(id, slot);
      this.#armContexts();
    }
    tunnel.writeControl(encodeCompressionAck(id));
    this.#renewBeforeIdsRunOut(now, id);
  }

  #handleAssociationClose(now: number, lane: Lane, id: number, reason: CloseReason): void {
    const association = this.#associationById.get(id);
    if (association === undefined) return;
    const associations = this.#associations;
    if (associations.state[association] === ASSOCIATION_CLOSING) {
      this.#forget(association, "closed by server");
      return;
    }
    lane.tunnel!.writeControl(encodeAssociationClose(id, "done"));
    this.#associationById.delete(id);
    this.#pool.removeFlow(association);
    this.#releaseContexts(association);
    associations.handle(association, "closed by server");
    associations.isRegistered[association] = 0;
    associations.reopenAt[association] = reason === "limit" || reason === "failed" ? now + REOPEN_MS : now;
  }

  /** Reports a context's remote address, and not again before the host has heard of it. */
  #reportUnreachable(now: number, context: number, reason: UnreachableKind, mtu: number): void {
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

  // Contexts

  /** The context for `count` datagrams to an address, or -1 when they are dropped, and counted. */
  #usableContext(
    now: number,
    association: number,
    address: Uint8Array,
    addressOffset: number,
    addressLength: number,
    count: number,
  ): number {
    const { lastContext } = this.#associations;
    this.#associations.handleSent(now, association);
    let context = lastContext[association];
    if (context === NONE || !isAddressOf(this.contexts, context, address, addressOffset, addressLength)) {
      context = this.#contextFor(now, association, address, addressOffset, addressLength, count);
      if (context === NONE) return NONE;
      this.#associations.lastContext[association] = context;
    }
    if (this.contexts.state[context] === CONTEXT_REFUSED) {
      this.counters.drops.refused_target += count;
      this.#reportUnreachable(now, context, "prohibited", 0);
      return NONE;
    }
    this.contexts.idle.refresh(now, context);
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
    if (now < this.#associations.reopenAt[association]) {
      this.counters.drops.association_limit += count;
      return NONE;
    }
    const isOutOfIds = this.#nextContextId > this.#maxId || this.#nextAssociationId > this.#maxId;
    if (isOutOfIds) {
      this.counters.drops.context_limit += count;
      return NONE;
    }
    this.#makeRoomForOwn();
    this.#openAtServer(association);
    const address = copyAddress(bytes, offset, length);
    const slot = this.contexts.allocate(
      now,
      "register",
      association,
      this.#nextContextId,
      address,
      true,
      OWN,
    );
    this.#numberContext(slot);
    this.#armContexts();
    const lane = this.#laneOf(association);
    if (lane.isUp) {
      const wireId = this.#associations.wireId[association];
      lane.tunnel!.writeControl(encodeContextAssign(this.contexts.id[slot], wireId, address));
    }
    this.#renewBeforeIdsRunOut(now);
    return slot;
  }

  /** Opens an association at the server, unless the server surely knows it. */
  #openAtServer(association: number): void {
    const associations = this.#associations;
    const isNew = associations.state[association] === ASSOCIATION_LOCAL;
    if (isNew) {
      associations.handle(association, "register");
      associations.wireId[association] = this.#nextAssociationId++;
      this.#associationById.set(associations.wireId[association], association);
    }
    const lane = this.#laneOf(association);
    if ((isNew || associations.isDoubtful[association] === 1) && lane.isUp) {
      const { wireId, source, isRegistered } = associations;
      isRegistered[association] = 1;
      lane.tunnel!.writeControl(encodeAssociationOpen(wireId[association], source[association]));
    }
    associations.isDoubtful[association] = 0;
  }

  #numberContext(slot: number): void {
    this.contexts.id[slot] = this.#nextContextId;
    this.#contextById.set(this.#nextContextId, slot);
    this.#nextContextId += 2;
  }

  /** Room for a context of ours: of the idlest that the server made, while those have more than a quarter, or of ours. */
  #makeRoomForOwn(): void {
    const { idle, size } = this.contexts;
    const { maxContexts } = this.#options;
    if (size < maxContexts) return;
    let victim = idle.oldest(REFUSED);
    if (victim === NONE && idle.size(PEER) > maxContexts / 4) victim = idle.oldest(PEER);
    if (victim === NONE) victim = idle.oldest(OWN);
    this.#closeContext(victim === NONE ? idle.oldest(PEER) : victim);
  }

  /** Room for a context of the server's making; those may take a quarter, and what is free up to a half. */
  #makeRoomForPeer(): void {
    const { idle, size } = this.contexts;
    const { maxContexts } = this.#options;
    const peers = idle.size(PEER);
    if (size < maxContexts && peers < maxContexts / 2) return;
    let victim = size < maxContexts ? NONE : idle.oldest(REFUSED);
    if (victim === NONE && peers < maxContexts / 4) victim = idle.oldest(OWN);
    this.#closeContext(victim === NONE ? idle.oldest(PEER) : victim);
  }

  /** Releases a context, and says so to the server where it knows it. */
  #closeContext(slot: number): void {
    const lane = this.#laneOf(this.contexts.association[slot]);
    if (this.contexts.state[slot] !== CONTEXT_REFUSED && lane.isUp) {
      lane.tunnel!.writeControl(encodeCompressionClose(this.contexts.id[slot]));
    }
    this.#releaseContext(slot);
  }

  #releaseContext(slot: number): void {
    const { lastContext } = this.#associations;
    const association = this.contexts.association[slot];
    if (lastContext[association] === slot) lastContext[association] = NONE;
    this.#contextById.delete(this.contexts.id[slot]);
    this.contexts.release(slot);
  }

  #releaseContexts(association: number): void {
    const { contexts } = this;
    for (let slot = contexts.first(association); slot !== NONE; slot = contexts.first(association)) {
      this.#releaseContext(slot);
    }
  }

  #armContexts(): void {
    const { idle } = this.contexts;
    const idleAt = Math.min(idle.expiresAt(OWN, CONTEXT_IDLE_MS), idle.expiresAt(PEER, CONTEXT_IDLE_MS));
    this.#deadlines.setEarlier(DEADLINE_CONTEXTS, Math.min(idleAt, idle.expiresAt(REFUSED, REFUSAL_MS)));
  }

  #expireContexts(now: number): void {
    for (const list of [OWN, PEER, REFUSED]) {
      const limit = list === REFUSED ? REFUSAL_MS : CONTEXT_IDLE_MS;
      for (;;) {
        const slot = this.contexts.idle.expired(now, list, limit);
        if (slot === NONE) break;
        this.#closeContext(slot);
      }
    }
    this.#armContexts();
  }

  // Associations

  #endAssociation(now: number, association: number, reason: CloseReason): void {
    const associations = this.#associations;
    if (!associations.isLive(association)) return;
    const wireId = this.wireId(association);
    this.#pool.removeFlow(association);
    this.#releaseContexts(association);
    this.#withdrawUnreachable(association);
    associations.handleEnded(now, association);
    if (associations.state[association] !== ASSOCIATION_CLOSING) {
      this.#associationById.delete(wireId);
      return;
    }
    const { idle } = associations;
    if (idle.size(IDLE_CLOSING) > MAX_CLOSING) this.#forget(idle.oldest(IDLE_CLOSING), "expire");
    this.#armAssociations();
    const lane = this.#laneOf(association);
    if (lane.isUp) lane.tunnel!.writeControl(encodeAssociationClose(wireId, reason));
  }

  /** Its slot may stand for another association by the time that the host hears of it. */
  #withdrawUnreachable(association: number): void {
    for (let i = this.#outputs.length - 1; i >= 0; i--) {
      const output = this.#outputs[i];
      if (output.kind !== "unreachable" || output.association !== association) continue;
      this.#untold.delete(output.remote);
      this.#outputs.splice(i, 1);
    }
  }

  #forget(association: number, event: "forget" | "closed by server" | "new session" | "expire"): void {
    const associations = this.#associations;
    if (associations.state[association] === ASSOCIATION_CLOSING) {
      this.#associationById.delete(associations.wireId[association]);
    }
    this.#laneOf(association).load--;
    associations.handle(association, event);
    associations.release(association);
  }

  /** Ends the idlest association that may expire. */
  #evictAssociation(now: number): boolean {
    const { idlest } = this.#associations;
    if (idlest === NONE) return false;
    this.counters.refused.association_evicted++;
    this.#endAssociation(now, idlest, "evicted");
    this.#outputs.push({ kind: "association-closed", association: idlest, reason: "evicted" });
    return true;
  }

  #armAssociations(): void {
    const { idle } = this.#associations;
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#options;
    const quietAt = idle.expiresAt(IDLE_QUIET, idleTimeoutMs);
    const answeredAt = idle.expiresAt(IDLE_ANSWERED, activeIdleTimeoutMs);
    const closingAt = this.#sessionUp ? idle.expiresAt(IDLE_CLOSING, CLOSING_MS) : NEVER;
    this.#deadlines.setEarlier(DEADLINE_ASSOCIATIONS, Math.min(quietAt, answeredAt, closingAt));
  }

  #expireAssociations(now: number): void {
    const { idle } = this.#associations;
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#options;
    for (const list of [IDLE_QUIET, IDLE_ANSWERED]) {
      const limit = list === IDLE_QUIET ? idleTimeoutMs : activeIdleTimeoutMs;
      for (let slot = idle.expired(now, list, limit); slot !== NONE; slot = idle.expired(now, list, limit)) {
        this.#endAssociation(now, slot, "idle");
        this.#outputs.push({ kind: "association-closed", association: slot, reason: "idle" });
      }
    }
    // Without a lane the server cannot confirm, and may keep them for long.
    while (this.#sessionUp) {
      const slot = idle.expired(now, IDLE_CLOSING, CLOSING_MS);
      if (slot === NONE) break;
      this.#forget(slot, "expire");
    }
    this.#armAssociations();
  }
}

/** Numbers at the start of each capsule that a server may send. */
const CONTROL_FIELDS: ReadonlyMap<number, number> = new Map([
  [CAPSULE_COMPRESSION_ACK, 1],
  [CAPSULE_COMPRESSION_CLOSE, 1],
  [CAPSULE_CONTEXT_ASSIGN, 2],
  [CAPSULE_ASSOCIATION_CLOSE, 2],
  [CAPSULE_UNREACHABLE, 3],
  [CAPSULE_SHUTDOWN, 1],
]);

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

/** Whether a context's id is of the server's numbering. */
function isServersId(id: number): boolean {
  return id % 2 === 1;
}

/** A capsule that cannot be read ends its tunnel. */
function malformed(tunnel: Tunnel): void {
  tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", `type ${tunnel.reader.type}`));
}
