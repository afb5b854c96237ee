/**
 * Decides whether the session was using its whole rate when it sent the packets that are now lost.
 *
 * A surge of losses calls for a lower rate if the rate made a queue overflow. If the application sent less than the rate, a lower rate
 * would have lost the same packets, so the losses are the path's own (in bursts, as on a radio link). The rate is then needed: repairs
 * release at once everything that waited behind the holes at the other end, and with it its echoes and answers. RFC 7661 calls such a
 * congestion window not validated.
 *
 * A rate far above the rate of delivery holds nothing back, and so never appears to be in use. It may still make a queue overflow, so it
 * counts as used.
 */
import type { Interval } from "./measures.ts";

/**
 * A loss shows one round trip, or two intervals, later. The two round trips that ended then are examined; most of their intervals must be
 * limited.
 */
const INTERVALS_AGO = 2;
const INTERVALS = 4;
const LEAST_LIMITED = 3;
/** Multiple of the rate of delivery above which a rate counts as used, so an overload of a quarter is found even if nothing waits. */
const FAR_BEYOND = 1.25;

export class RateUse {
  /** One bit for each interval that was limited, the newest in the lowest. */
  #limited = 0;

  /** To be called at the end of each interval. */
  note({ isLimited }: Interval): void {
    this.#limited = (this.#limited << 1) | (isLimited ? 1 : 0);
  }

  /** To be called after {@link note}. @param rate  of the session, in bytes per millisecond */
  wasUsed({ deliveries }: Interval, rate: number): boolean {
    let limited = 0;
    for (let i = 0; i < INTERVALS; i++) limited += (this.#limited >> (INTERVALS_AGO + i)) & 1;
    return limited >= LEAST_LIMITED || rate > FAR_BEYOND * deliveries;
  }
}
