/**
 * Lets bulk go at the rate that was found, so that the queue stands here, where it is fair and bounded in age, and neither in a link
 * nor in the kernels and relays before it. A token bucket: sparse datagrams, copies, hedges and receipts go past it, but on its
 * account. Timers are coarse, so that the bucket holds a little. A pause is for bulk alone: a call would hear it, and its few bytes
 * do not hide what the pause is to show.
 */

/** What the bucket holds: two datagrams, or what goes in a millisecond. */
const MIN_BURST_BYTES = 3_000;
const BURST_MS = 1;
/** How far sparse datagrams may overdraw it, before they wait as others do: at a low rate, by two of any size and their copies. */
const MAX_DEBT_MS = 20;
const MIN_DEBT_BYTES = 5_000;

export class Pacer {
  /** Bytes per millisecond. */
  rate: number;
  #tokens = MIN_BURST_BYTES;
  #filledAt = 0;
  #pausedUntil = 0;

  constructor(rate: number) {
    this.rate = rate;
  }

  refill(now: number): void {
    const burst = Math.max(MIN_BURST_BYTES, BURST_MS * this.rate);
    const earned = Math.max(0, now - Math.max(this.#filledAt, this.#pausedUntil)) * this.rate;
    this.#tokens = Math.min(burst, this.#tokens + earned);
    this.#filledAt = now;
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

  /** Lets no bulk go for a while, nor make up for it later. */
  pause(ms: number): void {
    this.#pausedUntil = this.#filledAt + ms;
    this.#tokens = Math.min(this.#tokens, 0);
  }

  /** When bulk may go again. */
  get readyAt(): number {
    return this.#paidAt(0);
  }

  /** When sparse datagrams may. */
  get sparseReadyAt(): number {
    return this.#paidAt(-this.#maxDebt);
  }

  #paidAt(tokens: number): number {
    const from = Math.max(this.#filledAt, this.#pausedUntil);
    return this.#tokens > tokens ? from : from + (tokens - this.#tokens) / this.rate;
  }
}
