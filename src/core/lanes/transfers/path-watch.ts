/**
 * What a session with receipts sees of its path, for transfers that share it: how long packets stand in the queues of each direction,
 * and whether there is a call that this harms.
 *
 * Up, the delay is that of frames, as receipts tell it. Down, it is that of the receipts themselves: each carries the clock of its
 * sender. One that is older than another that has come before was held up behind a hole of its lane, and says nothing of the path.
 *
 * A *call* sends few bytes steadily: a flow that is sparse to the queue (session-queue.ts) sends several datagrams in each half second, for
 * more than one of them. Each flow counts by itself: many programs that keep their associations alive are not a call together, nor are
 * lookups of names, which have a flow each and are soon over.
 */
import type { FlowTable } from "../flow-table.ts";
import { OneWayDelay } from "./one-way-delay.ts";

const WINDOW_MS = 500;
/** Datagrams of a flow in a window, and windows that make a call; it is over after so many without. */
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
  readonly #flows: FlowTable;
  #windowAt = 0;
  /** Number of the window, and of the last one in which there was a call. */
  #window = 1;
  #calledIn = Number.NEGATIVE_INFINITY;

  constructor(flows: FlowTable) {
    this.#flows = flows;
  }

  /** A datagram of a sparse flow, which the table has, has been sent. */
  noteSparse(now: number, flow: number): void {
    this.#turn(now);
    const { steadyIn, steadyCount, steadyWindows } = this.#flows;
    const passed = this.#window - steadyIn[flow];
    if (passed !== 0) {
      const missed = steadyCount[flow] < CALL_DATAGRAMS ? passed : passed - 1;
      // It was another session's before if the window is of the future.
      steadyWindows[flow] = passed < 0 ? 0 : Math.max(0, steadyWindows[flow] - missed);
      steadyIn[flow] = this.#window;
      steadyCount[flow] = 0;
    }
    if (steadyCount[flow] === CALL_DATAGRAMS || ++steadyCount[flow] < CALL_DATAGRAMS) return;
    steadyWindows[flow] = Math.min(CALL_WINDOWS, steadyWindows[flow] + 1);
    if (steadyWindows[flow] === CALL_WINDOWS) this.#calledIn = this.#window;
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
    return this.#window - this.#calledIn <= CALL_WINDOWS;
  }

  /** Milliseconds that packets stand in the queues to the other end, or from there; -1 while that is not known. */
  standing(now: number, isUp: boolean): number {
    return (isUp ? this.#up : this.#down).standing(now);
  }

  #turn(now: number): void {
    const elapsed = now - this.#windowAt;
    if (elapsed < WINDOW_MS) return;
    this.#windowAt = now;
    // Beyond what ends a call, more makes no difference; numbers stay small whatever the clock begins with.
    this.#window += Math.min(CALL_WINDOWS + 1, Math.floor(elapsed / WINDOW_MS));
  }
}
