import { isDomain } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../../wire/socket-address.ts";
import type { Datapath } from "../datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../datapath/typescript-datapath.ts";
import { grown } from "../grown.ts";
import type { Cryptography } from "../handshakes/credentials.ts";
import { randomSeed } from "../handshakes/credentials.ts";
import { IdleLists } from "../idle-lists.ts";
import { ContextTable } from "../session/context-table.ts";
import { Permissions } from "./permissions.ts";
import type { Connection, Session } from "./server-session.ts";

const NONE = -1;
/** Uses of an association within this time count as one in the order of idleness. Milliseconds. */
const IDLE_GRAIN_MS = 1_000;
/** At the bound, a sender's context that has been idle this long may be evicted for another sender. */
const CONTEXT_EVICTABLE_MS = 10_000;

/** Id of a context that stands for an address of uncompressed datagrams; never on the wire. */
export const HIDDEN_ID = -1;

/** Of an association whose client gave it no latency class. */
export const NO_LATENCY = 255;

/** Which senders an association accepts, RFC 4787 §5. */
export type Filtering = "endpoint-independent" | "address-dependent" | "address-and-port-dependent";

export interface AssociationLimits {
  readonly filtering: Filtering;
  /** True if an IPv4 or IPv6 address may be sent to; called once for each context. */
  readonly permits: (target: AddressBytes) => boolean;
  /** Associations of all sessions. Past it, the session that has most loses its idlest one. */
  readonly maxAssociations: number;
  /** Associations of a session. Past it, the idlest with at most one answer is evicted. */
  readonly maxAssociationsPerSession: number;
  /**
   * Contexts of a session. Those that stand for senders, which the client did not register, take at most half. Past
   * the bound the idlest makes room: of the senders' while those have more than a quarter, or else of the client's.
   */
  readonly maxContextsPerSession: number;
  /** Default: in TypeScript. */
  readonly datapath?: Datapath | undefined;
}

/** List of {@link ContextTable.idle} with a session's contexts that the client registered, ... */
const clientContexts = (session: Session): number => 2 * session.index;
/** ... and those that the server created. */
export const senderContexts = (session: Session): number => 2 * session.index + 1;
/** List of {@link ServerAssociations.idle} with a session's associations with at most one answer, ... */
export const quietAssociations = (session: Session): number => 2 * session.index;
/** ... and with more. */
export const answeredAssociations = (session: Session): number => 2 * session.index + 1;

/**
 * Associations of all sessions of a server, in reusable slots, with their contexts and the senders that each accepts. It
 * decides; the server informs the clients.
 */
export class ServerAssociations {
  count = 0;
  readonly contexts: ContextTable;
  readonly sessionOf: (Session | undefined)[] = [];
  /** Where an association's answers go. */
  readonly connectionOf: (Connection | undefined)[] = [];
  /** The application's own address, if the client sent it. */
  readonly source: (AddressBytes | undefined)[] = [];
  wireId = new Int32Array(64);
  /** Number of the latency class that the client gave it, or {@link NO_LATENCY}. */
  latency = new Uint8Array(64);
  /** Of datagrams to targets, RFC 2474; 0 unless the client gave it another. */
  dscp = new Uint8Array(64);
  readonly idle = new IdleLists(IDLE_GRAIN_MS);

  readonly #limits: AssociationLimits;
  readonly #datapath: Datapath;
  readonly #permissions: Permissions;
  /** Permission that a context granted, by context slot. */
  readonly #permissionOf: number[] = [];
  #answers = new Uint8Array(64);
  /** Context of the last answer, or -1. */
  #lastReply = new Int32Array(64).fill(NONE);
  readonly #free: number[] = [];

  constructor(limits: AssociationLimits, crypto: Cryptography) {
    this.#limits = limits;
    this.#datapath = limits.datapath ?? TYPESCRIPT_DATAPATH;
    this.contexts = new ContextTable(randomSeed(crypto));
    this.#permissions = new Permissions(randomSeed(crypto));
  }

  // Associations

  /** Creates an association, last used at `now`; the caller has checked that there is room. */
  open(
    now: number,
    session: Session,
    connection: Connection | undefined,
    id: number,
    source: AddressBytes | undefined,
  ): number {
    const slot = this.#free.pop() ?? this.sessionOf.length;
    if (slot >= this.wireId.length) this.#grow();
    this.sessionOf[slot] = session;
    this.connectionOf[slot] = connection;
    this.source[slot] = source;
    this.wireId[slot] = id;
    this.latency[slot] = NO_LATENCY;
    this.dscp[slot] = 0;
    this.#lastReply[slot] = NONE;
    this.#answers[slot] = 0;
    this.idle.touch(now, slot, quietAssociations(session));
    session.associationById.set(id, slot);
    this.count++;
    return slot;
  }

  /** Ends an association and its contexts. The slot is free once {@link handleReleased} says so. */
  close(slot: number): void {
    const session = this.sessionOf[slot]!;
    const { contexts } = this;
    for (let context = contexts.first(slot); context !== NONE; context = contexts.first(slot)) {
      this.releaseContext(context);
    }
    session.associationById.delete(this.wireId[slot]);
    this.sessionOf[slot] = undefined;
    this.connectionOf[slot] = undefined;
    this.source[slot] = undefined;
    this.idle.remove(slot);
    this.count--;
  }

  /** The host has closed the sockets of an ended association, whose slot may be reused. */
  handleReleased(slot: number): void {
    this.#free.push(slot);
  }

  /**
   * Which association has to end before a session may open another: a slot, or -1 when none has to, or "refused" when
   * the session may not.
   */
  victimFor(session: Session, sessions: Iterable<Session>): number | "refused" {
    const { maxAssociations, maxAssociationsPerSession } = this.#limits;
    if (session.associationById.size >= maxAssociationsPerSession) return this.#idlestQuiet(session);
    if (this.count < maxAssociations) return NONE;
    return this.victimAmong(session, sessions);
  }

  /** The same when all sessions together have too many: the one that has most loses one, the session itself only a quiet one. */
  victimAmong(session: Session, sessions: Iterable<Session>): number | "refused" {
    let richest = session;
    for (const other of sessions) {
      if (other.kind === "native" && other.associationById.size > richest.associationById.size)
        richest = other;
    }
    const quiet = this.#idlestQuiet(richest);
    if (quiet !== "refused" || richest === session) return quiet;
    const answered = this.idle.oldest(answeredAssociations(richest));
    return answered === NONE ? "refused" : answered;
  }

  #idlestQuiet(session: Session): number | "refused" {
    const slot = this.idle.oldest(quietAssociations(session));
    return slot === NONE || session.kind !== "native" ? "refused" : slot;
  }

  /** The client sent a datagram. */
  handleSent(now: number, slot: number): void {
    this.idle.refresh(now, slot);
  }

  /** How many answers it has had, up to 2. */
  answersOf(slot: number): number {
    return this.#answers[slot];
  }

  /** Answers arrived before `now`, in which it was last used, in another process. */
  restoreAnswers(now: number, slot: number, count: number): void {
    this.#handleAnswers(now, slot, count);
  }

  /** Answers arrived. */
  #handleAnswers(now: number, slot: number, count: number): void {
    const before = this.#answers[slot];
    if (before > 1) {
      this.idle.refresh(now, slot);
      return;
    }
    this.#answers[slot] = Math.min(2, before + count);
    const session = this.sessionOf[slot]!;
    const list = this.#answers[slot] > 1 ? answeredAssociations(session) : quietAssociations(session);
    this.idle.touch(now, slot, list);
  }

  // Contexts

  /**
   * Which context has to end before the client may register another: a slot, or -1 when none has to.
   */
  victimForClient(session: Session): number {
    const { maxContextsPerSession } = this.#limits;
    const { idle } = this.contexts;
    const [own, senders] = [clientContexts(session), senderContexts(session)];
    if (idle.size(own) + idle.size(senders) < maxContextsPerSession) return NONE;
    const hasSpare = idle.size(senders) > maxContextsPerSession / 4 || idle.size(own) === 0;
    return idle.oldest(hasSpare ? senders : own);
  }

  /**
   * The same for a context that the server creates for a sender. A flood of senders can evict only contexts that have been
   * idle for a while.
   *
   * @param isAnswer  whether it answers for a name that the client sent to
   */
  victimForSender(now: number, session: Session, isAnswer: boolean): number | "refused" {
    const { maxContextsPerSession } = this.#limits;
    const { idle } = this.contexts;
    const [own, senders] = [clientContexts(session), senderContexts(session)];
    const isFull = idle.size(own) + idle.size(senders) >= maxContextsPerSession;
    if (!isFull && idle.size(senders) < maxContextsPerSession / 2) return NONE;
    if (isFull && session.kind === "native" && idle.size(senders) < maxContextsPerSession / 4) {
      return idle.oldest(own);
    }
    const slot = isAnswer ? idle.oldest(senders) : idle.expired(now, senders, CONTEXT_EVICTABLE_MS);
    return slot === NONE ? "refused" : slot;
  }

  /** A context that the client registers, or the one target of a fixed tunnel. */
  addClientContext(
    now: number,
    session: Session,
    association: number,
    id: number,
    address: AddressBytes,
    indexed: boolean,
  ): number {
    const event = isDomain(address) ? "resolve" : "learn";
    const list = clientContexts(session);
    const slot = this.contexts.allocate(now, event, association, id, address, indexed, list);
    session.contextById.set(id, slot);
    this.#permissionOf[slot] = isDomain(address) ? NONE : this.#permissions.grant(association, address);
    return slot;
  }

  /** A context that the server creates. @param id  {@link HIDDEN_ID}, or the server's next id */
  addSenderContext(
    now: number,
    session: Session,
    association: number,
    id: number,
    address: AddressBytes,
  ): number {
    const list = senderContexts(session);
    const slot = this.contexts.allocate(now, "learn", association, id, address, true, list);
    if (id !== HIDDEN_ID) session.contextById.set(id, slot);
    this.#permissionOf[slot] = NONE;
    return slot;
  }

  /** Permits the association to receive from the address of a context. */
  grant(slot: number): void {
    const association = this.contexts.association[slot];
    this.#permissionOf[slot] = this.#permissions.grant(association, this.contexts.target[slot]!);
  }

  releaseContext(slot: number): void {
    const association = this.contexts.association[slot];
    if (this.#permissionOf[slot] !== NONE) this.#permissions.revoke(this.#permissionOf[slot]);
    if (this.#lastReply[association] === slot) this.#lastReply[association] = NONE;
    const id = this.contexts.id[slot];
    const session = this.sessionOf[association];
    if (id !== HIDDEN_ID) session?.contextById.delete(id);
    session?.lanes?.unacked.delete(slot);
    this.contexts.release(slot);
  }

  #isTarget(slot: number, addresses: Uint8Array, offset: number, length: number): boolean {
    const target = this.contexts.target[slot]!;
    return target.length === length && this.#datapath.areSame(target, 0, addresses, offset, length);
  }

  /** The context of a source, for which `count` answers are recorded; -1 for none. */
  contextOfReply(
    now: number,
    association: number,
    addresses: Uint8Array,
    offset: number,
    length: number,
    count: number,
  ): number {
    let context = this.#lastReply[association];
    if (context === NONE || !this.#isTarget(context, addresses, offset, length)) {
      context = this.contexts.find(association, addresses, offset, length);
      if (context === NONE) return NONE;
      this.#lastReply[association] = context;
    }
    this.noteReplies(now, context, count);
    return context;
  }

  /** So many answers came from the address of a context. */
  noteReplies(now: number, context: number, count: number): void {
    this.contexts.idle.refresh(now, context);
    this.#handleAnswers(now, this.contexts.association[context], count);
  }

  /** True if the filter and the target policy accept a sender without a context. */
  hears(association: number, remote: Uint8Array, offset: number, length: number): AddressBytes | undefined {
    const { filtering, permits } = this.#limits;
    const address = copyAddress(remote, offset, length);
    const isHeard =
      filtering === "endpoint-independent" ||
      (filtering === "address-dependent" && this.#permissions.has(association, address)) ||
      this.contexts.findResolved(association, remote, offset, length) !== NONE;
    // Senders can be answered, so a forged source must not be a way around the policy.
    return isHeard && permits(address) ? address : undefined;
  }

  /** The context for an address, or for a name that was resolved to it; -1 for none. */
  contextFor(association: number, remote: AddressBytes): number {
    const slot = this.contexts.find(association, remote, 0, remote.length);
    return slot !== NONE ? slot : this.contexts.findResolved(association, remote, 0, remote.length);
  }

  #grow(): void {
    const size = this.wireId.length * 2;
    this.wireId = grown(this.wireId, new Int32Array(size));
    this.latency = grown(this.latency, new Uint8Array(size));
    this.dscp = grown(this.dscp, new Uint8Array(size));
    this.#lastReply = grown(this.#lastReply, new Int32Array(size));
    this.#answers = grown(this.#answers, new Uint8Array(size));
  }
}

export function isAddress(address: AddressBytes, other: Uint8Array, offset: number, length: number): boolean {
  return address.length === length && sameBytes(address, 0, other, offset, length);
}
