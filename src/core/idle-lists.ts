import { grown } from "./grown.ts";

const NONE = -1;

/** Doubly linked lists over the slots of a table; in each, the slot that was used longest ago stands first. */
export class IdleLists {
  #next = new Int32Array(64);
  #previous = new Int32Array(64);
  /** Number of the list that a slot stands in, plus one; 0 for none. */
  #list = new Uint8Array(64);
  #lastUsed = new Float64Array(64);
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  readonly #size: Int32Array;

  constructor(lists: number) {
    this.#first = new Int32Array(lists).fill(NONE);
    this.#last = new Int32Array(lists).fill(NONE);
    this.#size = new Int32Array(lists);
  }

  size(list: number): number {
    return this.#size[list];
  }

  /** The slot used longest ago, or -1. */
  oldest(list: number): number {
    return this.#first[list];
  }

  lastUsed(slot: number): number {
    return this.#lastUsed[slot];
  }

  /** The list that holds a slot, or -1. */
  listOf(slot: number): number {
    return slot < this.#list.length ? this.#list[slot] - 1 : NONE;
  }

  /** Puts a slot last in a list, out of whichever one it is in. */
  touch(now: number, slot: number, list: number): void {
    if (slot >= this.#next.length) this.#grow(slot + 1);
    this.#lastUsed[slot] = now;
    if (this.#last[list] === slot) return;
    this.remove(slot);
    const last = this.#last[list];
    this.#previous[slot] = last;
    this.#next[slot] = NONE;
    if (last === NONE) this.#first[list] = slot;
    else this.#next[last] = slot;
    this.#last[list] = slot;
    this.#list[slot] = list + 1;
    this.#size[list]++;
  }

  remove(slot: number): void {
    const list = this.#list[slot] - 1;
    if (list < 0) return;
    const next = this.#next[slot];
    const previous = this.#previous[slot];
    if (next === NONE) this.#last[list] = previous;
    else this.#previous[next] = previous;
    if (previous === NONE) this.#first[list] = next;
    else this.#next[previous] = next;
    this.#list[slot] = 0;
    this.#size[list]--;
  }

  #grow(slots: number): void {
    const size = 2 ** Math.ceil(Math.log2(slots));
    this.#next = grown(this.#next, new Int32Array(size));
    this.#previous = grown(this.#previous, new Int32Array(size));
    this.#list = grown(this.#list, new Uint8Array(size));
    this.#lastUsed = grown(this.#lastUsed, new Float64Array(size));
  }
}
