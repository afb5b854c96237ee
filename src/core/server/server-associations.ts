import { isDomain } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import type { Datapath } from "../datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../datapath/typescript-datapath.ts";
import { grown } from "../grown.ts";
import type { Cryptography } from "../handshakes/credentials.ts";
import { randomSeed } from "../handshakes/credentials.ts";
import { IdleLists } from "../idle-lists.ts";
import { ContextTable } from "../session/context-table.ts";
import { Permissions } from "./permissions.ts";
import type { Connection, Session } from "./sessions/server-session.ts";

const NONE = -1;
/** Milliseconds within which uses of an association count as one in the order of idleness. */
const IDLE_GRAIN_MS = 1_000;
/** Milliseconds after which an idle sender's context may be evicted at the bound, for another sender. */
const CONTEXT_EVICTABLE_MS = 10_000;

/** Id of a context that represents an address of uncompressed datagrams. It is never on the wire. */
export const HIDDEN_ID = -1;

/** Stands for the latency class of an association whose client set none. */
export const NO_LATENCY = 255;

/** Which senders an association accepts (RFC 4787 §5). */
export type Filtering = "endpoint-independent" | "address-dependent" | "address-and-port-dependent";

export interface AssociationLimits {
  readonly filtering: Filtering;
  /** Whether clients may send to an IPv4 or IPv6 address. Called once per context. */
  readonly permits: (target: AddressBytes) => boolean;
  /** Bound for all sessions together. Past it, the session with most associations loses its idlest one. */
  readonly maxAssociations: number;
  /** Bound for one session. Past it, the idlest association with at most one answer is evicted. */
  readonly maxAssociationsPerSession: number;
  /**
   * Bound for the contexts of one session. At most half may be for senders that the client did not register. Past the bound the idlest
   * is evicted: a sender's if senders have more than a quarter of the bound, otherwise the client's.
   */
  readonly maxContextsPerSession: number;
  /** Default: {@link TYPESCRIPT_DATAPATH}. */
  readonly datapath?: Datapath | undefined;
}

/** The list in {@link ContextTable.idle} of the contexts that a session's client registered. */
const clientContexts = (session: Session): number => 2 * session.index;
/** The list of those that the server created for senders. */
export const senderContexts = (session: Session): number => 2 * session.index + 1;
/** The list in {@link ServerAssociations.idle} of a session's associations with at most one answer that have had no socket yet. */
const newAssociations = (session: Session): number => 3 * session.index;
/** The list of others with at most one answer. */
const quietAssociations = (session: Session): number => 3 * session.index + 1;
/** The list of those with more answers. */
const answeredAssociations = (session: Session): number => 3 * session.index + 2;
/** All three lists. */
export const associationLists = (session: Session): [number, number, number] => [
  newAssociations(session),
  quietAssociations(session),
  answeredAssociations(session),
];

/**
 * The associations of all sessions of a server, in reusable slots, with their contexts and permitted senders. Decides what opens, is
 * evicted and expires; {@link ServerFlows} informs the clients.
 */
export class ServerAssociations {
  count = 0;
  readonly contexts: ContextTable;
  readonly sessionOf: (Session | undefined)[] = [];
  /** The connection that carries an association's answers. */
  readonly connectionOf: (Connection | undefined)[] = [];
  /** The application's address, if the client sent it. */
  readonly source: (AddressBytes | undefined)[] = [];
  wireId = new Int32Array(64);
  /** Number of the latency class that the client set, or {@link NO_LATENCY}. */
  latency = new Uint8Array(64);
  /** DSCP of datagrams to targets (RFC 2474); 0 until the client sets another. */
  dscp = new Uint8Array(64);
  /** The reason for which datagrams of an association are dropped that the host still has when it ends. */
  readonly droppedAs: DropReason[] = [];
  readonly idle = new IdleLists(IDLE_GRAIN_MS);

  readonly #limits: AssociationLimits;
  readonly #datapath: Datapath;
  readonly #permissions: Permissions;
  /** By context slot: the permission that the context granted, or -1. */
  readonly #permissionOf: number[] = [];
  #answers = new Uint8Array(64);
  /** Slot of the context of the last answer, or -1. */
  #lastReply = new Int32Array(64).fill(NONE);
  readonly #free: number[] = [];

  constructor(limits: AssociationLimits, crypto: Cryptography) {
    this.#limits = limits;
    this.#datapath = limits.datapath ?? TYPESCRIPT_DATAPATH;
    this.contexts = new ContextTable(randomSeed(crypto));
    this.#permissions = new Permissions(randomSeed(crypto));
  }

  // Associations

  /** Creates an association, last used at `now`. The caller has made room. @returns its slot */
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
    this.droppedAs[slot] = "unknown_context";
    this.#lastReply[slot] = NONE;
    this.#answers[slot] = 0;
    this.idle.touch(now, slot, newAssociations(session));
    session.associationById.set(id, slot);
    this.count++;
    return slot;
  }

  /** Ends an association and its contexts. {@link handleReleased} frees the slot. */
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

  /** Frees the slot of an ended association, whose sockets the host has closed. */
  handleReleased(slot: number): void {
    this.#free.push(slot);
  }

  /**
   * Chooses the association to end before a session opens another one.
   *
   * @returns its slot; -1 if there is room; "refused" if the session may not open another one
   */
  victimFor(session: Session, sessions: Iterable<Session>): number | "refused" {
    const { maxAssociations, maxAssociationsPerSession } = this.#limits;
    if (session.associationById.size >= maxAssociationsPerSession) return this.#idlestQuiet(session);
    if (this.count < maxAssociations) return NONE;
    return this.victimAmong(session, sessions);
  }

  /**
   * As {@link victimFor}, if all sessions together have too many: the session with most loses one. If that is `session` itself, it loses
   * only an association with at most one answer.
   */
  victimAmong(session: Session, sessions: Iterable<Session>): number | "refused" {
    let richest = session;
    for (const other of sessions) {
      if (other.kind === "native" && other.associationById.size > richest.associationById.size)
        richest = other;
    }
    const quiet = this.#idlestQuiet(richest);
    return quiet !== "refused" || richest === session ? quiet : this.#idlestAnswered(richest);
  }

  /** As {@link victimAmong}, before `association` gets a socket, among those that have one: any other would end in vain. */
  victimForSocket(association: number, sessions: Iterable<Session>): number | "refused" {
    const session = this.sessionOf[association]!;
    const isFirst = this.idle.listOf(association) === newAssociations(session);
    let richest = session;
    let most = this.#withSockets(session) + (isFirst ? 1 : 0);
    for (const other of sessions) {
      const count = other.kind === "native" ? this.#withSockets(other) : 0;
      if (count <= most) continue;
      richest = other;
      most = count;
    }
    const quiet = this.idle.oldest(quietAssociations(richest));
    if (quiet !== NONE && richest.kind === "native") return quiet;
    return richest === session ? "refused" : this.#idlestAnswered(richest);
  }

  #withSockets(session: Session): number {
    return this.idle.size(quietAssociations(session)) + this.idle.size(answeredAssociations(session));
  }

  /** The idlest with at most one answer. */
  #idlestQuiet(session: Session): number | "refused" {
    const { idle } = this;
    const fresh = idle.oldest(newAssociations(session));
    const quiet = idle.oldest(quietAssociations(session));
    const isFresh = fresh !== NONE && (quiet === NONE || idle.lastUsed(fresh) <= idle.lastUsed(quiet));
    const slot = isFresh ? fresh : quiet;
    return slot === NONE || session.kind !== "native" ? "refused" : slot;
  }

  #idlestAnswered(session: Session): number | "refused" {
    const slot = this.idle.oldest(answeredAssociations(session));
    return slot === NONE ? "refused" : slot;
  }

  /** The association has a socket now. */
  handleSocketOpened(slot: number): void {
    const session = this.sessionOf[slot];
    if (session === undefined || this.idle.listOf(slot) !== newAssociations(session)) return;
    const list = this.#answers[slot] > 1 ? answeredAssociations(session) : quietAssociations(session);
    this.idle.touch(this.idle.lastUsed(slot), slot, list);
  }

  /** The client sent a datagram. */
  handleSent(now: number, slot: number): void {
    this.idle.refresh(now, slot);
  }

  /** Answers that an association has had, counted up to 2. */
  answersOf(slot: number): number {
    return this.#answers[slot];
  }

  /** Restores the count of answers that arrived in another process. It protects the association once that one's socket is here, too. */
  restoreAnswers(slot: number, count: number): void {
    this.#answers[slot] = Math.min(2, count);
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
    const list = this.#answers[slot] > 1 ? answeredAssociations(session) : this.idle.listOf(slot);
    this.idle.touch(now, slot, list);
  }

  // Contexts

  /** Chooses the context to end before the client registers another one. @returns its slot, or -1 if there is room */
  victimForClient(session: Session): number {
    const { maxContextsPerSession } = this.#limits;
    const { idle } = this.contexts;
    const [own, senders] = [clientContexts(session), senderContexts(session)];
    if (idle.size(own) + idle.size(senders) < maxContextsPerSession) return NONE;
    const hasSpare = idle.size(senders) > maxContextsPerSession / 4 || idle.size(own) === 0;
    return idle.oldest(hasSpare ? senders : own);
  }

  /**
   * As {@link victimForClient}, for a context that the server creates for a sender. A flood of senders evicts only contexts that have been
   * idle for {@link CONTEXT_EVICTABLE_MS}.
   *
   * @param isAnswer  whether the sender is the address of a name that the client has sent to
   * @returns a slot; -1 if there is room; "refused" if no context may be evicted
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

  /** Adds a context that the client registers, or the only target of a fixed tunnel. @returns its slot */
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

  /** Adds a context that the server creates. @param id  {@link HIDDEN_ID}, or the server's next id @returns its slot */
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

  /** Permits an association to receive from the address of its context. */
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

  /** Finds the context of a source, and records `count` answers for it. @returns its slot, or -1 */
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

  /** Records `count` answers from the address of a context. */
  noteReplies(now: number, context: number, count: number): void {
    this.contexts.idle.refresh(now, context);
    this.#handleAnswers(now, this.contexts.association[context], count);
  }

  /** Whether the filter and the target policy accept a sender that has no context. @returns its address, or undefined */
  hears(association: number, remote: Uint8Array, offset: number, length: number): AddressBytes | undefined {
    const { filtering, permits } = this.#limits;
    const address = copyAddress(remote, offset, length);
    const isHeard =
      filtering === "endpoint-independent" ||
      (filtering === "address-dependent" && this.#permissions.has(association, address)) ||
      this.contexts.findResolved(association, remote, offset, length) !== NONE;
    // The client may answer a sender, so a forged source must not bypass the policy.
    return isHeard && permits(address) ? address : undefined;
  }

  /** Finds the context of an address, or of a name that resolves to it. @returns its slot, or -1 */
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
