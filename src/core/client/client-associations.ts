import type { AddressBytes } from "../../wire/socket-address.ts";
import { grown } from "../grown.ts";
import { IdleLists } from "../idle-lists.ts";
import {
  ASSOCIATION,
  ASSOCIATION_CLOSING,
  ASSOCIATION_FREE,
  ASSOCIATION_LOCAL,
  ASSOCIATION_OPEN,
} from "../session/session-model.ts";

const NONE = -1;
/** Milliseconds within which uses of an association count as one in the order of idleness. */
const IDLE_GRAIN_MS = 1_000;

/** Lists of {@link ClientAssociations.idle}: those that may expire, ... */
export const IDLE_QUIET = 0;
/** ... those that may expire and had more than one answer, ... */
export const IDLE_ANSWERED = 1;
/** ... and those that the server has been asked to close. */
export const IDLE_CLOSING = 2;

/** Associations of a client in reusable slots of typed arrays. States: {@link ASSOCIATION}. */
export class ClientAssociations {
  /** Number of local and open ones. */
  count = 0;
  /** One more than the largest slot that was ever used. */
  used = 0;
  state = new Uint8Array(64);
  /** Id on the wire of open and closing ones. */
  wireId = new Int32Array(64);
  /** Index of the lane that each is pinned to. */
  lane = new Int32Array(64);
  /** Context of its last datagram, or -1. */
  lastContext = new Int32Array(64);
  /** Until when it is not opened again after a refusal by the server. */
  reopenAt = new Float64Array(64);
  /** 1 if its ASSOCIATION_OPEN was sent, so the server may know it. */
  isRegistered = new Uint8Array(64);
  /** 1 if the server has acknowledged one of its contexts, so it certainly knew the association. */
  isConfirmed = new Uint8Array(64);
  /** 1 if the server may have forgotten it, so it has to be opened again before use. */
  isDoubtful = new Uint8Array(64);
  /** The application's own address, if known. */
  readonly source: (AddressBytes | undefined)[] = [];
  readonly idle = new IdleLists(IDLE_GRAIN_MS);
  #answers = new Uint8Array(64);
  readonly #free: number[] = [];

  /** @param expires  whether it ends when idle @returns its slot */
  open(now: number, source: AddressBytes | undefined, expires: boolean, lane: number): number {
    const slot = this.#free.pop() ?? this.used++;
    if (slot >= this.state.length) this.#grow();
    this.state[slot] = ASSOCIATION.after(ASSOCIATION_FREE, "open");
    this.lane[slot] = lane;
    this.lastContext[slot] = NONE;
    this.reopenAt[slot] = 0;
    this.isRegistered[slot] = 0;
    this.isConfirmed[slot] = 0;
    this.isDoubtful[slot] = 0;
    this.#answers[slot] = 0;
    this.source[slot] = source;
    if (expires) this.idle.touch(now, slot, IDLE_QUIET);
    this.count++;
    return slot;
  }

  /** Id on the wire of an association; 0 while the server does not have it. */
  openId(slot: number): number {
    return this.state[slot] === ASSOCIATION_OPEN ? this.wireId[slot] : 0;
  }

  /** Whether it is local or open. */
  isLive(slot: number): boolean {
    return this.state[slot] === ASSOCIATION_LOCAL || this.state[slot] === ASSOCIATION_OPEN;
  }

  handle(slot: number, event: Parameters<typeof ASSOCIATION.after>[1]): void {
    this.state[slot] = ASSOCIATION.after(this.state[slot], event);
  }

  /** The application has sent a datagram. */
  handleSent(now: number, slot: number): void {
    this.idle.refresh(now, slot);
  }

  /** `count` datagrams have arrived for the application. */
  handleAnswers(now: number, slot: number, count: number): void {
    const before = this.#answers[slot];
    if (before < 2) {
      this.#answers[slot] = Math.min(2, before + count);
      if (before + count > 1 && this.idle.listOf(slot) === IDLE_QUIET) {
        this.idle.touch(now, slot, IDLE_ANSWERED);
        return;
      }
    }
    this.idle.refresh(now, slot);
  }

  /** The idlest association that may expire, or -1. */
  get idlest(): number {
    const quiet = this.idle.oldest(IDLE_QUIET);
    const answered = this.idle.oldest(IDLE_ANSWERED);
    if (quiet === NONE || answered === NONE) return Math.max(quiet, answered);
    return this.idle.lastUsed(quiet) <= this.idle.lastUsed(answered) ? quiet : answered;
  }

  /** Ends it for its application, so that it no longer counts. */
  handleEnded(now: number, slot: number): void {
    const isUnknown = this.state[slot] === ASSOCIATION_OPEN && this.isRegistered[slot] === 0;
    this.handle(slot, isUnknown ? "end unregistered" : "end");
    this.source[slot] = undefined;
    this.count--;
    if (this.state[slot] === ASSOCIATION_CLOSING) this.idle.touch(now, slot, IDLE_CLOSING);
    else this.idle.remove(slot);
  }

  /** Frees the slot of an association whose state is free. */
  release(slot: number): void {
    this.idle.remove(slot);
    this.#free.push(slot);
  }

  #grow(): void {
    const size = this.state.length * 2;
    this.state = grown(this.state, new Uint8Array(size));
    this.wireId = grown(this.wireId, new Int32Array(size));
    this.lane = grown(this.lane, new Int32Array(size));
    this.lastContext = grown(this.lastContext, new Int32Array(size));
    this.reopenAt = grown(this.reopenAt, new Float64Array(size));
    this.isRegistered = grown(this.isRegistered, new Uint8Array(size));
    this.isConfirmed = grown(this.isConfirmed, new Uint8Array(size));
    this.isDoubtful = grown(this.isDoubtful, new Uint8Array(size));
    this.#answers = grown(this.#answers, new Uint8Array(size));
  }
}
