/** The lanes of one end of a session: all of them, how many are up, and how many are express (sending/lane-choice.ts). */
import { LaneState } from "./lane-state.ts";
import { expressLanes } from "./sending/lane-choice.ts";

/** With fewer bulk lanes, the share of late ones is not meaningful. */
const MANY_LANES = 4;

export class LaneSet {
  /** Indexed by lane number. A lane that has ended keeps its place. */
  readonly all: LaneState[] = [];
  /** How many are up. */
  up = 0;
  /** The lanes below this index are express. */
  express = 0;

  /** The lane with a number, created on first use. */
  at(index: number): LaneState {
    while (this.all.length <= index) this.all.push(new LaneState(this.all.length));
    return this.all[index];
  }

  /** Updates the counts after a lane has opened or ended. */
  count(): void {
    this.up = 0;
    for (const lane of this.all) if (lane.isUp) this.up++;
    this.express = expressLanes(this.up);
  }

  get late(): number {
    let late = 0;
    for (const lane of this.all) if (lane.isUp && lane.isLate) late++;
    return late;
  }

  /** Share of the bulk lanes that are late; 0 if there are few of these. */
  get lateShare(): number {
    let late = 0;
    let bulk = 0;
    for (const lane of this.all) {
      if (!lane.isUp || lane.index < this.express) continue;
      bulk++;
      if (lane.isLate) late++;
    }
    return bulk < MANY_LANES ? 0 : late / bulk;
  }
}
