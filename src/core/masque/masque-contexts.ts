import type { UnreachableKind } from "../../wire/capsule.ts";
import { encodeCompressionAssign, encodeCompressionClose, isDomain } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import { CONTEXT_ACKED, CONTEXT_REFUSED, CONTEXT_UNACKED, MAX_ID } from "../session/session-model.ts";
import { TokenBucket } from "../token-bucket.ts";
import type { MasqueParts } from "./masque-parts.ts";
import { DEADLINE_CONTEXTS } from "./masque-parts.ts";
import type { MasqueRequest } from "./masque-request.ts";
import type { MasqueRequests } from "./masque-requests.ts";

const NONE = -1;
/** The list of idle contexts. */
const OWN = 0;
/** How long a refusal of a target is remembered, and any other refusal. */
const DENIED_MS = 30_000;
const REFUSED_MS = 1_000;
/** A context that has been idle this long makes room for another one. */
const EVICTABLE_MS = 10_000;
const UNREACHABLE_PER_SECOND = 200;

/** The contexts of a client of standard MASQUE: an address of an association, and the request that carries its datagrams. */
export class MasqueContexts {
  /** Why {@link usable} has found no context. */
  dropped: DropReason = "context_limit";

  readonly #parts: MasqueParts;
  readonly #requests: MasqueRequests;
  /** By context slot. */
  readonly #requestOf: (MasqueRequest | undefined)[] = [];
  /** By context slot: until when a refusal holds. */
  readonly #refusedUntil: number[] = [];
  readonly #unreachable = new TokenBucket(UNREACHABLE_PER_SECOND);

  constructor(parts: MasqueParts, requests: MasqueRequests) {
    this.#parts = parts;
    this.#requests = requests;
  }

  /** The request of a context; undefined once it was refused. */
  requestOf(slot: number): MasqueRequest | undefined {
    return this.#requestOf[slot];
  }

  /** The context for datagrams to an address, or -1 if they are to be dropped for {@link dropped}. */
  usable(now: number, association: number, bytes: Uint8Array, offset: number, length: number): number {
    const { contexts, associations } = this.#parts;
    const { lastContext } = associations;
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
      this.#forget(slot);
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

  /** @returns -1 at a bound */
  #register(now: number, association: number, address: AddressBytes): number {
    const { contexts, latency } = this.#parts;
    const requests = this.#requests;
    const joinable = isDomain(address) ? undefined : requests.joinable[association];
    const joins = joinable?.mayBind === true && joinable.nextId <= MAX_ID;
    if (!this.#makeRoom(now, joins)) return NONE;
    // Making room may have ended the request.
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
      this.#release(idlest);
    }
    return true;
  }

  /** Registers a context of a bound request at the proxy. */
  #assign(request: MasqueRequest, slot: number): void {
    const { contexts } = this.#parts;
    this.#requests.writeControl(request, encodeCompressionAssign(contexts.id[slot], contexts.address[slot]!));
  }

  // Answers of the proxy

  /** The proxy has accepted a request; without binding, each target that had joined it gets a request of its own. */
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

  /** The proxy has refused a request. @param isDenied  because of its target */
  handleRefused(now: number, request: MasqueRequest, isDenied: boolean): void {
    for (const slot of [...request.slotById.values()]) {
      const isTarget = this.#parts.contexts.id[slot] === 0;
      if (isTarget)
        this.#refuse(now, slot, isDenied ? "prohibited" : "host", isDenied ? DENIED_MS : REFUSED_MS);
      // Others had only joined the request.
      else this.#forgetOf(request, slot);
    }
  }

  /** The proxy has closed a context of a bound request, or refused it. */
  handleClosed(now: number, request: MasqueRequest, slot: number): void {
    const state = this.#parts.contexts.state[slot];
    if (state === CONTEXT_ACKED) this.#forgetOf(request, slot);
    else if (state === CONTEXT_UNACKED) this.#refuse(now, slot, "prohibited", DENIED_MS);
    else return;
    this.#requests.endIfUnused(request);
  }

  /** A request has lost its connection: the next one has to acknowledge its contexts again. */
  handleDisconnected(request: MasqueRequest): void {
    const { contexts } = this.#parts;
    for (const slot of request.slotById.values()) {
      if (contexts.state[slot] === CONTEXT_ACKED) contexts.handle(slot, "new session");
    }
  }

  /** The target of a context was refused: datagrams to it are dropped for a while. */
  #refuse(now: number, slot: number, kind: UnreachableKind, forMs: number): void {
    const { contexts, counters, outputs } = this.#parts;
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
    outputs.push({
      kind: "unreachable",
      association,
      remote: contexts.address[slot]!,
      reason: kind,
      mtu: 0,
    });
  }

  // Ends

  /** Ends the contexts of an association. */
  releaseAll(association: number): void {
    const { contexts } = this.#parts;
    for (let slot = contexts.first(association); slot !== NONE; slot = contexts.first(association)) {
      this.#release(slot);
    }
  }

  /** Ends a context, and its request if it was the last. */
  #release(slot: number): void {
    const request = this.#requestOf[slot];
    const id = this.#parts.contexts.id[slot];
    this.#forget(slot);
    if (request === undefined) return;
    request.slotById.delete(id);
    if (request.state === "open" && id > 0 && request.slotById.size > 0) {
      this.#requests.writeControl(request, encodeCompressionClose(id));
    }
    this.#requests.endIfUnused(request);
  }

  #forgetOf(request: MasqueRequest, slot: number): void {
    request.slotById.delete(this.#parts.contexts.id[slot]);
    this.#forget(slot);
  }

  #forget(slot: number): void {
    const { contexts, associations, latency } = this.#parts;
    const association = contexts.association[slot];
    if (associations.lastContext[association] === slot) associations.lastContext[association] = NONE;
    this.#requestOf[slot] = undefined;
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
      // The target of context 0 stays with its request, as no capsule can end that context alone.
      if (request !== undefined && contexts.id[slot] === 0 && request.slotById.size > 1)
        idle.touch(now, slot, OWN);
      else this.#release(slot);
    }
    this.#arm();
  }
}
