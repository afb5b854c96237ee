/**
 * Measures the path in each interval, for rate control.
 *
 * *Capacity* comes from the arrival times of frames. Take the frames with the smallest delay in two consecutive intervals. Between them, a
 * first-in-first-out bottleneck has sent exactly what the session sent between them. If there was a queue at both, these bytes over this
 * time are the rate at which the bottleneck serves the session, regardless of what became late in between. If there was none, it is a rate
 * that the path has proved to carry. Both are too high if the bottleneck has dropped some of these bytes. (Counting delivered bytes, as BBR
 * does, varies with every hole in a lane. In trials, this measure stayed within three per cent.)
 *
 * *Surges* of losses reveal a queue that is too short to show in the delay. Random losses make lanes late too, so a surge is clearly more
 * than the smallest share of frames that made lanes late in the last 10 to 20 s.
 */
import type { PathDelay } from "./path-delay.ts";

/** A standing delay above this, in milliseconds, is a queue. */
const QUEUE_MS = 0.3;
/** Intervals over which the mean rate of delivery is taken. */
export const DELIVERY_TICKS = 16;
const RECENT = 3;
const LOSS_PERIOD_MS = 1_000;
const LOSS_FRAMES = 100;
const LOSS_PERIODS_MS = 10_000;
const MAX_BASE_LOSS = 0.05;

/** What happened in an interval. Sizes in bytes, times in milliseconds. */
export interface Interval {
  now: number;
  length: number;
  /** Whether the pacer held bulk for a good part of the interval. */
  isLimited: boolean;
  /** Whether bulk waited for the pacer or for the window. */
  isFilled: boolean;
  /** Whether there were enough samples of the delay. */
  hasSamples: boolean;
  /** Rate at which the session was offered bytes in the last second, in bytes per millisecond. */
  arrivals: number;
  /** Rate of delivery in the last second, in bytes per millisecond. */
  deliveries: number;
  /** Bytes receipted in the interval. */
  delivered: number;
  /** Bytes sent in the session so far. */
  sentBytes: number;
  /** Bytes without a receipt. */
  inFlight: number;
  /** Datagrams that became too old in the queue. */
  dropped: number;
  /** Frames sent, and how often lanes became late. */
  frames: number;
  lates: number;
  /** Share of the bulk lanes that are late; 0 if there are few of these. */
  lateShare: number;
  /** When the newest frame with a receipt was sent. */
  newest: number;
}

export class Measures {
  /** How long packets wait in queues, in milliseconds; and the delay that this is without the slack. */
  standing = 0;
  delayed = 0;
  minRtt = 0;
  /** Rate at which the bottleneck serves this session, in bytes per millisecond; 0 if this interval does not show it. */
  capacity = 0;
  /** The last rate that the path has proved to carry. */
  proved = 0;
  /** Whether far more lanes became late than random losses explain. */
  surges = false;
  /** When the frame behind `standing` was sent, and how many bytes the session had sent by then. */
  sentAt = 0;
  sentBytes = 0;
  #delivered = new Float64Array(DELIVERY_TICKS);
  #turns = 0;
  #previousBytes = 0;
  #previousSentAt = Number.NEGATIVE_INFINITY;
  #previousAt = Number.NEGATIVE_INFINITY;
  #previousStanding = 0;
  #frames = new Float64Array(RECENT + 1);
  #lates = new Float64Array(RECENT);
  #lossFrames = 0;
  #lossLates = 0;
  #lossAt = 0;
  #lossTurnAt = 0;
  #loss = 1;
  #lossBefore = 1;

  /**
   * @param slack     delay that does not count as a queue, in milliseconds
   * @param pausedAt  when the pacer last began a pause
   */
  update(interval: Interval, path: PathDelay, slack: number, pausedAt: number): void {
    this.#delivered[this.#turns++ % DELIVERY_TICKS] = interval.delivered / interval.length;
    this.minRtt = path.minRtt;
    this.capacity = 0;
    if (interval.hasSamples) this.#measureCapacity(interval.length, path, slack, pausedAt);
    this.#measureLoss(interval);
  }

  /** Mean rate of delivery in the last two intervals, in bytes per millisecond. */
  get recentDelivery(): number {
    return (
      (this.#delivered[(this.#turns + DELIVERY_TICKS - 1) % DELIVERY_TICKS] +
        this.#delivered[(this.#turns + DELIVERY_TICKS - 2) % DELIVERY_TICKS]) /
      2
    );
  }

  /** Mean rate of delivery in the last 16 intervals, about eight round trips; 0 before. */
  get delivery(): number {
    if (this.#turns < DELIVERY_TICKS) return 0;
    let sum = 0;
    for (const value of this.#delivered) sum += value;
    return sum / DELIVERY_TICKS;
  }

  #measureCapacity(length: number, path: PathDelay, slack: number, pausedAt: number): void {
    this.delayed = path.least - path.base;
    this.standing = Math.max(0, this.delayed - slack);
    this.sentAt = path.leastSentAt;
    this.sentBytes = path.leastSentBytes;
    const arrivedAt = path.leastSentAt + path.least;
    const elapsed = arrivedAt - this.#previousAt;
    // The two frames are too close together: the next interval is measured from the earlier one.
    if (elapsed < 0.4 * length) return;
    if (elapsed < 4 * length && path.leastSentBytes > this.#previousBytes) {
      this.proved = (path.leastSentBytes - this.#previousBytes) / elapsed;
      // Others use what a pause leaves, so across a pause the bottleneck serves the session less than it could.
      const spansPause = this.#previousSentAt <= pausedAt && pausedAt < path.leastSentAt;
      if (Math.min(this.standing, this.#previousStanding) > QUEUE_MS && !spansPause)
        this.capacity = this.proved;
    }
    this.#previousSentAt = path.leastSentAt;
    this.#previousBytes = path.leastSentBytes;
    this.#previousAt = arrivedAt;
    this.#previousStanding = this.standing;
  }

  #measureLoss({ now, frames, lates }: Interval): void {
    this.#lossFrames += frames;
    this.#lossLates += lates;
    if (now - this.#lossAt > LOSS_PERIOD_MS && this.#lossFrames > LOSS_FRAMES) {
      this.#loss = Math.min(this.#loss, this.#lossLates / this.#lossFrames);
      this.#lossAt = now;
      this.#lossFrames = 0;
      this.#lossLates = 0;
      if (now - this.#lossTurnAt > LOSS_PERIODS_MS) {
        this.#lossTurnAt = now;
        this.#lossBefore = this.#loss;
        this.#loss = 1;
      }
    }
    this.#frames.copyWithin(1, 0);
    this.#frames[0] = frames;
    this.#lates.copyWithin(1, 0);
    this.#lates[0] = lates;
    // A loss shows one round trip later, that is, two intervals.
    let sent = 0;
    let late = 0;
    for (let i = 0; i < RECENT; i++) {
      sent += this.#frames[i + 1];
      late += this.#lates[i];
    }
    const chance = Math.min(MAX_BASE_LOSS, this.#loss, this.#lossBefore);
    this.surges = late > 2 * chance * sent + 3;
  }
}
