/**
 * A datagram that is stuck goes once more, on another lane: Dean and Barroso's hedged request (The Tail at Scale, CACM 2013), and what
 * MPTCP calls opportunistic retransmission (Raiciu et al., NSDI 2012).
 *
 * TCP repairs a hole in about a round trip, as fast as a copy could travel; but a loss at the end of what a lane has, or of a repair,
 * costs a time-out of 200 ms and more. So a datagram that all its lanes hold up is sent again. The budget bounds this to
 * a share of all bytes: without it, losses of an overloaded link made more load. For the same reason bulk is not hedged while
 * the pacer holds it back.
 */

/** Share of what is sent that may be hedged. */
const SHARE = 0.15;
const MAX_BUDGET_BYTES = 100_000;
/** A datagram older than this is of no use to anybody. */
export const HEDGE_AGE_MS = 400;

export class HedgeBudget {
  #bytes = 0;

  earn(bytes: number): void {
    this.#bytes = Math.min(MAX_BUDGET_BYTES, this.#bytes + SHARE * bytes);
  }

  /** @returns false when there is not so much */
  spend(bytes: number): boolean {
    if (bytes > this.#bytes) return false;
    this.#bytes -= bytes;
    return true;
  }
}
