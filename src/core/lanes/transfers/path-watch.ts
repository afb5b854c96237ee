/**
 * What a session with receipts sees of its path, for transfers that share it: how long packets stand in the queues of each direction,
 * and whether there is a call that this harms.
 *
 * Up, the delay is that of frames, as receipts tell it. Down, it is that of the receipts themselves: each carries the clock of its
 * sender. One that is older than another that has come before was held up behind a hole of its lane, and says nothing of the path.
 *
 * A *call* sends few bytes steadily: the flows that are sparse to the queue (session-queue.ts) send several datagrams together in each
 * half second, for more than one of them. Lookups of names are sparse too, but are soon over.
 */
import { OneWayDelay } from "./one-way-delay.ts";

const WINDOW_MS = 500;
/** Datagrams in a window, and windows that make a call; it is over after so many without. */
const CALL_DATAGRAMS = 5;
const CALL_WINDOWS = 3;
/** Clocks wrap after 71 minutes: after a rest this long, a receipt counts as newer than the last one whatever its clock says. */
const CLOCK_MS = 10_000;

export class PathWatch {
  /** Least round trip of late, in milliseconds. */
  minRtt = 0;
  readonly #up = new OneWayDelay();
  readonly #down = new OneWayDelay();
  #clock = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  #windowAt = 0;
  #sparse = 0;
  #windows = 0;
  #isCall = false;

  /** A datagram of a sparse flow has been sent. */
  noteSparse(now: number): void {
    this.#turn(now);
    this.#sparse++;
  }

  /** A receipt has come. @param clock  of its sender, in microseconds modulo 2³² */
  noteReceipt(now: number, clock: number, minRtt: number): void {
    this.minRtt = minRtt;
    const isOrdered = now - this.#heardAt < CLOCK_MS;
    if (isOrdered && ((clock - this.#clock) | 0) <= 0) return;
    this.#heardAt = now;
    this.#clock = clock;
    this.#down.add(now, (Math.floor(now * 1000) - clock) | 0);
  }

  /** A frame has arrived, at a lane that is not held up. @param delay  in milliseconds, above what the clocks differ by */
  noteArrival(now: number, delay: number): void {
    this.#up.add(now, Math.floor(delay * 1000));
  }

  hasCall(now: number): boolean {
    this.#turn(now);
    return this.#isCall;
  }

  /** Milliseconds that packets stand in the queues to the other end, or from there; -1 while that is not known. */
  standing(now: number, isUp: boolean): number {
    return (isUp ? this.#up : this.#down).standing(now);
  }

  #turn(now: number): void {
    const elapsed = now - this.#windowAt;
    if (elapsed < WINDOW_MS) return;
    this.#windowAt = now;
    if (elapsed > CALL_WINDOWS * WINDOW_MS) this.#windows = 0;
    else if (this.#sparse >= CALL_DATAGRAMS) this.#windows = Math.min(CALL_WINDOWS, this.#windows + 1);
    else this.#windows = Math.max(0, this.#windows - 1);
    this.#sparse = 0;
    if (this.#windows === CALL_WINDOWS) this.#isCall = true;
    else if (this.#windows === 0) this.#isCall = false;
  }
}
