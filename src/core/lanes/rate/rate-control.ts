/**
 * Controls the rate of a session: selects one of three modes, and decides when the pacer pauses.
 *
 *     start ── a queue ──► delay ── others fill the queue ──► compete
 *       ▲                  │ ▲                                  │
 *       └── there is none ─┘ └────── nobody does any more ──────┘
 *
 * In *delay*, a standing queue leads to a pause, which shows whose queue it is (probes/share-probe.ts). The session begins to *compete* if two
 * pauses in a row show that others have much of the link, and the queue has not been short for some time. Other sessions of this kind would
 * have ended the queue in that time, because they yield too. A session that competes keeps the smallest delay for longer, because the queue
 * may never be empty.
 *
 * While bulk is limited, *drains* show the smallest delay again: pauses as long as the queue. A session that joins others takes the queue that
 * it finds for part of the path, and sends too much until it sees the queue empty. All sessions see that at the same time, and each counts
 * the time to its next drain from then on. They therefore drain at the same time, which empties the queue. Sessions that have just joined
 * do not wait for that: a *slowdown* (probes/slowdown.ts) shows them the path without the queue that they found.
 *
 * While demand is dropped, occasional bursts show whether the delay is a queue at all (probes/headroom-probe.ts).
 */
import { DemandSlack } from "./demand-slack.ts";
import type { Interval } from "./measures/measures.ts";
import { Measures } from "./measures/measures.ts";
import type { PathDelay } from "./measures/path-delay.ts";
import { CompetitiveMode } from "./modes/competitive-mode.ts";
import { DelayMode, leastRate, SHORT_QUEUE_MS, targetFor } from "./modes/delay-mode.ts";
import { StartMode } from "./modes/start-mode.ts";
import { HeadroomProbe } from "./probes/headroom-probe.ts";
import { ShareProbe } from "./probes/share-probe.ts";
import { Slowdown } from "./probes/slowdown.ts";

export type RateMode = "start" | "delay" | "compete";

/** Lowest rate in bytes per millisecond: 100 kbit/s. */
const MIN_RATE = 12.5;
/** A queue that exceeds the target by this, for this many intervals, leads to a pause. Pauses are at least this far apart. */
const LONG_QUEUE_MS = 3;
const LONG_QUEUE_TICKS = 3;
const PAUSE_INTERVAL_MS = 250;
/** The session competes after this many pauses in a row in which others had much of the link, and this long without a short queue. */
const CROWDED_PAUSES = 2;
const PATIENCE_MS = 800;
const PATIENCE_RTTS = 8;
/**
 * After a pause that showed much traffic of others, the link counts as shared for so long, unless the queue is empty for longer than
 * sessions that share a link need to fill it again: then the others have left, or the link has become faster.
 */
const SHARED_MS = 3_000;
const FREE_MS = 200;
const FREE_RTTS = 4;
/**
 * Drains are pauses that show the smallest delay again. A drain is due `DRAIN_INTERVAL_MS` after the queue was last empty (a delay below
 * `EMPTY_MS`) and after the last drain, but no later than `MAX_DRAIN_INTERVAL_MS` after the last drain. It is as long as the delay, or longer
 * if others have some of the link.
 */
const DRAIN_INTERVAL_MS = 2_500;
const MAX_DRAIN_INTERVAL_MS = 10_000;
const DRAIN_TICKS = 8;
const MAX_DRAIN_MS = 30;
const MAX_SHARED_DRAIN_MS = 80;
const SHARED_DRAIN_FACTOR = 2;
const DRAIN_EXTRA_MS = 4;
const EMPTY_MS = 1;
/** Rate in a slowdown, as a share of the capacity. */
const SLOW_RATE = 0.15;
/** Pauses while the session competes. */
const COMPETE_INTERVAL_MS = 1_000;
const COMPETE_QUEUE_MS = 8;
/** Time over which the best capacity is forgotten. */
const CEILING_MS = 20_000;
/** The window exceeds rate × round trip because receipts are delayed and lanes are uneven. */
const WINDOW_FACTOR = 1.5;
const WINDOW_SLACK_MS = 10;
const WINDOW_SLACK_BYTES = 15_000;
/** Growth after a burst that found room. */
const ROOM = 1.15;

export class RateControl {
  mode: RateMode = "start";
  /** Bytes per millisecond. */
  rate: number;
  /** How long the pacer is to pause from now on, in milliseconds. */
  pause = 0;
  readonly #probe = new ShareProbe();

  readonly #path: PathDelay;
  readonly #measures = new Measures();
  readonly #slack = new DemandSlack();
  readonly #headroom = new HeadroomProbe();
  readonly #slowdown = new Slowdown();
  readonly #start = new StartMode();
  readonly #delay = new DelayMode();
  readonly #compete = new CompetitiveMode();
  /** The highest recent capacity, in bytes per millisecond. */
  #ceiling = 0;
  #longTicks = 0;
  #limitedTicks = 0;
  /** Whether a pause has given a result that is not used yet. */
  #isJudged = false;
  /** When the queue was last short. */
  #longSince = 0;
  /** When the last frame that met an empty queue was sent, and when the last drain began. */
  #emptyAt = 0;
  #drainedAt = 0;
  /** When the queue was last not empty. */
  #queuedAt = 0;

  constructor(path: PathDelay) {
    this.#path = path;
    this.rate = this.#start.rate(path.minRtt);
  }

  /** How long packets wait in queues, in milliseconds. */
  get standing(): number {
    return this.#measures.standing;
  }

  /** The session's share of the link while it competes; 1 otherwise. */
  get share(): number {
    return this.mode === "compete" ? this.#compete.share : 1;
  }

  /** Most bytes in flight on lanes that are not late. @param delivered  bytes receipted in this interval so far */
  window(delivered: number): number {
    if (this.mode === "start") return this.#start.window + delivered;
    const { standing, minRtt } = this.#measures;
    const queue = this.mode === "compete" ? standing : Math.min(standing, WINDOW_SLACK_MS);
    return WINDOW_FACTOR * this.rate * (minRtt + WINDOW_SLACK_MS + queue) + WINDOW_SLACK_BYTES;
  }

  /** A lane has come up. */
  laneUp(now: number): void {
    this.#start.laneUp(now);
  }

  /** A frame has been receipted. @param standing  its wait in queues @param sentBytes  bytes sent by the session, up to this frame */
  noteFrame(sentAt: number, standing: number, sentBytes: number): void {
    this.#probe.note(sentAt, Math.max(0, standing - this.#headroom.own), sentBytes);
    this.#headroom.note(sentAt, standing, sentBytes);
  }

  /** To be called at the end of each interval of about half a round trip. */
  tick(interval: Interval): void {
    const { mode } = this;
    this.pause = 0;
    const isLong = this.#measures.delayed > SHORT_QUEUE_MS;
    this.#slack.note(interval, this.standing < targetFor(this.rate), isLong);
    const slack = mode === "compete" ? 0 : Math.max(this.#slack.value, this.#headroom.own);
    this.#measures.update(interval, this.#path, slack, this.#probe.lastAt);
    const capacity = mode === "compete" ? this.#compete.total : Math.max(this.#ceiling, this.#delay.capacity);
    if (this.#probe.judge(interval.now, interval.newest, capacity)) this.#isJudged = true;
    if (mode === "start") this.#tickStart(interval);
    else if (mode === "delay") this.#tickDelay(interval);
    else if (interval.hasSamples) this.#tickCompete(interval);
    if (interval.hasSamples) this.#isJudged = false;
    this.rate = Math.max(MIN_RATE, this.rate);
  }

  /** To be called instead at the end of an interval that includes an idle time. */
  skip(interval: Interval): void {
    if (this.mode === "delay") this.#slowdown.skip(interval.length);
  }

  #tickStart(interval: Interval): void {
    if (this.standing < SHORT_QUEUE_MS) this.#longSince = interval.now;
    const capacity = this.#start.tick(interval, this.#measures, targetFor(this.rate));
    if (capacity > 0) {
      this.#yield(capacity);
      this.#slowdown.arm(this.#path.base);
    } else this.rate = this.#start.rate(this.#measures.minRtt);
  }

  #tickDelay(interval: Interval): void {
    const { now } = interval;
    const delay = this.#delay;
    if (this.#start.resumes(interval, this.#measures)) {
      this.#headroom.cancel();
      this.mode = "start";
      this.rate = this.#start.rate(this.#measures.minRtt);
      return;
    }
    if (this.#slowsDown(interval)) return;
    if (interval.hasSamples) {
      if (this.#isCrowdedOut(now)) {
        this.mode = "compete";
        this.#compete.begin(now, this.#longSince, this.#measures, this.#probe, delay.capacity, this.#ceiling);
        this.#probe.reset();
        this.rate = this.#compete.rate;
        return;
      }
      this.#ceiling = Math.max(delay.capacity, this.#ceiling * (1 - interval.length / CEILING_MS));
      this.#limitedTicks = interval.isLimited ? this.#limitedTicks + 1 : 0;
      if (this.#measures.delayed < EMPTY_MS) this.#emptyAt = this.#measures.sentAt;
      else this.#queuedAt = now;
    }
    this.#mayPause(now, interval.hasSamples);
    const isFree = now - this.#queuedAt > Math.max(FREE_MS, FREE_RTTS * this.#measures.minRtt);
    const isShared = this.#probe.crowded > 0 && now - this.#probe.lastAt < SHARED_MS && !isFree;
    delay.tick(interval, this.#measures, isShared);
    // Beside others the delay grows by less than a burst would make it grow alone, so bursts prove nothing.
    const isBlind = this.#probe.isRunning || (isShared && this.#probe.hasOthers);
    const hasRoom = this.#headroom.tick(interval, this.#measures, delay.capacity, isBlind);
    if (hasRoom && !isShared) delay.raise(ROOM);
    this.rate = delay.rate * this.#headroom.raise(now);
  }

  /** Slows down if that is due. @returns whether a slowdown sets the rate */
  #slowsDown(interval: Interval): boolean {
    const { now } = interval;
    const slowdown = this.#slowdown;
    const wasRunning = slowdown.isRunning;
    const { minRtt, standing } = this.#measures;
    const path = { base: this.#path.base, minRtt, standing, target: targetFor(this.rate) };
    slowdown.tick(interval, path, this.#isJudged && this.#probe.hasOthers);
    if (!wasRunning && !slowdown.isRunning) return false;
    // The queue shows little until the others have seen this session slow down, so nothing is judged and nothing is due.
    this.#headroom.cancel();
    this.#probe.skip(now);
    this.#delay.noteSlowdown();
    this.#longSince = now;
    this.#longTicks = 0;
    this.#emptyAt = now;
    this.#drainedAt = now;
    if (slowdown.isRunning) this.rate = SLOW_RATE * this.#delay.capacity;
    return slowdown.isRunning;
  }

  #isCrowdedOut(now: number): boolean {
    // Sessions that share a link may trust the slack to different degrees, but are no rivals for that.
    const { delayed, minRtt } = this.#measures;
    const standing = delayed - Math.max(this.#slack.most, this.#headroom.own);
    const target = targetFor(this.rate);
    const isLong = standing > target + LONG_QUEUE_MS;
    this.#longTicks = isLong ? this.#longTicks + 1 : 0;
    if (standing < SHORT_QUEUE_MS) this.#longSince = now;
    const patience = Math.max(PATIENCE_MS, PATIENCE_RTTS * minRtt);
    return (
      this.#isJudged && isLong && this.#probe.crowded >= CROWDED_PAUSES && now - this.#longSince > patience
    );
  }

  /** Begins a drain that is due, or a pause if a measurement has shown a long queue. */
  #mayPause(now: number, hasSamples: boolean): void {
    const probe = this.#probe;
    if (this.#headroom.isRunning) return;
    const mayDrain = now - Math.max(this.#emptyAt, this.#drainedAt) > DRAIN_INTERVAL_MS;
    const mustDrain = now - this.#drainedAt > MAX_DRAIN_INTERVAL_MS;
    if (this.#limitedTicks >= DRAIN_TICKS && (mayDrain || mustDrain)) this.#drain(now);
    else if (
      hasSamples &&
      !probe.isRunning &&
      this.#longTicks >= LONG_QUEUE_TICKS &&
      now - probe.lastAt > PAUSE_INTERVAL_MS
    ) {
      this.#beginPause(now, probe.pauseFor(this.standing, this.rate));
    }
  }

  #tickCompete(interval: Interval): void {
    const { now } = interval;
    const probe = this.#probe;
    if (!this.#compete.tick(interval, this.#measures, probe, this.#isJudged, this.#slack.value)) {
      probe.reset();
      const { capacity } = this.#measures;
      const least = Math.min(this.rate, leastRate(interval, this.#measures));
      this.#yield(capacity > 0 ? Math.max(capacity, least) : this.rate);
      this.#drain(now);
      return;
    }
    this.rate = this.#compete.rate;
    const mayPause = !probe.isRunning && !this.#compete.isTruce && now - probe.lastAt > COMPETE_INTERVAL_MS;
    if (mayPause && this.standing > COMPETE_QUEUE_MS) {
      this.#beginPause(now, probe.pauseFor(this.standing, this.rate));
    }
  }

  /** Changes to delay mode, at this rate. */
  #yield(capacity: number): void {
    this.mode = "delay";
    this.#delay.begin(capacity);
    this.#ceiling = Math.max(this.#ceiling, capacity);
    this.rate = capacity;
  }

  #drain(now: number): void {
    this.#drainedAt = now;
    const delayed = Math.max(0, this.#measures.delayed);
    const length = this.#probe.hasOthers
      ? Math.min(MAX_SHARED_DRAIN_MS, SHARED_DRAIN_FACTOR * delayed)
      : Math.min(MAX_DRAIN_MS, delayed);
    this.#beginPause(now, length + DRAIN_EXTRA_MS);
  }

  #beginPause(now: number, length: number): void {
    this.pause = length;
    this.#probe.begin(now, length, this.rate, this.#measures.minRtt + this.standing);
  }
}
