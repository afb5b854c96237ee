/**
 * Bounds how many bytes are hedged. To hedge a datagram is to send it once more on another lane, because it is stuck on its own: the
 * hedged request of Dean and Barroso (The Tail at Scale, CACM 2013), which MPTCP calls opportunistic retransmission (Raiciu et al., NSDI
 * 2012).
 *
 * TCP repairs a hole in about a round trip, as fast as a copy would travel. But the loss of the last segments on a lane, or of a repair,
 * costs a time-out of 200 ms or more. So a datagram is sent again once all lanes that hold it are late. The budget is a share of all bytes:
 * without this limit, losses on an overloaded link would cause even more load. For the same reason bulk is not hedged while the pacer holds
 * it back.
 *
 * TCP repairs most holes before a copy gains much. A hole that is still open after two round trips has lost its repair too, and its
 * datagrams are soon too old for the other end (receiving/arrival-history.ts). With many losses, copies for the first kind of hole would
 * leave nothing for the second, so part of the budget is reserved for overdue datagrams. Flows that are put back in order may use the
 * reserve too, because each waits for its slowest repair. An overdue datagram may be sent a third time, as its copy may be lost too.
 */

/** Bytes earned per byte sent. */
const SHARE = 0.15;
/** Bounds of the budget. */
const MAX_BUDGET_BYTES = 100_000;
const MIN_BUDGET_BYTES = 5_000;
/** The reserve: what the session sends in this time, but at most this share of the largest budget. */
const RESERVE_MS = 40;
const RESERVE_SHARE = 0.75;
/**
 * The budget is also bounded by what the session sends in this time. When the rate of a link falls, all lanes become late, and a budget
 * earned at the former rate would fill the link with copies.
 */
const MAX_BUDGET_MS = 100;
/** How often a datagram is sent again at most; only once before it is overdue. */
export const MAX_HEDGES = 2;
/** Age in milliseconds, beyond a round trip, at which a datagram is no longer worth a copy. */
export const HEDGE_AGE_MS = 400;

export class HedgeBudget {
  #bytes = 0;

  /** @param rate  of the session, in bytes per millisecond */
  earn(bytes: number, rate: number): void {
    const most = Math.min(MAX_BUDGET_BYTES, Math.max(MIN_BUDGET_BYTES, MAX_BUDGET_MS * rate));
    this.#bytes = Math.min(most, this.#bytes + SHARE * bytes);
  }

  /** Whether the budget exceeds the reserve. @param rate  of the session, in bytes per millisecond */
  hasSpare(rate: number): boolean {
    return this.#bytes > Math.min(RESERVE_MS * rate, RESERVE_SHARE * MAX_BUDGET_BYTES);
  }

  /** Takes bytes from the budget. @returns false, taking nothing, if the budget is smaller */
  spend(bytes: number): boolean {
    if (bytes > this.#bytes) return false;
    this.#bytes -= bytes;
    return true;
  }
}
