/**
 * Measures by how much turns come late: the time between the one that the session asked for and that of its next turn.
 *
 * A machine that is busy, or saves power, runs its programs some milliseconds to some tens of milliseconds late. What a session does not
 * send or hear meanwhile says nothing about the path. The pacer makes up for the time (pacer.ts), and intervals are longer, so that each
 * has samples from turns that came in time: the smallest delay of many frames is that of the path, the smallest of few is often that of a
 * machine (Copa's standing RTT takes the minimum over a window for the same reason: Arun and Balakrishnan, NSDI 2018).
 */

/** Time over which the longest delay is forgotten, in milliseconds; and its bound, as a machine that was suspended is on time afterwards. */
const FORGET_MS = 1_000;
const MAX_LONGEST_MS = 40;

export class TurnDelay {
  /** By how many milliseconds this turn is late. */
  late = 0;
  /** The longest recent delay. */
  longest = 0;
  #dueAt = Number.POSITIVE_INFINITY;
  #beganAt = 0;

  /** A turn begins. */
  begin(now: number): void {
    this.late = Math.max(0, now - this.#dueAt);
    const kept = Math.max(0, 1 - (now - this.#beganAt) / FORGET_MS);
    this.longest = Math.min(MAX_LONGEST_MS, Math.max(this.late, this.longest * kept));
    this.#beganAt = now;
    this.#dueAt = Number.POSITIVE_INFINITY;
  }

  /** The next turn is to come at this time, unless something happens before. */
  expect(dueAt: number): void {
    this.#dueAt = dueAt;
  }
}
