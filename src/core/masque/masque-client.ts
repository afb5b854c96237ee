import type { UnreachableKind } from "../../wire/capsule.ts";
import {
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_ASSIGN,
  encodeCompressionAssign,
  encodeCompressionClose,
  isDomain,
  MAX_DATAGRAM_BYTES,
  readNumber,
  readNumbers,
} from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../../wire/socket-address.ts";
import type { AssociationClient } from "../client/association-client.ts";
import { ClientAssociations, IDLE_ANSWERED, IDLE_QUIET } from "../client/client-associations.ts";
import { ClientLatency } from "../client/client-latency.ts";
import type { ClientOutput } from "../client/client-parts.ts";
import type { DropReason } from "../counters.ts";
import { Counters } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import type { Cryptography } from "../handshakes/credentials.ts";
import { randomSeed } from "../handshakes/credentials.ts";
import { ContextTable } from "../session/context-table.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import type { LatencyRule } from "../session/latency-rules.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { SendPool, SendQueue } from "../session/send-queue.ts";
import {
  ASSOCIATION_ENDED,
  CONTEXT_ACKED,
  CONTEXT_REFUSED,
  CONTEXT_UNACKED,
  MAX_ID,
} from "../session/session-model.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import type { CapsuleReceiver } from "../session/tunnel.ts";
import { Tunnel } from "../session/tunnel.ts";
import type { AssociationReports } from "../status.ts";
import { clientAssociations } from "../status.ts";
import { recordDroppedRows } from "../tap.ts";
import { TokenBucket } from "../token-bucket.ts";
import { MasqueRefusal } from "./connect-udp-upgrade.ts";
import type { MasqueRequest } from "./masque-request.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
/** The list of idle contexts. */
const OWN = 0;
/** How long datagrams may wait for the answer to a request, where the age budget is less. */
const ANSWER_MS = 1_000;
/** Bytes that may wait for the answer to a request. */
const ANSWER_BYTES = 131_072;
const CONTROL_BYTES = 1_048_576;
/** Requests at the same time, and those of them that may be without an answer. */
const MAX_REQUESTS = 4_096;
const MAX_UNANSWERED = 64;
/** After a connection to the proxy failed: time before the next one, twice as long after each further failure. */
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;
/** How long a refusal of a target is remembered, and any other refusal. */
const DENIED_MS = 30_000;
const REFUSED_MS = 1_000;
/** A context that has been idle this long makes room for another. */
const EVICTABLE_MS = 10_000;
const UNREACHABLE_PER_SECOND = 200;
const STATUS_FORBIDDEN = 403;

const DEADLINE_ASSOCIATIONS = 0;
const DEADLINE_CONTEXTS = 1;
const DEADLINE_CONNECT = 2;
const DEADLINE_FIRST_QUEUE = 3;

/** All durations in milliseconds, sizes in bytes. */
export interface MasqueClientOptions {
  readonly crypto: Cryptography;
  readonly ageBudgetMs: number;
  /** Bound of what waits in each request. */
  readonly queueBytes: number;
  readonly maxAssociations: number;
  readonly maxContexts: number;
  /** For associations that may expire: idle time, ... */
  readonly idleTimeoutMs: number;
  /** ... and idle time after more than one answer, which is also that of a target. */
  readonly activeIdleTimeoutMs: number;
  readonly latency?: LatencyClass;
  readonly latencyRules?: readonly LatencyRule[];
}

/** What a `connect` output asks for. */
export interface MasqueTarget {
  readonly target: AddressBytes;
  readonly bind: boolean;
}

/**
 * A client of standard MASQUE (RFC 9298): each target of an association has a request of its own, or, where the proxy lets it
 * bind (draft-ietf-masque-connect-udp-listen), the association has one for all its targets but names. A lane is a request. There
 * is no session: what a lost connection carried is asked for anew by the next datagrams. Does no I/O, as {@link AssociationClient}.
 */
export class MasqueClient implements AssociationClient, CapsuleReceiver<MasqueRequest> {
  readonly counters = new Counters();
  readonly received = new DatagramBatch(1024);
  readonly contexts: ContextTable;
  readonly steadyLanes = 0;
  readonly rttMs = undefined;
  /** Its carrier is the only way. */
  readonly way = 0;
  isUp = false;
  lanesUp = 0;

  readonly #options: MasqueClientOptions;
  readonly #associations = new ClientAssociations();
  readonly #outputs: ClientOutput[] = [];
  readonly #deadlines = new Deadlines();
  readonly #latency: ClientLatency;
  readonly #pool = new SendPool();
  readonly #unreachable = new TokenBucket(UNREACHABLE_PER_SECOND);
  /** By lane. */
  readonly #requests: (MasqueRequest | undefined)[] = [];
  readonly #freeLanes: number[] = [];
  /** By association: the request that further targets may join. */
  readonly #joinable: (MasqueRequest | undefined)[] = [];
  /** By context slot. */
  readonly #requestOf: (MasqueRequest | undefined)[] = [];
  /** By context slot: until when a refusal holds. */
  readonly #refusedUntil: number[] = [];
  /** Requests without a connection that have datagrams, oldest first. */
  readonly #wanting = new Set<MasqueRequest>();
  readonly #ready: MasqueRequest[] = [];
  readonly #numbers = [0];
  #dropped: DropReason = "context_limit";
  #unanswered = 0;
  #failures = 0;
  #connectAfter = 0;
  /** What the proxy was found to do; undefined until it has answered. */
  #offersBind: boolean | undefined;
  #hasFailed = false;
  #isClosed = false;

  constructor(options: MasqueClientOptions) {
    this.#options = options;
    this.contexts = new ContextTable(randomSeed(options.crypto));
    const fallback = LATENCY_CLASSES.indexOf(options.latency ?? "balanced");
    this.#latency = new ClientLatency(options.latencyRules ?? [], fallback);
    this.#pool.owner = {
      associationOf: (flow) => this.#requests[flow]?.association ?? NONE,
      localOf: (flow) => this.#associations.source[this.#requests[flow]?.association ?? NONE],
      remoteOf: (flow, id) => this.contexts.address[this.#requests[flow]?.slotById.get(id) ?? NONE],
    };
  }

  get associationCount(): number {
    return this.#associations.count;
  }

  associationReports(now: number, first: number, slots: number): AssociationReports {
    return clientAssociations(now, this.#associations, this.contexts, first, slots);
  }

  get spread(): SpreadState {
    return spreadState([]);
  }

  sourceOf(association: number): AddressBytes | undefined {
    return this.#associations.source[association];
  }

  latencyOf(association: number): LatencyClass {
    return LATENCY_CLASSES[this.#latency.of(association)];
  }

  /** What the request of a lane is for; undefined when it is no longer wanted. */
  targetOf(lane: number): MasqueTarget | undefined {
    const request = this.#requests[lane];
    return request && { target: request.target, bind: request.asksBind };
  }

  // Events

  /** There is nothing to connect for before the first datagram. */
  start(): void {}

  handleConnected(now: number, lane: number, isBound = false): void {
    const request = this.#requests[lane];
    if (request?.state !== "connecting") return;
    this.#unanswered--;
    this.#failures = 0;
    request.state = "open";
    this.lanesUp++;
    const { queueBytes, ageBudgetMs } = this.#options;
    const queue = new SendQueue(this.#pool, this.counters, queueBytes, ageBudgetMs);
    // Without the extension there are no heartbeats.
    request.tunnel = new Tunnel(queue, this.counters, { heartbeatMs: NEVER, controlBytes: CONTROL_BYTES });
    request.tunnel.open(now, isBound ? "bind" : "datagram");
    if (request.asksBind) this.#offersBind = isBound;
    request.mayBind = isBound;
    if (!isBound && this.#joinable[request.association] === request)
      this.#joinable[request.association] = undefined;
    const waited = takeAll(request.waiting);
    const slots = new Map(request.slotById);
    for (const [id, slot] of slots) {
      if (id === 0) this.contexts.handle(slot, "ack");
      else if (isBound) this.#assign(request, slot);
      else this.#moveToOwn(request, slot);
    }
    for (const { id, data } of waited) {
      const slot = slots.get(id);
      if (slot !== undefined && this.#requestOf[slot] !== undefined)
        this.#send(now, slot, data, 0, data.length);
    }
    if (!this.isUp) {
      this.isUp = true;
      this.#hasFailed = false;
      this.#outputs.push({ kind: "session-up", isAnother: false });
    }
    this.#markReady(request);
    this.#connectWanting(now);
  }

  /**
   * @param error  a {@link MasqueRefusal} when the proxy has answered with one
   * @returns whether it was open: proxies end the request of a target that was silent for long, which is no failure
   */
  handleDisconnected(now: number, lane: number, error: Error | undefined): boolean {
    const request = this.#requests[lane];
    if (request === undefined || request.state === "idle") return false;
    const before = request.state;
    this.#disconnect(request);
    if (error instanceof MasqueRefusal) this.#handleRefusal(now, request, error);
    else if (before === "connecting") this.#handleFailure(now, error);
    if (this.#requests[lane] !== undefined) this.#dropIdle(now, request);
    this.#connectWanting(now);
    return before === "open";
  }

  handleStream(now: number, lane: number, chunk: Uint8Array, offset: number, end: number): number {
    const request = this.#requests[lane];
    this.received.count = 0;
    if (request?.state !== "open") return end;
    const tunnel = request.tunnel!;
    const at = tunnel.readCapsules(now, request, chunk, offset, end, this.received, this);
    if (tunnel.error !== undefined) {
      this.#outputs.push({ kind: "disconnect", lane, error: tunnel.error });
      this.handleDisconnected(now, lane, tunnel.error);
      return end;
    }
    return at;
  }

  handleDatagramCapsule(
    now: number,
    request: MasqueRequest,
    id: number,
    data: Uint8Array,
    payload: number,
    end: number,
  ): void {
    const { contexts, counters, received } = this;
    const last = received.lastContext;
    const isSame = last !== NONE && contexts.id[last] === id && this.#requestOf[last] === request;
    const slot = isSame ? last : request.slotById.get(id);
    if (slot === undefined) {
      counters.drops.unknown_context++;
      const { association } = request;
      const local = this.#associations.source[association];
      const length = end - payload;
      counters.tap?.record(true, "unknown_context", association, local, undefined, data, payload, length);
      return;
    }
    const association = contexts.association[slot];
    contexts.idle.refresh(now, slot);
    this.#associations.handleAnswers(now, association, 1);
    counters.datagramsIn++;
    counters.bytesIn += end - payload;
    received.add(association, slot, payload, end - payload);
  }

  handleControlCapsule(now: number, request: MasqueRequest): boolean {
    const tunnel = request.tunnel!;
    const { type, data, valueOffset, valueEnd } = tunnel.reader;
    if (type === CAPSULE_COMPRESSION_ASSIGN) {
      const id = readNumber(data, valueOffset, valueEnd);
      // We have no uncompressed context, so that a proxy has no senders to name.
      if (id < 1 || id % 2 === 0) tunnel.fail(new ProtocolError("ERR_CONTEXT_MALFORMED", "of the proxy"));
      else tunnel.writeControl(encodeCompressionClose(id));
      this.#markReady(request);
      return true;
    }
    if (readNumbers(data, valueOffset, valueEnd, 1, this.#numbers) !== valueEnd) {
      tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", `type ${type}`));
      return true;
    }
    const [id] = this.#numbers;
    const slot = id === 0 ? undefined : request.slotById.get(id);
    if (slot === undefined) return true;
    if (type === CAPSULE_COMPRESSION_ACK) this.contexts.handle(slot, "ack");
    else if (this.contexts.state[slot] === CONTEXT_ACKED) {
      this.#forgetContextOf(request, slot);
      this.#endIfUnused(request);
    } else if (this.contexts.state[slot] === CONTEXT_UNACKED) {
      this.#refuse(now, slot, "prohibited", DENIED_MS);
      this.#endIfUnused(request);
    }
    return this.#requests[request.index] === request;
  }

  takeReleased(): boolean {
    return false;
  }

  handleTransmitted(lane: number): boolean {
    const tunnel = this.#requests[lane]?.tunnel;
    // The batch of a connection before the present one is nobody's.
    if (tunnel?.isLent) tunnel.handleTransmitted();
    return true;
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      if (key === DEADLINE_ASSOCIATIONS) this.#expireAssociations(now);
      else if (key === DEADLINE_CONTEXTS) this.#expireContexts(now);
      else if (key === DEADLINE_CONNECT) this.#connectWanting(now);
      else this.#expireQueue(now, this.#requests[key - DEADLINE_FIRST_QUEUE]!);
    }
  }

  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): ClientOutput | undefined {
    const output = this.#outputs.shift();
    if (output?.kind === "association-closed") this.#forgetAssociation(output.association);
    return output;
  }

  pollTransmit(now: number, lane: number): Uint8Array | undefined {
    const request = this.#requests[lane];
    if (request?.state !== "open") return undefined;
    const bytes = request.tunnel!.pollTransmit(now);
    this.#armQueue(request);
    return bytes;
  }

  pollReady(): number {
    for (let request = this.#ready.pop(); request !== undefined; request = this.#ready.pop()) {
      request.isReady = false;
      if (this.#requests[request.index] === request && request.state === "open") return request.index;
    }
    return NONE;
  }

  // Verbs

  openAssociation(now: number, source: AddressBytes | undefined, expires: boolean): number {
    if (this.associationCount >= this.#options.maxAssociations && !this.#evictAssociation(now)) {
      this.counters.refused.association_limit++;
      return NONE;
    }
    const association = this.#associations.open(now, source, expires, 0);
    this.#latency.handleOpened(association);
    if (expires) this.#armAssociations();
    return association;
  }

  closeAssociation(now: number, association: number): void {
    this.#endAssociation(now, association);
    this.#forgetAssociation(association);
  }

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
    const slot =
      length > MAX_DATAGRAM_BYTES
        ? NONE
        : this.#usableContext(now, association, address, addressOffset, addressLength);
    if (slot !== NONE) {
      this.#send(now, slot, data, offset, length);
      return;
    }
    const reason = length > MAX_DATAGRAM_BYTES ? "too_long" : this.#dropped;
    const { drops, tap } = this.counters;
    drops[reason]++;
    if (tap === undefined) return;
    const remote = copyAddress(address, addressOffset, addressLength);
    const local = this.#associations.source[association];
    tap.record(false, reason, association, local, remote, data, offset, length);
  }

  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    const slot = this.#usableContext(now, association, address, 0, address.length);
    if (slot === NONE) {
      this.counters.drops[this.#dropped] += end - first;
      const local = this.#associations.source[association];
      recordDroppedRows(this.counters.tap, this.#dropped, association, local, address, received, first, end);
      return;
    }
    const request = this.#requestOf[slot]!;
    const id = this.contexts.id[slot];
    if (request.state === "open") {
      request.tunnel!.writeDatagrams(now, request.index, id, received, first, end);
      this.#markReady(request);
    } else {
      request.waiting.pushAll(now, request.index, id, received, first, end);
      this.#want(now, request);
    }
  }

  /** RFC 9298 has no place for it. */
  handleDscp(): void {}

  close(): void {
    this.#isClosed = true;
    this.#wanting.clear();
    for (const request of this.#requests) {
      if (request === undefined || request.state === "idle") continue;
      this.#outputs.push({ kind: "disconnect", lane: request.index, error: undefined });
      this.#disconnect(request);
    }
    for (const key of [DEADLINE_ASSOCIATIONS, DEADLINE_CONTEXTS, DEADLINE_CONNECT])
      this.#deadlines.clear(key);
  }

  // Datagrams and contexts

  #send(now: number, slot: number, data: Uint8Array, offset: number, length: number): void {
    const request = this.#requestOf[slot]!;
    const id = this.contexts.id[slot];
    if (request.state === "open") {
      request.tunnel!.writeDatagram(now, request.index, id, data, offset, length);
      this.#markReady(request);
    } else {
      request.waiting.push(now, request.index, id, data, offset, length);
      this.#want(now, request);
    }
  }

  /** The context for datagrams to an address, or -1 when they are to be dropped for {@link #dropped}. */
  #usableContext(
    now: number,
    association: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): number {
    const { contexts } = this;
    const { lastContext } = this.#associations;
    this.#associations.handleSent(now, association);
    let slot = lastContext[association];
    const last = slot === NONE ? undefined : contexts.address[slot];
    if (last?.length !== length || !sameBytes(last, 0, bytes, offset, length)) {
      slot = contexts.find(association, bytes, offset, length);
    }
    if (slot !== NONE && contexts.state[slot] === CONTEXT_REFUSED) {
      if (now < this.#refusedUntil[slot]) {
        this.#dropped = "refused_target";
        return NONE;
      }
      this.#forgetContext(slot);
      slot = NONE;
    }
    if (slot === NONE) slot = this.#register(now, association, copyAddress(bytes, offset, length));
    if (slot === NONE) {
      this.#dropped = "context_limit";
      return NONE;
    }
    lastContext[association] = slot;
    contexts.idle.refresh(now, slot);
    return slot;
  }

  /** @returns -1 at a bound */
  #register(now: number, association: number, address: AddressBytes): number {
    const joinable = isDomain(address) ? undefined : this.#joinable[association];
    const joins = joinable?.mayBind === true && joinable.nextId <= MAX_ID;
    if (!this.#makeRoom(now, joins)) return NONE;
    // Making room may have ended the request.
    const request =
      joins && this.#joinable[association] === joinable
        ? joinable
        : this.#makeRequest(
            association,
            address,
            !isDomain(address) || this.#joinable[association] === undefined,
          );
    const id = request.slotById.size === 0 && request.target === address ? 0 : request.nextId;
    if (id > 0) request.nextId += 2;
    const slot = this.contexts.allocate(now, "register", association, id, address, true, OWN);
    this.#requestOf[slot] = request;
    request.slotById.set(id, slot);
    if (request.state === "open") this.#assign(request, slot);
    this.#latency.handleUsed(slot, association, address, 0);
    this.#tellLatency(association);
    this.#armContexts();
    return slot;
  }

  #makeRequest(association: number, target: AddressBytes, mayAskBind: boolean): MasqueRequest {
    const asksBind = mayAskBind && this.#offersBind !== false;
    const request: MasqueRequest = {
      index: this.#freeLanes.pop() ?? this.#requests.length,
      association,
      target,
      asksBind,
      state: "idle",
      mayBind: asksBind,
      slotById: new Map(),
      nextId: 2,
      waiting: new SendQueue(
        this.#pool,
        this.counters,
        Math.min(ANSWER_BYTES, this.#options.queueBytes),
        Math.max(ANSWER_MS, this.#options.ageBudgetMs),
      ),
      tunnel: undefined,
      isReady: false,
    };
    this.#requests[request.index] = request;
    if (asksBind) this.#joinable[association] = request;
    return request;
  }

  /** Informs the proxy of a context of a bound request. */
  #assign(request: MasqueRequest, slot: number): void {
    request.tunnel!.writeControl(
      encodeCompressionAssign(this.contexts.id[slot], this.contexts.address[slot]!),
    );
    this.#markReady(request);
  }

  /** The proxy does not bind: a target that had joined the request gets its own. */
  #moveToOwn(request: MasqueRequest, slot: number): void {
    const { contexts } = this;
    request.slotById.delete(contexts.id[slot]);
    const own = this.#makeRequest(request.association, contexts.address[slot]!, false);
    contexts.id[slot] = 0;
    own.slotById.set(0, slot);
    this.#requestOf[slot] = own;
  }

  #makeRoom(now: number, joins: boolean): boolean {
    const isFull = () =>
      this.contexts.size >= this.#options.maxContexts ||
      (!joins && this.#requests.length - this.#freeLanes.length >= MAX_REQUESTS);
    while (isFull()) {
      const idlest = this.contexts.idle.oldest(OWN);
      if (idlest === NONE || now - this.contexts.idle.lastUsed(idlest) < EVICTABLE_MS) return false;
      this.#releaseContext(idlest);
    }
    return true;
  }

  /** Ends a context, and its request if it was the last. */
  #releaseContext(slot: number): void {
    const request = this.#requestOf[slot];
    const id = this.contexts.id[slot];
    this.#forgetContext(slot);
    if (request === undefined) return;
    request.slotById.delete(id);
    if (request.state === "open" && id > 0 && request.slotById.size > 0) {
      request.tunnel!.writeControl(encodeCompressionClose(id));
      this.#markReady(request);
    }
    this.#endIfUnused(request);
  }

  #forgetContext(slot: number): void {
    const association = this.contexts.association[slot];
    if (this.#associations.lastContext[association] === slot)
      this.#associations.lastContext[association] = NONE;
    this.#requestOf[slot] = undefined;
    this.#latency.handleReleased(slot, association);
    this.contexts.release(slot);
    this.#tellLatency(association);
  }

  /** The target of a context was refused: what it would carry is dropped for a while. */
  #refuse(now: number, slot: number, kind: UnreachableKind, forMs: number): void {
    const { contexts, counters } = this;
    this.#requestOf[slot]?.slotById.delete(contexts.id[slot]);
    this.#requestOf[slot] = undefined;
    contexts.handle(slot, "close");
    this.#refusedUntil[slot] = now + forMs;
    if (!this.#unreachable.take(now)) {
      counters.unreachable.limited++;
      return;
    }
    counters.unreachable[kind]++;
    const association = contexts.association[slot];
    this.#outputs.push({
      kind: "unreachable",
      association,
      remote: contexts.address[slot]!,
      reason: kind,
      mtu: 0,
    });
  }

  #tellLatency(association: number): void {
    if (this.#latency.takeShown(association)) this.#outputs.push({ kind: "latency", association });
  }

  // Requests

  /** Connects for a request that has datagrams, at once or when it is its turn. */
  #want(now: number, request: MasqueRequest): void {
    this.#armQueue(request);
    if (request.state !== "idle" || this.#isClosed) return;
    this.#wanting.add(request);
    this.#connectWanting(now);
  }

  #connectWanting(now: number): void {
    for (const request of this.#wanting) {
      if (now < this.#connectAfter) {
        this.#deadlines.set(DEADLINE_CONNECT, this.#connectAfter);
        return;
      }
      if (this.#unanswered >= MAX_UNANSWERED) return;
      this.#wanting.delete(request);
      // After a failure one request finds out whether the proxy is back.
      if (this.#failures > 0) this.#connectAfter = now + this.#retryMs;
      request.state = "connecting";
      this.#unanswered++;
      this.#outputs.push({ kind: "connect", lane: request.index, way: 0 });
    }
  }

  get #retryMs(): number {
    return Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (this.#failures - 1));
  }

  #handleFailure(now: number, error: Error | undefined): void {
    this.#failures = Math.min(this.#failures + 1, 16);
    this.#connectAfter = now + this.#retryMs;
    // Others may still be served.
    if (this.#hasFailed || this.lanesUp > 0) return;
    this.#hasFailed = true;
    this.isUp = false;
    this.#outputs.push({ kind: "session-down", error });
  }

  #handleRefusal(now: number, request: MasqueRequest, { httpStatus }: MasqueRefusal): void {
    // The proxy is there.
    this.#failures = 0;
    const isDenied = httpStatus === STATUS_FORBIDDEN;
    for (const slot of [...request.slotById.values()]) {
      const isTarget = this.contexts.id[slot] === 0;
      if (isTarget)
        this.#refuse(now, slot, isDenied ? "prohibited" : "host", isDenied ? DENIED_MS : REFUSED_MS);
      // They had only joined it.
      else this.#forgetContextOf(request, slot);
    }
    const { drops, tap } = this.counters;
    const { association, target } = request;
    const local = this.#associations.source[association];
    for (const { data } of takeAll(request.waiting)) {
      drops.refused_target++;
      tap?.record(false, "refused_target", association, local, target, data, 0, data.length);
    }
    this.#endIfUnused(request);
  }

  #forgetContextOf(request: MasqueRequest, slot: number): void {
    request.slotById.delete(this.contexts.id[slot]);
    this.#forgetContext(slot);
  }

  /** The connection of a request is gone. What its tunnel had queued waits for another. */
  #disconnect(request: MasqueRequest): void {
    if (request.state === "open") {
      this.lanesUp--;
      request.waiting.takeFlow(request.index);
    } else if (request.state === "connecting") this.#unanswered--;
    request.state = "idle";
    request.tunnel = undefined;
    request.mayBind = request.asksBind;
  }

  /** After a loss: asks again if something waits, and otherwise when there is a datagram. */
  #dropIdle(now: number, request: MasqueRequest): void {
    for (const slot of request.slotById.values()) {
      if (this.contexts.state[slot] === CONTEXT_ACKED) this.contexts.handle(slot, "new session");
    }
    if (!request.waiting.isEmpty) this.#want(now, request);
  }

  #endIfUnused(request: MasqueRequest): void {
    if (request.slotById.size > 0 || this.#requests[request.index] !== request) return;
    if (request.state !== "idle")
      this.#outputs.push({ kind: "disconnect", lane: request.index, error: undefined });
    this.#disconnect(request);
    this.#wanting.delete(request);
    this.#pool.removeFlow(request.index);
    this.#deadlines.clear(DEADLINE_FIRST_QUEUE + request.index);
    if (this.#joinable[request.association] === request) this.#joinable[request.association] = undefined;
    this.#requests[request.index] = undefined;
    this.#freeLanes.push(request.index);
  }

  #markReady(request: MasqueRequest): void {
    if (request.isReady) return;
    request.isReady = true;
    this.#ready.push(request);
  }

  #queueOf(request: MasqueRequest): SendQueue {
    return request.tunnel?.queue ?? request.waiting;
  }

  #armQueue(request: MasqueRequest): void {
    this.#deadlines.setEarlier(DEADLINE_FIRST_QUEUE + request.index, this.#queueOf(request).expiresAt);
  }

  #expireQueue(now: number, request: MasqueRequest): void {
    const queue = this.#queueOf(request);
    queue.expire(now);
    this.#deadlines.set(DEADLINE_FIRST_QUEUE + request.index, queue.expiresAt);
    if (queue.isEmpty) this.#wanting.delete(request);
  }

  // Associations

  #evictAssociation(now: number): boolean {
    const { idlest } = this.#associations;
    if (idlest === NONE) return false;
    this.counters.refused.association_evicted++;
    this.#endAssociation(now, idlest);
    this.#outputs.push({ kind: "association-closed", association: idlest, reason: "evicted" });
    return true;
  }

  #endAssociation(now: number, association: number): void {
    for (
      let slot = this.contexts.first(association);
      slot !== NONE;
      slot = this.contexts.first(association)
    ) {
      this.#releaseContext(slot);
    }
    this.#associations.handleEnded(now, association);
  }

  #forgetAssociation(association: number): void {
    if (this.#associations.state[association] !== ASSOCIATION_ENDED) return;
    this.#associations.handle(association, "forget");
    this.#associations.release(association);
  }

  #armAssociations(): void {
    const { idle } = this.#associations;
    const quietAt = idle.expiresAt(IDLE_QUIET, this.#options.idleTimeoutMs);
    const answeredAt = idle.expiresAt(IDLE_ANSWERED, this.#options.activeIdleTimeoutMs);
    this.#deadlines.setEarlier(DEADLINE_ASSOCIATIONS, Math.min(quietAt, answeredAt));
  }

  #expireAssociations(now: number): void {
    const { idle } = this.#associations;
    for (const list of [IDLE_QUIET, IDLE_ANSWERED]) {
      const limit = list === IDLE_QUIET ? this.#options.idleTimeoutMs : this.#options.activeIdleTimeoutMs;
      for (let slot = idle.expired(now, list, limit); slot !== NONE; slot = idle.expired(now, list, limit)) {
        this.#endAssociation(now, slot);
        this.#outputs.push({ kind: "association-closed", association: slot, reason: "idle" });
      }
    }
    this.#armAssociations();
  }

  #armContexts(): void {
    const at = this.contexts.idle.expiresAt(OWN, this.#options.activeIdleTimeoutMs);
    this.#deadlines.setEarlier(DEADLINE_CONTEXTS, at);
  }

  #expireContexts(now: number): void {
    const { idle } = this.contexts;
    const { activeIdleTimeoutMs } = this.#options;
    for (
      let slot = idle.expired(now, OWN, activeIdleTimeoutMs);
      slot !== NONE;
      slot = idle.expired(now, OWN, activeIdleTimeoutMs)
    ) {
      const request = this.#requestOf[slot];
      // The target of context 0 stays with its request, which needs no message to be forgotten.
      if (request !== undefined && this.contexts.id[slot] === 0 && request.slotById.size > 1)
        idle.touch(now, slot, OWN);
      else this.#releaseContext(slot);
    }
    this.#armContexts();
  }
}

/** Empties a queue. */
function takeAll(queue: SendQueue): { readonly id: number; readonly data: Uint8Array }[] {
  const all: { readonly id: number; readonly data: Uint8Array }[] = [];
  queue.drainTo((_time, _flow, id, data) => all.push({ id, data }));
  return all;
}
