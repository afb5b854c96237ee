import type { RateMode } from "../lanes/rate/rate-control.ts";
import type { LaneScheduler } from "../lanes/scheduler.ts";

/** Sessions with receipts, whose datagrams are spread over lanes, as they are now. */
export interface SpreadState {
  /** Sessions by how they find their rate: it is not known yet, by delay, or against others that fill the queue. */
  readonly modes: Readonly<Record<RateMode, number>>;
  /** What they may send, together. */
  readonly bitsPerSecond: number;
  /** Lanes that are held up. */
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
