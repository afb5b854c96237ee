import type { Counters } from "../../counters.ts";
import type { DatagramStore } from "../datagram-store.ts";
import type { FlowTable } from "../flow-table.ts";
import type { LaneSet } from "../lane-set.ts";
import type { Demand } from "../rate/demand.ts";
import type { PathDelay } from "../rate/measures/path-delay.ts";
import type { TurnDelay } from "../rate/measures/turn-delay.ts";
import type { Pacer } from "../rate/pacer.ts";
import type { RateControl } from "../rate/rate-control.ts";
import type { SessionQueue } from "../session-queue.ts";
import type { PathWatch } from "../transfers/path-watch.ts";
import type { HedgeBudget } from "./hedge-budget.ts";
import type { LaneChoice } from "./lane-choice.ts";
import type { Lateness } from "./lateness.ts";
import type { LaneSender } from "./sender.ts";

/** The parts of the sending half of one end of a session, for those that need several of the others. */
export interface SendingParts {
  readonly store: DatagramStore;
  readonly flows: FlowTable;
  readonly counters: Counters;
  readonly lanes: LaneSet;
  readonly queue: SessionQueue;
  readonly path: PathDelay;
  readonly lateness: Lateness;
  readonly choice: LaneChoice;
  readonly rates: RateControl;
  readonly pacer: Pacer;
  readonly budget: HedgeBudget;
  readonly demand: Demand;
  readonly turn: TurnDelay;
  readonly sender: LaneSender;
  readonly watch: PathWatch;
}
