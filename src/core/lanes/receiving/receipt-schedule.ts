/**
 * When a receipt goes out, and on which lane.
 *
 * Soon after something has come (so that the sender finds a late lane within a round trip), not often (so that a flood costs one
 * receipt in five milliseconds, less than one byte in a hundred), and each news twice on different lanes: the receipt itself may
 * stand behind a hole. Like QUIC's ACK frequency (RFC 9000 §13.2), with a timer in place of a packet count.
 *
 * A receipt that travels with a datagram costs its own bytes; one that travels alone costs a packet, and usually another one that
 * acknowledges it. Over 2 Mbit/s these were three per cent of the link. So over a slow path a receipt goes on a lane that has a
 * datagram to write, and waits for one as long as a packet takes (QUIC bundles ACKs likewise, RFC 9000 §13.2.1). Over a fast one it
 * costs little, and is safer alone: a lane that carries much is late more often.
 */
import { MAX_RECEIPT_ITEMS, type ReceiptWriter } from "../../../wire/receipt.ts";
import type { LaneState } from "../lane-state.ts";

/** From the first news to its receipt, and between two receipts. */
const DELAY_MS = 1;
const INTERVAL_MS = 5;
/** Where little comes, a receipt tells of so many frames, but waits no longer than this. */
const FRAMES = 4;
const MAX_INTERVAL_MS = 20;
/** In how many receipts each news is told. */
const TIMES = 2;
/** Of so many receipts one goes to all lanes in turn: those without datagrams to go with, and the others. */
const TURNS = 4;
const CARRIED_TURNS = 8;
/** Size of a packet that a receipt waits for where the path is slow, and longest wait. */
const PACKET_BYTES = 1_250;
const MAX_WAIT_MS = 10;
const NEVER = Number.POSITIVE_INFINITY;

export class ReceiptSchedule {
  /** When the next receipt is due; Infinity while there are no news. */
  dueAt = NEVER;
  sent = 0;
  /** What is added to `now` for the clock of receipts, in milliseconds. */
  clockOffset = 0;
  sentBytes = 0;
  #lastAt = Number.NEGATIVE_INFINITY;
  #lastLane = -1;
  #interval = INTERVAL_MS;
  #frames = 0;

  /** Until when a receipt that is due waits, over a slow path, for a datagram to go with. @param rate  in bytes per millisecond */
  waitsUntil(rate: number): number {
    return this.dueAt + Math.min(MAX_WAIT_MS, PACKET_BYTES / rate);
  }

  /** A frame has come on a lane. */
  noteNews(now: number, lane: LaneState): void {
    lane.news = TIMES;
    this.#frames++;
    if (this.dueAt === NEVER) this.dueAt = Math.max(now + DELAY_MS, this.#lastAt + this.#interval);
  }

  /**
   * The lane for the next receipt: one that can be written now, is not late, did not carry the last one, and has a datagram to go with,
   * or else carries little. Now and then a receipt goes where none has been for longest: an end that sends nothing else does not notice
   * that a lane is held up, and no few lanes may take all receipts with them.
   *
   * @param express   how many of the lanes, from the first, are kept for what is small
   * @param carrying  bits of the lanes that have datagrams to go with
   * @returns undefined when none can be written
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

  /** Writes a receipt for all lanes with news. @returns the offset behind it; `at` when there are none */
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

/** A clock of milliseconds as receipts tell it. */
export function microseconds(now: number): number {
  return Math.floor(now * 1000) % 0x1_0000_0000;
}
