/** Bound of the ranges. Past it the lowest is forgotten, so a peer whose ids have that many gaps may reuse ids unnoticed. */
export const MAX_RANGES = 1_024;

/** Even ids, each halved: the first and the last of a range. */
export interface IdRange {
  readonly first: number;
  readonly last: number;
}

/** The even ids that a peer has used. They are kept as ranges, so ids used in ascending order take no memory. */
export class UsedIds {
  /** First and last halved id of each range, in ascending order and with a gap before each. */
  readonly #first: number[] = [];
  readonly #last: number[] = [];

  /** Records an id. @returns false if it was used before */
  add(id: number): boolean {
    const half = id / 2;
    const next = this.#rangeAfter(half);
    const before = next - 1;
    if (before >= 0 && half <= this.#last[before]) return false;
    const joinsBefore = before >= 0 && this.#last[before] === half - 1;
    const joinsNext = next < this.#first.length && this.#first[next] === half + 1;
    if (joinsBefore && joinsNext) {
      this.#last[before] = this.#last[next];
      this.#first.splice(next, 1);
      this.#last.splice(next, 1);
    } else if (joinsBefore) this.#last[before] = half;
    else if (joinsNext) this.#first[next] = half;
    else {
      this.#first.splice(next, 0, half);
      this.#last.splice(next, 0, half);
    }
    if (this.#first.length > MAX_RANGES) {
      this.#first.shift();
      this.#last.shift();
    }
    return true;
  }

  /** The ranges in ascending order, with a gap before each. */
  get ranges(): IdRange[] {
    return this.#first.map((first, i) => ({ first, last: this.#last[i] }));
  }

  /** Restores saved ranges. Call it before anything else. @param ranges  as from {@link ranges} */
  restore(ranges: readonly IdRange[]): void {
    for (const { first, last } of ranges) {
      this.#first.push(first);
      this.#last.push(last);
    }
  }

  has(id: number): boolean {
    const before = this.#rangeAfter(id / 2) - 1;
    return before >= 0 && id / 2 <= this.#last[before];
  }

  /** Index of the first range that begins above `half`. */
  #rangeAfter(half: number): number {
    let low = 0;
    let high = this.#first.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#first[middle] <= half) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
