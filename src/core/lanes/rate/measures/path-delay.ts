/**
 * Measures the delay of the path, from receipts alone.
 *
 * A receipt says when the newest frame of a lane arrived, on the receiver's clock, and the sender knows when it sent that frame. The
 * difference is the delay plus the unknown offset of the clocks. The smallest difference of the last 10 to 20 s contains the same offset;
 * what exceeds it is the time in queues, the *standing delay*. (LEDBAT, RFC 6817 §2.2, measures this in the same way. Its two windows also
 * follow clock drift and route changes.) The receipt's own clock gives the round trip without the time for which the receipt was held back.
 *
 * An idle session gets no receipts, so its smallest delay is as old as the idle time, and the clocks may have drifted since then. The most
 * that they drift is added to it: drift then does not count as a queue, and only a queue shorter than that is missed.
 *
 * A frame that waited behind a hole in its lane says nothing about the path, so samples of late lanes are left out. Only the smallest delay
 * of each interval counts, because a queue delays all frames, but chance delays only some (Copa's standing RTT: Arun and Balakrishnan, NSDI
 * 2018).
 */
import type { LaneState } from "../../lane-state.ts";

const PERIOD_MS = 10_000;
/**
 * The period while the queue may never be empty. An earlier smallest delay then counts for longer, but not forever, because routes change.
 */
const BUSY_PERIOD_MS = 60_000;
/** Drift between two clocks that is allowed for: quartz is within 20 to 50 ppm. */
const DRIFT = 50e-6;
/** Round trip until one is measured, in milliseconds. */
const GUESSED_RTT = 100;
/** Largest lag of a lane that is tolerated, beyond half a round trip. */
const MAX_LAG_MS = 20;
const NEVER = Number.POSITIVE_INFINITY;

export class PathDelay {
  /** In this interval: the smallest delay, plus the clock offset; when that frame was sent; and the session's bytes up to it. */
  least = NEVER;
  leastSentAt = 0;
  leastSentBytes = 0;
  samples = 0;

  /** Bits of the lanes that the samples came from. */
  #lanes = 0;
  #reference = 0;
  #hasReference = false;
  #periodAt = Number.NEGATIVE_INFINITY;
  /** When the newest frame with a sample was sent. */
  #sampledAt = Number.NEGATIVE_INFINITY;
  #delay = NEVER;
  #delayBefore = NEVER;
  #rtt = NEVER;
  #rttBefore = NEVER;

  /** Smallest recent delay, to be subtracted from delays. */
  get base(): number {
    return Math.min(this.#delay, this.#delayBefore);
  }

  /** Smallest recent round trip, in milliseconds. */
  get minRtt(): number {
    const rtt = Math.min(this.#rtt, this.#rttBefore);
    return rtt === NEVER ? GUESSED_RTT : Math.max(1, rtt);
  }

  /** By how many milliseconds a lane's own path is longer than the best lane's, up to a limit. */
  lag(lane: LaneState): number {
    const delay = Math.min(lane.delay, lane.delayBefore);
    return delay === NEVER ? 0 : Math.max(0, Math.min(delay - this.base, this.minRtt / 2 + MAX_LAG_MS));
  }

  /** Whether the samples of this interval come from more than one lane. */
  get isOfManyLanes(): boolean {
    return (this.#lanes & (this.#lanes - 1)) !== 0;
  }

  /**
   * Delay of a frame in milliseconds, plus the constant clock offset.
   *
   * @param arrival  on the receiver's clock, in microseconds modulo 2³²
   */
  delayOf(sentAt: number, arrival: number): number {
    const difference = (arrival - microsecondsOf(sentAt)) | 0;
    if (!this.#hasReference) {
      this.#hasReference = true;
      this.#reference = difference;
    }
    return ((difference - this.#reference) | 0) / 1000;
  }

  /** Adds the delay of a lane's newest frame, late or not. */
  addOfLane(lane: LaneState, delay: number): void {
    if (delay < lane.delay) lane.delay = delay;
  }

  /** Adds the delay of the newest frame of a lane that is not late, from a receipt. */
  add(lane: LaneState, sentAt: number, sentBytes: number, delay: number, rtt: number): void {
    if (rtt < this.#rtt) this.#rtt = rtt;
    if (delay < this.#delay) this.#delay = delay;
    if (sentAt > this.#sampledAt) this.#sampledAt = sentAt;
    this.samples++;
    this.#lanes |= lane.bit;
    if (delay < this.least) {
      this.least = delay;
      this.leastSentAt = sentAt;
      this.leastSentBytes = sentBytes;
    }
  }

  noteRoundTrip(rtt: number): void {
    if (rtt < this.#rtt) this.#rtt = rtt;
  }

  /** Begins a new interval. */
  clear(): void {
    this.least = NEVER;
    this.samples = 0;
    this.#lanes = 0;
  }

  /** Begins a new period if this one is over. @param isBusy  whether other senders keep the queue filled */
  turn(now: number, lanes: readonly LaneState[], isBusy: boolean): void {
    if (now - this.#periodAt < (isBusy ? BUSY_PERIOD_MS : PERIOD_MS)) return;
    const idle = now - this.#sampledAt;
    // A session that is not idle follows the drift from period to period.
    const drift = idle > PERIOD_MS ? idle * DRIFT : 0;
    this.#periodAt = now;
    this.#delayBefore = this.#delay + drift;
    this.#rttBefore = this.#rtt;
    this.#delay = NEVER;
    this.#rtt = NEVER;
    for (const lane of lanes) {
      lane.delayBefore = lane.delay + drift;
      lane.delay = NEVER;
    }
  }
}

function microsecondsOf(time: number): number {
  return Math.floor(time * 1000) | 0;
}
