/**
 * Sets the rate beside senders that fill the queue (CUBIC, Reno, the first version of BBR). Beside them, a sender that keeps the queue
 * short gets nothing, as TCP Vegas showed.
 *
 * Here the session holds a fair share instead. Its rate is a window over a smoothed round trip. The window grows while the session's share
 * of the link, which pauses measure (share-probe.ts), is below the aim: the farther below, the faster, and at least half as fast as a TCP
 * connection's. It shrinks once each time the queue approaches its longest recent length, because other senders also shrink theirs when it
 * overflows, and after a surge of losses while the queue is long. The aim is a little above the half that one connection would get, because
 * a session carries many flows.
 *
 * The mode ends when two pauses find no other sender, or when the queue is empty, because then nobody fills it any more.
 *
 * Several competing sessions would fill the queue for each other forever if they mistook each other for rivals, or if the rival had
 * stopped. So there are *truces*: each session sends little for two round trips, at the beginning and then at fixed times after the queue
 * was last short. All sessions see that moment at the same time, so they yield together. If the queue then becomes empty, there is no
 * rival. (BBR's ProbeRTT does the same for one sender, at times that competing BBR flows also come to share.)
 */
import { PACKET_BYTES } from "../../packet-bytes.ts";
import type { Interval, Measures } from "../measures/measures.ts";
import type { ShareProbe } from "../probes/share-probe.ts";
import { SHORT_QUEUE_MS } from "./delay-mode.ts";

/** Aim, as a share of the link. Growth toward it, as a share of the window per round trip, if the aim were the whole link away. */
const AIM = 0.6;
const SEEK = 0.2;
/** Smallest growth, in packets per round trip. */
const CREEP_PACKETS = 0.75;
const MAX_GROWTH = 0.1;
/** Factor for the window after a sign of overflow: CUBIC's 0.7, for one and a half connections. */
const DECREASE = 0.8;
/** Share of the longest queue above which it is about to overflow, and below which this can be detected again. */
const NEAR_FULL = 0.85;
const FAR_FROM_FULL = 0.7;
/** Largest ratio of peak to mean for a queue that other senders fill and drain in turn. */
const PEAK_TO_MEAN = 1.25;
const PEAK_PERIOD_MS = 5_000;
const PEAK_MIN_MS = 500;
/** Share of the link that the session begins with. */
const FIRST_SHARE = 0.4;
const SMOOTHING = 0.1;
const MIN_STAY_MS = 1_000;
/**
 * The mode ends when the queue has been short for so long, or for a round trip. Once a truce at a fixed time has found a rival, the queue
 * must be short for longer outside truces, because BBR leaves it empty every ten seconds to measure its round trip (ProbeRTT): for 200 ms,
 * and a round trip before and after them.
 */
const EMPTY_MS = 60;
const LONG_EMPTY_MS = 250;
const LONG_EMPTY_RTTS = 2;
/** Rate in a truce, as a share of the bottleneck's rate for this session. Length of a truce, relative to the time in which the queue drains. */
const TRUCE_RATE = 0.7;
const TRUCE_LENGTH = 1.2;
const TRUCE_EXTRA_MS = 50;
/** Share of the slack up to which the queue counts as empty in a truce: sessions that ended their truce earlier hold the queue there. */
const TRUCE_SLACK = 0.5;
/** Time of the second truce after the queue was last short, and the interval between later ones. */
const TRUCE_AT_MS = 4_000;
const TRUCE_INTERVAL_MS = 8_000;

export class CompetitiveMode {
  /** Bytes per millisecond. */
  rate = 0;
  /** Own share of the link. */
  share = 0;
  /** Packets per round trip. */
  #window = 0;
  #standing = 0;
  /** Rates at which the bottleneck serves this session, and all senders. */
  #own = 0;
  #total = 0;
  #beganAt = 0;
  #decreasedAt = Number.NEGATIVE_INFINITY;
  #isArmed = true;
  #emptySince = Number.POSITIVE_INFINITY;
  #peak = 0;
  #peakBefore = 0;
  #peakAt = 0;
  #truceAt = 0;
  #truceUntil = 0;
  #truces = 0;
  /** Whether the queue has outlasted a truce that all sessions keep. */
  #hasRival = false;

  /**
   * @param longSince  when the queue was last short
   * @param capacity   rate at which the bottleneck serves this session now
   * @param ceiling    the same before other senders came
   */
  begin(
    now: number,
    longSince: number,
    measures: Measures,
    probe: ShareProbe,
    capacity: number,
    ceiling: number,
  ): void {
    this.rate = Math.max(capacity, FIRST_SHARE * ceiling);
    this.#standing = measures.standing;
    this.#window = (this.rate * (measures.minRtt + measures.standing)) / PACKET_BYTES;
    this.#own = measures.capacity > 0 ? measures.capacity : capacity;
    this.#total = Math.max(ceiling, this.#own / Math.max(0.1, 1 - probe.others));
    this.share = this.#own / this.#total;
    this.#beganAt = now;
    this.#isArmed = true;
    this.#emptySince = Number.POSITIVE_INFINITY;
    this.#peak = measures.standing;
    this.#peakBefore = 0;
    this.#peakAt = now;
    this.#truces = 0;
    this.#hasRival = false;
    this.#truceAt = longSince + TRUCE_AT_MS;
    while (this.#truceAt < now) this.#truceAt += TRUCE_INTERVAL_MS;
    this.#beginTruce(now, measures);
  }

  get isTruce(): boolean {
    return this.#truceUntil > 0;
  }

  /** Rate of the whole link. */
  get total(): number {
    return this.#total;
  }

  /**
   * @param slack  queue that a session in delay mode tolerates beyond its target, in milliseconds (demand-slack.ts)
   * @returns false when nobody else competes any more
   */
  tick(interval: Interval, measures: Measures, probe: ShareProbe, isJudged: boolean, slack: number): boolean {
    const { now, length } = interval;
    const { standing } = measures;
    if (this.isTruce) {
      if (this.#isEmpty(now, measures, TRUCE_SLACK * slack)) return false;
      // A queue that has just become short will show whether it stays so.
      const isShort = this.#emptySince !== Number.POSITIVE_INFINITY;
      if (now < this.#truceUntil || isShort) return true;
      this.#truceUntil = 0;
      if (this.#truces > 1) this.#hasRival = true;
    } else if (now >= this.#truceAt) {
      this.#truceAt += TRUCE_INTERVAL_MS;
      this.#beginTruce(now, measures);
      return true;
    }
    if (isJudged) this.#total += 0.3 * (this.#own / Math.max(0.1, 1 - probe.others) - this.#total);
    if (measures.capacity > 0) this.#own += SMOOTHING * (measures.capacity - this.#own);
    this.share = Math.min(1, this.#own / this.#total);
    this.#standing += SMOOTHING * (standing - this.#standing);
    if ((isJudged && probe.alone >= 2) || this.#isEmpty(now, measures, 0)) return false;
    const rtt = measures.minRtt + this.#standing;
    if (interval.isLimited && this.#isOverflowing(now, measures, rtt)) {
      this.#decreasedAt = now;
      this.#isArmed = false;
      this.#window *= DECREASE;
    } else if (interval.isLimited && this.share < AIM) {
      const growth = Math.max(CREEP_PACKETS, SEEK * (AIM - this.share) * this.#window);
      this.#window = Math.min(this.#window * (1 + MAX_GROWTH), this.#window + (growth * length) / rtt);
    }
    this.rate = (this.#window * PACKET_BYTES) / rtt;
    return true;
  }

  #beginTruce(now: number, { minRtt, standing }: Measures): void {
    this.#truces++;
    const drain = (TRUCE_LENGTH * standing) / (1 - TRUCE_RATE);
    this.#truceUntil = now + drain + standing + minRtt + Math.max(EMPTY_MS, minRtt) + TRUCE_EXTRA_MS;
    this.rate = Math.min(this.rate, TRUCE_RATE * this.#own);
  }

  #isEmpty(now: number, { standing, minRtt }: Measures, slack: number): boolean {
    if (standing >= SHORT_QUEUE_MS + slack) this.#emptySince = Number.POSITIVE_INFINITY;
    else this.#emptySince = Math.min(this.#emptySince, now);
    const isBrief = this.isTruce || !this.#hasRival;
    const wanted = isBrief ? Math.max(EMPTY_MS, minRtt) : LONG_EMPTY_MS + LONG_EMPTY_RTTS * minRtt;
    const hasStayed = this.isTruce || now - this.#beganAt > MIN_STAY_MS;
    return now - this.#emptySince > wanted && hasStayed;
  }

  #isOverflowing(now: number, { standing, surges }: Measures, rtt: number): boolean {
    if (now - this.#peakAt > PEAK_PERIOD_MS) {
      this.#peakAt = now;
      this.#peakBefore = this.#peak;
      this.#peak = 0;
    }
    this.#peak = Math.max(this.#peak, standing);
    const peak = Math.max(this.#peak, this.#peakBefore);
    const isFull = this.#isArmed && standing > NEAR_FULL * peak && now - this.#peakAt > PEAK_MIN_MS;
    if (standing < FAR_FROM_FULL * peak) this.#isArmed = true;
    // Repairs of losses may have made the measured peak longer than the queue can be.
    const isLossy = surges && standing > FAR_FROM_FULL * Math.min(peak, PEAK_TO_MEAN * this.#standing);
    return (isFull || isLossy) && now - this.#decreasedAt > 2 * rtt;
  }
}
