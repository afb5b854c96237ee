/**
 * How long packets stand in the queues of one direction, sample by sample.
 *
 * As in path-delay.ts a delay is known but for what the clocks differ by, and the least of the last ten to twenty seconds is taken for
 * an empty path (LEDBAT, RFC 6817 §2.2). Of the last two samples the lesser counts (the CURRENT_FILTER of RFC 6817 §3.4.2 with a window
 * of two): one packet may have been late by itself.
 */
const PERIOD_MS = 10_000;
/** After so long a sample says nothing of now. */
const FRESH_MS = 300;
const NEVER = Number.POSITIVE_INFINITY;

export class OneWayDelay {
  #reference = 0;
  #hasReference = false;
  #last = NEVER;
  #lastAt = Number.NEGATIVE_INFINITY;
  #beforeLast = NEVER;
  #least = NEVER;
  #leastBefore = NEVER;
  #periodAt = 0;

  /** @param difference  arrival less sending, by two clocks, in microseconds modulo 2³² */
  add(now: number, difference: number): void {
    if (!this.#hasReference) {
      this.#hasReference = true;
      this.#reference = difference;
    }
    const delay = ((difference - this.#reference) | 0) / 1000;
    if (now - this.#periodAt > PERIOD_MS) {
      this.#leastBefore = now - this.#periodAt > 2 * PERIOD_MS ? NEVER : this.#least;
      this.#least = NEVER;
      this.#periodAt = now;
    }
    this.#beforeLast = now - this.#lastAt > FRESH_MS ? delay : this.#last;
    this.#last = delay;
    this.#lastAt = now;
    this.#least = Math.min(this.#least, delay);
  }

  /** Milliseconds; -1 without a fresh sample. */
  standing(now: number): number {
    if (now - this.#lastAt > FRESH_MS) return -1;
    return Math.min(this.#last, this.#beforeLast) - Math.min(this.#least, this.#leastBefore);
  }
}
