/**
 * Finds out by short bursts whether the path takes more than the session sends.
 *
 * Delay above the smallest one may come from the session's own queue. It may also come from a busy radio link, or from a machine that is
 * slow to schedule its programs. A lower rate then does not help: the measured rate follows what is sent, and what is sent follows the
 * measured rate, so both would fall. While demand is dropped, the session therefore sends a fifth more for some milliseconds now and then
 * (BBR's ProbeBW does so all the time: Cardwell et al., 2016). If the rate was right, the delay grows by what was sent beyond it:
 *
 *     excess = sent / capacity − time,     growth = delay after − delay before,     the path is full if growth ≈ excess
 *
 * If the delay does not grow, there is room, and the delay before the burst was not a queue: from then on it counts as the path's own.
 * After a burst that made a queue, the next one is further away. A short queue that is full does not grow either: it drops the excess, so
 * losses surge or most lanes are late when the burst has arrived, and it found no room.
 *
 * A machine that stands still before a burst can make an empty queue look like a long one, and a busy path can become quiet. The delay that
 * counts as the path's own then hides a queue. If that is short, it overflows before it shows. So a surge of losses that makes many lanes
 * late disproves the path's own delay, too: while little is dropped here, no further burst would.
 */
import { CROWD } from "../demand-slack.ts";
import { DropShare } from "../measures/drop-share.ts";
import type { Interval, Measures } from "../measures/measures.ts";
import { OVERFLOW, targetFor } from "../modes/delay-mode.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** Excess of a burst, in milliseconds at the path's rate, and the length of a burst, unless intervals are longer. */
const EXCESS_MS = 12;
const LENGTH_MS = 60;
/** The smallest delay in this time before the burst begins is compared with that in this time before the burst ends. */
const WINDOW_MS = LENGTH_MS / 2;
/** Share of dropped demand above which a burst is worthwhile. */
const LEAST_DROPPED = 0.02;
/** A burst with less excess proves nothing, because there was too little to send. */
const LEAST_EXCESS_MS = 4;
/** Growth of the delay as a share of the excess: up to the first there is room, above the second there certainly is none. */
const ROOM = 0.12;
const FULL = 0.4;
/** Shortest interval between bursts; the factor by which it grows after each burst that found no room; and the longest. */
const INTERVAL_RTTS = 4;
const INTERVAL_MS = 150;
const BACK_OFF = 2;
const MAX_INTERVAL_MS = 10_000;
/** Largest delay that counts as the path's own; the time over which it is forgotten; and the factor for it when it is disproved. */
const MAX_OWN_MS = 15;
const FORGET_MS = 20_000;
const DISPROVED = 0.5;

export class HeadroomProbe {
  /** Standing delay that is the path's own, in milliseconds. */
  own = 0;
  /** Whether a burst is under way or has not been judged yet. */
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

  /** Ends a burst without a result, because other rules set the rate from now on. */
  cancel(): void {
    this.isRunning = false;
    this.#end = 0;
  }

  /** Factor for the rate now. */
  raise(now: number): number {
    const isBurst = now >= this.#start && now < this.#end;
    return isBurst ? 1 + EXCESS_MS / (this.#end - this.#start) : 1;
  }

  /**
   * To be called at the end of each interval.
   *
   * @param capacity  approximate rate of the link, in bytes per millisecond
   * @param isBlind   whether a pause is under way or not judged yet, or others share the link, so that no burst may begin
   * @returns true if a burst has just found room
   */
  tick(interval: Interval, measures: Measures, capacity: number, isBlind: boolean): boolean {
    const { now, length, dropped, frames } = interval;
    this.#dropped.note(length, dropped, frames);
    this.own *= Math.max(0, 1 - length / FORGET_MS);
    // Each interval of a surge halves it, so a surge of several leaves little.
    if (measures.surges && interval.lateShare > OVERFLOW && interval.delivered > 0) this.own *= DISPROVED;
    const hasRoom = this.#isOver(interval) && this.#judge(interval, measures, capacity);
    const isDue = interval.isLimited && this.#dropped.value > LEAST_DROPPED && now >= this.#nextAt;
    if (isDue && !this.isRunning && !isBlind)
      this.#begin(interval, capacity, measures.minRtt + measures.standing);
    return hasRoom;
  }

  #begin({ now, length }: Interval, capacity: number, rtt: number): void {
    this.isRunning = true;
    // Frames that were sent shortly before count only if their receipts are still to come.
    this.#start = now + Math.max(0, WINDOW_MS - rtt);
    this.#end = this.#start + Math.max(LENGTH_MS, length);
    this.#giveUpAt = this.#end + 3 * rtt + 100;
    this.#capacity = capacity;
    this.#before = NEVER;
    this.#after = NEVER;
  }

  /** A frame has been receipted. @param standing  its wait in queues @param sentBytes  bytes sent by the session, up to this frame */
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

  /** Whether all of the burst has been receipted, or has taken too long. */
  #isOver({ now, newest }: Interval): boolean {
    return this.isRunning && (newest >= this.#end || now >= this.#giveUpAt);
  }

  #judge({ now, lateShare, newest }: Interval, { minRtt, surges }: Measures, capacity: number): boolean {
    this.isRunning = false;
    const shortest = Math.max(INTERVAL_MS, INTERVAL_RTTS * minRtt);
    // In a stall all lanes are late too, but nothing of the burst has arrived.
    const isFull = (surges || lateShare > CROWD) && newest >= this.#end;
    const growth = isFull ? 1 : this.#growth;
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

  /** Growth of the delay as a share of the excess; NaN if the burst proves nothing. */
  get #growth(): number {
    if (this.#before === NEVER || this.#after === NEVER) return Number.NaN;
    const excess = (this.#afterBytes - this.#beforeBytes) / this.#capacity - (this.#afterAt - this.#beforeAt);
    return excess < LEAST_EXCESS_MS ? Number.NaN : (this.#after - this.#before) / excess;
  }
}
