import type { Dialect } from "../../wire/dialects/dialect.ts";
import { FRAME_DATAGRAM, FRAME_INCOMPLETE, MAX_UDP_BYTES } from "../../wire/dialects/dialect.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_DOMAIN, copyAddress, sameBytes } from "../../wire/socket-address.ts";
import type { AssociationClient } from "../client/association-client.ts";
import type { ClientOutput } from "../client/client-parts.ts";
import type { DropReason } from "../counters.ts";
import { Counters } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import { Socks5Client } from "../handshakes/socks5-client.ts";
import { IdleLists } from "../idle-lists.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { SendPool } from "../session/send-queue.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import { recordDroppedRows } from "../tap.ts";
import type { DialectLinkLimits } from "./dialect-link.ts";
import { DialectLink } from "./dialect-link.ts";
import { RemoteTable } from "./remote-table.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
const IDLE_GRAIN_MS = 1_000;
/** Lists of associations: those that expire with at most one answer, those with more, and those that do not expire. */
const UNANSWERED = 0;
const ANSWERED = 1;
const LASTING = 2;
/** Time before another attempt to connect, which doubles after each failure. */
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5_000;
/** A connection that lasts so long was no failure. */
const STABLE_MS = 5_000;
const DEADLINE_ASSOCIATIONS = 0;

/** All durations in milliseconds, sizes in bytes. */
export interface DialectClientOptions extends DialectLinkLimits {
  readonly dialect: Dialect;
  /** How many ways there are to the server. After a failure the next one is taken. */
  readonly ways: number;
  readonly handshakeTimeoutMs: number;
  /** Idle time after which an association that may expire ends, ... */
  readonly idleTimeoutMs: number;
  /** ... and after more than one answer. */
  readonly activeIdleTimeoutMs: number;
  /** Past it, the idlest that may expire ends, or a new one is refused. */
  readonly maxAssociations: number;
  /** Remote addresses in use. Past it, the idlest of the association is forgotten, or a datagram to a new one dropped. */
  readonly maxContexts: number;
  readonly latency: LatencyClass;
  /** A random 32-bit number. */
  readonly seed: number;
  readonly unixSeconds: () => number;
}

/** A connection: of one association, or of all where the dialect carries many flows. */
interface Lane {
  readonly index: number;
  state: "idle" | "connecting" | "handshake" | "open" | "closed";
  link: DialectLink;
  socks: Socks5Client | undefined;
  way: number;
  /** When it may connect, again. */
  retryAt: number;
  retryMs: number;
  openedAt: number;
  heardAt: number;
  usedAt: number;
  keepaliveAt: number;
  isReady: boolean;
}

/**
 * A client of another program's server, in its dialect. An association connects with its first datagram, and again with the
 * next one after its connection was lost. Has the surface of `TunnelClient`; its lanes are connections.
 */
export class DialectClient implements AssociationClient {
  readonly counters = new Counters();
  readonly received = new DatagramBatch(1024);
  /** A context is a remote address of an association. */
  readonly contexts: RemoteTable;
  /** See {@link AssociationClient}: {@link pollReady} has every connection with something to write. */
  readonly steadyLanes = 0;

  readonly #options: DialectClientOptions;
  readonly #isMany: boolean;
  readonly #outputs: ClientOutput[] = [];
  readonly #deadlines = new Deadlines();
  readonly #pool = new SendPool();
  readonly #lanes: (Lane | undefined)[] = [];
  readonly #isInUse: boolean[] = [];
  readonly #answers: number[] = [];
  readonly #freeAssociations: number[] = [];
  /** By association: the application's address, if it is known. */
  readonly #sources: (AddressBytes | undefined)[] = [];
  readonly #associations = new IdleLists(IDLE_GRAIN_MS);
  /** By association: the remote that was sent to last. */
  readonly #lastRemote: number[] = [];
  /** By context: no datagram of it has been sent on the current connection. */
  readonly #isNew: boolean[] = [];
  readonly #ready: Lane[] = [];
  #way = 0;
  #dropped: DropReason = "context_limit";
  #isClosed = false;

  constructor(options: DialectClientOptions) {
    this.#options = options;
    this.#isMany = options.dialect.flows > 1;
    this.contexts = new RemoteTable(options.seed);
    const associationOf = (flow: number) => (this.#isMany ? this.contexts.flow[flow] : flow);
    this.#pool.owner = {
      associationOf,
      localOf: (flow) => this.#sources[associationOf(flow)],
      remoteOf: (flow) => this.#remoteOf(flow),
    };
  }

  // Getters

  get isUp(): boolean {
    return this.lanesUp > 0;
  }

  get lanesUp(): number {
    return this.#lanes.filter((lane) => lane?.state === "open").length;
  }

  /** The way that the next connection takes. */
  get way(): number {
    return this.#way;
  }

  get associationCount(): number {
    return [UNANSWERED, ANSWERED, LASTING].reduce((sum, list) => sum + this.#associations.size(list), 0);
  }

  get rttMs(): undefined {
    return undefined;
  }

  get spread(): SpreadState {
    return spreadState([]);
  }

  sourceOf(association: number): AddressBytes | undefined {
    return this.#sources[association];
  }

  latencyOf(): LatencyClass {
    return this.#options.latency;
  }

  // Events

  /** Associations connect by themselves: there is nothing to wait for. */
  start(): void {
    this.#outputs.push({ kind: "session-up", isAnother: false });
  }

  handleConnected(now: number, index: number): void {
    const lane = this.#lanes[index];
    if (lane?.state !== "connecting") return;
    const { opening } = this.#options.dialect;
    if (opening.kind === "socks5") {
      lane.state = "handshake";
      lane.socks = new Socks5Client(opening.request, undefined, opening.command);
      lane.link.writeControl(lane.socks.start());
      this.#arm(lane);
    } else this.#open(now, lane);
    this.#markReady(lane);
  }

  /** @returns false: a dialect ends no connection by asking for it */
  handleDisconnected(now: number, index: number, error: Error | undefined): boolean {
    const lane = this.#lanes[index];
    if (lane === undefined || lane.state === "idle" || lane.state === "closed") return false;
    this.#lose(now, lane, error);
    return false;
  }

  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const { received } = this;
    received.count = 0;
    received.data = chunk;
    const lane = this.#lanes[index];
    if (lane === undefined) return end;
    let at = offset;
    lane.heardAt = now;
    if (lane.state === "handshake") at = this.#shakeHands(now, lane, chunk, offset, end);
    if (lane.state !== "open") return end;
    const { reader } = lane.link;
    while (!received.isFull) {
      const status = reader.next(chunk, at, end);
      if (status === FRAME_INCOMPLETE) return end;
      if (status < 0) {
        if (received.count > 0) return at;
        this.counters.refused.protocol_error++;
        this.#disconnect(now, lane, new ProtocolError("ERR_DIALECT_MALFORMED", this.#options.dialect.name));
        return end;
      }
      if (reader.frame.kind === FRAME_DATAGRAM) {
        if (!this.#deliver(now, lane)) return at;
        if (reader.data !== chunk && received.count > 0) {
          received.data = reader.data;
          return reader.offset;
        }
      }
      at = reader.offset;
    }
    return at;
  }

  #shakeHands(now: number, lane: Lane, chunk: Uint8Array, offset: number, end: number): number {
    let bytes = chunk.subarray(offset, end);
    for (;;) {
      const answer = lane.socks!.handleStream(bytes);
      if (answer === "need") return end;
      if (answer instanceof Uint8Array) {
        lane.link.writeControl(answer);
        this.#markReady(lane);
        // More may have come with the message that was answered.
        bytes = new Uint8Array(0);
        continue;
      }
      if (answer.kind === "failed") {
        this.#disconnect(now, lane, answer.error);
        return end;
      }
      this.#open(now, lane);
      return end - answer.surplus.length;
    }
  }

  #open(now: number, lane: Lane): void {
    const { dialect, unixSeconds } = this.#options;
    lane.socks = undefined;
    lane.state = "open";
    lane.openedAt = now;
    lane.heardAt = now;
    lane.usedAt = now;
    lane.link.open();
    const keepalive = lane.link.codec.keepalive(unixSeconds());
    if (keepalive !== undefined) lane.link.writeControl(keepalive);
    lane.keepaliveAt = now + (dialect.keepaliveMs ?? NEVER);
    this.#arm(lane);
    this.#markReady(lane);
  }

  /**
   * Gives the datagram that was just read to its association, or drops it.
   *
   * @returns false when a context has to end for it, for which {@link received} has to be sent on before
   */
  #deliver(now: number, lane: Lane): boolean {
    const { counters, received, contexts } = this;
    const { frame } = lane.link.reader;
    const length = frame.dataEnd - frame.dataOffset;
    if (length > MAX_UDP_BYTES) {
      this.#dropIncoming("too_long", lane);
      return true;
    }
    let slot = this.#contextOf(lane);
    if (
      slot === NONE &&
      !this.#isMany &&
      frame.addressLength > 0 &&
      frame.addresses[frame.addressOffset] !== ATYP_DOMAIN
    ) {
      if (contexts.size >= this.#options.maxContexts && received.count > 0) return false;
      slot = this.#addContext(
        now,
        lane.index,
        copyAddress(frame.addresses, frame.addressOffset, frame.addressLength),
      );
    }
    if (slot === NONE) {
      this.#dropIncoming("unknown_context", lane);
      return true;
    }
    const association = contexts.flow[slot];
    counters.datagramsIn++;
    counters.bytesIn += length;
    this.#answers[association]++;
    if (this.#answers[association] === 2 && this.#associations.listOf(association) === UNANSWERED) {
      this.#associations.touch(now, association, ANSWERED);
      this.#armAssociations();
    }
    this.#touch(now, lane, association, slot);
    received.add(association, slot, frame.dataOffset, length);
    return true;
  }

  #dropIncoming(reason: DropReason, lane: Lane): void {
    const { drops, tap } = this.counters;
    const { frame, data } = lane.link.reader;
    drops[reason]++;
    const length = frame.dataEnd - frame.dataOffset;
    tap?.record(true, reason, NONE, undefined, undefined, data, frame.dataOffset, length);
  }

  /** For a tap: the remote address of what a flow has queued, if it has only one. */
  #remoteOf(flow: number): AddressBytes | undefined {
    if (this.#isMany) return this.contexts.address[flow];
    const [context, ...more] = this.contexts.of(flow);
    return context === undefined || more.length > 0 ? undefined : this.contexts.address[context];
  }

  /** The context of the frame that was just read, or -1. */
  #contextOf(lane: Lane): number {
    const { contexts } = this;
    const { frame } = lane.link.reader;
    const { addresses, addressOffset, addressLength } = frame;
    if (addressLength === 0) return this.#lastRemote[lane.index] ?? NONE;
    if (!this.#isMany) return contexts.find(lane.index, addresses, addressOffset, addressLength);
    const address = contexts.address[frame.flow];
    const isSame =
      address?.length === addressLength && sameBytes(address, 0, addresses, addressOffset, addressLength);
    return isSame ? frame.flow : NONE;
  }

  takeReleased(): boolean {
    return false;
  }

  handleTransmitted(index: number): boolean {
    this.#lanes[index]?.link.handleTransmitted();
    return true;
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      if (key === DEADLINE_ASSOCIATIONS) {
        this.#expireAssociations(now);
        continue;
      }
      const lane = this.#lanes[(key - 1) >> 1];
      if (lane === undefined || lane.state === "closed") continue;
      if (key === deadlineOfQueue(lane.index)) {
        lane.link.queue.expire(now);
        this.#deadlines.set(key, lane.link.queue.expiresAt);
      } else this.#handleLaneTimeout(now, lane);
    }
  }

  #handleLaneTimeout(now: number, lane: Lane): void {
    const { handshakeTimeoutMs, dialect, unixSeconds } = this.#options;
    if (lane.state === "idle") {
      if (!lane.link.queue.isEmpty) this.#connect(now, lane);
      return;
    }
    if (lane.state === "handshake") {
      if (now < lane.heardAt + handshakeTimeoutMs) this.#arm(lane);
      else this.#disconnect(now, lane, new ProtocolError("ERR_HANDSHAKE_TIMEOUT", dialect.name));
      return;
    }
    if (lane.state !== "open") return;
    if (now >= this.#silentAt(lane)) {
      const isLost = dialect.keepaliveMs !== undefined;
      const error = isLost ? new ProtocolError("ERR_HEARTBEAT_LOST", dialect.name) : undefined;
      this.#disconnect(now, lane, error);
      return;
    }
    if (now >= lane.keepaliveAt) {
      lane.keepaliveAt = now + dialect.keepaliveMs!;
      const keepalive = lane.link.codec.keepalive(unixSeconds());
      if (keepalive !== undefined && lane.link.writeControl(keepalive)) this.#markReady(lane);
    }
    this.#arm(lane);
  }

  #arm(lane: Lane): void {
    const at =
      lane.state === "idle"
        ? lane.link.queue.isEmpty
          ? NEVER
          : lane.retryAt
        : lane.state === "handshake"
          ? lane.heardAt + this.#options.handshakeTimeoutMs
          : lane.state === "open"
            ? Math.min(lane.keepaliveAt, this.#silentAt(lane))
            : NEVER;
    this.#deadlines.set(deadlineOf(lane.index), at);
  }

  /** When an open connection ends if nothing more comes. */
  #silentAt({ heardAt, usedAt }: Lane): number {
    const { keepaliveMs, clientIdleMs } = this.#options.dialect;
    return (keepaliveMs === undefined ? usedAt : heardAt) + (clientIdleMs ?? NEVER);
  }

  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): ClientOutput | undefined {
    const output = this.#outputs.shift();
    // The slot may be reused only now that the relay forgets it.
    if (output?.kind === "association-closed") this.#freeAssociations.push(output.association);
    return output;
  }

  pollTransmit(now: number, index: number): Uint8Array | undefined {
    const lane = this.#lanes[index];
    if (lane === undefined || (lane.state !== "open" && lane.state !== "handshake")) return undefined;
    return lane.link.pollTransmit(now);
  }

  pollReady(): number {
    const lane = this.#ready.pop();
    if (lane === undefined) return NONE;
    lane.isReady = false;
    return lane.index;
  }

  // Verbs

  openAssociation(now: number, source: AddressBytes | undefined, expires: boolean): number {
    if (this.associationCount >= this.#options.maxAssociations) {
      const lists = this.#associations;
      const idlest = lists.size(UNANSWERED) > 0 ? lists.oldest(UNANSWERED) : lists.oldest(ANSWERED);
      if (idlest === NONE) {
        this.counters.refused.association_limit++;
        return NONE;
      }
      this.counters.refused.association_evicted++;
      this.#expireAssociation(now, idlest);
    }
    const association = this.#freeAssociations.pop() ?? this.#isInUse.length;
    this.#isInUse[association] = true;
    this.#sources[association] = source;
    this.#answers[association] = 0;
    this.#lastRemote[association] = NONE;
    this.#associations.touch(now, association, expires ? UNANSWERED : LASTING);
    if (expires) this.#armAssociations();
    return association;
  }

  closeAssociation(now: number, association: number): void {
    if (!this.#isInUse[association]) return;
    this.#endAssociation(now, association);
    this.#freeAssociations.push(association);
  }

  handleDscp(): void {}

  handleDatagram(
    now: number,
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    address: Uint8Array,
    addressOffset = 0,
    addressLength = address.length,
  ): void {
    const context = this.#usableContext(now, association, address, addressOffset, addressLength);
    if (context === NONE) {
      this.counters.drops[this.#dropped]++;
      const remote = copyAddress(address, addressOffset, addressLength);
      const local = this.#sources[association];
      this.counters.tap?.record(false, this.#dropped, association, local, remote, data, offset, length);
      return;
    }
    const lane = this.#laneFor(now, association);
    this.#write(now, lane, association, context, data, offset, length);
    this.#afterWrites(now, lane);
  }

  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    const context = this.#usableContext(now, association, address, 0, address.length);
    if (context === NONE) {
      this.counters.drops[this.#dropped] += end - first;
      const local = this.#sources[association];
      recordDroppedRows(this.counters.tap, this.#dropped, association, local, address, received, first, end);
      return;
    }
    const lane = this.#laneFor(now, association);
    for (let row = first; row < end; row++) {
      this.#write(now, lane, association, context, received.data, received.offset(row), received.length(row));
    }
    this.#afterWrites(now, lane);
  }

  #write(
    now: number,
    lane: Lane,
    association: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const isNew = this.#isNew[context];
    this.#isNew[context] = false;
    const address = this.contexts.address[context]!;
    // Flows are served in turns; one that shares its connection with no other needs none.
    const flow = this.#isMany ? context : association;
    lane.link.writeDatagram(now, flow, context, isNew, address, data, offset, length);
  }

  #afterWrites(now: number, lane: Lane): void {
    if (lane.state === "idle" && !lane.link.queue.isEmpty) {
      if (now >= lane.retryAt) this.#connect(now, lane);
      else this.#arm(lane);
    }
    this.#deadlines.setEarlier(deadlineOfQueue(lane.index), lane.link.queue.expiresAt);
    this.#markReady(lane);
  }

  /** Closes all connections that are not open; the host writes what is left on the others, and closes them. */
  close(): void {
    this.#isClosed = true;
    for (const lane of this.#lanes) {
      if (lane === undefined) continue;
      if (lane.state === "connecting" || lane.state === "handshake") {
        this.#outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
        lane.state = "closed";
      }
      this.#deadlines.clear(deadlineOf(lane.index));
      this.#deadlines.clear(deadlineOfQueue(lane.index));
    }
  }

  // Contexts

  /** The context for a remote address, opened if need be; -1 when the datagrams are to be dropped for {@link #dropped}. */
  #usableContext(
    now: number,
    association: number,
    address: Uint8Array,
    offset: number,
    length: number,
  ): number {
    const { contexts } = this;
    let context = contexts.find(association, address, offset, length);
    if (context === NONE) {
      if (address[offset] === ATYP_DOMAIN && this.#options.dialect.addresses === "ip") {
        this.#dropped = "unresolved";
        return NONE;
      }
      context = this.#addContext(now, association, copyAddress(address, offset, length));
      if (context === NONE) {
        this.#dropped = "context_limit";
        return NONE;
      }
    }
    this.#lastRemote[association] = context;
    this.#touch(now, this.#lanes[this.#laneIndex(association)], association, context);
    return context;
  }

  #addContext(now: number, association: number, address: AddressBytes): number {
    const { contexts } = this;
    const { dialect, maxContexts } = this.#options;
    // Their numbers are those on the wire where there are many.
    const limit = this.#isMany ? Math.min(dialect.flows, maxContexts) : maxContexts;
    const list = this.#isMany ? 0 : association;
    if (contexts.size >= limit) {
      const idlest = contexts.idle.oldest(list);
      if (idlest === NONE) return NONE;
      this.#removeContext(idlest);
    }
    const context = contexts.add(now, association, address, list);
    this.#isNew[context] = true;
    return context;
  }

  #removeContext(context: number): void {
    const association = this.contexts.flow[context];
    if (this.#lastRemote[association] === context) this.#lastRemote[association] = NONE;
    if (this.#isMany) this.#pool.removeFlow(context);
    this.contexts.remove(context);
  }

  // Associations

  #expireAssociations(now: number): void {
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#options;
    for (const [list, idleMs] of [
      [UNANSWERED, idleTimeoutMs],
      [ANSWERED, activeIdleTimeoutMs],
    ]) {
      const next = () => this.#associations.expired(now, list, idleMs);
      for (let association = next(); association !== NONE; association = next())
        this.#expireAssociation(now, association);
    }
    this.#armAssociations();
  }

  #armAssociations(): void {
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#options;
    const at = Math.min(
      this.#associations.expiresAt(UNANSWERED, idleTimeoutMs),
      this.#associations.expiresAt(ANSWERED, activeIdleTimeoutMs),
    );
    this.#deadlines.set(DEADLINE_ASSOCIATIONS, at);
  }

  #expireAssociation(now: number, association: number): void {
    this.#endAssociation(now, association);
    this.#outputs.push({ kind: "association-closed", association, reason: "idle" });
  }

  #endAssociation(now: number, association: number): void {
    this.#isInUse[association] = false;
    this.#associations.remove(association);
    for (const context of [...this.contexts.of(association)]) this.#removeContext(context);
    const lane = this.#isMany ? undefined : this.#lanes[association];
    if (lane === undefined) return;
    this.#disconnect(now, lane, undefined);
    lane.retryAt = 0;
    lane.retryMs = FIRST_RETRY_MS;
  }

  #touch(now: number, lane: Lane | undefined, association: number, context: number): void {
    if (lane !== undefined) lane.usedAt = now;
    this.#associations.refresh(now, association);
    this.contexts.idle.refresh(now, context);
  }

  // Lanes

  #laneIndex(association: number): number {
    return this.#isMany ? 0 : association;
  }

  #laneFor(now: number, association: number): Lane {
    const index = this.#laneIndex(association);
    const known = this.#lanes[index];
    if (known !== undefined) return known;
    const lane: Lane = {
      index,
      state: "idle",
      link: this.#makeLink(),
      socks: undefined,
      way: 0,
      retryAt: 0,
      retryMs: FIRST_RETRY_MS,
      openedAt: 0,
      heardAt: now,
      usedAt: now,
      keepaliveAt: NEVER,
      isReady: false,
    };
    this.#lanes[index] = lane;
    return lane;
  }

  #makeLink(): DialectLink {
    const { dialect } = this.#options;
    const link = new DialectLink(this.#pool, this.counters, this.#options);
    const request = dialect.opening.kind === "socks5" ? dialect.opening.request : undefined;
    link.use(dialect.codec("client", request));
    return link;
  }

  #connect(now: number, lane: Lane): void {
    if (this.#isClosed) return;
    lane.state = "connecting";
    lane.heardAt = now;
    lane.way = this.#way;
    this.#deadlines.clear(deadlineOf(lane.index));
    this.#outputs.push({ kind: "connect", lane: lane.index, way: lane.way });
  }

  #disconnect(now: number, lane: Lane, error: ProtocolError | undefined): void {
    if (lane.state !== "idle" && lane.state !== "closed") {
      this.#outputs.push({ kind: "disconnect", lane: lane.index, error });
    }
    this.#lose(now, lane, error);
  }

  /** The connection is gone, and what waited for it. */
  #lose(now: number, lane: Lane, error: Error | undefined): void {
    const wasStable = lane.state === "open" && now - lane.openedAt >= STABLE_MS;
    lane.link.queue.clear();
    lane.link = this.#makeLink();
    lane.state = "idle";
    lane.socks = undefined;
    lane.keepaliveAt = NEVER;
    if (error !== undefined && !wasStable) this.#way = (lane.way + 1) % this.#options.ways;
    if (wasStable || error === undefined) lane.retryMs = FIRST_RETRY_MS;
    lane.retryAt = now + (error === undefined ? 0 : lane.retryMs);
    if (error !== undefined) lane.retryMs = Math.min(MAX_RETRY_MS, 2 * lane.retryMs);
    this.#deadlines.clear(deadlineOf(lane.index));
    this.#deadlines.clear(deadlineOfQueue(lane.index));
    // The next connection knows none of the numbers.
    if (this.#isMany) this.#isNew.fill(true);
  }

  #markReady(lane: Lane): void {
    if (lane.isReady || (lane.state !== "open" && lane.state !== "handshake")) return;
    lane.isReady = true;
    this.#ready.push(lane);
  }
}

function deadlineOf(lane: number): number {
  return 1 + 2 * lane;
}

function deadlineOfQueue(lane: number): number {
  return 2 + 2 * lane;
}
