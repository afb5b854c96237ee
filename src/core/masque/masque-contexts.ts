import type { UnreachableKind } from "../../wire/capsule.ts";
import { encodeCompressionAssign, encodeCompressionClose, isDomain } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../../wire/socket-address.ts";
import { UnreachableReports } from "../client/unreachable-reports.ts";
import type { DropReason } from "../counters.ts";
import { CONTEXT_ACKED, CONTEXT_REFUSED, CONTEXT_UNACKED, MAX_ID } from "../session/session-model.ts";
import type { MasqueParts } from "./masque-parts.ts";
import { DEADLINE_CONTEXTS } from "./masque-parts.ts";
import type { MasqueRequest } from "./masque-request.ts";
import type { MasqueRequests } from "./masque-requests.ts";

const NONE = -1;
/** The only list of {@link ContextTable.idle} that is used. */
const OWN = 0;
/** How long the refusal of a target is remembered, and how long any other refusal. Milliseconds. */
const DENIED_MS = 30_000;
const REFUSED_MS = 1_000;
/** Milliseconds after which an idle context may be evicted for another one. */
const EVICTABLE_MS = 10_000;

/** The contexts of a client of standard MASQUE. Each is an address of an association, with the request that carries its datagrams. */
export class MasqueContexts {
  /** Why {@link usable} has returned -1. */
  dropped: DropReason = "context_limit";

  readonly #parts: MasqueParts;
  readonly #requests: MasqueRequests;
  /** By context slot. */
  readonly #requestOf: (MasqueRequest | undefined)[] = [];
  /** By context slot: when its refusal expires. */
  readonly #refusedUntil: number[] = [];
  readonly #unreachable: UnreachableReports;

  constructor(parts: MasqueParts, requests: MasqueRequests) {
    this.#parts = parts;
    this.#unreachable = new UnreachableReports(parts.counters, parts.outputs);
    this.#requests = requests;
  }

  /** The request of a context; undefined once the target was refused. */
  requestOf(slot: number): MasqueRequest | undefined {
    return this.#requestOf[slot];
  }

  /** Finds or adds the context for an address. @returns its slot, or -1 if datagrams are to be dropped with the reason {@link dropped} */
  usable(now: number, association: number, bytes: Uint8Array, offset: number, length: number): number {
    const { contexts, associations } = this.#parts;
    const { lastContext } = associations;
    // It could not be opened, or was evicted for another one before the host knew.
    if (!associations.isLive(association)) {
      this.dropped = "association_limit";
      return NONE;
    }
    associations.handleSent(now, association);
    let slot = lastContext[association];
    const last = slot === NONE ? undefined : contexts.address[slot];
    if (last?.length !== length || !sameBytes(last, 0, bytes, offset, length)) {
      slot = contexts.find(association, bytes, offset, length);
    }
    if (slot !== NONE && contexts.state[slot] === CONTEXT_REFUSED) {
      if (now < this.#refusedUntil[slot]) {
        this.dropped = "refused_target";
        return NONE;
      }
      this.#end(slot, "refused_target");
      slot = NONE;
    }
    if (slot === NONE) slot = this.#register(now, association, copyAddress(bytes, offset, length));
    if (slot === NONE) {
      this.dropped = "context_limit";
      return NONE;
    }
    lastContext[association] = slot;
    contexts.idle.refresh(now, slot);
    return slot;
  }

  /** Adds a context. @returns its slot, or -1 at a bound */
  #register(now: number, association: number, address: AddressBytes): number {
    const { contexts, latency } = this.#parts;
    const requests = this.#requests;
    const joinable = isDomain(address) ? undefined : requests.joinable[association];
    const joins = joinable?.mayBind === true && joinable.nextId <= MAX_ID;
    if (!this.#makeRoom(now, joins)) return NONE;
    // Making room may have ended the association's request.
    const request =
      joins && requests.joinable[association] === joinable
        ? joinable
        : requests.make(
            association,
            address,
            !isDomain(address) || requests.joinable[association] === undefined,
          );
    const id = request.slotById.size === 0 && request.target === address ? 0 : request.nextId;
    if (id > 0) request.nextId += 2;
    const slot = contexts.allocate(now, "register", association, id, address, true, OWN);
    this.#requestOf[slot] = request;
    request.slotById.set(id, slot);
    if (request.state === "open") this.#assign(request, slot);
    latency.handleUsed(slot, association, address, 0);
    this.#reportLatency(association);
    this.#arm();
    return slot;
  }

  #makeRoom(now: number, joins: boolean): boolean {
    const { contexts, options } = this.#parts;
    while (contexts.size >= options.maxContexts || (!joins && this.#requests.isFull)) {
      const idlest = contexts.idle.oldest(OWN);
      if (idlest === NONE || now - contexts.idle.lastUsed(idlest) < EVICTABLE_MS) return false;
      this.#release(idlest, "context_limit");
    }
    return true;
  }

  /** Registers a context of a bound request with the proxy. */
  #assign(request: MasqueRequest, slot: number): void {
    const { contexts } = this.#parts;
    this.#requests.writeControl(request, encodeCompressionAssign(contexts.id[slot], contexts.address[slot]!));
  }

  // Answers of the proxy

  /** Handles that the proxy has accepted a request. If it does not bind, each further target of the request gets its own. */
  handleOpened(request: MasqueRequest, isBound: boolean, slots: ReadonlyMap<number, number>): void {
    for (const [id, slot] of slots) {
      if (id === 0) this.#parts.contexts.handle(slot, "ack");
      else if (isBound) this.#assign(request, slot);
      else this.#moveToOwn(request, slot);
    }
  }

  #moveToOwn(request: MasqueRequest, slot: number): void {
    const { contexts } = this.#parts;
    request.slotById.delete(contexts.id[slot]);
    const own = this.#requests.make(request.association, contexts.address[slot]!, false);
    contexts.id[slot] = 0;
    own.slotById.set(0, slot);
    this.#requestOf[slot] = own;
  }

  /** Handles that the proxy has refused a request. @param isDenied  whether because of its target */
  handleRefused(now: number, request: MasqueRequest, isDenied: boolean): void {
    const slot = request.slotById.get(0);
    if (slot !== undefined)
      this.#refuse(now, slot, isDenied ? "prohibited" : "host", isDenied ? DENIED_MS : REFUSED_MS);
    // The refusal says nothing about targets that had joined the request.
    this.#parts.pool.removeFlow(request.index, "unknown_context");
    for (const joined of [...request.slotById.values()]) this.#end(joined, "unknown_context");
  }

  /** Handles that the proxy has closed or refused a context of a bound request. */
  handleClosed(now: number, request: MasqueRequest, slot: number): void {
    const state = this.#parts.contexts.state[slot];
    if (state === CONTEXT_ACKED) this.#end(slot, "unknown_context");
    else if (state === CONTEXT_UNACKED) this.#refuse(now, slot, "prohibited", DENIED_MS);
    else return;
    this.#requests.endIfUnused(request);
  }

  /** Handles that a request has lost its connection. Its contexts must be acknowledged again on the next one. */
  handleDisconnected(request: MasqueRequest): void {
    const { contexts } = this.#parts;
    for (const slot of request.slotById.values()) {
      if (contexts.state[slot] === CONTEXT_ACKED) contexts.handle(slot, "new session");
    }
  }

  /** Marks the target of a context as refused, so that datagrams to it are dropped for a while. */
  #refuse(now: number, slot: number, kind: UnreachableKind, forMs: number): void {
    const { contexts } = this.#parts;
    this.#leave(slot, "refused_target");
    contexts.handle(slot, "close");
    this.#refusedUntil[slot] = now + forMs;
    this.#unreachable.report(now, contexts.association[slot], contexts.address[slot]!, kind, 0);
  }

  /** The host polls an output about an unreachable remote address. @returns false if it has been withdrawn */
  takeReport(remote: AddressBytes): boolean {
    return this.#unreachable.take(remote);
  }

  // Ends

  /** Ends all contexts of an association. @param reason  for which waiting datagrams are dropped */
  releaseAll(association: number, reason: DropReason): void {
    const { contexts, pool } = this.#parts;
    for (let slot = contexts.first(association); slot !== NONE; slot = contexts.first(association)) {
      const request = this.#requestOf[slot];
      // All at once, because the datagrams of a single context are searched for.
      if (request !== undefined) pool.removeFlow(request.index, reason);
      this.#release(slot, reason);
    }
    this.#unreachable.withdraw(association);
  }

  /** Ends a context, and its request if that has no other. */
  #release(slot: number, reason: DropReason): void {
    const request = this.#requestOf[slot];
    const id = this.#parts.contexts.id[slot];
    this.#end(slot, reason);
    if (request === undefined) return;
    if (request.state === "open" && id > 0 && request.slotById.size > 0) {
      this.#requests.writeControl(request, encodeCompressionClose(id));
    }
    this.#requests.endIfUnused(request);
  }

  /** Removes a context from its request. Datagrams that wait for it are dropped while a tap can still see their remote address. */
  #leave(slot: number, reason: DropReason): void {
    const request = this.#requestOf[slot];
    if (request === undefined) return;
    const id = this.#parts.contexts.id[slot];
    this.#requests.dropContext(request, id, reason);
    request.slotById.delete(id);
    this.#requestOf[slot] = undefined;
  }

  #end(slot: number, reason: DropReason): void {
    const { contexts, associations, latency } = this.#parts;
    const association = contexts.association[slot];
    this.#leave(slot, reason);
    if (associations.lastContext[association] === slot) associations.lastContext[association] = NONE;
    latency.handleReleased(slot, association);
    contexts.release(slot);
    this.#reportLatency(association);
  }

  #reportLatency(association: number): void {
    const { latency, outputs } = this.#parts;
    if (latency.takeShown(association)) outputs.push({ kind: "latency", association });
  }

  #arm(): void {
    const { contexts, deadlines, options } = this.#parts;
    const at = contexts.idle.expiresAt(OWN, options.activeIdleTimeoutMs);
    deadlines.setEarlier(DEADLINE_CONTEXTS, at);
  }

  expire(now: number): void {
    const { contexts, options } = this.#parts;
    const { idle } = contexts;
    const next = () => idle.expired(now, OWN, options.activeIdleTimeoutMs);
    for (let slot = next(); slot !== NONE; slot = next()) {
      const request = this.#requestOf[slot];
      // Context 0 lasts as long as its request, because no capsule can end it alone.
      if (request !== undefined && contexts.id[slot] === 0 && request.slotById.size > 1)
        idle.touch(now, slot, OWN);
      else this.#release(slot, "unknown_context");
    }
    this.#arm();
  }
}
