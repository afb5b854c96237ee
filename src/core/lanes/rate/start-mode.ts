/**
 * Sets the rate at the start of a session: slow start (RFC 5681 §3.1) over all lanes together.
 *
 * The window begins with what three TCP connections send at once, and grows by what is receipted as long as it is used, so that it does
 * not slow down a TCP connection inside, which does the same. Packets are spread over half a round trip. The start ends at the first sign
 * of a queue: HyStart's rule (Ha and Rhee 2011; RFC 9406), with the standing delay in place of the round trip. A queue in one interval may
 * be chance; a queue in two, or a long one, is not.
 */
import type { Interval, Measures } from "./measures.ts";

const FIRST_WINDOW_BYTES = 30_000;
const PACE = 2;
const SIGN_MS = 2;
const CLEAR_SIGN_MS = 6;

export class StartMode {
  /** Most bytes in flight. */
  window = FIRST_WINDOW_BYTES;
  #signs = 0;

  /** Rate at which packets are spread, in bytes per millisecond. */
  rate(minRtt: number): number {
    return (PACE * this.window) / minRtt;
  }

  /** To be called at the end of each interval. @returns the capacity of the link when the start is over; 0 before */
  tick(interval: Interval, measures: Measures, target: number): number {
    const { standing } = measures;
    if (interval.hasSamples) this.#signs = standing > target + SIGN_MS ? this.#signs + 1 : 0;
    const isClear = this.#signs === 1 && standing > target + CLEAR_SIGN_MS && measures.capacity > 0;
    if (this.#signs >= 2 || isClear) {
      const rate = this.rate(measures.minRtt);
      const measured = measures.capacity > 0 ? measures.capacity : measures.recentDelivery;
      return Math.min(rate, Math.max(measured, rate / 4));
    }
    if (interval.isFilled) this.window += interval.delivered;
    return 0;
  }
}
