/**
 * Puts datagrams of flows that need order (responsive.ts) back in order. All others are delivered as they arrive.
 *
 * A hole delays everything on its lane by about a round trip, and datagrams on other lanes would overtake what waits there. So a datagram
 * is held while one with a smaller number is missing, from any flow, because numbers show only the order of sending. The flow then sees
 * what it would see on one lane: a wait now and then. But its packets are spread over lanes, so a hole delays few of them at the sender,
 * and the flow gets the session's rate.
 *
 * Holding is bounded in bytes, in numbers ahead, and in time. The time is the caller's patience: the age budget, at most 100 ms, and two
 * round trips for TCP's repairs. MPTCP (RFC 8684 §3.3) holds data in the same way, but without a deadline, because it carries a stream.
 *
 *     next ── the lowest number that has neither arrived nor been given up
 *     held ── by number, beyond next           (ring of entries)
 *     released ── below next, not taken yet    (list of entries): delivered before anything else of these flows
 */
import { SEQUENCE_MODULUS, sequenceDistance } from "../../../wire/receipt.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { ArrivalHistory } from "./arrival-history.ts";
import type { DuplicateWindow } from "./duplicate-window.ts";
import { WINDOW } from "./duplicate-window.ts";

/** How far ahead of the next number a held datagram may be: 200 ms at 400 Mbit/s. */
const SPAN = 8_192;
const NEVER = Number.POSITIVE_INFINITY;

export class Resequencer {
  /** When {@link expire} gives up the next hole; Infinity if nothing is held. */
  dueAt = NEVER;
  /** Datagrams held since the start. */
  held = 0;

  readonly #store: DatagramStore;
  readonly #window: DuplicateWindow;
  readonly #arrivals: ArrivalHistory;
  readonly #byteLimit: number;
  #next = 0;
  /** Held entries by number; allocated for the first. */
  #ring: Int32Array | undefined;
  #count = 0;
  #bytes = 0;
  #first = NONE;
  #last = NONE;

  /** @param byteLimit  most bytes that are held at once */
  constructor(store: DatagramStore, window: DuplicateWindow, arrivals: ArrivalHistory, byteLimit: number) {
    this.#store = store;
    this.#window = window;
    this.#arrivals = arrivals;
    this.#byteLimit = byteLimit;
  }

  /** Begins with `next`: lower numbers have arrived, or are given up. To be called before anything else. */
  begin(next: number): void {
    this.#next = next;
  }

  /** The next released entry, or -1. */
  get released(): number {
    return this.#first;
  }

  /** Takes the next released entry. Its reference passes to the caller. */
  takeReleased(): number {
    const entry = this.#first;
    this.#first = this.#store.next[entry];
    if (this.#first === NONE) this.#last = NONE;
    this.#bytes -= this.#store.length[entry];
    return entry;
  }

  /** A datagram that is not to be held has arrived. The window has recorded its number already. */
  pass(now: number, sequence: number, patience: number): void {
    this.#follow();
    if (sequence === this.#next) this.#advance(now, patience);
  }

  /**
   * A datagram of a flow that needs order has arrived. The window and the history have recorded its number already.
   *
   * @param patience    how long to wait for a number after it was overtaken, in milliseconds
   * @param isRestored  whether it is delivered after what was released before: it is then always held, and released if it is due
   * @returns true if the datagram was copied and is held; false to deliver it at once
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
    isRestored: boolean,
  ): boolean {
    this.#follow();
    if (this.#count === 0 && sequence !== this.#next)
      this.#skip(this.#arrivals.highestBefore(now - patience));
    const ahead = sequenceDistance(sequence, this.#next);
    if (this.#first === NONE && ahead <= 0 && !isRestored) {
      if (ahead === 0) this.#advance(now, patience);
      return false;
    }
    if (this.#bytes + length > this.#byteLimit) {
      this.releaseAll();
      // The datagrams before it are released but not taken yet. Without memory to hold it behind them, it overtakes them.
      return false;
    }
    const entry = this.#store.add(now, flow, context, 0, data, offset, length);
    this.#bytes += length;
    this.held++;
    const isFar = ahead >= SPAN;
    if (isFar) this.#skip((sequence - SPAN + 1 + SEQUENCE_MODULUS) % SEQUENCE_MODULUS);
    if (sequenceDistance(sequence, this.#next) < 0) {
      this.#append(entry);
      return true;
    }
    this.#ring ??= new Int32Array(SPAN).fill(NONE);
    this.#ring[sequence & (SPAN - 1)] = entry;
    this.#count++;
    if (sequence === this.#next) this.#advance(now, patience);
    else if (isFar || this.#count === 1) this.#arm(now, patience);
    return true;
  }

  /** Gives up numbers that were waited for as long as the patience lasts. */
  expire(now: number, patience: number): void {
    if (now < this.dueAt) return;
    const before = this.#next;
    this.#skip(this.#arrivals.highestBefore(now - patience));
    if (this.#next === before) this.releaseAll();
    else this.#arm(now, patience);
  }

  /** Gives up all missing numbers. */
  releaseAll(): void {
    if (this.#count > 0) this.#skip((this.#window.highest + 1) % SEQUENCE_MODULUS);
    this.dueAt = NEVER;
  }

  /** Drops what is held of a flow, or of all flows. @param flow  -1 for all. @param onDrop  gets each entry before it is freed */
  clear(flow: number, onDrop: (entry: number) => void): void {
    const store = this.#store;
    if (this.#ring !== undefined && this.#count > 0) {
      for (let slot = 0; slot < SPAN; slot++) {
        const entry = this.#ring[slot];
        if (entry === NONE || (flow !== NONE && store.flow[entry] !== flow)) continue;
        this.#ring[slot] = NONE;
        this.#count--;
        onDrop(entry);
        this.#free(entry);
      }
    }
    let entry = this.#first;
    this.#first = NONE;
    this.#last = NONE;
    while (entry !== NONE) {
      const next = store.next[entry];
      if (flow !== NONE && store.flow[entry] !== flow) this.#append(entry);
      else {
        onDrop(entry);
        this.#free(entry);
      }
      entry = next;
    }
    if (this.#count === 0) this.dueAt = NEVER;
  }

  #free(entry: number): void {
    this.#bytes -= this.#store.length[entry];
    this.#store.release(entry);
  }

  /**
   * Gives up numbers that the window no longer remembers, as it would take them for copies. The next number thus stays within the window
   * behind the highest one, or is the one after it, and distances have the right sign, however many datagrams need no order.
   */
  #follow(): void {
    const { highest } = this.#window;
    // Not the signed distance: one arrival may move the highest number by half of the modulus.
    const behind = (highest - this.#next) & (SEQUENCE_MODULUS - 1);
    if (behind < WINDOW || behind === SEQUENCE_MODULUS - 1) return;
    for (; this.#count > 0; this.#next = (this.#next + 1) % SEQUENCE_MODULUS) this.#release(this.#next);
    this.#next = (highest - WINDOW + 1 + SEQUENCE_MODULUS) % SEQUENCE_MODULUS;
    this.dueAt = NEVER;
  }

  /** Proceeds to the next hole, because the number that was next has arrived. */
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

  /** Releases an entry that needs no order. Its reference passes to the list. */
  release(entry: number): void {
    this.#bytes += this.#store.length[entry];
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
