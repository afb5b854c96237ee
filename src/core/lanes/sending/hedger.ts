/**
 * Sends datagrams again on another lane if only late lanes hold them, or if their lane has ended. hedge-budget.ts explains why.
 */
import type { Counters } from "../../counters.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { FlowTable } from "../flow-table.ts";
import type { LaneSet } from "../lane-set.ts";
import type { Demand } from "../rate/demand.ts";
import type { PathDelay } from "../rate/measures/path-delay.ts";
import type { Pacer } from "../rate/pacer.ts";
import { isOrdered } from "../responsive.ts";
import type { SessionQueue } from "../session-queue.ts";
import type { HedgeBudget } from "./hedge-budget.ts";
import { HEDGE_AGE_MS, MAX_HEDGES } from "./hedge-budget.ts";
import type { LaneChoice } from "./lane-choice.ts";
import type { Lateness } from "./lateness.ts";
import type { LaneSender } from "./sender.ts";
import type { SendingParts } from "./sending-parts.ts";

/** Round trips after which TCP's own repair of a late lane is overdue. */
const OVERDUE = 2;

export class Hedger {
  /** Datagrams sent again since the start. */
  hedges = 0;

  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #counters: Counters;
  readonly #lanes: LaneSet;
  readonly #queue: SessionQueue;
  readonly #path: PathDelay;
  readonly #lateness: Lateness;
  readonly #choice: LaneChoice;
  readonly #pacer: Pacer;
  readonly #budget: HedgeBudget;
  readonly #demand: Demand;
  readonly #sender: LaneSender;

  constructor(parts: SendingParts) {
    this.#store = parts.store;
    this.#flows = parts.flows;
    this.#counters = parts.counters;
    this.#lanes = parts.lanes;
    this.#queue = parts.queue;
    this.#path = parts.path;
    this.#lateness = parts.lateness;
    this.#choice = parts.choice;
    this.#pacer = parts.pacer;
    this.#budget = parts.budget;
    this.#demand = parts.demand;
    this.#sender = parts.sender;
  }

  /** Sends datagrams again that only late lanes hold, if TCP's own repair is overdue or has to wait for a timer, or if the link has room. */
  hedge(now: number): void {
    const store = this.#store;
    const overdue = OVERDUE * (this.#path.minRtt + this.#lateness.margin(this.#path));
    const isCalm = !this.#demand.isLimited(now);
    const { rate } = this.#pacer;
    for (const lane of this.#lanes.all) {
      if (!lane.isUp || !lane.isLate) continue;
      lane.hedged = Math.max(lane.hedged, lane.receipted);
      // If nothing follows the hole, TCP finds it by its timer alone.
      const isAlone = lane.written - lane.receipted === 1;
      const isOverdue = now - lane.lateSince > overdue;
      const most = isOverdue ? MAX_HEDGES : 1;
      for (; lane.hedged !== lane.written; lane.hedged++) {
        const entry = lane.entry[lane.slot(lane.hedged)];
        if (store.isDone[entry] === 1 || store.hedges[entry] >= most) continue;
        if (this.#isHeldInTime(entry)) continue;
        const flow = store.flow[entry];
        const mayHedgeBulk =
          isOverdue || isAlone || (isCalm && (this.#budget.hasSpare(rate) || isOrdered(this.#flows, flow)));
        if (!mayHedgeBulk && !this.#queue.isSparse(flow)) break;
        if (!this.resend(now, entry)) return;
      }
    }
  }

  /** Whether copies cost little: the pacer holds nothing back, and few were needed lately. */
  isCheap(now: number): boolean {
    return !this.#demand.isLimited(now) && this.#budget.hasSpare(this.#pacer.rate);
  }

  /** Makes {@link hedge} reconsider everything on late lanes: what was not due, or exceeded the budget, may now be sent again. */
  reconsider(): void {
    for (const lane of this.#lanes.all) lane.hedged = lane.receipted;
  }

  /** Whether a lane that is not late holds a copy. */
  #isHeldInTime(entry: number): boolean {
    const holders = this.#store.holders[entry];
    for (const lane of this.#lanes.all) if ((holders & lane.bit) !== 0 && !lane.isLate) return true;
    return false;
  }

  /**
   * Sends one entry again, if that is still useful.
   *
   * @param isLost  whether its lane has ended: the copy then takes the place of the original, and needs no budget
   * @returns false if neither a lane nor budget is available now
   */
  resend(now: number, entry: number, isLost = false): boolean {
    const store = this.#store;
    if (store.isDone[entry] === 1 || store.hedges[entry] >= MAX_HEDGES) return true;
    if (now - store.time[entry] > HEDGE_AGE_MS + this.#path.minRtt) return true;
    const allowed = store.allowed[entry] & ~store.holders[entry];
    const { express } = this.#lanes;
    const lane = this.#queue.isSparse(store.flow[entry])
      ? this.#choice.sparse(express, allowed)
      : this.#choice.bulk(express, allowed);
    if (lane === NONE || this.#lanes.all[lane].isLate) return false;
    if (!isLost && !this.#budget.spend(store.length[entry])) return false;
    store.hedges[entry]++;
    this.hedges++;
    this.#counters.spread.hedges++;
    this.#sender.send(now, lane, entry);
    return true;
  }
}
