/**
 * How fast a session may send: which of three laws holds, and when the pacer pauses.
 *
 *     start ── a queue ──► delay ── others fill the queue ──► compete
 *                            ▲                                  │
 *                            └────── nobody does any more ──────┘
 *
 * In *delay* a queue that does not go away calls for a pause, which tells whose it is (share-probe.ts). If others have much of the link
 * in two pauses in a row, and the queue has not been short for so long that other sessions, which yield as this one does, would have
 * ended it, they do not yield: the session competes. The least delay is not relearned meanwhile: the queue may never be empty.
 * While bulk is limited there is a pause now and then anyhow, so that the least delay is seen again; and where demand is dropped, a burst
 * now and then, which tells whether the delay is a queue at all (headroom-probe.ts).
 */
import { CompetitiveMode } from "./competitive-mode.ts";
import { DelayMode, targetFor } from "./delay-mode.ts";
import { DemandSlack } from "./demand-slack.ts";
import { HeadroomProbe } from "./headroom-probe.ts";
import type { Interval } from "./measures.ts";
import { Measures } from "./measures.ts";
import type { PathDelay } from "./path-delay.ts";
import { ShareProbe } from "./share-probe.ts";
import { StartMode } from "./start-mode.ts";

export type RateMode = "start" | "delay" | "compete";

/** 100 kbit/s. */
const MIN_RATE = 12.5;
/** Beyond the target, a queue that calls for a pause; and after so many intervals, not sooner than this after the last. */
const LONG_QUEUE_MS = 3;
const LONG_QUEUE_TICKS = 3;
const PAUSE_INTERVAL_MS = 250;
/** Pauses in a row in which others had much, after which they compete; and since when the queue must not have been short. */
const CROWDED_PAUSES = 2;
const PATIENCE_MS = 800;
const PATIENCE_RTTS = 8;
/** Pauses for the least delay's sake. */
const DRAIN_INTERVAL_MS = 2_500;
const DRAIN_TICKS = 8;
const MAX_DRAIN_MS = 20;
const DRAIN_EXTRA_MS = 4;
/** Pauses while others compete. */
const COMPETE_INTERVAL_MS = 1_000;
const COMPETE_QUEUE_MS = 8;
/** Time over which the best capacity is forgotten. */
const CEILING_MS = 20_000;
/** More may be under way than the rate and the round trip make: receipts are late, and lanes uneven. */
const WINDOW_FACTOR = 1.5;
const WINDOW_SLACK_MS = 10;
const WINDOW_SLACK_BYTES = 15_000;
/** Growth when the path has been seen to take more. */
const ROOM = 1.15;

export class RateControl {
  mode: RateMode = "start";
  /** Bytes per millisecond. */
  rate: number;
  /** Milliseconds for which the pacer is to pause from now on. */
  pause = 0;
  readonly #probe = new ShareProbe();

  readonly #path: PathDelay;
  readonly #measures = new Measures();
  readonly #slack = new DemandSlack();
  readonly #headroom = new HeadroomProbe();
  readonly #start = new StartMode();
  readonly #delay = new DelayMode();
  readonly #compete = new CompetitiveMode();
  /** The best capacity of late. */
  #ceiling = 0;
  #longTicks = 0;
  #limitedTicks = 0;
  /** A pause has said something that is not acted on yet. */
  #isJudged = false;
  /** Since when the queue has been longer than it should. */
  #longSince = 0;

  constructor(path: PathDelay) {
    this.#path = path;
    this.rate = this.#start.rate(path.minRtt);
  }

  /** How long packets stand in queues, in milliseconds. */
  get standing(): number {
    return this.#measures.standing;
  }

  /** Own share of the link while others compete; otherwise all of it. */
  get share(): number {
    return this.mode === "compete" ? this.#compete.share : 1;
  }

  /** Most bytes under way on lanes that are not late. @param delivered  in this interval, up to now */
  window(delivered: number): number {
    if (this.mode === "start") return this.#start.window + delivered;
    const { standing, minRtt } = this.#measures;
    const queue = this.mode === "compete" ? standing : Math.min(standing, WINDOW_SLACK_MS);
    return WINDOW_FACTOR * this.rate * (minRtt + WINDOW_SLACK_MS + queue) + WINDOW_SLACK_BYTES;
  }

  /** A frame has been receipted. @param standing  how long it was delayed beyond the least of late @param sentBytes  of the session, up to it */
  noteFrame(sentAt: number, standing: number, sentBytes: number): void {
    this.#probe.note(sentAt, Math.max(0, standing - this.#headroom.own), sentBytes);
    this.#headroom.note(sentAt, standing, sentBytes);
  }

  /** To be called at the end of each interval of about half a round trip. */
  tick(interval: Interval): void {
    const { mode } = this;
    this.pause = 0;
    this.#slack.note(interval.length, interval.dropped, interval.frames);
    const slack = mode === "compete" ? 0 : Math.max(this.#slack.value, this.#headroom.own);
    this.#measures.update(interval, this.#path, slack);
    const capacity = mode === "compete" ? this.#compete.total : Math.max(this.#ceiling, this.#delay.capacity);
    if (this.#probe.judge(interval.now, interval.newest, capacity)) this.#isJudged = true;
    if (mode === "start") this.#tickStart(interval);
    else if (mode === "delay") this.#tickDelay(interval);
    else if (interval.hasSamples) this.#tickCompete(interval);
    if (interval.hasSamples) this.#isJudged = false;
    this.rate = Math.max(MIN_RATE, this.rate);
  }

  #tickStart(interval: Interval): void {
    const capacity = this.#start.tick(interval, this.#measures, targetFor(this.rate));
    if (capacity > 0) this.#yield(capacity);
    else this.rate = this.#start.rate(this.#measures.minRtt);
  }

  #tickDelay(interval: Interval): void {
    const { now } = interval;
    const delay = this.#delay;
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
      this.#mayPause(now);
    }
    delay.tick(interval, this.#measures);
    const hasRoom = this.#headroom.tick(interval, this.#measures, delay.capacity, this.#probe.isRunning);
    if (hasRoom) delay.raise(ROOM);
    this.rate = delay.rate * this.#headroom.raise(now);
  }

  #isCrowdedOut(now: number): boolean {
    const { standing, minRtt } = this.#measures;
    const target = targetFor(this.rate);
    const isLong = standing > target + LONG_QUEUE_MS;
    this.#longTicks = isLong ? this.#longTicks + 1 : 0;
    if (standing < target + 2) this.#longSince = now;
    const patience = Math.max(PATIENCE_MS, PATIENCE_RTTS * minRtt);
    return (
      this.#isJudged && isLong && this.#probe.crowded >= CROWDED_PAUSES && now - this.#longSince > patience
    );
  }

  #mayPause(now: number): void {
    const probe = this.#probe;
    if (probe.isRunning || this.#headroom.isRunning) return;
    const elapsed = now - probe.lastAt;
    if (this.#longTicks >= LONG_QUEUE_TICKS && elapsed > PAUSE_INTERVAL_MS) {
      this.#beginPause(now, probe.pauseFor(this.standing, this.rate));
    } else if (this.#limitedTicks >= DRAIN_TICKS && elapsed > DRAIN_INTERVAL_MS) this.#drain(now);
  }

  #tickCompete(interval: Interval): void {
    const { now } = interval;
    const probe = this.#probe;
    if (!this.#compete.tick(interval, this.#measures, probe, this.#isJudged, this.#slack.value)) {
      probe.reset();
      this.#yield(this.#measures.capacity > 0 ? this.#measures.capacity : this.rate);
      this.#drain(now);
      return;
    }
    this.rate = this.#compete.rate;
    const mayPause = !probe.isRunning && !this.#compete.isTruce && now - probe.lastAt > COMPETE_INTERVAL_MS;
    if (mayPause && this.standing > COMPETE_QUEUE_MS) {
      this.#beginPause(now, probe.pauseFor(this.standing, this.rate));
    }
  }

  /** Keeps queues short from now on. */
  #yield(capacity: number): void {
    this.mode = "delay";
    this.#delay.begin(capacity);
    this.#ceiling = Math.max(this.#ceiling, capacity);
    this.rate = capacity;
  }

  #drain(now: number): void {
    this.#beginPause(now, Math.min(MAX_DRAIN_MS, this.standing) + DRAIN_EXTRA_MS);
  }

  #beginPause(now: number, length: number): void {
    this.pause = length;
    this.#probe.begin(now, length, this.rate, this.#measures.minRtt + this.standing);
  }
}
