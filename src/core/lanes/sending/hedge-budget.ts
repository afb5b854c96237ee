/**
 * A datagram that is stuck goes once more, on another lane: Dean and Barroso's hedged request (The Tail at Scale, CACM 2013), and what
 * MPTCP calls opportunistic retransmission (Raiciu et al., NSDI 2012).
 *
 * TCP repairs a hole in about a round trip, as fast as a copy could travel; but a loss at the end of what a lane has, or of a repair,
 * costs a time-out of 200 ms and more. So a datagram that all its lanes hold up is sent again. The budget bounds this to
 * a share of all bytes: without it, losses of an overloaded link made more load. For the same reason bulk is not hedged while
 * the pacer holds it back.
 *
 * TCP repairs most holes before a copy is worth much. What it has not repaired within two round trips has lost its repair as well, and
 * is soon too old for the other end (arrival-history.ts). Where losses are many, copies of the former would leave nothing for the
 * latter, so that part of the budget is kept for what is overdue; flows that are put back in order may use that too, as all of such a
 * flow waits for the slowest repair. An overdue datagram may be sent a third time, since a copy can be lost like anything else.
 */

/** Share of what is sent that may be hedged. */
const SHARE = 0.15;
const MAX_BUDGET_BYTES = 100_000;
/** What is kept: as much as the session sends in this time, at most this share of the largest budget. */
const RESERVE_MS = 40;
const RESERVE_SHARE = 0.75;
/** How often a datagram is sent again at most, once before it is overdue. */
export const MAX_HEDGES = 2;
/** A datagram older than this is of no use to anybody. */
export const HEDGE_AGE_MS = 400;

export class HedgeBudget {
  #bytes = 0;

  earn(bytes: number): void {
    this.#bytes = Math.min(MAX_BUDGET_BYTES, this.#bytes + SHARE * bytes);
  }

  /** Whether there is more than what is kept. @param rate  bytes per millisecond of the session */
  hasSpare(rate: number): boolean {
    return this.#bytes > Math.min(RESERVE_MS * rate, RESERVE_SHARE * MAX_BUDGET_BYTES);
  }

  /** @returns false when there is not so much */
  spend(bytes: number): boolean {
    if (bytes > this.#bytes) return false;
    this.#bytes -= bytes;
    return true;
  }
}
