import type { LaneScheduler } from "./scheduler.ts";

/** The place of a tunnel in a session with receipts: the scheduler that supplies its datagrams, and its lane number there. */
export interface LanePort {
  readonly scheduler: LaneScheduler;
  /** Number of the lane within the session, 0 to 31. */
  readonly number: number;
}
