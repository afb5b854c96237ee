import type { AddressBytes } from "../../../wire/socket-address.ts";
import { AddressIndex } from "../../address-index.ts";
import { grown } from "../../grown.ts";
import { IdleLists } from "../../idle-lists.ts";

const NONE = -1;
/** List of associations with at most one answer, which are evicted first. */
const UNANSWERED = 0;
const ANSWERED = 1;

const FREE = 0;
const OPEN = 1;
/** Ended; free once the host has been informed. */
const ENDED = 2;

/**
 * UDP endpoints behind a device, in slots: one for each source address, port and route, regardless of its targets (endpoint-independent
 * mapping, RFC 4787 §4.1).
 */
export class UdpAssociations {
  readonly #index: AddressIndex;
  readonly #lists = new IdleLists();
  readonly #source: (AddressBytes | undefined)[] = [];
  #state = new Uint8Array(64);
  #answers = new Uint8Array(64);
  #route = new Uint8Array(64);
  readonly #free: number[] = [];
  #used = 0;

  /** @param seed  a random 32-bit number */
  constructor(seed: number) {
    this.#index = new AddressIndex(seed);
  }

  get size(): number {
    return this.#lists.size(UNANSWERED) + this.#lists.size(ANSWERED);
  }

  isOpen(slot: number): boolean {
    return slot >= 0 && slot < this.#used && this.#state[slot] === OPEN;
  }

  source(slot: number): AddressBytes {
    return this.#source[slot]!;
  }

  route(slot: number): number {
    return this.#route[slot];
  }

  /** The slot of the source at `bytes[offset]`, or -1. */
  find(route: number, bytes: Uint8Array, offset: number, length: number): number {
    return this.#index.find(route, bytes, offset, length);
  }

  /** Opens an association. Keeps a reference to `source`. */
  open(now: number, route: number, source: AddressBytes): number {
    const slot = this.#free.pop() ?? this.#used++;
    if (slot >= this.#state.length) this.#grow();
    this.#state[slot] = OPEN;
    this.#answers[slot] = 0;
    this.#route[slot] = route;
    this.#source[slot] = source;
    this.#index.add(slot, route, source);
    this.#lists.touch(now, slot, UNANSWERED);
    return slot;
  }

  /** The association's application has sent a datagram. */
  sent(now: number, slot: number): void {
    this.#lists.touch(now, slot, this.#answers[slot] > 1 ? ANSWERED : UNANSWERED);
  }

  answered(now: number, slot: number, count = 1): void {
    this.#answers[slot] = Math.min(2, this.#answers[slot] + count);
    this.sent(now, slot);
  }

  /** The association to evict first, or -1. */
  leastWanted(): number {
    const unanswered = this.#lists.oldest(UNANSWERED);
    return unanswered !== NONE ? unanswered : this.#lists.oldest(ANSWERED);
  }

  /** An association that has been idle for its timeout, or -1. */
  idle(now: number, idleMs: number, activeIdleMs: number): number {
    const unanswered = this.#lists.oldest(UNANSWERED);
    if (unanswered !== NONE && now - this.#lists.lastUsed(unanswered) >= idleMs) return unanswered;
    const answered = this.#lists.oldest(ANSWERED);
    if (answered !== NONE && now - this.#lists.lastUsed(answered) >= activeIdleMs) return answered;
    return NONE;
  }

  /** Ends an open association; its slot stays taken until {@link release}. */
  end(slot: number): void {
    this.#index.remove(slot);
    this.#lists.remove(slot);
    this.#state[slot] = ENDED;
    this.#source[slot] = undefined;
  }

  release(slot: number): void {
    if (this.#state[slot] !== ENDED) return;
    this.#state[slot] = FREE;
    this.#free.push(slot);
  }

  #grow(): void {
    const size = this.#state.length * 2;
    this.#state = grown(this.#state, new Uint8Array(size));
    this.#answers = grown(this.#answers, new Uint8Array(size));
    this.#route = grown(this.#route, new Uint8Array(size));
  }
}
