/**
 * Remembers which of the last 65,536 datagrams of a session have arrived, so that only one copy of each is delivered: the anti-replay
 * window of IPsec (RFC 4303 §3.4.3, RFC 6479), over numbers of 24 bits. A datagram older than the window counts as a copy: at 60,000
 * datagrams a second, it is more than a second late.
 */
import { SEQUENCE_MODULUS, sequenceDistance } from "../../../wire/receipt.ts";
import type { Arrived, Hole } from "../lane-progress.ts";

/** How many numbers are remembered. */
export const WINDOW = 65_536;
/** Most holes that {@link DuplicateWindow.arrived} lists; these are the latest. */
export const MAX_HOLES = 256;

export class DuplicateWindow {
  /** Datagrams that arrived after a later one, and the farthest distance to the latest. */
  overtaken = 0;
  farthest = 0;

  readonly #seen = new Int32Array(WINDOW / 32);
  #highest = -1;

  /** The highest number seen; -1 before the first. */
  get highest(): number {
    return this.#highest;
  }

  /** Whether a number has arrived, or is too old to be remembered. */
  has(sequence: number): boolean {
    const ahead = sequenceDistance(sequence, this.#highest);
    if (ahead > 0 || this.#highest < 0) return false;
    const bit = sequence & (WINDOW - 1);
    return ahead <= -WINDOW || (this.#seen[bit >> 5] & (1 << (bit & 31))) !== 0;
  }

  /** Records a number. @returns false if it has arrived before, or is too old to be remembered */
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

  /** What has arrived, for {@link restore}; undefined before the first. */
  get arrived(): Arrived | undefined {
    if (this.#highest < 0) return undefined;
    const holes: Hole[] = [];
    let length = 0;
    for (let distance = 1; distance <= WINDOW && holes.length < MAX_HOLES; distance++) {
      const bit = (this.#highest - distance) & (WINDOW - 1);
      const word = this.#seen[bit >> 5];
      const isMissing = distance < WINDOW && (word & (1 << (bit & 31))) === 0;
      if (isMissing) length++;
      else if (length > 0) {
        holes.push({ distance: distance - 1, length });
        length = 0;
      } else if (word === -1 && (bit & 31) === 31) distance += 31;
    }
    return { highest: this.#highest, holes };
  }

  /** Continues from another window's {@link arrived}. To be called before anything else. */
  restore({ highest, holes }: Arrived): void {
    this.#highest = highest;
    this.#seen.fill(-1);
    for (const { distance, length } of holes) {
      for (let i = 0; i < length; i++) {
        const bit = (highest - distance + i + SEQUENCE_MODULUS) & (WINDOW - 1);
        this.#seen[bit >> 5] &= ~(1 << (bit & 31));
      }
    }
  }

  /** Moves the end of the window `ahead` numbers forward, to `sequence`. */
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
