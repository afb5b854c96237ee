/**
 * How long the path takes, from receipts alone.
 *
 * A receipt says when, on the receiver's clock, the newest frame of a lane arrived; the sender knows when it sent that. The difference
 * is the delay plus the unknown offset of the clocks, which drops out once the least of it, over the last ten to twenty seconds, is
 * taken away: what is left is the time spent in queues, *standing delay* (LEDBAT, RFC 6817 §2.2, has the same measure and the same two
 * windows, which also follow clocks that drift and routes that change). The receipt's own clock gives the round trip without the time
 * that the receipt was held back.
 *
 * A frame that stood behind a hole in its lane says nothing of the path: samples of late lanes are left out, and of each interval the
 * least counts, as a queue delays all, but chance only some (Copa's standing RTT: Arun and Balakrishnan, NSDI 2018).
 */
import type { LaneState } from "../lane-state.ts";

const PERIOD_MS = 10_000;
/** While the queue is never empty the least delay of before counts for longer; not for ever, as routes change. */
const BUSY_PERIOD_MS = 60_000;
/** Until something is known. */
const GUESSED_RTT = 100;
/** A lane whose way is longer by more than this, beyond half a round trip, is late all the same. */
const MAX_LAG_MS = 20;
const NEVER = Number.POSITIVE_INFINITY;

export class PathDelay {
  /** Of the interval under way: its least delay, above whatever the clocks differ by, and that frame's send and arrival. */
  least = NEVER;
  leastSentAt = 0;
  leastSentBytes = 0;
  samples = 0;

  /** Bits of the lanes that the samples came from. */
  #lanes = 0;
  #reference = 0;
  #hasReference = false;
  #periodAt = Number.NEGATIVE_INFINITY;
  #delay = NEVER;
  #delayBefore = NEVER;
  #rtt = NEVER;
  #rttBefore = NEVER;

  /** Least delay of late, to be subtracted from delays. */
  get base(): number {
    return Math.min(this.#delay, this.#delayBefore);
  }

  /** Least round trip of late, in milliseconds. */
  get minRtt(): number {
    const rtt = Math.min(this.#rtt, this.#rttBefore);
    return rtt === NEVER ? GUESSED_RTT : Math.max(1, rtt);
  }

  /** By how much a lane's own path is longer than that of the best, within reason. */
  lag(lane: LaneState): number {
    const delay = Math.min(lane.delay, lane.delayBefore);
    return delay === NEVER ? 0 : Math.max(0, Math.min(delay - this.base, this.minRtt / 2 + MAX_LAG_MS));
  }

  /** True when the samples come from more than one lane. */
  get isOfManyLanes(): boolean {
    return (this.#lanes & (this.#lanes - 1)) !== 0;
  }

  /**
   * Delay of a frame, above what the clocks differ by.
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

  /** Enters the delay of a lane's newest frame, late or not. */
  addOfLane(lane: LaneState, delay: number): void {
    if (delay < lane.delay) lane.delay = delay;
  }

  /** Enters what a receipt said of the newest frame of a lane that is not late. */
  add(lane: LaneState, sentAt: number, sentBytes: number, delay: number, rtt: number): void {
    if (rtt < this.#rtt) this.#rtt = rtt;
    if (delay < this.#delay) this.#delay = delay;
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

  /** Begins a new period when this one is over. @param isBusy  whether others keep the queue filled */
  turn(now: number, lanes: readonly LaneState[], isBusy: boolean): void {
    if (now - this.#periodAt < (isBusy ? BUSY_PERIOD_MS : PERIOD_MS)) return;
    this.#periodAt = now;
    this.#delayBefore = this.#delay;
    this.#rttBefore = this.#rtt;
    this.#delay = NEVER;
    this.#rtt = NEVER;
    for (const lane of lanes) {
      lane.delayBefore = lane.delay;
      lane.delay = NEVER;
    }
  }
}

function microsecondsOf(time: number): number {
  return Math.floor(time * 1000) | 0;
}
