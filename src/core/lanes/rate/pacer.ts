/**
 * Paces bulk at the rate of the session, so that the queue builds up here, where it is fair and bounded in age, instead of in the link or
 * in the kernels and relays before it. The pacer is a token bucket that holds a little, because timers are coarse. Sparse datagrams, copies
 * and hedges pass without waiting, but spend its tokens. A pause stops only bulk: a call would suffer, and its few bytes do not disturb the
 * measurement.
 */

/** Size of the bucket: two datagrams, or what is sent in a millisecond. */
const MIN_BURST_BYTES = 3_000;
const BURST_MS = 1;
/** How far sparse datagrams may overdraw the bucket before they wait too; at a low rate, two full-sized datagrams and their copies. */
const MAX_DEBT_MS = 20;
const MIN_DEBT_BYTES = 5_000;
/** Longest delay of a turn that is made up for at once (turn-delay.ts). The link's queue was shorter by as much meanwhile, or empty. */
const MAX_CREDIT_MS = 15;
/** That time while bursts make a short queue overflow, and the time over which this is forgotten. */
const MIN_CREDIT_MS = 2;
const FORGET_MS = 10_000;

export class Pacer {
  /** Bytes per millisecond. */
  rate: number;
  #tokens = MIN_BURST_BYTES;
  #filledAt = 0;
  /** By how many milliseconds of sending the bucket is larger after a late turn. This shrinks as time passes. */
  #credit = 0;
  /** Limit of that time. */
  #creditMs = MAX_CREDIT_MS;
  #pausedUntil = 0;

  constructor(rate: number) {
    this.rate = rate;
  }

  /** @param late  by how many milliseconds this turn is late */
  refill(now: number, late: number): void {
    // A late turn has several dispatches, and what came meanwhile may be read only after the first.
    this.#credit = Math.max(Math.min(late, this.#creditMs), this.#credit - (now - this.#filledAt));
    const burst = Math.max(MIN_BURST_BYTES, BURST_MS * this.rate) + this.#credit * this.rate;
    const earned = Math.max(0, now - Math.max(this.#filledAt, this.#pausedUntil)) * this.rate;
    this.#tokens = Math.min(burst, this.#tokens + earned);
    this.#filledAt = now;
  }

  /** To be called at the end of each interval of `length` ms. @param isOverflowing  whether a queue of the path seems to overflow */
  judge(isOverflowing: boolean, length: number): void {
    if (isOverflowing) this.#creditMs = Math.max(MIN_CREDIT_MS, this.#creditMs / 2);
    else this.#creditMs += Math.min(1, length / FORGET_MS) * (MAX_CREDIT_MS - this.#creditMs);
  }

  get maySend(): boolean {
    return this.#tokens > 0 && this.#filledAt >= this.#pausedUntil;
  }

  get maySendSparse(): boolean {
    return this.#tokens > -this.#maxDebt;
  }

  get #maxDebt(): number {
    return Math.max(MIN_DEBT_BYTES, MAX_DEBT_MS * this.rate);
  }

  spend(bytes: number): void {
    this.#tokens -= bytes;
  }

  /** Stops bulk for a while, without making up for it later. */
  pause(ms: number): void {
    this.#pausedUntil = this.#filledAt + ms;
    this.#tokens = Math.min(this.#tokens, 0);
  }

  /** When bulk may be sent again. */
  get readyAt(): number {
    return this.#paidAt(0);
  }

  /** When sparse datagrams may be sent again. */
  get sparseReadyAt(): number {
    return this.#paidAt(-this.#maxDebt);
  }

  #paidAt(tokens: number): number {
    const from = Math.max(this.#filledAt, this.#pausedUntil);
    return this.#tokens > tokens ? from : from + (tokens - this.#tokens) / this.rate;
  }
}
