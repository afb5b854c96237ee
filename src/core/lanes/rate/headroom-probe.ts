/**
 * Whether the path takes more than it gets: a burst of our own tells.
 *
 * Delay above the least ever seen may be a queue of ours. It may also be what a busy radio link, or a machine slow to wake its programs,
 * adds to every packet; lowering the rate for that is in vain, and as the rate of the bottleneck is measured by what gets through, it
 * follows what is sent, and what is sent follows it. So while demand is dropped, a fifth more is sent for a few milliseconds, now and
 * then (BBR's ProbeBW does so all the time: Cardwell et al., 2016). Where the rate is right, the delay grows by what was sent beyond it:
 *
 *     excess = sent / capacity − time,     growth = delay after − delay before,     the path is full if growth ≈ excess
 *
 * If it does not grow there is room, and what stood before the burst was no queue: from then on that much delay counts as the path's
 * own. A burst that made a queue is not repeated soon.
 */

import { targetFor } from "./delay-mode.ts";
import { DropShare } from "./drop-share.ts";
import type { Interval, Measures } from "./measures.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** What is sent in excess, in milliseconds of the path's time, and over how long, unless intervals are longer. */
const EXCESS_MS = 12;
const LENGTH_MS = 60;
/** The frame with the least delay of so many milliseconds before it began, and before it ended, are compared. */
const WINDOW_MS = LENGTH_MS / 2;
/** Share of the demand that is dropped from which a burst is worth while. */
const LEAST_DROPPED = 0.02;
/** Less excess says nothing: there was nothing to send. */
const LEAST_EXCESS_MS = 4;
/** Parts of the excess by which the delay grows at most where there is room, and at least where there is none. */
const ROOM = 0.12;
const FULL = 0.4;
/** Round trips, and milliseconds, between bursts that found room; how much longer after each that did not, and at most. */
const INTERVAL_RTTS = 4;
const INTERVAL_MS = 150;
const BACK_OFF = 2;
const MAX_INTERVAL_MS = 10_000;
/** Most delay that counts as the path's own, and how it is forgotten. */
const MAX_OWN_MS = 15;
const FORGET_MS = 20_000;
const DISPROVED = 0.5;

export class HeadroomProbe {
  /** Milliseconds of standing delay that are the path's own. */
  own = 0;
  /** A burst is under way, or being judged. */
  isRunning = false;

  #start = 0;
  #end = 0;
  #giveUpAt = 0;
  #capacity = 0;
  #interval = INTERVAL_MS;
  #nextAt = 0;
  readonly #dropped = new DropShare();
  #before = NEVER;
  #beforeAt = 0;
  #beforeBytes = 0;
  #after = NEVER;
  #afterAt = 0;
  #afterBytes = 0;

  /** What the rate is to be multiplied by now. */
  raise(now: number): number {
    const isBurst = now >= this.#start && now < this.#end;
    return isBurst ? 1 + EXCESS_MS / (this.#end - this.#start) : 1;
  }

  /**
   * To be called at the end of each interval.
   *
   * @param capacity  of the link, in bytes per millisecond, about
   * @param isPaused  a pause is under way, or being judged: no burst begins
   * @returns true when a burst has found room
   */
  tick(interval: Interval, measures: Measures, capacity: number, isPaused: boolean): boolean {
    const { now, length, dropped, frames } = interval;
    this.#dropped.note(length, dropped, frames);
    this.own *= Math.max(0, 1 - length / FORGET_MS);
    const hasRoom = this.#isOver(interval) && this.#judge(now, capacity, measures.minRtt);
    const isDue = interval.isLimited && this.#dropped.value > LEAST_DROPPED && now >= this.#nextAt;
    if (isDue && !this.isRunning && !isPaused)
      this.#begin(interval, capacity, measures.minRtt + measures.standing);
    return hasRoom;
  }

  #begin({ now, length }: Interval, capacity: number, rtt: number): void {
    this.isRunning = true;
    // Receipts of what was sent just before are to come yet.
    this.#start = now + Math.max(0, WINDOW_MS - rtt);
    this.#end = this.#start + Math.max(LENGTH_MS, length);
    this.#giveUpAt = this.#end + 3 * rtt + 100;
    this.#capacity = capacity;
    this.#before = NEVER;
    this.#after = NEVER;
  }

  /** A frame has been receipted. @param standing  how long it stood @param sentBytes  of the session, up to it */
  note(sentAt: number, standing: number, sentBytes: number): void {
    if (!this.isRunning || sentAt <= this.#start - WINDOW_MS || sentAt > this.#end) return;
    if (sentAt <= this.#start) {
      if (standing >= this.#before) return;
      this.#before = standing;
      this.#beforeAt = sentAt;
      this.#beforeBytes = sentBytes;
    } else if (sentAt > this.#end - WINDOW_MS) {
      if (standing >= this.#after) return;
      this.#after = standing;
      this.#afterAt = sentAt;
      this.#afterBytes = sentBytes;
    }
  }

  /** Whether all of the burst is receipted, or never will be. */
  #isOver({ now, newest }: Interval): boolean {
    return this.isRunning && (newest >= this.#end || now >= this.#giveUpAt);
  }

  #judge(now: number, capacity: number, minRtt: number): boolean {
    this.isRunning = false;
    const shortest = Math.max(INTERVAL_MS, INTERVAL_RTTS * minRtt);
    const growth = this.#growth;
    const hasRoom = growth <= ROOM;
    if (hasRoom) {
      this.#interval = INTERVAL_MS;
      this.own = Math.min(MAX_OWN_MS, Math.max(this.own, this.#before - targetFor(capacity) / 2));
    } else if (growth > ROOM) {
      this.#interval = Math.min(MAX_INTERVAL_MS, BACK_OFF * Math.max(shortest, this.#interval));
      if (growth > FULL) this.own *= DISPROVED;
    }
    this.#nextAt = now + Math.max(shortest, this.#interval);
    return hasRoom;
  }

  /** Growth of the delay as a part of the excess; NaN when the burst says nothing. */
  get #growth(): number {
    if (this.#before === NEVER || this.#after === NEVER) return Number.NaN;
    const excess = (this.#afterBytes - this.#beforeBytes) / this.#capacity - (this.#afterAt - this.#beforeAt);
    return excess < LEAST_EXCESS_MS ? Number.NaN : (this.#after - this.#before) / excess;
  }
}
