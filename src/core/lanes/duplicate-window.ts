/**
 * Which of the last 65,536 datagrams of a session have come, so that a copy is delivered once: the anti-replay window of IPsec (RFC
 * 4303 §3.4.3, RFC 6479), over numbers that come truncated to 24 bits. What is older than the window is taken for a copy: at
 * 60,000 a second it is a second late.
 */
import { sequenceDistance } from "../../wire/receipt.ts";

const WINDOW = 65_536;

export class DuplicateWindow {
  /** Datagrams that came after a later one; and how many later ones at most. */
  overtaken = 0;
  farthest = 0;

  readonly #seen = new Int32Array(WINDOW / 32);
  #highest = -1;

  /** The highest number seen; -1 before the first. */
  get highest(): number {
    return this.#highest;
  }

  /** Whether a number has come, or is too old to be known. */
  has(sequence: number): boolean {
    const ahead = sequenceDistance(sequence, this.#highest);
    if (ahead > 0 || this.#highest < 0) return false;
    const bit = sequence & (WINDOW - 1);
    return ahead <= -WINDOW || (this.#seen[bit >> 5] & (1 << (bit & 31))) !== 0;
  }

  /** @returns false when it has come before, or is too old to be known */
  accept(sequence: number): boolean {
    const ahead = this.#highest < 0 ? WINDOW : sequenceDistance(sequence, this.#highest);
    if (ahead > 0) {
      this.#forget(sequence, ahead);
      this.#highest = sequence;
    } else if (ahead <= -WINDOW) return false;
    const bit = sequence & (WINDOW - 1);
    const mask = 1 << (bit & 31);
    if ((this.#seen[bit >> 5] & mask) !== 0) return false;
    this.#seen[bit >> 5] |= mask;
    if (ahead < 0) {
      this.overtaken++;
      if (-ahead > this.farthest) this.farthest = -ahead;
    }
    return true;
  }

  /** Makes the window end with `sequence`, which is so many ahead. */
  #forget(sequence: number, ahead: number): void {
    if (ahead >= WINDOW) {
      this.#seen.fill(0);
      return;
    }
    for (let i = 0; i < ahead; i++) {
      const bit = (sequence - i) & (WINDOW - 1);
      if ((bit & 31) === 31 && i + 32 <= ahead) {
        this.#seen[bit >> 5] = 0;
        i += 31;
      } else this.#seen[bit >> 5] &= ~(1 << (bit & 31));
    }
  }
}
