/**
 * The rate beside those who fill the queue (CUBIC, Reno, BBR's first version): who keeps a queue short beside them gets nothing, as
 * TCP Vegas found out.
 *
 * The session then holds a fair share instead. A window over a smoothed round trip grows while the session's share of the link, which
 * pauses tell (share-probe.ts), is below the aim, the faster the farther below, and at least as half a TCP connection does. It shrinks
 * when the queue comes near the longest of late, once each time, as those who see it overflow then do too; and with a surge of
 * losses while it is long. The aim is a little more than one connection's half, as a session has many flows.
 *
 * It ends when two pauses say that nobody else is there, or when the queue is empty: nobody fills it any more.
 *
 * Several sessions that compete would hold the queue filled for each other for ever, be it that they mistook each other for rivals, or
 * that the rival has gone. So there are *truces*: little is sent for two round trips, at the beginning and then at fixed times since
 * the queue was last short. All sessions have seen that at the same time, and so they yield at the same time: if the queue is empty
 * then, there was nobody else. (The same for one sender, at times of its own: BBR's ProbeRTT, which its flows come to share, too.)
 */
import { targetFor } from "./delay-mode.ts";
import type { Interval, Measures } from "./measures.ts";
import type { ShareProbe } from "./share-probe.ts";

const PACKET_BYTES = 1_250;
/** Share of the link that is aimed at, and how fast: of the window, in a round trip, for all of the link. */
const AIM = 0.6;
const SEEK = 0.2;
/** Least growth, packets in a round trip. */
const CREEP_PACKETS = 0.75;
const MAX_GROWTH = 0.1;
/** What is left of the window after a sign of overflow: CUBIC's 0.7 of one and a half connections. */
const DECREASE = 0.8;
/** Parts of the longest queue above which it is about to overflow, and below which it may again. */
const NEAR_FULL = 0.85;
const FAR_FROM_FULL = 0.7;
/** A queue that others fill and drain in turns is longer at its peak than on average, by at most so much. */
const PEAK_TO_MEAN = 1.25;
const PEAK_PERIOD_MS = 5_000;
const PEAK_MIN_MS = 500;
/** Part of the link that the session begins with. */
const FIRST_SHARE = 0.4;
const SMOOTHING = 0.1;
const MIN_STAY_MS = 1_000;
const EMPTY_MS = 60;
/** Part of what the bottleneck serves that is sent in a truce, and how much longer it lasts than the queue then takes to drain. */
const TRUCE_RATE = 0.7;
const TRUCE_LENGTH = 1.2;
const TRUCE_EXTRA_MS = 50;
/** Part of what who does not compete accepts, that counts as empty: those who have ended the truce before hold the queue at that. */
const TRUCE_SLACK = 0.5;
/** When there are truces, since the queue was short: the second, and how long after it the others. */
const TRUCE_AT_MS = 4_000;
const TRUCE_INTERVAL_MS = 8_000;

export class CompetitiveMode {
  /** Bytes per millisecond. */
  rate = 0;
  /** Own share of the link. */
  share = 0;
  /** Packets in a round trip. */
  #window = 0;
  #standing = 0;
  /** Rates at which the bottleneck serves us, and all. */
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

  /**
   * @param longSince  when the queue was short for the last time
   * @param capacity  rate at which the bottleneck serves us now
   * @param ceiling   and at which it did before the others came
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
   * @param slack  milliseconds of queue that who does not compete accepts on top of the target, see demand-slack.ts
   * @returns false when nobody competes any more
   */
  tick(interval: Interval, measures: Measures, probe: ShareProbe, isJudged: boolean, slack: number): boolean {
    const { now, length } = interval;
    const { standing } = measures;
    if (this.isTruce) {
      if (this.#isEmpty(now, measures, TRUCE_SLACK * slack)) return false;
      if (now < this.#truceUntil) return true;
      this.#truceUntil = 0;
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
    const drain = (TRUCE_LENGTH * standing) / (1 - TRUCE_RATE);
    this.#truceUntil = now + drain + standing + minRtt + Math.max(EMPTY_MS, minRtt) + TRUCE_EXTRA_MS;
    this.rate = Math.min(this.rate, TRUCE_RATE * this.#own);
  }

  #isEmpty(now: number, { standing, minRtt }: Measures, slack: number): boolean {
    if (standing >= targetFor(this.rate) + 2 + slack) this.#emptySince = Number.POSITIVE_INFINITY;
    else this.#emptySince = Math.min(this.#emptySince, now);
    const hasStayed = this.isTruce || now - this.#beganAt > MIN_STAY_MS;
    return now - this.#emptySince > Math.max(EMPTY_MS, minRtt) && hasStayed;
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
    // Repairs of losses may have made the peak longer than the queue can be.
    const isLossy = surges && standing > FAR_FROM_FULL * Math.min(peak, PEAK_TO_MEAN * this.#standing);
    return (isFull || isLossy) && now - this.#decreasedAt > 2 * rtt;
  }
}
