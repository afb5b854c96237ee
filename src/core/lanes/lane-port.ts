import type { LaneScheduler } from "./scheduler.ts";

/** A lane's place in a session with receipts: where its tunnel gets datagrams, and which number it has there. */
export interface LanePort {
  readonly scheduler: LaneScheduler;
  /** Number of the lane within the session, 0 to 31. */
  readonly number: number;
}
