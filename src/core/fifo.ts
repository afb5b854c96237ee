/** The array is moved up once this many entries have been taken. */
const MOST_TAKEN = 1_024;

/**
 * A queue, oldest first. An entry costs the same however many wait, whereas `Array.shift` moves all others once there are thousands, and a
 * peer may cause as many outputs with the bytes of one read.
 */
export class Fifo<Entry> {
  #entries: (Entry | undefined)[] = [];
  /** Entries before this one have been taken. */
  #first = 0;

  get length(): number {
    return this.#entries.length - this.#first;
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
  }

  /** Takes the oldest. @returns undefined if there is none */
  shift(): Entry | undefined {
    if (this.#first === this.#entries.length) return undefined;
    const entry = this.#entries[this.#first];
    this.#entries[this.#first++] = undefined;
    if (this.#first === this.#entries.length) {
      this.#entries = [];
      this.#first = 0;
    } else if (this.#first >= MOST_TAKEN && 2 * this.#first >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
    return entry;
  }
}
