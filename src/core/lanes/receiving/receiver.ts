/**
 * The receiving half of a session's end: decides about each datagram that arrives whether it is delivered, held or dropped.
 *
 *     accept ─► DuplicateWindow ─► ArrivalHistory ─► deliver, at once and in whatever order; or, of a responsive flow,
 *                                                    Resequencer ─► takeReleased
 */
import { SEQUENCE_MODULUS } from "../../../wire/receipt.ts";
import type { Counters } from "../../counters.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { FlowTable } from "../flow-table.ts";
import type { Arrived } from "../lane-progress.ts";
import type { PathDelay } from "../rate/path-delay.ts";
import { wantsOrder } from "../responsive.ts";
import { ArrivalHistory } from "./arrival-history.ts";
import { DuplicateWindow } from "./duplicate-window.ts";
import { Resequencer } from "./resequencer.ts";

/** Round trips that repairs get before a datagram that has been overtaken counts as too old: see arrival-history.ts. */
const REPAIRS = 3;
/** The same while others are held for it: one repair by TCP. */
const HOLD_REPAIRS = 2;
/** Most that is added to that for one that others are held for. */
const MAX_HOLD_MS = 100;

export class LaneReceiver {
  /** Copies of earlier datagrams since the start. */
  duplicates = 0;

  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #counters: Counters;
  readonly #path: PathDelay;
  readonly #ageBudget: number;
  readonly #window = new DuplicateWindow();
  readonly #arrivals = new ArrivalHistory();
  readonly #order: Resequencer;

  /**
   * @param heldBytes  most bytes that are held for order
   * @param ageBudget  in milliseconds
   */
  constructor(
    store: DatagramStore,
    flows: FlowTable,
    counters: Counters,
    path: PathDelay,
    heldBytes: number,
    ageBudget: number,
  ) {
    this.#store = store;
    this.#flows = flows;
    this.#counters = counters;
    this.#path = path;
    this.#ageBudget = ageBudget;
    this.#order = new Resequencer(store, this.#window, this.#arrivals, heldBytes);
  }

  /** Datagrams that were held; that arrived after a later one; and after how many later ones at most. */
  get held(): number {
    return this.#order.held;
  }
  get overtaken(): number {
    return this.#window.overtaken;
  }
  get farthestOvertaken(): number {
    return this.#window.farthest;
  }

  /** What has arrived, for {@link restore}; undefined before the first. */
  get arrived(): Arrived | undefined {
    return this.#window.arrived;
  }

  /** Goes on from what another receiver had. To be called before anything else. */
  restore(arrived: Arrived): void {
    this.#window.restore(arrived);
    this.#order.begin((arrived.highest + 1) % SEQUENCE_MODULUS);
  }

  /** See LaneScheduler.accept. */
  accept(
    now: number,
    sequence: number,
    flow: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    if (!this.#window.accept(sequence)) {
      this.duplicates++;
      this.#counters.spread.duplicates++;
      return false;
    }
    const patience = this.#patience;
    if (this.#arrivals.isStale(now, sequence, this.#ageBudget + REPAIRS * this.#path.minRtt)) {
      this.#counters.drops.age++;
      this.#recordStale(context, flow, data, offset, length);
      this.#order.pass(now, sequence, patience);
      return false;
    }
    if (flow !== NONE && wantsOrder(now, this.#flows, flow, data, offset, length)) {
      return !this.#order.hold(now, sequence, patience, flow, context, data, offset, length);
    }
    this.#order.pass(now, sequence, patience);
    return true;
  }

  #recordStale(context: number, flow: number, data: Uint8Array, offset: number, length: number): void {
    const { tap } = this.#counters;
    if (tap === undefined) return;
    const { owner } = this.#store;
    const association = owner?.associationOf(flow) ?? flow;
    const remote = owner?.remoteOf(flow, context);
    tap.record(true, "age", association, owner?.localOf(flow), remote, data, offset, length);
  }

  /** How long a datagram that was overtaken is waited for: it may have been lost with its lane, whatever the age budget. */
  get #patience(): number {
    return Math.min(MAX_HOLD_MS, this.#ageBudget) + HOLD_REPAIRS * this.#path.minRtt;
  }

  /** When a datagram that others are held for is given up; Infinity while none is held. */
  get dueAt(): number {
    return this.#order.dueAt;
  }

  /** The context of the next datagram that was held and is to be delivered now, or -1. */
  peekReleased(now: number): number {
    const order = this.#order;
    if (now >= order.dueAt) order.expire(now, this.#patience);
    return order.released === NONE ? NONE : this.#store.context[order.released];
  }

  /** Length of the datagram that {@link peekReleased} is about. */
  get releasedLength(): number {
    return this.#store.length[this.#order.released];
  }

  /** Takes that datagram, copied to `out[at]`. */
  takeReleased(out: Uint8Array, at: number): void {
    const entry = this.#order.takeReleased();
    this.#store.copyOut(entry, out, at);
    this.#store.release(entry);
  }

  /** Gives up all that others are held for: nothing more can arrive. */
  releaseAll(): void {
    this.#order.releaseAll();
  }

  /** Drops what is held of a flow, or of all. @param flow  -1 for all */
  clear(flow: number): void {
    this.#order.clear(flow);
  }
}
