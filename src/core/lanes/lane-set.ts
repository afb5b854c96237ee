/** The lanes of one end of a session: which exist, how many are up, and which are express (sending/lane-choice.ts). */
import { LaneState } from "./lane-state.ts";
import { expressLanes } from "./sending/lane-choice.ts";

/** With fewer bulk lanes, how many are late says nothing. */
const MANY_LANES = 4;

export class LaneSet {
  /** By number. A lane that has ended keeps its place. */
  readonly all: LaneState[] = [];
  /** How many are up. */
  up = 0;
  /** How many of the lanes, from the first, are express. */
  express = 0;

  /** The lane of a number, which is made if it does not exist. */
  at(index: number): LaneState {
    while (this.all.length <= index) this.all.push(new LaneState(this.all.length));
    return this.all[index];
  }

  /** Counts the lanes again after one has come up or ended. */
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
