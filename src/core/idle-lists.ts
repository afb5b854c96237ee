import { grown } from "./grown.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;

/**
 * Doubly linked lists over the slots of a table, each ordered by last use, oldest first, so that sweeps and evictions visit only the slots
 * that they end. Lists are numbered from 0 and created on first use.
 */
export class IdleLists {
  #next = new Int32Array(64);
  #previous = new Int32Array(64);
  /** Number of the list that holds a slot, plus one; 0 for none. */
  #list = new Int32Array(64);
  #lastUsed = new Float64Array(64);
  #first = new Int32Array(4).fill(NONE);
  #last = new Int32Array(4).fill(NONE);
  #size = new Int32Array(4);
  readonly #grain: number;

  /**
   * @param grain  milliseconds within which a slot that is used again keeps its place, so that a packet costs only a comparison; this is
   *               the precision of the order
   */
  constructor(grain = 0) {
    this.#grain = grain;
  }

  size(list: number): number {
    return list < this.#size.length ? this.#size[list] : 0;
  }

  /** The idlest slot, or -1. */
  oldest(list: number): number {
    return list < this.#first.length ? this.#first[list] : NONE;
  }

  /** When a slot was last used, or up to the grain earlier. */
  lastUsed(slot: number): number {
    return this.#lastUsed[slot];
  }

  /** The list that holds a slot, or -1. */
  listOf(slot: number): number {
    return slot < this.#list.length ? this.#list[slot] - 1 : NONE;
  }

  /** A slot of a list that has been idle for `idleMs`, or -1. */
  expired(now: number, list: number, idleMs: number): number {
    return now >= this.expiresAt(list, idleMs) ? this.#first[list] : NONE;
  }

  /** When {@link expired} will return a slot if none is used until then; Infinity for an empty list. */
  expiresAt(list: number, idleMs: number): number {
    const oldest = this.oldest(list);
    return oldest === NONE ? NEVER : this.#lastUsed[oldest] + idleMs + this.#grain;
  }

  /** Moves a slot to the end of its list, if it is in one. */
  refresh(now: number, slot: number): void {
    if (now - this.#lastUsed[slot] < this.#grain) return;
    const list = this.listOf(slot);
    if (list >= 0) this.touch(now, slot, list);
  }

  /** Moves a slot to the end of a list, from whichever one it is in. */
  touch(now: number, slot: number, list: number): void {
    if (slot >= this.#next.length) this.#growSlots(slot + 1);
    if (list >= this.#first.length) this.#growLists(list + 1);
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
    const list = this.listOf(slot);
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

  #growSlots(slots: number): void {
    const size = 2 ** Math.ceil(Math.log2(slots));
    this.#next = grown(this.#next, new Int32Array(size));
    this.#previous = grown(this.#previous, new Int32Array(size));
    this.#list = grown(this.#list, new Int32Array(size));
    this.#lastUsed = grown(this.#lastUsed, new Float64Array(size));
  }

  #growLists(lists: number): void {
    const size = 2 ** Math.ceil(Math.log2(lists));
    const before = this.#first.length;
    this.#first = grown(this.#first, new Int32Array(size)).fill(NONE, before);
    this.#last = grown(this.#last, new Int32Array(size)).fill(NONE, before);
    this.#size = grown(this.#size, new Int32Array(size));
  }
}
