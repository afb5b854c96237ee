/**
 * Lets bulk go at the rate that was found, so that the queue stands here, where it is fair and bounded in age, and neither in a link
 * nor in the kernels and relays before it. A token bucket: sparse datagrams, copies, hedges and receipts go past it, but on its
 * account. Timers are coarse, so that the bucket holds a little.
 */

/** What the bucket holds: two datagrams, or what goes in a millisecond. */
const MIN_BURST_BYTES = 3_000;
const BURST_MS = 1;
/** How far sparse datagrams may overdraw it, before they wait as others do. */
const MAX_DEBT_MS = 20;

export class Pacer {
  /** Bytes per millisecond. */
  rate: number;
  #tokens = MIN_BURST_BYTES;
  #filledAt = 0;

  constructor(rate: number) {
    this.rate = rate;
  }

  refill(now: number): void {
    const burst = Math.max(MIN_BURST_BYTES, BURST_MS * this.rate);
    this.#tokens = Math.min(burst, this.#tokens + (now - this.#filledAt) * this.rate);
    this.#filledAt = now;
  }

  get maySend(): boolean {
    return this.#tokens > 0;
  }

  get maySendSparse(): boolean {
    return this.#tokens > -MAX_DEBT_MS * this.rate;
  }

  spend(bytes: number): void {
    this.#tokens -= bytes;
  }

  /** Lets nothing go for a while. */
  pause(ms: number): void {
    this.#tokens = Math.min(this.#tokens, 0) - ms * this.rate;
  }

  /** When bulk may go again. */
  get readyAt(): number {
    return this.#tokens > 0 ? this.#filledAt : this.#filledAt - this.#tokens / this.rate;
  }
}
