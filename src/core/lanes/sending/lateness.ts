/**
 * Finds late lanes: RACK (RFC 8985) applied across lanes.
 *
 * RACK declares a segment lost when another one has been delivered that was sent later by more than the path's reordering. Lanes are
 * separate connections over one path, so the same holds between them. If the oldest frame without a receipt on a lane was sent clearly
 * before the newest frame with a receipt on any lane, then the lane is repairing a hole, and is given nothing more until it is done. A
 * lane whose own path is longer gets that much more time. If all lanes stall, none is behind another, and a timeout decides.
 */
import type { LaneState } from "../lane-state.ts";
import { PACKET_BYTES } from "../packet-bytes.ts";
import type { PathDelay } from "../rate/measures/path-delay.ts";

/** Reordering that is tolerated: receipts arrive only every 5 ms. */
const MARGIN_MS = 5;
/** Share of the round trip that is tolerated. RACK's is a quarter; with many lanes, less suffices. */
const MARGIN_SHARE = 0.1;
/**
 * On a slow path, lanes that take turns differ by packets: as long as this many take is tolerated, up to a share of the round trip. Copies
 * for a smaller difference took a per cent of a link of 2 Mbit/s.
 */
const MARGIN_PACKETS = 4;
const MAX_PACKETS_SHARE = 0.5;
/**
 * By how much less is tolerated while copies cost little. What was lost then arrives that much sooner. During an overload, lanes that are
 * avoided without need cost throughput, and while losses or jitter cause many copies, more of them would leave none for overdue datagrams.
 */
const CHEAP_MS = 2;
/** Largest margin that is reduced. On a longer path, 2 ms are little. */
const MAX_CHEAP_MARGIN_MS = 10;
/** How long flows remain spread over all lanes after a lane has become late. */
const SPREAD_MS = 5_000;
/** Time beyond two round trips after which a lane without any receipt counts as late. */
const PATIENCE_MS = 50;

export class Lateness {
  /** Whether any lane is late. */
  isAny = false;
  /** When a lane last became late, and how often lanes have. */
  lastAt = Number.NEGATIVE_INFINITY;
  count = 0;
  /** When the newest frame with a receipt was sent. */
  newest = Number.NEGATIVE_INFINITY;
  /** How long the path takes for a few packets, in milliseconds; 0 while that is not known. */
  #packetsMs = 0;

  /** Sets the rate. @param rate  in bytes per millisecond @param isMeasured  false at the start, when it is derived from the round trip */
  judge(rate: number, isMeasured: boolean): void {
    this.#packetsMs = isMeasured ? (MARGIN_PACKETS * PACKET_BYTES) / rate : 0;
  }

  /** Whether a lane has become late within the last 5 s. */
  isRecent(now: number): boolean {
    return now - this.lastAt < SPREAD_MS;
  }

  noteReceipt(sentAt: number): void {
    if (sentAt > this.newest) this.newest = sentAt;
  }

  margin(path: PathDelay): number {
    const packets = Math.min(this.#packetsMs, path.minRtt * MAX_PACKETS_SHARE);
    return Math.max(MARGIN_MS, path.minRtt * MARGIN_SHARE, packets);
  }

  /** Whether a frame sent at this time was delayed by its lane, so that its delay says nothing about the path. */
  isStale(sentAt: number, path: PathDelay): boolean {
    return sentAt + this.margin(path) < this.newest;
  }

  /** @param isCheap  whether copies cost little (hedger.ts) */
  update(now: number, lanes: readonly LaneState[], path: PathDelay, isCheap: boolean): void {
    let margin = this.margin(path);
    if (isCheap && margin <= MAX_CHEAP_MARGIN_MS) margin -= CHEAP_MS;
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
