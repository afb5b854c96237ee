/**
 * Whether the session made use of its rate when the packets were sent that are lost now.
 *
 * A surge of losses calls for a lower rate if the rate made a queue overflow. While the application sends less than the rate, a lower one
 * would have lost the same packets, so that the losses are the path's own (in bursts, as a radio loses). The rate is then needed: repairs
 * release what waited behind the holes at the other end of the path, and echoes and answers to it, all at once. RFC 7661 calls such a
 * congestion window not validated.
 *
 * A rate far beyond what is delivered holds nothing back, and so never appears to be in use. It may well make a queue overflow, and counts
 * as used.
 */
import type { Interval } from "./measures.ts";
import { RecentRate } from "./recent-rate.ts";

/** A loss shows a round trip later: two intervals. Looked at are the two round trips that ended then, of which most must be limited. */
const INTERVALS_AGO = 2;
const INTERVALS = 4;
const LEAST_LIMITED = 3;
/** Multiple of the rate of delivery above which a rate counts as used: an overload of a quarter is found even if it does not wait. */
const FAR_BEYOND = 1.25;

export class RateUse {
  /** One bit for each interval that was limited, the newest in the lowest. */
  #limited = 0;
  readonly #delivered = new RecentRate();

  /** To be called at the end of each interval. */
  note({ now, isLimited, delivered }: Interval): void {
    this.#limited = (this.#limited << 1) | (isLimited ? 1 : 0);
    this.#delivered.note(now, delivered);
  }

  /** @param rate  of the session, in bytes per millisecond */
  wasUsed(now: number, rate: number): boolean {
    let limited = 0;
    for (let i = 0; i < INTERVALS; i++) limited += (this.#limited >> (INTERVALS_AGO + i)) & 1;
    return limited >= LEAST_LIMITED || rate > FAR_BEYOND * this.#delivered.at(now);
  }
}
