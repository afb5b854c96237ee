/**
 * Measures how long packets wait in the queues of one direction.
 *
 * As in path-delay.ts, a measured delay includes the unknown offset of the clocks, and the smallest of the last 10 to 20 s counts as
 * that of an empty path (LEDBAT, RFC 6817 §2.2). The smaller of the last two samples counts (CURRENT_FILTER of RFC 6817 §3.4.2, with a
 * window of two), because a single packet may be late for other reasons.
 */
const PERIOD_MS = 10_000;
/** How long a sample remains valid. */
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

  /** @param difference  time of arrival minus time of sending, on two clocks, in microseconds modulo 2³² */
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

  /** Time in queues, in milliseconds; -1 without a valid sample. */
  standing(now: number): number {
    if (now - this.#lastAt > FRESH_MS) return -1;
    return Math.min(this.#last, this.#beforeLast) - this.least;
  }

  /** Smallest recent delay in milliseconds, plus a constant; Infinity before the first sample. */
  get least(): number {
    return Math.min(this.#least, this.#leastBefore);
  }
}
