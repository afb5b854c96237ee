/**
 * Sets the rate at the start of a session: slow start (RFC 5681 §3.1) over all lanes together.
 *
 * The window begins with what three TCP connections send at once. While it is used, it grows by what is receipted, as the window of a TCP
 * connection inside does, so it does not slow that connection down. Packets are spread over half a round trip.
 *
 * The start ends at the first sign of a queue: HyStart's rule (Ha and Rhee 2011; RFC 9406), with the standing delay in place of the round
 * trip. A queue in one interval may be chance; a queue in two, or a long one, is not. But frames may wait in the lanes and not in the link:
 * a new lane's kernel opens its own window, and over a long path every frame waits meanwhile. A queue of the link would grow until the end
 * of the start takes effect, a round trip later. So if lanes came up shortly before the end, and a frame sent soon after the end met no
 * queue, the start continues, as slow start does after a false sign in HyStart++ (RFC 9406 §4.2). From then on, the window grows to at most
 * the first one plus twice what the path has delivered in a round trip, because a larger one would only fill the queue.
 */
import type { Interval, Measures } from "../measures/measures.ts";

/** What three TCP connections send at once. */
export const FIRST_WINDOW_BYTES = 30_000;
const PACE = 2;
/** The window may grow to this multiple of what is delivered in a round trip. Slow start doubles it. */
const MOST_GROWTH = 2;
const SIGN_MS = 2;
const CLEAR_SIGN_MS = 6;
/** Round trips for which a lane counts as new: over a long path it carries more in each, for which its kernel's first window is too small. */
const NEW_RTTS = 3;
const NEW_LONG_RTTS = 5;
/** Paths from this round trip on, in milliseconds, are long. */
export const LONG_RTT_MS = 80;
/** Round trips after the end of the start in which a frame without a queue shows that the end was an error. */
const ERROR_RTTS = 1.5;

export class StartMode {
  /** Most bytes in flight. */
  window = FIRST_WINDOW_BYTES;
  #signs = 0;
  /** Highest rate of delivery over a round trip, in bytes per millisecond. */
  #peak = 0;
  #endedAt = 0;
  /** The delay that counted as no queue when the start ended, in milliseconds. */
  #endTarget = 0;
  /** Whether the lanes were new then. */
  #wereLanesNew = false;
  #laneUpAt = 0;
  #isResumed = false;

  /** A lane has come up. */
  laneUp(now: number): void {
    this.#laneUpAt = now;
  }

  /** Rate at which packets are spread, in bytes per millisecond. */
  rate(minRtt: number): number {
    return (PACE * this.window) / minRtt;
  }

  /** To be called at the end of each interval. @returns the capacity of the link when the start is over; 0 before */
  tick(interval: Interval, measures: Measures, target: number): number {
    const { standing } = measures;
    this.#peak = Math.max(this.#peak, measures.recentDelivery);
    if (interval.hasSamples) this.#signs = standing > target + SIGN_MS ? this.#signs + 1 : 0;
    const isClear = this.#signs === 1 && standing > target + CLEAR_SIGN_MS && measures.capacity > 0;
    if (this.#signs >= 2 || isClear) {
      const rate = this.rate(measures.minRtt);
      const measured = measures.capacity > 0 ? measures.capacity : measures.recentDelivery;
      this.#signs = 0;
      this.#endedAt = interval.now;
      this.#endTarget = target;
      const { minRtt } = measures;
      const newRtts = minRtt < LONG_RTT_MS ? NEW_RTTS : NEW_LONG_RTTS;
      this.#wereLanesNew = interval.now - this.#laneUpAt < newRtts * minRtt;
      return Math.min(rate, Math.max(measured, rate / 4));
    }
    if (interval.isFilled) {
      const bound = FIRST_WINDOW_BYTES + MOST_GROWTH * this.#peak * measures.minRtt;
      const most = this.#isResumed ? bound : Number.POSITIVE_INFINITY;
      this.window = Math.max(this.window, Math.min(this.window + interval.delivered, most));
    }
    return 0;
  }

  /** To be called at the end of each interval after the start. @returns whether the end was an error, so that the start continues */
  resumes({ hasSamples }: Interval, { standing, sentAt, minRtt }: Measures): boolean {
    const age = sentAt - this.#endedAt;
    const isSoon = age >= 0 && age <= ERROR_RTTS * minRtt;
    const isError = hasSamples && standing <= this.#endTarget && this.#wereLanesNew && isSoon;
    if (isError) this.#isResumed = true;
    return isError;
  }
}
