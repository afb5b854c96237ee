/**
 * Slows a session down for about a round trip when it may have taken the queue of others for part of the path.
 *
 * A session that joins others finds their queue, and the smallest delay it has seen includes that queue. It would then hold a queue that
 * much longer, and the others, who know the path, would take it for a rival. So it sends little until it has seen the path without its own
 * packets (the slowdowns of LEDBAT++, draft-irtf-iccrg-ledbat-plus-plus §4.4): once after the start, if a pause has shown traffic of others
 * (and, on a long path, a measurement has shown a queue), and whenever the smallest delay has fallen within a second or two, or while the
 * session competed, because that shows that it included a queue. As long as it falls further, the session stays slow. Sessions that see a
 * queue drain therefore join in, and all of them learn the delay of the same empty queue.
 */
import type { Interval } from "../measures/measures.ts";
import { LONG_RTT_MS } from "../modes/start-mode.ts";

/** A fall of the smallest delay by this begins a slowdown; a fall by this continues it. In milliseconds. */
const LEAST_FALL_MS = 3;
const FURTHER_FALL_MS = 1;
/** Time in which a smallest delay is forgotten, so that a slow drift of the clocks is no fall. */
const FORGET_MS = 2_000;
/** A slowdown takes a round trip and this, and no longer than this. */
const EXTRA_MS = 20;
const MAX_MS = 600;
const NEVER = Number.POSITIVE_INFINITY;

/** The path at the end of an interval. Times in milliseconds. */
export interface SlowdownPath {
  /** Smallest delay, plus the constant clock offset; Infinity if nothing has been receipted for long. */
  base: number;
  /** Round trip without queues. */
  minRtt: number;
  /** Wait in queues. */
  standing: number;
  /** The wait that the session aims at by itself. */
  target: number;
}

export class Slowdown {
  isRunning = false;
  /** Whether the session has left the start, and has not slowed down since. */
  #isFirst = false;
  /** The smallest delay that falls are measured from; Infinity while none is known. */
  #base = NEVER;
  #beganAt = 0;
  #endsAt = 0;

  /** The session leaves the start. @param base  smallest delay, plus the constant clock offset */
  arm(base: number): void {
    this.isRunning = false;
    this.#isFirst = true;
    this.#base = base;
  }

  /** The session was idle for this time: the clocks may have drifted. */
  skip(length: number): void {
    if (length > FORGET_MS) this.#base = NEVER;
  }

  /**
   * To be called at the end of each interval after the start. Begins a slowdown only if the session has more to send than its rate.
   *
   * @param hasOthers  whether a pause has just shown traffic of others
   */
  tick({ now, length, isLimited }: Interval, path: SlowdownPath, hasOthers: boolean): void {
    const { base } = path;
    const rtt = path.minRtt + path.standing;
    // Relays that repair losses look like others, too. On a long path a slowdown costs much, so it needs a queue that could be theirs.
    const isPlausible = path.minRtt < LONG_RTT_MS || path.standing > path.target;
    // The first smallest delay after a long stall is no fall.
    const fall = this.#base === NEVER ? 0 : this.#base - base;
    const isDue = fall > LEAST_FALL_MS || (this.#isFirst && hasOthers && isPlausible);
    if (this.isRunning) {
      this.isRunning = now - this.#beganAt < MAX_MS && (now < this.#endsAt || fall > FURTHER_FALL_MS);
      if (fall > FURTHER_FALL_MS) this.#extend(now, base, rtt);
    } else if (isLimited && isDue) {
      this.isRunning = true;
      this.#isFirst = false;
      this.#beganAt = now;
      this.#extend(now, base, rtt);
    } else this.#base = base + Math.max(0, fall) * Math.max(0, 1 - length / FORGET_MS);
  }

  #extend(now: number, base: number, rtt: number): void {
    this.#base = base;
    this.#endsAt = now + rtt + EXTRA_MS;
  }
}
