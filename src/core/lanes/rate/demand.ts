/**
 * Whether more is offered to a session than the path takes: what each dispatch has to leave in the queue, and why.
 *
 * Two causes are told apart. Datagrams are *held* by the pacer, or *blocked* because no lane or no room in the window is left. The law
 * of the rate needs the share of an interval in which they were held. Hedging and the session's owner only need to know whether the
 * session is *limited*, which it stays for a moment after an interval in which it was.
 */

/** How long a session counts as limited after such an interval. */
const CALM_MS = 300;

export class Demand {
  /** Something waits for the pacer; for bulk, longer than a moment. */
  isHeld = false;
  /** Bulk waits for a lane or for the window. */
  isBlocked = false;
  /** In this interval, bulk has waited for the pacer or for the window. */
  isFilled = false;
  /** In this interval, milliseconds for which something was held. */
  heldMs = 0;
  #dispatchedAt = 0;
  #limitedUntil = 0;

  isLimited(now: number): boolean {
    return now < this.#limitedUntil;
  }

  /** Accounts for the time since the dispatch before. To be called first in each dispatch. */
  account(now: number): void {
    if (this.isHeld) this.heldMs += now - this.#dispatchedAt;
    this.#dispatchedAt = now;
  }

  /** Begins a dispatch: nothing is known to be held or blocked. */
  begin(): void {
    this.isHeld = false;
    this.isBlocked = false;
  }

  /** Ends an interval. @param isLimited  whether the pacer has held bulk for a good part of it */
  end(now: number, isLimited: boolean): void {
    if (isLimited || this.isBlocked) this.#limitedUntil = now + CALM_MS;
    this.isFilled = false;
    this.heldMs = 0;
  }
}
