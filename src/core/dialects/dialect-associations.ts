import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_DOMAIN, copyAddress } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import { IdleLists } from "../idle-lists.ts";
import type { DialectClientParts } from "./dialect-client-parts.ts";
import { RemoteTable } from "./remote-table.ts";

const NONE = -1;
/** Milliseconds within which uses count as one in the order of idleness. */
const IDLE_GRAIN_MS = 1_000;
/** Lists of associations: those with at most one answer, those with more, and those that do not expire. */
const UNANSWERED = 0;
const ANSWERED = 1;
const LASTING = 2;

/** The associations of a client in a dialect, and their contexts: the remote addresses of each. */
export class DialectAssociations {
  readonly contexts: RemoteTable;
  /** Why {@link usableContext} has returned -1. */
  dropped: DropReason = "context_limit";
  /** By association: the application's address, if it is known. */
  readonly source: (AddressBytes | undefined)[] = [];

  readonly #parts: DialectClientParts;
  readonly #isLive: boolean[] = [];
  readonly #answers: number[] = [];
  readonly #free: number[] = [];
  readonly #idle = new IdleLists(IDLE_GRAIN_MS);
  /** By association: the context that was sent to last, or -1. */
  readonly #lastRemote: number[] = [];
  /** By context: whether no datagram has been sent to it on the current connection. */
  readonly #isNew: boolean[] = [];

  constructor(parts: DialectClientParts) {
    this.#parts = parts;
    this.contexts = new RemoteTable(parts.options.seed);
  }

  get count(): number {
    return [UNANSWERED, ANSWERED, LASTING].reduce((sum, list) => sum + this.#idle.size(list), 0);
  }

  /** The association to end at the bound, or -1 if there is none. */
  get idlest(): number {
    return this.#idle.size(UNANSWERED) > 0 ? this.#idle.oldest(UNANSWERED) : this.#idle.oldest(ANSWERED);
  }

  isLive(association: number): boolean {
    return this.#isLive[association] === true;
  }

  /** Opens an association. @param expires  whether it ends when idle @returns its number */
  open(now: number, source: AddressBytes | undefined, expires: boolean): number {
    const association = this.#free.pop() ?? this.#isLive.length;
    this.#isLive[association] = true;
    this.source[association] = source;
    this.#answers[association] = 0;
    this.#lastRemote[association] = NONE;
    this.#idle.touch(now, association, expires ? UNANSWERED : LASTING);
    return association;
  }

  /** @param reason  for which waiting datagrams are dropped */
  end(association: number, reason: DropReason): void {
    if (!this.#parts.isMany) this.#parts.pool.removeFlow(association, reason);
    this.#isLive[association] = false;
    this.#idle.remove(association);
    for (const context of [...this.contexts.of(association)]) this.#removeContext(context, reason);
  }

  /** Frees the number of an association that has ended. */
  release(association: number): void {
    this.#free.push(association);
  }

  /** An association that has expired, or -1. */
  expired(now: number): number {
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#parts.options;
    const unanswered = this.#idle.expired(now, UNANSWERED, idleTimeoutMs);
    return unanswered === NONE ? this.#idle.expired(now, ANSWERED, activeIdleTimeoutMs) : unanswered;
  }

  /** When the next association expires; Infinity for never. */
  get expiresAt(): number {
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#parts.options;
    return Math.min(
      this.#idle.expiresAt(UNANSWERED, idleTimeoutMs),
      this.#idle.expiresAt(ANSWERED, activeIdleTimeoutMs),
    );
  }

  /** Records a datagram that has arrived from a context. @returns whether {@link expiresAt} may be earlier now */
  handleAnswer(now: number, association: number, context: number): boolean {
    this.#answers[association]++;
    const isSecond = this.#answers[association] === 2 && this.#idle.listOf(association) === UNANSWERED;
    if (isSecond) this.#idle.touch(now, association, ANSWERED);
    this.#touch(now, association, context);
    return isSecond;
  }

  #touch(now: number, association: number, context: number): void {
    this.#idle.refresh(now, association);
    this.contexts.idle.refresh(now, context);
  }

  // Contexts

  /** Finds or adds the context for a remote address. @returns it, or -1 if the datagrams are to be dropped with the reason {@link dropped} */
  usableContext(
    now: number,
    association: number,
    address: Uint8Array,
    offset: number,
    length: number,
  ): number {
    // It could not be opened, or was evicted for another one before the host knew.
    if (!this.isLive(association)) {
      this.dropped = "association_limit";
      return NONE;
    }
    let context = this.contexts.find(association, address, offset, length);
    if (context === NONE) {
      if (address[offset] === ATYP_DOMAIN && this.#parts.options.dialect.addresses === "ip") {
        this.dropped = "unresolved";
        return NONE;
      }
      context = this.addContext(now, association, copyAddress(address, offset, length));
      if (context === NONE) {
        this.dropped = "context_limit";
        return NONE;
      }
    }
    this.#lastRemote[association] = context;
    this.#touch(now, association, context);
    return context;
  }

  /** Adds a context. @returns it, or -1 if there is no room */
  addContext(now: number, association: number, address: AddressBytes): number {
    const { contexts } = this;
    const { options, isMany } = this.#parts;
    const { dialect, maxContexts } = options;
    // With many flows on a connection, the context is also the number on the wire.
    const limit = isMany ? Math.min(dialect.flows, maxContexts) : maxContexts;
    const list = isMany ? 0 : association;
    if (contexts.size >= limit) {
      const idlest = contexts.idle.oldest(list);
      if (idlest === NONE) return NONE;
      this.#removeContext(idlest, "context_limit");
    }
    const context = contexts.add(now, association, address, list);
    this.#isNew[context] = true;
    return context;
  }

  #removeContext(context: number, reason: DropReason): void {
    const association = this.contexts.flow[context];
    if (this.#lastRemote[association] === context) this.#lastRemote[association] = NONE;
    if (this.#parts.isMany) this.#parts.pool.removeFlow(context, reason);
    this.contexts.remove(context);
  }

  /** The context that an association has sent to last, or -1. */
  lastContext(association: number): number {
    return this.#lastRemote[association] ?? NONE;
  }

  /** Whether the next datagram of a context is its first on the current connection. Later calls return false. */
  takeIsNew(context: number): boolean {
    const isNew = this.#isNew[context];
    this.#isNew[context] = false;
    return isNew;
  }

  /** Marks all contexts as new, because the connection that they share is lost. */
  renewContexts(): void {
    this.#isNew.fill(true);
  }
}
