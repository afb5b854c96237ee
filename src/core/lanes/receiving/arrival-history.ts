/**
 * Which datagrams arrive past the age budget, found without a clock that both ends share.
 *
 * Sequence numbers are given in the order of sending. So if a later datagram has arrived a budget ago, this one has been
 * held up for at least that long on its way, and nobody waits for it any more: what a call would play is past, and an inner TCP has
 * sent it again. This makes the budget hold from end to end, where a lane stalls after the datagram has left the queue. The bound is
 * on the safe side: a datagram that is too old, but overtaken by none, is delivered. TCP's own repairs of a loss take round trips,
 * which the scheduler grants on top of the budget: over a long path most of what a hole holds up would be lost otherwise. It grants
 * three: where a repair is lost as well, the copy that is sent then (sending/hedge-budget.ts) arrives after two and a half.
 */
import { sequenceDistance } from "../../../wire/receipt.ts";

/** Together they reach back a little further than the budget. */
const MARKS = 32;

export class ArrivalHistory {
  /** A ring of marks: the highest number that had arrived by a time. The newest is at {@link #newest}. */
  readonly #at = new Float64Array(MARKS).fill(Number.NEGATIVE_INFINITY);
  readonly #sequence = new Int32Array(MARKS);
  #newest = 0;
  #highest = -1;
  #highestAt = Number.NEGATIVE_INFINITY;

  /**
   * Whether a later datagram arrived more than `budget` milliseconds ago. One that is later than all others is noted.
   */
  isStale(now: number, sequence: number, budget: number): boolean {
    if (this.#highest < 0 || sequenceDistance(sequence, this.#highest) > 0) {
      this.#highest = sequence;
      this.#highestAt = now;
      if (now - this.#at[this.#newest] < budget / (MARKS - 2)) return false;
      this.#newest = (this.#newest + 1) % MARKS;
      this.#at[this.#newest] = now;
      this.#sequence[this.#newest] = sequence;
      return false;
    }
    for (let i = 0; i < MARKS; i++) {
      const mark = (this.#newest - i + MARKS) % MARKS;
      if (
        this.#at[mark] === Number.NEGATIVE_INFINITY ||
        sequenceDistance(this.#sequence[mark], sequence) <= 0
      )
        return false;
      if (now - this.#at[mark] > budget) return true;
    }
    return false;
  }

  /** A number that had arrived at a time, the highest or one a little lower; -1 when none is known. */
  highestBefore(time: number): number {
    if (this.#highestAt <= time) return this.#highest;
    for (let i = 0; i < MARKS; i++) {
      const mark = (this.#newest - i + MARKS) % MARKS;
      if (this.#at[mark] <= time)
        return this.#at[mark] === Number.NEGATIVE_INFINITY ? -1 : this.#sequence[mark];
    }
    return -1;
  }

  /** When a number was overtaken, or a little later; now when it was not. */
  overtakenAt(now: number, sequence: number): number {
    let at = sequenceDistance(this.#highest, sequence) > 0 ? this.#highestAt : now;
    for (let i = 0; i < MARKS; i++) {
      const mark = (this.#newest - i + MARKS) % MARKS;
      if (
        this.#at[mark] === Number.NEGATIVE_INFINITY ||
        sequenceDistance(this.#sequence[mark], sequence) <= 0
      )
        break;
      at = this.#at[mark];
    }
    return at;
  }
}
