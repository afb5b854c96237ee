import { grown } from "./grown.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;

/**
 * All deadlines of a machine: one time per key, with the earliest available at once. Keys are small numbers that the machine assigns (a
 * kind and a slot). In an indexed binary heap, setting a deadline takes logarithmic time, and deadlines that are not due are never visited.
 * Modelled on quinn's timer table (quinn-proto, connection/timer.rs).
 */
export class Deadlines {
  #heap = new Int32Array(16);
  #count = 0;
  /** By key: its place in the heap or -1, and its time. */
  #place = new Int32Array(16).fill(NONE);
  #time = new Float64Array(16);

  /** The time of the earliest deadline; Infinity if none is set. */
  next(): number {
    return this.#count === 0 ? NEVER : this.#time[this.#heap[0]];
  }

  /** The time of a key, or Infinity. */
  of(key: number): number {
    return key < this.#place.length && this.#place[key] !== NONE ? this.#time[key] : NEVER;
  }

  /** Sets the time of a key, replacing an earlier setting. @param time  Infinity clears it */
  set(key: number, time: number): void {
    if (time === NEVER) {
      this.clear(key);
      return;
    }
    if (key >= this.#place.length) this.#grow(key + 1);
    let place = this.#place[key];
    if (place === NONE) {
      if (this.#count === this.#heap.length) this.#heap = grown(this.#heap, new Int32Array(2 * this.#count));
      place = this.#count++;
    }
    this.#time[key] = time;
    this.#up(key, place);
    this.#down(key, this.#place[key]);
  }

  /** Sets the time of a key unless an earlier one is set. */
  setEarlier(key: number, time: number): void {
    if (time < this.of(key)) this.set(key, time);
  }

  clear(key: number): void {
    if (key >= this.#place.length || this.#place[key] === NONE) return;
    const place = this.#place[key];
    this.#place[key] = NONE;
    const last = this.#heap[--this.#count];
    if (last === key) return;
    this.#up(last, place);
    this.#down(last, this.#place[last]);
  }

  /** Clears the earliest deadline that is due. @returns its key, or -1 */
  takeDue(now: number): number {
    if (this.#count === 0) return NONE;
    const key = this.#heap[0];
    if (this.#time[key] > now) return NONE;
    this.clear(key);
    return key;
  }

  #up(key: number, from: number): void {
    const time = this.#time[key];
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      const above = this.#heap[parent];
      if (this.#time[above] <= time) break;
      this.#put(above, place);
      place = parent;
    }
    this.#put(key, place);
  }

  #down(key: number, from: number): void {
    const time = this.#time[key];
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= this.#count) break;
      if (child + 1 < this.#count && this.#time[this.#heap[child + 1]] < this.#time[this.#heap[child]])
        child++;
      const below = this.#heap[child];
      if (this.#time[below] >= time) break;
      this.#put(below, place);
      place = child;
    }
    this.#put(key, place);
  }

  #put(key: number, place: number): void {
    this.#heap[place] = key;
    this.#place[key] = place;
  }

  #grow(keys: number): void {
    const size = 2 ** Math.ceil(Math.log2(keys));
    const before = this.#place.length;
    this.#place = grown(this.#place, new Int32Array(size)).fill(NONE, before);
    this.#time = grown(this.#time, new Float64Array(size));
  }
}
