/**
 * Sets the rate while nobody else fills the queue: the rate of the bottleneck, with a queue of a millisecond or a few packets.
 *
 * The bottleneck's rate is measured, as in BBR (Cardwell et al., 2016), instead of found by causing losses. The target for the queue is
 * larger for sessions that send less, which makes sessions share evenly, as in Copa (Arun and Balakrishnan, NSDI 2018). Measurements are a
 * round trip old, so the queue that the packets sent since then will form is predicted (a Smith predictor, 1957). This makes the control
 * loop fast without oscillation:
 *
 *     predicted = standing + what was sent since / capacity − time since
 *     rate      = capacity × (1 − gain × (predicted − target) / round trip)     while there is a queue
 *
 * The same holds for a queue below the target, so that of several sessions the one that sends least grows fastest. Without a queue the rate
 * grows: quickly up to the rate known from before, hardly for two round trips, then faster and faster (the plateau of CUBIC, RFC 9438 §4.2),
 * but never a quarter beyond the rate that the path has proved to take. A queue that overflows before it is longer than the target shows in
 * a surge of losses, if the session was sending at its rate (rate-use.ts). It also delays the packets that it does not drop. So while the
 * delay shows no queue that lasts, the losses are the path's own.
 *
 * Jitter (measures/jitter.ts) looks like a queue above the target, too, but a lower rate does not end it. The measured rate follows what is
 * sent, and what is sent follows the measured rate, so the session would send less than it is offered for as long as the jitter lasts. While
 * not much more is offered than the path takes, a long queue is unlikely, so the target then exceeds the jitter.
 *
 * What an application limits, such as a call, is measured as the rate of the call, whatever the path could carry. If others, jitter or a busy
 * machine then delay it, the capacity would fall to that rate, and the next burst would be held for a second. So while the pacer holds
 * nothing back, the capacity falls no lower than the first window in a round trip, which TCP may send after an idle time too (the restart
 * window, RFC 5681 §4.1). The round trip includes the queue. If that is still too much for the path, the queue grows until the rate is below
 * what arrives; then the pacer holds datagrams, and the measurements count.
 *
 * A queue that overflows drops some of the bytes that count between two frames, so the capacity seems larger than it is, and the session
 * would keep the queue overflowing. While there is a queue, the link is hardly ever idle, so the rate of delivery bounds the capacity. The
 * bound does not apply shortly after a slowdown or a stall, which the rate of delivery still includes.
 *
 * Such a queue also makes most lanes late, and what they hold is repaired and sent beside what is new. The delay does not show this *backlog*: at
 * a rate near the capacity, it would keep the queue overflowing for seconds. So while most lanes are late in an overload, and more is in flight
 * than the path delivers in some round trips, the rate is below the rate of delivery.
 */
import { PACKET_BYTES } from "../../packet-bytes.ts";
import { Jitter } from "../measures/jitter.ts";
import type { Interval, Measures } from "../measures/measures.ts";
import { DELIVERY_TICKS } from "../measures/measures.ts";
import { RateUse } from "../measures/rate-use.ts";
import { FIRST_WINDOW_BYTES } from "./start-mode.ts";

const MIN_TARGET_MS = 1;
const MAX_TARGET_MS = 14;
const TARGET_PACKETS = 2;
/**
 * By how much the target exceeds that: this multiple of the jitter, at most `MAX_JITTER_MS`, and less the more is offered, to nothing if that
 * is `MOST_BEYOND` more than the path takes. The jitter that a session which fills the link causes itself does not count: this, and the
 * time of a packet.
 */
const JITTERS = 4;
const OWN_JITTER_MS = 0.5;
const MAX_JITTER_MS = 4;
const MOST_BEYOND = 0.15;
/** A queue below this is short, whatever the session's own target: sessions that send less have a higher one. */
export const SHORT_QUEUE_MS = 10;
const GAIN = 0.6;
const MIN_RTT_MS = 20;
/** Largest cut of the rate because of a queue. */
const MAX_CUT = 0.6;
/** Weight of a capacity sample; its weight if it is the second in a row that is far lower; and what counts as far lower. */
const FOLLOW = 0.2;
const FOLLOW_FALL = 0.5;
const FALL = 0.85;
/** Weight of a capacity sample in the known rate, if the sample is higher, or lower. */
const REMEMBER = 0.2;
const FORGET = 0.03;
/** Growth per interval, up to the known rate and beyond it. */
const RETURN = 1.1;
const CREEP = 0.005;
const CREEP_TICKS = 4;
const ACCELERATION = 1.6;
const MAX_GROWTH = 0.25;
const SLACK = 1.05;
/** The capacity is at least this share of the rate of delivery. */
const DELIVERED_SHARE = 0.9;
/** With a queue for so many intervals, the capacity is at most this multiple of the rate of delivery. */
const QUEUE_TICKS = 2;
const MOST_DELIVERED = 1.25;
/**
 * The path has stalled if nothing is receipted in so many intervals in a row, in which it would have carried so many packets. A slow path
 * that repairs losses may be silent for that many intervals, too.
 */
const STALL_TICKS = 8;
const STALL_PACKETS = 64;
/**
 * A queue that overflows lasts. So without two intervals in a row that both have at least this delay, for so many intervals, nothing
 * overflows. A delay in one interval alone is a burst of repairs, or a machine that is slow to schedule its programs.
 */
const NO_QUEUE_MS = 1;
const NO_QUEUE_TICKS = 4;
/**
 * Lanes have a backlog if, in an overload, more is in flight than the first window and what the path delivers in so many round trips. How much
 * each further round trip lowers the rate. In an overload, this much more arrives than is delivered.
 */
const BACKLOG_RTTS = 2.5;
const BACKLOG_GAIN = 0.5;
const OVERLOAD = 1.1;
const BACK_OFF = 0.95;
const BACK_OFF_FLOOR = 0.85;
/** Share of late lanes above which losses mean that a queue overflows: with a surge of losses, and without samples of the delay. */
export const OVERFLOW = 0.45;
const BLIND_OVERFLOW = 0.6;

export class DelayMode {
  /** Bytes per millisecond: the rate to send at, and the rate of the bottleneck. */
  rate = 0;
  capacity = 0;
  /** Predicted wait in the queue of a packet sent now, in milliseconds. */
  predicted = 0;
  #known = 0;
  /** Intervals in a row in which the rate grew. */
  #growing = 0;
  #falls = 0;
  /** Intervals in a row with a queue. */
  #queued = 0;
  /** Intervals in a row without a queue that lasts, and the delay in the previous one. */
  #empty = 0;
  #delayedBefore = 0;
  /** Intervals in a row in which nothing was receipted. */
  #silent = 0;
  /** Intervals until the rate of delivery no longer includes a slowdown or a stall. */
  #unsettled = 0;
  readonly #use = new RateUse();
  readonly #jitter = new Jitter();

  begin(capacity: number): void {
    this.rate = capacity;
    this.capacity = capacity;
    this.#known = capacity;
    this.#growing = 0;
    this.#falls = 0;
    this.#queued = 0;
    this.#empty = 0;
    this.#delayedBefore = 0;
    this.#silent = 0;
  }

  /** @param isShared  whether others have much of the link, so the session must not probe for more */
  tick(interval: Interval, measures: Measures, isShared: boolean): void {
    const { hasSamples, isLimited, lateShare } = interval;
    this.#empty = Math.min(measures.delayed, this.#delayedBefore) < NO_QUEUE_MS ? this.#empty + 1 : 0;
    this.#delayedBefore = measures.delayed;
    const overflows = measures.surges && lateShare > OVERFLOW && this.#empty < NO_QUEUE_TICKS;
    const isCrowd = overflows || (!hasSamples && isLimited && lateShare > BLIND_OVERFLOW);
    this.#silent = interval.delivered === 0 ? this.#silent + 1 : 0;
    const missed = this.#silent * interval.length * this.capacity;
    if (this.#silent >= STALL_TICKS && missed >= STALL_PACKETS * PACKET_BYTES)
      this.#unsettled = DELIVERY_TICKS;
    if (hasSamples) this.#follow(interval, measures, isCrowd, isShared);
    this.#use.note(interval);
    if (isCrowd && this.#use.wasUsed(interval, this.rate)) this.#backOff(interval, measures);
    if (isLimited && lateShare > OVERFLOW && this.#unsettled === 0) this.#drainBacklog(interval, measures);
  }

  /** The session sends little on purpose, which says nothing about the link. */
  noteSlowdown(): void {
    this.#unsettled = DELIVERY_TICKS;
  }

  /** Raises the rate because the path has been found to carry more. */
  raise(factor: number): void {
    this.capacity *= factor;
    this.#known = Math.max(this.#known, this.capacity);
    this.rate = Math.max(this.rate, this.capacity);
  }

  #follow(interval: Interval, measures: Measures, isCrowd: boolean, isShared: boolean): void {
    const { standing } = measures;
    this.#jitter.note(measures, this.capacity);
    const target = targetFor(this.rate) + this.#jitterTolerance(interval, measures);
    this.#learn(interval, measures, target);
    const since = interval.now - measures.sentAt;
    const sent = (interval.sentBytes - measures.sentBytes) / this.capacity;
    this.predicted = Math.max(0, standing + sent - since);
    if (standing > target || this.predicted > target) {
      // A queue that is only predicted does not end the growth: the next measurements will show whether it exists.
      if (standing > target) this.#growing = 0;
      const error = (target - this.predicted) / Math.max(MIN_RTT_MS, measures.minRtt);
      this.rate = this.capacity * (1 + Math.max(-MAX_CUT, Math.min(0, GAIN * error)));
    } else if (!interval.isLimited) {
      this.rate = Math.max(this.rate, Math.min(this.capacity, leastRate(interval, measures)));
    } else if (!isCrowd) {
      this.#grow(measures, isShared);
      // A queue shorter than the target belongs to sessions with a lower target, which send more.
      if (measures.capacity > 0) {
        const error = (target - Math.max(standing, this.predicted)) / Math.max(MIN_RTT_MS, measures.minRtt);
        this.rate = Math.max(this.rate, this.capacity * (1 + GAIN * error));
      }
    }
  }

  #jitterTolerance({ arrivals }: Interval, { delivery }: Measures): number {
    const beyond = arrivals / Math.max(this.capacity, delivery) - 1;
    const trust = Math.max(0, Math.min(1, 1 - beyond / MOST_BEYOND));
    const jitter = Math.max(0, this.#jitter.value - OWN_JITTER_MS - PACKET_BYTES / this.capacity);
    return trust * Math.min(MAX_JITTER_MS, JITTERS * jitter);
  }

  #learn(interval: Interval, measures: Measures, target: number): void {
    const { capacity, proved, standing, delivery } = measures;
    const least = Math.min(this.capacity, leastRate(interval, measures));
    const isQueue = standing > target + 3;
    this.#queued = isQueue ? this.#queued + 1 : 0;
    if (capacity === 0) {
      if (proved > this.capacity) this.capacity += 0.6 * (proved - this.capacity);
    } else {
      this.#known += (capacity > this.#known ? REMEMBER : FORGET) * (capacity - this.#known);
      const isFall = isQueue && capacity < FALL * this.capacity;
      this.#falls = isFall ? this.#falls + 1 : 0;
      if (isFall) this.capacity += (this.#falls > 1 ? FOLLOW_FALL : FOLLOW) * (capacity - this.capacity);
      else if (interval.isLimited || isQueue || capacity > this.capacity) {
        // While the application limits the rate, samples are too low. Only higher ones count, as in BBR.
        this.capacity += FOLLOW * (Math.min(capacity, (1 + MAX_GROWTH) * this.capacity) - this.capacity);
      }
    }
    if (this.#unsettled > 0) this.#unsettled--;
    else if (this.#queued >= QUEUE_TICKS && delivery > 0) {
      const most = MOST_DELIVERED * Math.max(delivery, measures.recentDelivery);
      this.capacity = Math.min(this.capacity, most);
      this.#known = Math.min(this.#known, most);
    }
    this.capacity = Math.max(least, this.capacity, DELIVERED_SHARE * delivery);
    this.#known = Math.max(least, this.#known);
  }

  #grow(measures: Measures, isShared: boolean): void {
    this.rate = Math.max(this.rate, this.capacity);
    if (this.rate < 0.95 * this.#known) this.rate = Math.min(this.rate * RETURN, 0.97 * this.#known);
    else {
      const beyond = isShared ? 0 : Math.max(0, ++this.#growing - CREEP_TICKS);
      this.rate *= 1 + Math.min(MAX_GROWTH, CREEP * ACCELERATION ** beyond);
    }
    this.rate = Math.min(this.rate, Math.max(this.capacity, (1 + MAX_GROWTH) * measures.proved));
    this.capacity = Math.max(this.capacity, this.rate / SLACK);
    this.#known = Math.max(this.#known, this.rate / SLACK);
  }

  #drainBacklog(interval: Interval, measures: Measures): void {
    const { delivery, recentDelivery, minRtt, standing } = measures;
    const delivered = Math.max(delivery, recentDelivery);
    const held = (interval.inFlight - FIRST_WINDOW_BYTES) / (delivered * (minRtt + standing));
    const isOverload = interval.arrivals > OVERLOAD * interval.deliveries;
    if (!isOverload || delivery === 0 || held <= BACKLOG_RTTS) return;
    const rate = delivered * (1 - Math.min(MAX_CUT, BACKLOG_GAIN * (held - BACKLOG_RTTS)));
    this.rate = Math.min(this.rate, Math.max(rate, restartRate(measures)));
  }

  #backOff(interval: Interval, measures: Measures): void {
    const { delivery } = measures;
    this.#growing = 0;
    const least = Math.max(BACK_OFF_FLOOR * delivery, leastRate(interval, measures));
    if (delivery === 0 || this.rate <= least) return;
    this.rate *= BACK_OFF;
    this.capacity = Math.min(this.capacity, this.rate * SLACK);
    this.#known = Math.min(this.#known, this.rate * RETURN);
  }
}

/**
 * Lowest capacity that an interval can show, in bytes per millisecond: the first window in a round trip, while the application limits what
 * is sent.
 */
export function leastRate({ isLimited }: Interval, measures: Measures): number {
  return isLimited ? 0 : restartRate(measures);
}

/** The first window in a round trip, in bytes per millisecond. */
function restartRate({ minRtt, standing }: Measures): number {
  return FIRST_WINDOW_BYTES / (minRtt + standing);
}

/** Target for the wait in the queue, in milliseconds. @param rate  of the session, in bytes per millisecond */
export function targetFor(rate: number): number {
  return Math.min(MAX_TARGET_MS, Math.max(MIN_TARGET_MS, 0.5 + (TARGET_PACKETS * PACKET_BYTES) / rate));
}
