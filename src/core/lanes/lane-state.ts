/**
 * The state of one lane at one end: frames assigned, written and receipted, and frames received.
 *
 * A frame, which is one copy of a datagram on one lane, needs no number on the wire: a lane is a TCP connection, so its frames arrive in
 * order and without loss, and a count identifies those that have arrived. For each frame without a receipt, the ring holds when it was
 * assigned, how many bytes the session had sent by then (for the capacity estimate), and its datagram. A frame is *assigned* first and
 * *written* when the lane's next batch is filled. Both happen in one turn unless the batch is full.
 */
import { COUNT_MODULUS } from "../../wire/receipt.ts";
import { grown } from "../grown.ts";

const FIRST_FRAMES = 64;
/** TCP's window at the start and after an idle period: ten segments (RFC 6928). */
const FIRST_WINDOW = 14_000;
const REST_MS = 250;
/** Factor by which CUBIC reduces its window after a loss (RFC 9438 §4.6). */
const AFTER_LOSS = 0.7;
/** Most frames without a receipt: well under half of the range of a count on the wire. */
export const MAX_FRAMES = 16_384;

export class LaneState {
  readonly index: number;
  isUp = false;
  /** Whether its connection still holds the last batch. */
  isBusy = false;

  // Sending.
  /** Frames receipted, written and assigned since the lane came up. {@link slot} maps them to the ring. */
  receipted = 0;
  written = 0;
  assigned = 0;
  sentAt = new Float64Array(FIRST_FRAMES);
  sentBytes = new Float64Array(FIRST_FRAMES);
  entry = new Int32Array(FIRST_FRAMES);
  /** Bytes assigned without a receipt, and how many of these are not written yet. */
  inFlight = 0;
  unwritten = 0;
  usedAt = 0;
  /** Estimate of the connection's congestion window, in bytes. */
  window = FIRST_WINDOW;
  isLate = false;
  lateSince = 0;
  /** Frames before this one have been considered for hedging. */
  hedged = 0;
  /** Smallest delay in the last full period and in this one, from one end's clock to the other's. */
  delayBefore = Number.POSITIVE_INFINITY;
  delay = Number.POSITIVE_INFINITY;
  #firstSent = 0;

  // Receiving.
  #received = 0;
  /** When the newest frame arrived; -Infinity before the first. */
  newestAt = Number.NEGATIVE_INFINITY;
  /** Number of the last receipt that was sent on this lane; 0 before the first. */
  receiptNumber = 0;
  /** Most datagrams in a group whose parity the other end accepts on this connection; 0 if it accepts none. */
  parityLimit = 0;
  /** How many more receipts must report the newest frame. */
  news = 0;

  constructor(index: number) {
    this.index = index;
  }

  get bit(): number {
    return 1 << this.index;
  }

  /** @param firstCount  first value of both ends' counts on the new connection */
  open(now: number, firstCount: number): void {
    this.isUp = true;
    this.isBusy = false;
    this.receipted = 0;
    this.written = 0;
    this.assigned = 0;
    this.inFlight = 0;
    this.unwritten = 0;
    this.window = FIRST_WINDOW;
    this.usedAt = now;
    this.isLate = false;
    this.hedged = 0;
    this.delay = Number.POSITIVE_INFINITY;
    this.delayBefore = Number.POSITIVE_INFINITY;
    this.#firstSent = firstCount;
    this.#received = firstCount;
    this.newestAt = Number.NEGATIVE_INFINITY;
    this.news = 0;
    this.receiptNumber = 0;
    this.parityLimit = 0;
  }

  /** Index of a frame in the ring. */
  slot(frame: number): number {
    return frame & (this.entry.length - 1);
  }

  get isFull(): boolean {
    return this.assigned - this.receipted >= MAX_FRAMES;
  }

  /** When the oldest frame without a receipt was sent. There must be one. */
  get oldestAt(): number {
    return this.sentAt[this.slot(this.receipted)];
  }

  /** @param sentBytes  bytes that the session has sent, including this frame */
  assign(now: number, entry: number, size: number, sentBytes: number): void {
    if (this.assigned - this.receipted === this.entry.length) this.#grow();
    if (this.inFlight === 0 && now - this.usedAt > REST_MS) this.window = Math.min(this.window, FIRST_WINDOW);
    const slot = this.slot(this.assigned++);
    this.sentAt[slot] = now;
    this.sentBytes[slot] = sentBytes;
    this.entry[slot] = entry;
    this.inFlight += size;
    this.unwritten += size;
    this.usedAt = now;
  }

  /**
   * How many more frames the other end's count acknowledges.
   *
   * @returns 0 also for an impossible count, which comes from an earlier connection of the lane
   */
  advance(count: number): number {
    const known = (this.#firstSent + this.receipted) % COUNT_MODULUS;
    const frames = (count - known + COUNT_MODULUS) % COUNT_MODULUS;
    return frames > this.written - this.receipted ? 0 : frames;
  }

  get isBeyondWindow(): boolean {
    return this.inFlight >= this.window;
  }

  /** Grows the window as TCP's slow start does, if it is in use. @param bytes  newly receipted @param inFlight  before that */
  openWindow(bytes: number, inFlight: number): void {
    if (!this.isLate && 2 * inFlight > this.window) this.window += bytes;
  }

  /** Shrinks the window because the lane has become late. */
  closeWindow(): void {
    this.window = Math.max(FIRST_WINDOW / 2, AFTER_LOSS * Math.min(this.window, this.inFlight));
  }

  noteReceived(now: number): void {
    this.#received++;
    this.newestAt = now;
  }

  /** The count of received frames for a receipt. */
  get receivedCount(): number {
    return this.#received % COUNT_MODULUS;
  }

  #grow(): void {
    const from = this.entry.length;
    const size = from * 2;
    // Frames keep their numbers, so each moves to its place in the larger ring.
    const sentAt = grown(this.sentAt, new Float64Array(size));
    const sentBytes = grown(this.sentBytes, new Float64Array(size));
    const entry = grown(this.entry, new Int32Array(size));
    for (let frame = this.receipted; frame < this.assigned; frame++) {
      const to = frame & (size - 1);
      const slot = frame & (from - 1);
      sentAt[to] = this.sentAt[slot];
      sentBytes[to] = this.sentBytes[slot];
      entry[to] = this.entry[slot];
    }
    this.sentAt = sentAt;
    this.sentBytes = sentBytes;
    this.entry = entry;
  }
}
