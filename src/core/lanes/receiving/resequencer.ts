/**
 * Puts datagrams of responsive flows (responsive.ts) back in order; all others are delivered as they come.
 *
 * A lane before a hole holds up what is on it for about a round trip, and what other lanes bring meanwhile would overtake it. So such a
 * datagram is held while one with a smaller number, of whatever flow, is on its way: numbers are given in the order of sending, and say
 * no more. What the flow then sees is what it sees on one lane, a wait now and then; but its packets are spread, so that a hole holds
 * up few of them at the sender, and the rate is the session's. Holding is bounded: in time, by the caller's patience, which is the age
 * budget, at most 100 ms, and two round trips for TCP's repairs; in bytes; and in how many numbers it may be ahead. MPTCP (RFC 8684 §3.3) holds likewise, without a deadline, as a stream must.
 *
 *     next ── the lowest number that has neither come nor was given up
 *     held ── by number, beyond next           (ring of entries)
 *     released ── below next, not taken yet    (list of entries): goes on before anything else of these flows
 */
import { SEQUENCE_MODULUS, sequenceDistance } from "../../../wire/receipt.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { ArrivalHistory } from "./arrival-history.ts";
import type { DuplicateWindow } from "./duplicate-window.ts";

/** How far ahead a number may be that is held: 200 ms at 400 Mbit/s. */
const SPAN = 8_192;
const NEVER = Number.POSITIVE_INFINITY;

export class Resequencer {
  /** When a hole is to be given up: {@link expire}. */
  dueAt = NEVER;
  /** Datagrams that were held since the start. */
  held = 0;

  readonly #store: DatagramStore;
  readonly #window: DuplicateWindow;
  readonly #arrivals: ArrivalHistory;
  readonly #byteLimit: number;
  #next = 0;
  /** Entries by number; there from the first that is held. */
  #ring: Int32Array | undefined;
  #count = 0;
  #bytes = 0;
  #first = NONE;
  #last = NONE;

  /** @param byteLimit  most bytes that are held */
  constructor(store: DatagramStore, window: DuplicateWindow, arrivals: ArrivalHistory, byteLimit: number) {
    this.#store = store;
    this.#window = window;
    this.#arrivals = arrivals;
    this.#byteLimit = byteLimit;
  }

  /** Numbers before `next` have come, or are not waited for. To be called before anything else. */
  begin(next: number): void {
    this.#next = next;
  }

  /** The entry that is released next, or -1. */
  get released(): number {
    return this.#first;
  }

  /** Takes the entry that is released next. Its reference is the caller's from now on. */
  takeReleased(): number {
    const entry = this.#first;
    this.#first = this.#store.next[entry];
    if (this.#first === NONE) this.#last = NONE;
    this.#bytes -= this.#store.length[entry];
    return entry;
  }

  /** A datagram has come that is not to be held. Its number is noted in the window already. */
  pass(now: number, sequence: number, patience: number): void {
    if (sequence === this.#next) this.#advance(now, patience);
  }

  /**
   * A datagram of a responsive flow has come. Its number is noted in the window and in the history already.
   *
   * @param patience  milliseconds that a number is waited for from when it was overtaken
   * @returns false when it is to be delivered at once; otherwise it is held, copied
   */
  hold(
    now: number,
    sequence: number,
    patience: number,
    flow: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    if (this.#count === 0 && sequence !== this.#next)
      this.#skip(this.#arrivals.highestBefore(now - patience));
    const ahead = sequenceDistance(sequence, this.#next);
    if (this.#first === NONE && ahead <= 0) {
      if (ahead === 0) this.#advance(now, patience);
      return false;
    }
    if (this.#bytes + length > this.#byteLimit) {
      this.releaseAll();
      // What it follows is not taken yet, so that it can only be dropped or overtake.
      return false;
    }
    const entry = this.#store.add(now, flow, context, 0, data, offset, length);
    this.#bytes += length;
    this.held++;
    if (ahead >= SPAN) this.#skip((sequence - SPAN + 1 + SEQUENCE_MODULUS) % SEQUENCE_MODULUS);
    if (sequenceDistance(sequence, this.#next) < 0) {
      this.#append(entry);
      return true;
    }
    this.#ring ??= new Int32Array(SPAN).fill(NONE);
    this.#ring[sequence & (SPAN - 1)] = entry;
    this.#count++;
    if (sequence === this.#next) this.#advance(now, patience);
    else if (this.#count === 1) this.#arm(now, patience);
    return true;
  }

  /** Gives up what has been waited for long enough. */
  expire(now: number, patience: number): void {
    if (now < this.dueAt) return;
    const before = this.#next;
    this.#skip(this.#arrivals.highestBefore(now - patience));
    if (this.#next === before) this.releaseAll();
    else this.#arm(now, patience);
  }

  /** Gives up all that is waited for. */
  releaseAll(): void {
    if (this.#count > 0) this.#skip((this.#window.highest + 1) % SEQUENCE_MODULUS);
    this.dueAt = NEVER;
  }

  /** Lets go of what is held of a flow, or of all flows. @param flow  -1 for all */
  clear(flow: number): void {
    const store = this.#store;
    if (this.#ring !== undefined && this.#count > 0) {
      for (let slot = 0; slot < SPAN; slot++) {
        const entry = this.#ring[slot];
        if (entry === NONE || (flow !== NONE && store.flow[entry] !== flow)) continue;
        this.#ring[slot] = NONE;
        this.#count--;
        this.#free(entry);
      }
    }
    let entry = this.#first;
    this.#first = NONE;
    this.#last = NONE;
    while (entry !== NONE) {
      const next = store.next[entry];
      if (flow !== NONE && store.flow[entry] !== flow) this.#append(entry);
      else this.#free(entry);
      entry = next;
    }
    if (this.#count === 0) this.dueAt = NEVER;
  }

  #free(entry: number): void {
    this.#bytes -= this.#store.length[entry];
    this.#store.release(entry);
  }

  /** The number that was next has come: goes on to the next hole. */
  #advance(now: number, patience: number): void {
    do {
      this.#release(this.#next);
      this.#next = (this.#next + 1) % SEQUENCE_MODULUS;
    } while (this.#window.has(this.#next));
    this.#arm(now, patience);
  }

  /** Gives up all numbers before `sequence`. */
  #skip(sequence: number): void {
    if (sequence === NONE || sequenceDistance(sequence, this.#next) < 0) return;
    for (; this.#next !== sequence && this.#count > 0; this.#next = (this.#next + 1) % SEQUENCE_MODULUS) {
      this.#release(this.#next);
    }
    this.#next = sequence;
    while (this.#window.has(this.#next)) {
      this.#release(this.#next);
      this.#next = (this.#next + 1) % SEQUENCE_MODULUS;
    }
  }

  #release(sequence: number): void {
    if (this.#count === 0) return;
    const ring = this.#ring!;
    const slot = sequence & (SPAN - 1);
    const entry = ring[slot];
    if (entry === NONE) return;
    ring[slot] = NONE;
    this.#count--;
    this.#append(entry);
  }

  #append(entry: number): void {
    this.#store.next[entry] = NONE;
    if (this.#last === NONE) this.#first = entry;
    else this.#store.next[this.#last] = entry;
    this.#last = entry;
  }

  #arm(now: number, patience: number): void {
    this.dueAt = this.#count === 0 ? NEVER : this.#arrivals.overtakenAt(now, this.#next) + patience;
  }
}
