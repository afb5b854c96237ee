/**
 * Records whether a session is offered more than the path takes.
 *
 * A dispatch may leave datagrams in the queue for two reasons: the pacer *holds* them, or they are *blocked* because no lane or no room in
 * the window is left. Rate control needs the time for which they were held. Hedging and the session's owner need to know whether the
 * session is *limited*, which it stays for a while after an interval in which it was.
 *
 * The pacer also holds what arrives in a burst, such as the echoes of all that waited behind a hole, even if the rate is sufficient for what
 * arrives in a second. Overdue datagrams then need copies as much as ever. So the hedging budget grows as usual while the session *has
 * room*, even if it is limited.
 */

/** How long a session counts as limited, or has no room, after such an interval. */
const CALM_MS = 300;

export class Demand {
  /** Whether the pacer holds something; bulk counts only after a moment. */
  isHeld = false;
  /** Whether bulk waits for a lane or for the window. */
  isBlocked = false;
  /** Whether bulk has waited for the pacer or for the window in this interval. */
  isFilled = false;
  /** Time for which something was held in this interval, in milliseconds. */
  heldMs = 0;
  #dispatchedAt = 0;
  #limitedUntil = 0;
  #roomFrom = 0;

  isLimited(now: number): boolean {
    return now < this.#limitedUntil;
  }

  hasRoom(now: number): boolean {
    return now >= this.#roomFrom;
  }

  /** Accounts for the time since the last dispatch. To be called first in each dispatch. */
  account(now: number): void {
    if (this.isHeld) this.heldMs += now - this.#dispatchedAt;
    this.#dispatchedAt = now;
  }

  /** Begins a dispatch, in which nothing is held or blocked yet. */
  begin(): void {
    this.isHeld = false;
    this.isBlocked = false;
  }

  /**
   * Ends an interval.
   *
   * @param isLimited   whether the pacer held bulk for a good part of it
   * @param leavesRoom  whether the rate is higher than what arrives in a second, and the path delivers that
   */
  end(now: number, isLimited: boolean, leavesRoom: boolean): void {
    if (isLimited || this.isBlocked) {
      this.#limitedUntil = now + CALM_MS;
      if (!leavesRoom) this.#roomFrom = now + CALM_MS;
    }
    this.isFilled = false;
    this.heldMs = 0;
  }
}
