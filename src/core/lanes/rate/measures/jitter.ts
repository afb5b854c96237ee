/**
 * Measures by how much the delay varies on its own.
 *
 * Between two frames, the queue of a bottleneck grows by what the session has sent, less what the bottleneck has served in that time. What
 * the delay deviates from that is jitter: of a radio link that carries packets in clumps, or of a machine that is slow to schedule its
 * programs. The mean of these deviations is smoothed like the interarrival jitter of RTP (RFC 3550 §6.4.1).
 */
import type { Measures } from "./measures.ts";

const WEIGHT = 1 / 16;
/** A larger deviation, such as after a stall, counts as this. In milliseconds. */
const MAX_DEVIATION_MS = 5;

export class Jitter {
  /** Milliseconds. */
  value = 0;
  #standing = 0;
  #sentAt = 0;
  #sentBytes = 0;

  /** Takes the measures of an interval that has samples. @param capacity  rate of the bottleneck, in bytes per millisecond */
  note({ standing, sentAt, sentBytes }: Measures, capacity: number): void {
    if (sentAt <= this.#sentAt) return;
    const growth = (sentBytes - this.#sentBytes) / capacity - (sentAt - this.#sentAt);
    const deviation = Math.abs(standing - Math.max(0, this.#standing + growth));
    this.value += WEIGHT * (Math.min(deviation, MAX_DEVIATION_MS) - this.value);
    this.#standing = standing;
    this.#sentAt = sentAt;
    this.#sentBytes = sentBytes;
  }
}
