/**
 * Whose queue it is: a pause of our own tells.
 *
 * Packets that stand in a queue of the path may stand behind our own or behind others'. For a few milliseconds nothing of ours is
 * sent; a queue of ours alone becomes shorter by just that time, one that others fill becomes shorter by less, by our share of
 * the link. So two delays, just before and just after the pause, say what share of the link the others have:
 *
 *     others = 1 − (fall of the delay + what we sent meanwhile / capacity) / time between
 *
 * Nimbus (Goyal et al., SIGCOMM 2022) modulates the sender's rate and looks for the same answer in the cross traffic; Copa (Arun and
 * Balakrishnan, NSDI 2018) waits for the queue to become empty. A pause answers within a round trip, does not depend on the least
 * delay being known, and drains our own queue at the same time.
 */

const NEVER = Number.POSITIVE_INFINITY;
const PACKET_BYTES = 1_250;
/** A pause is no longer than this, if packets are not very slow. */
const MAX_PAUSE_MS = 15;
const PAUSE_SHARE = 0.6;
const PAUSE_PACKETS = 4;
/** Frames sent this long before and after it are compared. */
const WINDOW_MS = 6;
/** Below this a queue counts as empty: it may have been so for a while, and tells no share. */
const EMPTY_MS = 0.5;
/** Shares of others above and below which somebody competes, and nobody does. */
const CROWDED = 0.35;
const ALONE = 0.15;

export class ShareProbe {
  /** Share of the link that others had in the last pause that said something, 0 to 1; -1 before. */
  others = -1;
  /** Pauses in a row in which others had much, or next to nothing. */
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

  /** How long a pause is to be. @param standing  how long packets stand @param rate  in bytes per millisecond */
  pauseFor(standing: number, rate: number): number {
    return Math.max(
      Math.min(PAUSE_SHARE * standing, MAX_PAUSE_MS),
      Math.min(standing, (PAUSE_PACKETS * PACKET_BYTES) / rate),
    );
  }

  /** A pause begins. @param rtt  with the time that packets stand */
  begin(now: number, length: number, rate: number, rtt: number): void {
    this.isRunning = true;
    this.lastAt = now;
    this.#end = now + length;
    this.#window = Math.max(WINDOW_MS, (PAUSE_PACKETS * PACKET_BYTES) / rate);
    this.#giveUpAt = this.#end + this.#window + 3 * rtt + 100;
    this.#before = NEVER;
    this.#after = NEVER;
  }

  /** A frame has been receipted. @param standing  how long it stood @param sentBytes  of the session, up to it */
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
   * Judges the pause once all of it is receipted.
   *
   * @param newest    when the newest frame with a receipt was sent
   * @param capacity  of the link, in bytes per millisecond, about
   * @returns true when it has said something just now
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
    this.crowded = this.others > CROWDED ? this.crowded + 1 : 0;
    this.alone = this.others < ALONE ? this.alone + 1 : 0;
    return true;
  }

  /** Counts anew. */
  reset(): void {
    this.crowded = 0;
    this.alone = 0;
  }
}
