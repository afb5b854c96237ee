/**
 * The start: slow start (RFC 5681 §3.1), over all lanes together.
 *
 * What may be under way begins with what three TCP connections send at once and grows by what is receipted, as long as it is made use
 * of, so that a TCP connection inside, which does the same, is not slowed down by it. Packets are spread over a round trip, at twice
 * the rate. It ends with the first sign of a queue: HyStart's rule (Ha and Rhee 2011; RFC 9406), with the standing delay in place of
 * the round trip. A queue that is seen in one interval may be chance; in two it is not, nor is one that is long.
 */
import type { Interval, Measures } from "./measures.ts";

const FIRST_WINDOW_BYTES = 30_000;
const PACE = 2;
const SIGN_MS = 2;
const CLEAR_SIGN_MS = 6;

export class StartMode {
  /** Bytes that may be under way. */
  window = FIRST_WINDOW_BYTES;
  #signs = 0;

  /** Rate to spread packets by. */
  rate(minRtt: number): number {
    return (PACE * this.window) / minRtt;
  }

  /** @returns the capacity of the link, at the end of the start; 0 before */
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
