/** Limits events to a number per second, with bursts of at most one second's worth. */
export class TokenBucket {
  readonly #perSecond: number;
  #tokens: number;
  #refilledAt = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond;
  }

  /** Takes a token. @param now  in milliseconds @returns false if the limit is reached */
  take(now: number): boolean {
    const refill = (Math.max(0, now - this.#refilledAt) * this.#perSecond) / 1000;
    this.#tokens = Math.min(this.#perSecond, this.#tokens + refill);
    this.#refilledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
