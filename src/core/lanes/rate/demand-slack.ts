/**
 * Decides how much delay the session tolerates beyond that of an empty path: the more of its demand is dropped, the more.
 *
 * The smallest delay is that of a quiet path. A busy radio link, or a machine that is slow to schedule its programs, adds some milliseconds
 * to every packet. This looks like a queue, but a lower rate does not end it. The measured rate follows what is sent, and what is sent follows
 * the measured rate, so both would fall. A session that drops a fifth of its demand has probably reached the path's rate. One that drops
 * half of it should make sure, at the cost of a few milliseconds for all.
 *
 * A queue shorter than the slack overflows before it shows, and the losses drop still more of the demand. So the slack shrinks when most lanes
 * are late although no queue longer than the slack shows. Random losses alone seldom make most lanes late. When sessions that share a link
 * start, some of them shrink their slack and some do not, and the one with less slack gets less of the link. So the slack soon grows again
 * if a longer queue shows.
 */
import { DropShare } from "./measures/drop-share.ts";
import type { Interval } from "./measures/measures.ts";

/** Shares of dropped demand at which the slack begins, and at which it reaches its maximum. */
const FIRST_SHARE = 0.28;
const LAST_SHARE = 0.45;
const MAX_MS = 15;
/** A queue overflows if more than this share of lanes is late. The slack is then multiplied by the factor. */
export const CROWD = 0.6;
const DISPROVED = 0.5;
/** Time in which that is forgotten, and the time while a long delay shows that the queue is not short. */
const FORGET_MS = 20_000;
const LONG_FORGET_MS = 3_000;

export class DemandSlack {
  readonly #share = new DropShare();
  /** Factor for the slack. */
  #trust = 1;

  /** Milliseconds. */
  get value(): number {
    return this.#trust * this.most;
  }

  /** The slack if no losses had disproved it, in milliseconds. */
  get most(): number {
    const part = (this.#share.value - FIRST_SHARE) / (LAST_SHARE - FIRST_SHARE);
    return MAX_MS * Math.max(0, Math.min(1, part));
  }

  /**
   * To be called at the end of each interval.
   *
   * @param isShort  whether no queue longer than the slack shows
   * @param isLong   whether the delay is longer than that of a short queue
   */
  note(interval: Interval, isShort: boolean, isLong: boolean): void {
    const { length, dropped, frames, delivered, lateShare } = interval;
    this.#share.note(length, dropped, frames);
    // In a stall all lanes are late too, but nothing arrives.
    if (lateShare > CROWD && delivered > 0 && isShort) this.#trust *= DISPROVED;
    else this.#trust += Math.min(1, length / (isLong ? LONG_FORGET_MS : FORGET_MS)) * (1 - this.#trust);
  }
}
