/**
 * Measures how much of the link other senders use, by pausing.
 *
 * Packets in a queue of the path may wait behind the session's own packets or behind those of others. The session sends nothing for a few
 * milliseconds. A queue of its own shrinks by exactly that time. A queue that others fill shrinks by less, in proportion to the session's
 * share of the link. So the delays just before and just after the pause give the share of the others:
 *
 *     others = 1 − (decrease of the delay + bytes sent in between / capacity) / time in between
 *
 * Nimbus (Goyal et al., SIGCOMM 2022) modulates the sender's rate and looks for the modulation in the cross traffic. Copa (Arun and
 * Balakrishnan, NSDI 2018) waits for the queue to become empty. A pause gives an answer within a round trip, does not require the smallest
 * delay to be known, and drains the session's own queue at the same time.
 */
import { PACKET_BYTES } from "../../packet-bytes.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** Longest pause, unless the rate is so low that a few packets take longer. */
const MAX_PAUSE_MS = 15;
const PAUSE_SHARE = 0.6;
const PAUSE_PACKETS = 4;
/** Frames sent this long before and after the pause are compared. */
const WINDOW_MS = 6;
/** A shorter queue counts as empty. It may have been empty for a while, in which case it says nothing about shares. */
const EMPTY_MS = 0.5;
/** Share of other senders above which one competes, and below which none does. */
const CROWDED = 0.35;
const ALONE = 0.15;

export class ShareProbe {
  /** Share of the link that others had in the last pause with a result, 0 to 1; -1 before. */
  others = -1;
  /** Pauses in a row in which others had much of the link, or next to nothing. */
  crowded = 0;
  alone = 0;
  isRunning = false;
  /** When the last pause began. */
  lastAt = Number.NEGATIVE_INFINITY;

  #end = 0;
  #window = 0;
  #giveUpAt = 0;
  #before = NEVER;
  #beforeAt = 0;
  #beforeBytes = 0;
  #after = NEVER;
  #afterAt = 0;
  #afterBytes = 0;
  /** Share of the link that a single packet makes up in the last pause with a result. */
  #packetShare = 0;

  /** Whether the last pause with a result has shown other senders. On a slow path, one packet of ours more or less seems to be a share. */
  get hasOthers(): boolean {
    return this.others > ALONE + this.#packetShare;
  }

  /** Length of a pause, in milliseconds. @param standing  wait in queues @param rate  in bytes per millisecond */
  pauseFor(standing: number, rate: number): number {
    return Math.max(
      Math.min(PAUSE_SHARE * standing, MAX_PAUSE_MS),
      Math.min(standing, (PAUSE_PACKETS * PACKET_BYTES) / rate),
    );
  }

  /** Begins a pause. @param rtt  the round trip, including the wait in queues */
  begin(now: number, length: number, rate: number, rtt: number): void {
    this.isRunning = true;
    this.lastAt = now;
    this.#end = now + length;
    this.#window = Math.max(WINDOW_MS, (PAUSE_PACKETS * PACKET_BYTES) / rate);
    this.#giveUpAt = this.#end + this.#window + 3 * rtt + 100;
    this.#before = NEVER;
    this.#after = NEVER;
  }

  /** A frame has been receipted. @param standing  its wait in queues @param sentBytes  bytes sent by the session, up to this frame */
  note(sentAt: number, standing: number, sentBytes: number): void {
    if (!this.isRunning) return;
    if (sentAt <= this.lastAt) {
      if (sentAt <= this.lastAt - this.#window || standing >= this.#before) return;
      this.#before = standing;
      this.#beforeAt = sentAt;
      this.#beforeBytes = sentBytes;
    } else if (sentAt >= this.#end - EMPTY_MS && sentAt < this.#end + this.#window) {
      if (standing >= this.#after) return;
      this.#after = standing;
      this.#afterAt = sentAt;
      this.#afterBytes = sentBytes;
    }
  }

  /**
   * Evaluates the pause once the frames around it are receipted.
   *
   * @param newest    when the newest frame with a receipt was sent
   * @param capacity  approximate rate of the link, in bytes per millisecond
   * @returns true if the pause has just given a result
   */
  judge(now: number, newest: number, capacity: number): boolean {
    if (!this.isRunning || (newest < this.#end + this.#window && now < this.#giveUpAt)) return false;
    this.isRunning = false;
    if (this.#before === NEVER || this.#after === NEVER) return false;
    const elapsed = this.#afterAt - this.#beforeAt;
    const fall = this.#before - this.#after;
    const own = (this.#afterBytes - this.#beforeBytes) / capacity;
    const isEmptied = this.#after < EMPTY_MS && this.#before < elapsed;
    this.others = isEmptied ? 0 : Math.max(0, Math.min(1, 1 - (fall + own) / elapsed));
    this.#packetShare = PACKET_BYTES / (capacity * elapsed);
    this.crowded = this.others > CROWDED ? this.crowded + 1 : 0;
    this.alone = this.others < ALONE ? this.alone + 1 : 0;
    return true;
  }

  /** Counts this moment as the last pause, but one without a result. */
  skip(now: number): void {
    this.isRunning = false;
    this.lastAt = now;
    this.reset();
  }

  /** Resets the counts of pauses in a row. */
  reset(): void {
    this.crowded = 0;
    this.alone = 0;
  }
}
