import type { RateMode } from "../lanes/rate/rate-control.ts";
import type { LaneScheduler } from "../lanes/scheduler.ts";

/** The current state of all sessions with receipts, which spread their datagrams over lanes. */
export interface SpreadState {
  /** Number of sessions by how they set their rate: still starting, by delay, or in competition with senders that fill the queue. */
  readonly modes: Readonly<Record<RateMode, number>>;
  /** Sum of their rates, in bits per second. */
  readonly bitsPerSecond: number;
  /** Lanes that are late. */
  readonly lanesLate: number;
}

export function spreadState(schedulers: Iterable<LaneScheduler>): SpreadState {
  const modes: Record<RateMode, number> = { start: 0, delay: 0, compete: 0 };
  let bitsPerSecond = 0;
  let lanesLate = 0;
  for (const { stats } of schedulers) {
    modes[stats.mode]++;
    bitsPerSecond += stats.bitsPerSecond;
    lanesLate += stats.lanesLate;
  }
  return { modes, bitsPerSecond, lanesLate };
}
