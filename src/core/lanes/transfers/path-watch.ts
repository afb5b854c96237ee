/**
 * Observes the path of a session with receipts, for transfers that share it: how long packets wait in the queues of each direction, and
 * whether the session carries a call, which this would harm.
 *
 * The delay up is that of frames, from receipts. The delay down is that of the receipts themselves, because each carries the clock of its
 * sender. A receipt that is older than an earlier arrival waited behind a hole in its lane, so its delay says nothing about the path.
 *
 * A *call* steadily sends few bytes: a flow that the queue treats as sparse (session-queue.ts) sends several datagrams in each of several
 * half seconds. Flows count separately. Many programs that only keep their associations alive are no call together, and neither are name
 * look-ups, each of which is a short flow of its own.
 */
import type { FlowTable } from "../flow-table.ts";
import { OneWayDelay } from "./one-way-delay.ts";

const WINDOW_MS = 500;
/** Datagrams of a flow in a window, and number of such windows, that make a call; as many windows without them end it. */
const CALL_DATAGRAMS = 5;
const CALL_WINDOWS = 3;
/** After a rest this long, a receipt counts as newer than the last one whatever its clock says, because clocks wrap after 71 minutes. */
const CLOCK_MS = 10_000;

export class PathWatch {
  /** Smallest recent round trip, in milliseconds. */
  minRtt = 0;
  readonly #up = new OneWayDelay();
  readonly #down = new OneWayDelay();
  #clock = 0;
  #heardAt = Number.NEGATIVE_INFINITY;
  readonly #flows: FlowTable;
  #windowAt = 0;
  /** Number of the present window, and of the last one with a call. */
  #window = 1;
  #calledIn = Number.NEGATIVE_INFINITY;

  constructor(flows: FlowTable) {
    this.#flows = flows;
  }

  /** A datagram of a sparse flow has been sent. @param flow  slot in the table */
  noteSparse(now: number, flow: number): void {
    this.#turn(now);
    const { steadyIn, steadyCount, steadyWindows } = this.#flows;
    const passed = this.#window - steadyIn[flow];
    if (passed !== 0) {
      const missed = steadyCount[flow] < CALL_DATAGRAMS ? passed : passed - 1;
      // A window in the future was another session's, which used the slot before.
      steadyWindows[flow] = passed < 0 ? 0 : Math.max(0, steadyWindows[flow] - missed);
      steadyIn[flow] = this.#window;
      steadyCount[flow] = 0;
    }
    if (steadyCount[flow] === CALL_DATAGRAMS || ++steadyCount[flow] < CALL_DATAGRAMS) return;
    steadyWindows[flow] = Math.min(CALL_WINDOWS, steadyWindows[flow] + 1);
    if (steadyWindows[flow] === CALL_WINDOWS) this.#calledIn = this.#window;
  }

  /** A receipt has arrived. @param clock  its sender's, in microseconds modulo 2³² */
  noteReceipt(now: number, clock: number, minRtt: number): void {
    this.minRtt = minRtt;
    const isOrdered = now - this.#heardAt < CLOCK_MS;
    if (isOrdered && ((clock - this.#clock) | 0) <= 0) return;
    this.#heardAt = now;
    this.#clock = clock;
    this.#down.add(now, (Math.floor(now * 1000) - clock) | 0);
  }

  /** A frame of a lane that is not late has arrived. @param delay  in milliseconds, plus the clock offset */
  noteArrival(now: number, delay: number): void {
    this.#up.add(now, Math.floor(delay * 1000));
  }

  hasCall(now: number): boolean {
    this.#turn(now);
    return this.#window - this.#calledIn <= CALL_WINDOWS;
  }

  /** How long packets wait in the queues to the other end, or from there, in milliseconds; -1 while that is unknown. */
  standing(now: number, isUp: boolean): number {
    return (isUp ? this.#up : this.#down).standing(now);
  }

  /** Smallest recent delay to the other end, or from there, in milliseconds plus a constant. */
  least(isUp: boolean): number {
    return (isUp ? this.#up : this.#down).least;
  }

  #turn(now: number): void {
    const elapsed = now - this.#windowAt;
    if (elapsed < WINDOW_MS) return;
    this.#windowAt = now;
    // One window more than ends a call is enough, and keeps the numbers small whatever the clock starts at.
    this.#window += Math.min(CALL_WINDOWS + 1, Math.floor(elapsed / WINDOW_MS));
  }
}
