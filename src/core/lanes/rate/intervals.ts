/**
 * Divides time into intervals of half a round trip. At the end of each, it reports the interval to rate control, and applies the result to
 * the pacer, the queue and the choice of lanes.
 */
import type { LaneSet } from "../lane-set.ts";
import type { LaneChoice } from "../sending/lane-choice.ts";
import type { Lateness } from "../sending/lateness.ts";
import type { LaneSender } from "../sending/sender.ts";
import type { SendingParts } from "../sending/sending-parts.ts";
import type { SessionQueue } from "../session-queue.ts";
import type { Demand } from "./demand.ts";
import { CROWD } from "./demand-slack.ts";
import type { Interval } from "./measures/measures.ts";
import type { PathDelay } from "./measures/path-delay.ts";
import { RecentRate } from "./measures/recent-rate.ts";
import type { TurnDelay } from "./measures/turn-delay.ts";
import type { Pacer } from "./pacer.ts";
import type { RateControl } from "./rate-control.ts";

const MIN_INTERVAL_MS = 10;
/** Where turns come late, an interval is as long as this multiple of the delay, up to a bound. */
const LATE_FACTOR = 3;
const MAX_LATE_MS = 100;
/**
 * Samples that an interval needs; the number of intervals in a row without enough samples after which one suffices; and after which all are
 * dropped.
 */
const ENOUGH_SAMPLES = 4;
const STARVED_INTERVALS = 4;
const MAX_STARVED_INTERVALS = 8;
/** An interval counts as limited if the pacer held something for more than this share of it. */
const LIMITED_SHARE = 0.2;
/**
 * The rate leaves room for copies if what arrives in a second is below this share of it, and at least this share of that is delivered. With
 * arrivals of 0.9 of the rate, copies would make the queue grow.
 */
const ROOMY_SHARE = 0.8;
const DELIVERED_SHARE = 0.85;
/** Longest wait in a standing queue: this, or a share of the round trip, because a TCP inside needs that to fill the link. */
const STANDING_MS = 20;
const STANDING_RTT_SHARE = 0.25;
/** Longest wait in the queue while the rate is not known, unless the age budget is longer. */
const START_AGE_MS = 100;

export class RateIntervals {
  /** When the current interval ends. */
  endsAt = 0;

  readonly #lanes: LaneSet;
  readonly #queue: SessionQueue;
  readonly #path: PathDelay;
  readonly #lateness: Lateness;
  readonly #choice: LaneChoice;
  readonly #rates: RateControl;
  readonly #pacer: Pacer;
  readonly #demand: Demand;
  readonly #turn: TurnDelay;
  readonly #sender: LaneSender;
  readonly #ageBudget: number;

  readonly #deliveries = new RecentRate();
  /** Intervals in a row without enough samples. */
  #starved = 0;
  /** Counts at the start of the interval. */
  #deliveredBefore = 0;
  #framesBefore = 0;
  #latesBefore = 0;
  #agedBefore = 0;
  readonly #interval: Interval = {
    now: 0,
    length: MIN_INTERVAL_MS,
    isLimited: false,
    isFilled: false,
    hasSamples: false,
    arrivals: 0,
    deliveries: 0,
    delivered: 0,
    sentBytes: 0,
    inFlight: 0,
    dropped: 0,
    frames: 0,
    lates: 0,
    lateShare: 0,
    newest: 0,
  };

  /** @param ageBudget  longest wait of a datagram by the session's options, in milliseconds */
  constructor(parts: SendingParts, ageBudget: number) {
    this.#lanes = parts.lanes;
    this.#queue = parts.queue;
    this.#path = parts.path;
    this.#lateness = parts.lateness;
    this.#choice = parts.choice;
    this.#rates = parts.rates;
    this.#pacer = parts.pacer;
    this.#demand = parts.demand;
    this.#turn = parts.turn;
    this.#sender = parts.sender;
    this.#ageBudget = ageBudget;
    this.#queue.ageBudget = this.#startAge;
    this.#queue.standingBudget = this.#startAge;
  }

  /** Bytes receipted in this interval so far. */
  get delivered(): number {
    return this.#sender.deliveredBytes - this.#deliveredBefore;
  }

  get #startAge(): number {
    return Math.max(this.#ageBudget, START_AGE_MS);
  }

  /** Ends the interval and begins the next one. */
  end(now: number): void {
    const path = this.#path;
    const demand = this.#demand;
    const sender = this.#sender;
    const interval = this.#interval;
    const length = now - interval.now;
    path.turn(now, this.#lanes.all, this.#rates.mode === "compete");
    const late = Math.min(MAX_LATE_MS, LATE_FACTOR * this.#turn.longest);
    const wanted = Math.max(MIN_INTERVAL_MS, path.minRtt / 2, late);
    this.endsAt = now + wanted;
    const isSpread = this.#lanes.up > 1 && this.#lateness.isRecent(now);
    const isEnough = path.samples >= ENOUGH_SAMPLES && (!isSpread || path.isOfManyLanes);
    interval.hasSamples = path.samples > 0 && (isEnough || this.#starved >= STARVED_INTERVALS);
    this.#starved = interval.hasSamples ? 0 : this.#starved + 1;
    const aged = this.#queue.aged - this.#agedBefore;
    interval.now = now;
    interval.length = length;
    interval.isLimited = demand.heldMs > LIMITED_SHARE * length || (aged > 0 && demand.heldMs > 0);
    interval.isFilled = demand.isFilled;
    interval.arrivals = this.#queue.arrivals(now);
    interval.delivered = this.delivered;
    this.#deliveries.note(now, interval.delivered);
    interval.deliveries = this.#deliveries.at(now);
    interval.sentBytes = sender.sentBytes;
    interval.inFlight = sender.inFlight;
    interval.dropped = aged;
    interval.frames = sender.frames - this.#framesBefore;
    interval.lates = this.#lateness.count - this.#latesBefore;
    interval.lateShare = this.#lanes.lateShare;
    interval.newest = this.#lateness.newest;
    demand.end(now, interval.isLimited, this.#leavesRoom(interval));
    // An interval that includes an idle time says nothing about the path.
    if (length >= MAX_STARVED_INTERVALS * wanted) this.#rates.skip(interval);
    else if (length > 0) this.#adapt();
    if (interval.hasSamples || this.#starved > MAX_STARVED_INTERVALS) path.clear();
    this.#deliveredBefore = sender.deliveredBytes;
    this.#framesBefore = sender.frames;
    this.#latesBefore = this.#lateness.count;
    this.#agedBefore = this.#queue.aged;
  }

  /** Whether the rate leaves room for copies. While a queue overflows, the rate may be too high, but then not all is delivered. */
  #leavesRoom({ arrivals, deliveries }: Interval): boolean {
    if (this.#rates.mode === "start") return false;
    return arrivals < ROOMY_SHARE * this.#rates.rate && deliveries > DELIVERED_SHARE * arrivals;
  }

  #adapt(): void {
    const rates = this.#rates;
    rates.tick(this.#interval);
    this.#pacer.rate = rates.rate;
    const { lateShare, delivered, length } = this.#interval;
    this.#pacer.judge(lateShare > CROWD && delivered > 0, length);
    if (rates.pause > 0) this.#pacer.pause(rates.pause);
    const isStart = rates.mode === "start";
    this.#choice.judge(rates.rate, !isStart);
    this.#lateness.judge(rates.rate, !isStart);
    this.#queue.setRate(rates.rate);
    this.#queue.ageBudget = isStart ? this.#startAge : this.#ageBudget;
    this.#queue.standingBudget = isStart
      ? this.#queue.ageBudget
      : Math.max(STANDING_MS, STANDING_RTT_SHARE * this.#path.minRtt);
  }
}
