/**
 * What one end knows of a lane: which frames it was given and which of them the other end has receipted, and what came in on it.
 *
 * A frame (a datagram's copy on this lane) needs no number on the wire: a lane is a TCP connection, in order and without loss, so that
 * a count says which frames have arrived. The ring holds, for each frame that is not receipted, when it was given to the lane, how
 * many bytes the session had sent by then (for the capacity estimate), and which datagram it is. Frames are *assigned* first and
 * *written* when the lane's next batch is filled; both happen in one turn unless the batch is full.
 */
import { COUNT_MODULUS } from "../../wire/receipt.ts";
import { grown } from "../grown.ts";

const FIRST_FRAMES = 64;
/** What TCP sends at first, and again after a rest: ten segments (RFC 6928). */
const FIRST_WINDOW = 14_000;
const REST_MS = 250;
/** What CUBIC keeps of its window after a loss (RFC 9438 §4.6). */
const AFTER_LOSS = 0.7;
/** Well under half of what a count on the wire can tell apart. */
export const MAX_FRAMES = 16_384;

export class LaneState {
  readonly index: number;
  isUp = false;
  /** Its last batch is not written yet. */
  isBusy = false;

  // What is sent.
  /** Frames receipted, written and assigned since the lane came up; they wrap with the ring, by {@link slot}. */
  receipted = 0;
  written = 0;
  assigned = 0;
  sentAt = new Float64Array(FIRST_FRAMES);
  sentBytes = new Float64Array(FIRST_FRAMES);
  entry = new Int32Array(FIRST_FRAMES);
  /** Bytes assigned and not receipted; and of these, bytes not written. */
  inFlight = 0;
  unwritten = 0;
  usedAt = 0;
  /** Bytes that its connection is thought to send without waiting. */
  window = FIRST_WINDOW;
  isLate = false;
  lateSince = 0;
  /** The frame up to which a late lane's frames have been looked at for hedging. */
  hedged = 0;
  /** Least delay from one clock to the other, in the last full period and in this one. */
  delayBefore = Number.POSITIVE_INFINITY;
  delay = Number.POSITIVE_INFINITY;
  #firstSent = 0;

  // What comes in.
  #received = 0;
  /** When the newest frame came; -Infinity before the first. */
  newestAt = Number.NEGATIVE_INFINITY;
  /** Which one the last receipt was that went out here; 0 before the first. */
  receiptNumber = 0;
  /** In how many receipts the newest frame must still be told. */
  news = 0;

  constructor(index: number) {
    this.index = index;
  }

  get bit(): number {
    return 1 << this.index;
  }

  /** @param firstCount  where both ends' counts of the new connection begin */
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
  }

  /** Where a frame's record is. */
  slot(frame: number): number {
    return frame & (this.entry.length - 1);
  }

  get isFull(): boolean {
    return this.assigned - this.receipted >= MAX_FRAMES;
  }

  /** When the oldest frame that is not receipted was sent. The lane has one. */
  get oldestAt(): number {
    return this.sentAt[this.slot(this.receipted)];
  }

  /** @param sentBytes  what the session has sent, this frame included */
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
   * How many frames a count of the other end newly receipts.
   *
   * @returns 0 too when it says nothing new, or what cannot be: it is of an earlier connection
   */
  advance(count: number): number {
    const known = (this.#firstSent + this.receipted) % COUNT_MODULUS;
    const frames = (count - known + COUNT_MODULUS) % COUNT_MODULUS;
    return frames > this.written - this.receipted ? 0 : frames;
  }

  get isBeyondWindow(): boolean {
    return this.inFlight >= this.window;
  }

  /** So many bytes are receipted: TCP's slow start, as far as the window is used. @param inFlight  before them */
  openWindow(bytes: number, inFlight: number): void {
    if (!this.isLate && 2 * inFlight > this.window) this.window += bytes;
  }

  /** The lane has become late. */
  closeWindow(): void {
    this.window = Math.max(FIRST_WINDOW / 2, AFTER_LOSS * Math.min(this.window, this.inFlight));
  }

  noteReceived(now: number): void {
    this.#received++;
    this.newestAt = now;
  }

  /** Frames received, as a receipt tells it. */
  get receivedCount(): number {
    return this.#received % COUNT_MODULUS;
  }

  #grow(): void {
    const from = this.entry.length;
    const size = from * 2;
    // Frames keep their number, so that each moves to where the larger ring has it.
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
