/** What has arrived beyond the bytes in order: pairs of a first sequence number and the one after the last. */
export class ReceivedRanges {
  readonly #ranges: number[] = [];
  /** Index of the pair that grew last. */
  #latest = 0;

  get isEmpty(): boolean {
    return this.#ranges.length === 0;
  }

  /** @returns whether all of it was there before */
  add(seq: number, end: number): boolean {
    const ranges = this.#ranges;
    let isDuplicate = false;
    for (let i = 0; i < ranges.length; i += 2) {
      if (ranges[i] <= seq && ranges[i + 1] >= end) isDuplicate = true;
    }
    let at = 0;
    while (at < ranges.length && ranges[at + 1] < seq) at += 2;
    if (at === ranges.length || ranges[at] > end) ranges.splice(at, 0, seq, end);
    else {
      ranges[at] = Math.min(ranges[at], seq);
      ranges[at + 1] = Math.max(ranges[at + 1], end);
      while (at + 2 < ranges.length && ranges[at + 2] <= ranges[at + 1]) {
        ranges[at + 1] = Math.max(ranges[at + 1], ranges[at + 3]);
        ranges.splice(at + 2, 2);
      }
    }
    this.#latest = at / 2;
    return isDuplicate;
  }

  /** Removes the ranges that begin within the bytes in order. @returns the end of the bytes in order with these ranges */
  takeUpTo(end: number): number {
    let next = end;
    while (this.#ranges.length > 0 && this.#ranges[0] <= next) {
      next = Math.max(next, this.#ranges[1]);
      this.#ranges.splice(0, 2);
      this.#latest = 0;
    }
    return next;
  }

  /** The ranges to report, the one that grew last first; undefined if there are none. */
  report(most: number): readonly number[] | undefined {
    const count = this.#ranges.length / 2;
    if (count === 0) return undefined;
    const sacks: number[] = [];
    for (let i = 0; i < Math.min(most, count); i++) {
      const at = 2 * ((this.#latest + i) % count);
      sacks.push(this.#ranges[at], this.#ranges[at + 1]);
    }
    return sacks;
  }
}
