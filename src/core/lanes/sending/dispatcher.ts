/**
 * Moves datagrams from the queue to lanes while the pacer, the window and the lanes allow it.
 *
 * Sparse flows go first. Each of their datagrams is sent on two lanes, so that a loss on one does not delay it. Bulk follows at the
 * pacer's rate, each datagram once, protected by parity where that costs little (parity/parity-sender.ts).
 */
import type { Counters } from "../../counters.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { FlowTable } from "../flow-table.ts";
import { ANY_LANE } from "../lane-bits.ts";
import type { LaneSet } from "../lane-set.ts";
import { ParitySender } from "../parity/parity-sender.ts";
import type { Demand } from "../rate/demand.ts";
import type { TurnDelay } from "../rate/measures/turn-delay.ts";
import type { Pacer } from "../rate/pacer.ts";
import type { RateControl } from "../rate/rate-control.ts";
import { isOrdered } from "../responsive.ts";
import type { SessionQueue } from "../session-queue.ts";
import type { PathWatch } from "../transfers/path-watch.ts";
import type { LaneChoice } from "./lane-choice.ts";
import type { Lateness } from "./lateness.ts";
import type { LaneSender } from "./sender.ts";
import type { SendingParts } from "./sending-parts.ts";

/** A bulk datagram that has waited for less than this does not count as held by the pacer. */
const PROMPT_MS = 1;
const NEVER = Number.POSITIVE_INFINITY;

export class Dispatcher {
  /** When the pacer allows the next datagram; Infinity if none waits for the pacer. */
  pacedUntil = NEVER;
  /** Second copies of sparse datagrams since the start. */
  copies = 0;

  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #counters: Counters;
  readonly #lanes: LaneSet;
  readonly #queue: SessionQueue;
  readonly #lateness: Lateness;
  readonly #choice: LaneChoice;
  readonly #rates: RateControl;
  readonly #pacer: Pacer;
  readonly #demand: Demand;
  readonly #turn: TurnDelay;
  readonly #sender: LaneSender;
  readonly #watch: PathWatch;
  readonly #parity: ParitySender;

  constructor(parts: SendingParts) {
    this.#store = parts.store;
    this.#flows = parts.flows;
    this.#counters = parts.counters;
    this.#lanes = parts.lanes;
    this.#queue = parts.queue;
    this.#lateness = parts.lateness;
    this.#choice = parts.choice;
    this.#rates = parts.rates;
    this.#pacer = parts.pacer;
    this.#demand = parts.demand;
    this.#turn = parts.turn;
    this.#sender = parts.sender;
    this.#watch = parts.watch;
    this.#parity = new ParitySender(parts);
  }

  /** Parities sent since the start. */
  get parities(): number {
    return this.#parity.count;
  }

  /** When {@link dispatch} has to complete a group of datagrams; Infinity for never. */
  get parityDueAt(): number {
    return this.#parity.dueAt;
  }

  /** Assigns waiting datagrams to lanes. @param delivered  bytes receipted in this interval so far */
  dispatch(now: number, delivered: number): void {
    this.pacedUntil = NEVER;
    this.#demand.begin();
    this.#pacer.refill(now, this.#turn.late);
    if (this.#lanes.up === 0) return;
    const isSpread = this.#lateness.isRecent(now);
    this.#parity.begin(now, isSpread);
    if (!this.#queue.isEmpty) {
      this.#dispatchSparse(now, isSpread);
      this.#dispatchBulk(now, isSpread, delivered);
    }
    this.#parity.expire(now);
  }

  #dispatchSparse(now: number, isSpread: boolean): void {
    const { allowed, flow } = this.#store;
    /** The first entry that was passed over; when it comes round again, no entry can be sent. */
    let passed = NONE;
    for (;;) {
      const entry = this.#queue.peekSparse(now);
      if (entry === NONE || entry === passed || this.#sender.isOverfull) return;
      if (!this.#pacer.maySendSparse) {
        this.pacedUntil = this.#pacer.sparseReadyAt;
        this.#demand.isHeld = true;
        return;
      }
      const first = this.#sparseLaneFor(flow[entry], allowed[entry], isSpread);
      if (first === NONE) {
        if (passed === NONE) passed = entry;
        this.#queue.pass(entry);
        continue;
      }
      passed = NONE;
      this.#queue.take(now, entry);
      this.#watch.noteSparse(now, flow[entry]);
      this.#sender.send(now, first, entry);
      const second = this.#secondLaneFor(flow[entry], allowed[entry], isSpread, first);
      if (second !== NONE && this.#pacer.maySendSparse) {
        this.copies++;
        this.#queue.noteCopy(now, this.#store.length[entry]);
        this.#counters.spread.copies++;
        this.#sender.send(now, second, entry);
        this.#parity.noteSparse(now, entry, 0);
      } else this.#parity.noteSparse(now, entry, 1 << first);
      this.#store.release(entry);
    }
  }

  /** The lane for the first copy: the flow's own lane as long as none has been late, so nothing is reordered on a clean path. */
  #sparseLaneFor(flow: number, allowed: number, isSpread: boolean): number {
    const { express } = this.#lanes;
    const kept = this.#flows.lane[flow];
    if (!isSpread && kept < (express || this.#lanes.all.length) && this.#suits(kept, allowed)) return kept;
    const lane = this.#choice.sparse(express, allowed);
    if (lane !== NONE) this.#flows.lane[flow] = lane;
    return lane;
  }

  /** The lane for the second copy: the same one for each first lane, if possible. */
  #secondLaneFor(flow: number, allowed: number, isSpread: boolean, first: number): number {
    const { express } = this.#lanes;
    const others = allowed & ~(1 << first);
    const count = express > 1 ? express : this.#lanes.all.length;
    const second = (first + 1 + (flow % Math.max(1, count - 1))) % count;
    return !isSpread && this.#suits(second, others) ? second : this.#choice.sparse(express, others);
  }

  /** Whether a lane is allowed, can take a datagram, and sends it at once. */
  #suits(index: number, allowed: number): boolean {
    const { all } = this.#lanes;
    if (index < 0 || index >= all.length || (allowed & (1 << index)) === 0) return false;
    const lane = all[index];
    return this.#choice.isPrompt(lane) && this.#choice.canTake(lane);
  }

  #dispatchBulk(now: number, isSpread: boolean, delivered: number): void {
    const store = this.#store;
    const demand = this.#demand;
    let room = this.#rates.window(delivered);
    for (const lane of this.#lanes.all) if (lane.isUp && !lane.isLate) room -= lane.inFlight;
    let passed = NONE;
    for (;;) {
      const entry = this.#queue.peekBulk(now);
      if (entry === NONE || entry === passed) return;
      if (!this.#pacer.maySend) {
        this.pacedUntil = Math.min(this.pacedUntil, this.#pacer.readyAt);
        demand.isHeld ||= now - store.time[entry] > PROMPT_MS;
        if (demand.isHeld) demand.isFilled = true;
        return;
      }
      if (room <= 0 || this.#sender.isOverfull) {
        demand.isBlocked = true;
        demand.isFilled = true;
        return;
      }
      const lane = this.#bulkLaneFor(store.flow[entry], store.allowed[entry], isSpread);
      if (lane === NONE) {
        if (passed === NONE) passed = entry;
        this.#queue.pass(entry);
        demand.isBlocked = true;
        continue;
      }
      passed = NONE;
      this.#queue.take(now, entry);
      room -= store.length[entry];
      const bit = 1 << lane;
      this.#parity.makeWay(now, bit);
      this.#sender.send(now, lane, entry);
      this.#parity.noteBulk(now, entry, bit);
      store.release(entry);
    }
  }

  #bulkLaneFor(flow: number, allowed: number, isSpread: boolean): number {
    const { express } = this.#lanes;
    const kept = this.#flows.lane[flow];
    if (!isSpread && kept >= express && this.#suits(kept, allowed)) return kept;
    let lane = NONE;
    if (allowed === ANY_LANE && isOrdered(this.#flows, flow)) lane = this.#choice.ordered(express, flow);
    const first = allowed === ANY_LANE ? express : 0;
    const { taken } = this.#parity;
    if (lane === NONE && taken !== 0) lane = this.#choice.promptBulk(first, allowed & ~taken);
    if (lane === NONE) lane = this.#choice.bulk(first, allowed);
    if (lane !== NONE) this.#flows.lane[flow] = lane;
    return lane;
  }
}
