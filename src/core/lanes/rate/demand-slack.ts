/**
 * How much delay is accepted on top of what counts as an empty path, the more the more of the demand is dropped.
 *
 * The least delay ever seen is that of a quiet path. Where a busy radio link, or a machine slow to wake its programs, adds some
 * milliseconds to every packet, that looks like a queue, which the rate is lowered for in vain: it follows what is sent, and what is
 * sent follows it. Who drops a fifth of its demand has reached the path's rate, as far as anyone knows; who drops half of it had better
 * make sure, at the cost of a few milliseconds for all.
 */
import { DropShare } from "./drop-share.ts";

/** Share of the demand that may be dropped before there is slack, and the share from which all of it is given. */
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
