/**
 * The receiving half of one end of a session: delivers, holds or drops each datagram that arrives.
 *
 *     accept ─► DuplicateWindow ─► ArrivalHistory ─► deliver, at once and in any order; or, if the flow needs order,
 *                                                    Resequencer ─► takeReleased
 *     handleParity ─► ParityReceiver ─► likewise for what it restores, but always through takeReleased
 */
import { SEQUENCE_MODULUS } from "../../../wire/receipt.ts";
import type { Counters, DropReason } from "../../counters.ts";
import type { DatagramTap } from "../../tap.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { FlowTable } from "../flow-table.ts";
import type { Arrived } from "../lane-progress.ts";
import type { HandleRestored } from "../parity/parity-receiver.ts";
import { ParityReceiver } from "../parity/parity-receiver.ts";
import type { PathDelay } from "../rate/measures/path-delay.ts";
import { wantsOrder } from "../responsive.ts";
import { ArrivalHistory } from "./arrival-history.ts";
import { DuplicateWindow } from "./duplicate-window.ts";
import { Resequencer } from "./resequencer.ts";

/** Round trips granted to repairs before an overtaken datagram counts as too old (arrival-history.ts). */
const REPAIRS = 3;
/** The same if other datagrams are held for it: enough for one repair by TCP. */
const HOLD_REPAIRS = 2;
/** Largest part of the age budget that is added to that. */
const MAX_HOLD_MS = 100;
/** How many restored datagrams may wait until they are taken. Each is at most as long as a record. */
const MAX_UNTAKEN = 256;
const NEVER = Number.POSITIVE_INFINITY;

export class LaneReceiver {
  /** Copies of earlier datagrams that have arrived since the start. */
  duplicates = 0;
  /** Datagrams restored from parity since the start. */
  restored = 0;

  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #counters: Counters;
  readonly #path: PathDelay;
  readonly #ageBudget: number;
  readonly #window = new DuplicateWindow();
  readonly #arrivals = new ArrivalHistory();
  /** Set while parities arrive. */
  #parity: ParityReceiver | undefined;
  /** Restored datagrams that were not taken yet. */
  #untaken = 0;
  readonly #order: Resequencer;

  /**
   * @param heldBytes  most bytes that are held to restore order
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

  /** Counts since the start: datagrams held, datagrams that arrived after a later one, and the largest number of later ones. */
  get held(): number {
    return this.#order.held;
  }
  get overtaken(): number {
    return this.#window.overtaken;
  }
  get farthestOvertaken(): number {
    return this.#window.farthest;
  }

  /** What has arrived, for {@link restore}; undefined before the first datagram. */
  get arrived(): Arrived | undefined {
    return this.#window.arrived;
  }

  /** Continues from another receiver's {@link arrived}. To be called before anything else. */
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
    const isDelivered = this.#judge(now, sequence, flow, context, data, offset, length, false);
    this.#parity?.noteArrival(now, sequence, flow, context, data, offset, length);
    return isDelivered;
  }

  /**
   * Whether to deliver a datagram, which is no copy, now.
   *
   * @param isRestored  whether it is delivered after what was released before
   */
  #judge(
    now: number,
    sequence: number,
    flow: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
    isRestored: boolean,
  ): boolean {
    const patience = this.#patience;
    if (this.#arrivals.isStale(now, sequence, this.#ageBudget + REPAIRS * this.#path.minRtt)) {
      const { drops, tap } = this.#counters;
      drops.age++;
      if (tap !== undefined) this.#record(tap, "age", context, flow, data, offset, length);
      this.#order.pass(now, sequence, patience);
      return false;
    }
    if (flow !== NONE && wantsOrder(now, this.#flows, flow, data, offset, length)) {
      return !this.#order.hold(now, sequence, patience, flow, context, data, offset, length, isRestored);
    }
    this.#order.pass(now, sequence, patience);
    return true;
  }

  /** A PARITY capsule has arrived. @returns false if it is malformed */
  handleParity(now: number, bytes: Uint8Array, offset: number, end: number): boolean {
    this.#parity ??= new ParityReceiver(this.#store, this.#window, this.#handleRestored);
    return this.#parity.handleParity(now, bytes, offset, end);
  }

  readonly #handleRestored: HandleRestored = (now, sequence, flow, context, data, offset, length) => {
    if (this.#untaken >= MAX_UNTAKEN) return;
    this.restored++;
    this.#counters.spread.restored++;
    this.#window.accept(sequence);
    if (this.#judge(now, sequence, flow, context, data, offset, length, true)) {
      this.#order.release(this.#store.add(now, flow, context, 0, data, offset, length));
      this.#untaken++;
    }
    this.#parity?.noteArrival(now, sequence, flow, context, data, offset, length);
  };

  /** Releases what is kept for parity, if none has arrived for a while. */
  expire(now: number): void {
    if (now >= this.expiresAt) this.#endParity();
  }

  #endParity(): void {
    this.#parity?.clear();
    this.#parity = undefined;
  }

  /** When {@link expire} is due; Infinity while nothing is kept. */
  get expiresAt(): number {
    return this.#parity?.expiresAt ?? NEVER;
  }

  #record(
    tap: DatagramTap,
    reason: DropReason,
    context: number,
    flow: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { owner } = this.#store;
    const association = owner?.associationOf(flow) ?? flow;
    const remote = owner?.remoteOf(flow, context);
    tap.record(true, reason, association, owner?.localOf(flow), remote, data, offset, length);
  }

  /**
   * How long others are held for a missing datagram. This is limited even with a long age budget, because the datagram may have been lost
   * with its lane.
   */
  get #patience(): number {
    return Math.min(MAX_HOLD_MS, this.#ageBudget) + HOLD_REPAIRS * this.#path.minRtt;
  }

  /** When the next missing datagram is given up; Infinity if nothing is held. */
  get dueAt(): number {
    return this.#order.dueAt;
  }

  /** The context of the next held datagram that is due for delivery, or -1. */
  peekReleased(now: number): number {
    const order = this.#order;
    if (now >= order.dueAt) order.expire(now, this.#patience);
    if (order.released !== NONE) return this.#store.context[order.released];
    this.#untaken = 0;
    return NONE;
  }

  /** Length of the datagram that {@link peekReleased} found. */
  get releasedLength(): number {
    return this.#store.length[this.#order.released];
  }

  /** Copies that datagram to `out[at]` and releases it. */
  takeReleased(out: Uint8Array, at: number): void {
    const entry = this.#order.takeReleased();
    this.#store.copyOut(entry, out, at);
    this.#store.release(entry);
  }

  /** Gives up all missing datagrams, because no lane is left on which they could arrive. */
  releaseAll(): void {
    this.#order.releaseAll();
    this.#endParity();
  }

  /** Drops what is held of a flow, or of all flows, which has ended; counted as `unknown_context`. @param flow  -1 for all */
  clear(flow: number): void {
    this.#order.clear(flow, this.#dropEnded);
    if (flow === NONE) this.#endParity();
    else this.#parity?.forget(flow);
  }

  readonly #dropEnded = (entry: number): void => {
    const { drops, tap } = this.#counters;
    drops.unknown_context++;
    if (tap === undefined) return;
    const store = this.#store;
    const data = new Uint8Array(store.length[entry]);
    store.copyOut(entry, data, 0);
    this.#record(tap, "unknown_context", store.context[entry], store.flow[entry], data, 0, data.length);
  };
}
