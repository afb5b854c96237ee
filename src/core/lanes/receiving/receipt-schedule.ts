/**
 * Decides when a receipt is sent, and on which lane.
 *
 * A receipt is sent soon after an arrival, so that the sender finds a late lane within a round trip, but at most every 5 ms, so it costs
 * less than 1 % of a flood's bytes. Each piece of news is sent twice, on different lanes, because the receipt itself may wait behind a
 * hole. The rules resemble QUIC's ACK frequency (RFC 9000 §13.2), with a timer in place of a packet count.
 *
 * A receipt that travels with a datagram costs only its own bytes. One that travels alone costs a packet, and usually another packet that
 * acknowledges it; at 2 Mbit/s these took three per cent of the link. So over a slow path a receipt uses a lane that has a datagram to
 * write, and waits for one as long as a packet takes (QUIC bundles ACKs likewise, RFC 9000 §13.2.1). Over a fast path a packet costs
 * little, and the receipt is safer alone: a lane with much traffic is late more often.
 */
import { MAX_RECEIPT_ITEMS, type ReceiptWriter } from "../../../wire/receipt.ts";
import type { LaneState } from "../lane-state.ts";
import { PACKET_BYTES } from "../packet-bytes.ts";

/** Time from the first news to its receipt, and time between two receipts. */
const DELAY_MS = 1;
const INTERVAL_MS = 5;
/** With little traffic, a receipt waits for this many frames, but no longer than this. */
const FRAMES = 4;
const MAX_INTERVAL_MS = 20;
/** How many receipts report each piece of news. */
const TIMES = 2;
/** One in this many receipts uses the lanes in turn: if receipts travel alone, and if they travel with datagrams. */
const TURNS = 4;
const CARRIED_TURNS = 8;
/** On a slow path, a receipt waits for as long as a packet takes, but at most this long. */
const MAX_WAIT_MS = 10;
const NEVER = Number.POSITIVE_INFINITY;

export class ReceiptSchedule {
  /** When the next receipt is due; Infinity if there is no news. */
  dueAt = NEVER;
  sent = 0;
  /** Added to `now` for the clock of receipts, in milliseconds. */
  clockOffset = 0;
  sentBytes = 0;
  #lastAt = Number.NEGATIVE_INFINITY;
  #lastLane = -1;
  #interval = INTERVAL_MS;
  #frames = 0;

  /** Until when a due receipt waits for a datagram to travel with, on a slow path. @param rate  in bytes per millisecond */
  waitsUntil(rate: number): number {
    return this.dueAt + Math.min(MAX_WAIT_MS, PACKET_BYTES / rate);
  }

  /** A frame has arrived on a lane, or the latest receipt for a lane has to be repeated. */
  noteNews(now: number, lane: LaneState): void {
    lane.news = TIMES;
    this.#frames++;
    if (this.dueAt === NEVER) this.dueAt = Math.max(now + DELAY_MS, this.#lastAt + this.#interval);
  }

  /**
   * The lane for the next receipt: writable, preferably not late, not the one of the receipt before, and with a datagram to travel with or
   * else little traffic. Now and then a receipt uses the lane that has carried none for longest: an end that sends nothing else would not
   * notice a stalled lane otherwise, and a few stalled lanes must not hold up all receipts.
   *
   * @param express   the lanes below this index are express
   * @param carrying  bits of the lanes that have datagrams to travel with
   * @returns undefined if no lane is writable
   */
  choose(lanes: readonly LaneState[], express: number, carrying: number): LaneState | undefined {
    const turns = carrying === 0 ? TURNS : CARRIED_TURNS;
    const isInTurn = this.sent % turns === turns - 1;
    let best: LaneState | undefined;
    let bestScore = 0;
    for (const lane of lanes) {
      if (!lane.isUp || lane.isBusy) continue;
      let score = isInTurn ? 1e6 * lane.receiptNumber : lane.inFlight;
      if (lane.isLate) score += 1e15;
      if (lane.index === this.#lastLane) score += 1e14;
      if (!isInTurn && ((carrying & lane.bit) === 0 || lane.isBeyondWindow)) {
        score += lane.index < express ? 1e8 : 1e9;
      }
      if (best === undefined || score < bestScore) {
        best = lane;
        bestScore = score;
      }
    }
    return best;
  }

  /** Writes a receipt for all lanes with news. @returns the end offset, which is `at` if there is no news */
  write(
    now: number,
    lanes: readonly LaneState[],
    carrier: LaneState,
    writer: ReceiptWriter,
    out: Uint8Array,
    at: number,
  ): number {
    this.dueAt = NEVER;
    writer.begin(out, at, microseconds(now + this.clockOffset));
    let isLeft = false;
    for (const lane of lanes) {
      if (lane.news === 0) continue;
      if (writer.count < MAX_RECEIPT_ITEMS) {
        lane.news--;
        writer.add(lane.index, lane.receivedCount, 1000 * (now - lane.newestAt));
      }
      if (lane.news > 0) isLeft = true;
    }
    if (writer.count === 0) return at;
    const end = writer.end();
    this.sent++;
    this.sentBytes += end - at;
    const gap = Math.min(100, now - this.#lastAt) / Math.max(1, this.#frames);
    const wanted = Math.min(MAX_INTERVAL_MS, Math.max(INTERVAL_MS, FRAMES * gap));
    this.#interval += (wanted - this.#interval) / 4;
    this.#frames = 0;
    this.#lastAt = now;
    this.#lastLane = carrier.index;
    carrier.receiptNumber = this.sent;
    if (isLeft) this.dueAt = now + this.#interval;
    return end;
  }
}

/** Milliseconds as the clock of a receipt: microseconds modulo 2³². */
export function microseconds(now: number): number {
  return Math.floor(now * 1000) % 0x1_0000_0000;
}
