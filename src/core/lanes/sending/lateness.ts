/**
 * Which lanes are late: RACK (RFC 8985) across lanes.
 *
 * RACK takes a segment for lost when another one, sent later by more than the reordering that a path does, has been delivered. A lane
 * is a pipe of its own over the same path, so that the same holds between lanes: a lane whose oldest frame without receipt was sent
 * clearly before the newest frame that any lane has a receipt for stands before a hole, and is filling it. Nothing more is
 * given to it meanwhile. A lane with a longer way of its own is given that much more time. Where all lanes stand still nothing is
 * later than anything else, and time alone tells.
 */
import type { LaneState } from "../lane-state.ts";
import type { PathDelay } from "../rate/path-delay.ts";

/** Reordering that is let pass: receipts come every five milliseconds. */
const MARGIN_MS = 5;
/** As RACK's quarter, but of many lanes. */
const MARGIN_SHARE = 0.1;
/** So long after a lane was late, flows are spread over all of them. */
const SPREAD_MS = 5_000;
/** Beyond two round trips, before a lane without any news counts as late. */
const PATIENCE_MS = 50;

export class Lateness {
  /** Whether any lane is late. */
  isAny = false;
  /** When a lane last became late. */
  lastAt = Number.NEGATIVE_INFINITY;
  count = 0;
  /** When the newest frame with a receipt was sent. */
  newest = Number.NEGATIVE_INFINITY;

  /** Whether a lane has become late in the last few seconds. */
  isRecent(now: number): boolean {
    return now - this.lastAt < SPREAD_MS;
  }

  noteReceipt(sentAt: number): void {
    if (sentAt > this.newest) this.newest = sentAt;
  }

  margin(path: PathDelay): number {
    return Math.max(MARGIN_MS, path.minRtt * MARGIN_SHARE);
  }

  /** Whether a frame of this send time came too late to say something of the path. */
  isStale(sentAt: number, path: PathDelay): boolean {
    return sentAt + this.margin(path) < this.newest;
  }

  update(now: number, lanes: readonly LaneState[], path: PathDelay): void {
    const margin = this.margin(path);
    const patience = 2 * path.minRtt + PATIENCE_MS;
    this.isAny = false;
    for (const lane of lanes) {
      const wasLate = lane.isLate;
      lane.isLate = false;
      if (!lane.isUp || lane.written === lane.receipted) continue;
      const oldest = lane.oldestAt;
      lane.isLate = oldest + margin + path.lag(lane) < this.newest || now - oldest > patience;
      if (!lane.isLate) continue;
      this.isAny = true;
      if (wasLate) continue;
      lane.lateSince = now;
      lane.closeWindow();
      lane.hedged = lane.receipted;
      this.lastAt = now;
      this.count++;
    }
  }
}
