/**
 * Detects datagrams that arrive past the age budget, without a clock that both ends share.
 *
 * Sequence numbers follow the order of sending. So if a later datagram arrived a budget ago, this one was delayed by at least that long on
 * its way and is useless: a call has played on, and a TCP inside has sent it again. This enforces the budget from end to end, even if a
 * lane stalls after the datagram has left the queue. It errs on the safe side: a datagram that is too old is delivered if no later one has
 * overtaken it. TCP's own repairs take round trips, which the receiver grants on top of the budget; otherwise most of what a hole holds up
 * on a long path would be dropped. It grants three: if a repair is lost too, the copy that is then sent (sending/hedge-budget.ts) arrives
 * after two and a half.
 */
import { sequenceDistance } from "../../../wire/receipt.ts";

/** Number of marks, which together reach back a little further than the budget. */
const MARKS = 32;

export class ArrivalHistory {
  /** A ring of marks, each a time and the highest number that had arrived by then. The newest is at {@link #newest}. */
  readonly #at = new Float64Array(MARKS).fill(Number.NEGATIVE_INFINITY);
  readonly #sequence = new Int32Array(MARKS);
  #newest = 0;
  #highest = -1;
  #highestAt = Number.NEGATIVE_INFINITY;

  /** Whether a later datagram arrived more than `budget` milliseconds ago. Records a datagram that is later than all others. */
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

  /** The highest number that had arrived by a time, or one a little lower; -1 if none is known. */
  highestBefore(time: number): number {
    if (this.#highestAt <= time) return this.#highest;
    for (let i = 0; i < MARKS; i++) {
      const mark = (this.#newest - i + MARKS) % MARKS;
      if (this.#at[mark] <= time)
        return this.#at[mark] === Number.NEGATIVE_INFINITY ? -1 : this.#sequence[mark];
    }
    return -1;
  }

  /** When a number was first overtaken, or a little later; `now` if it was not. */
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
