/**
 * Decides how much delay beyond that of an empty path is tolerated: more, the more of the demand is dropped.
 *
 * The smallest delay is that of a quiet path. A busy radio link, or a machine that is slow to schedule its programs, adds some milliseconds
 * to every packet. This looks like a queue, but a lower rate does not end it: the measured rate follows what is sent, which follows the
 * measured rate, downward. A session that drops a fifth of its demand has probably reached the path's rate. One that drops half of it
 * should make sure, at the cost of a few milliseconds for all.
 */
import { DropShare } from "./drop-share.ts";

/** Shares of dropped demand at which the slack begins, and at which it reaches its maximum. */
const FIRST_SHARE = 0.28;
const LAST_SHARE = 0.45;
const MAX_MS = 15;

export class DemandSlack {
  readonly #share = new DropShare();

  /** Milliseconds. */
  get value(): number {
    const part = (this.#share.value - FIRST_SHARE) / (LAST_SHARE - FIRST_SHARE);
    return MAX_MS * Math.max(0, Math.min(1, part));
  }

  /** See {@link DropShare.note}. */
  note(length: number, dropped: number, sent: number): void {
    this.#share.note(length, dropped, sent);
  }
}
