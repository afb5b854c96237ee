import { sameBytes } from "../wire/socket-address.ts";
import { grown } from "./grown.ts";

const NONE = -1;

/**
 * Finds a slot by owner (an association's slot) and address, without allocating a key: a chained hash table in typed arrays. The caller
 * numbers the entries, which are slots of a table of its own.
 */
export class AddressIndex {
  #buckets = new Int32Array(64).fill(NONE);
  #next = new Int32Array(64);
  #owner = new Int32Array(64);
  #count = 0;
  readonly #seed: number;
  readonly #addresses: (Uint8Array | undefined)[] = [];

  /** @param seed  a random 32-bit number, so that nobody can choose colliding addresses */
  constructor(seed: number) {
    this.#seed = seed;
  }

  /** The slot of (owner, `bytes[offset..offset+length)`), or -1. */
  find(owner: number, bytes: Uint8Array, offset: number, length: number): number {
    let slot = this.#buckets[hash(owner ^ this.#seed, bytes, offset, length) & (this.#buckets.length - 1)];
    while (slot !== NONE) {
      if (this.#owner[slot] === owner) {
        const address = this.#addresses[slot]!;
        if (address.length === length && sameBytes(address, 0, bytes, offset, length)) return slot;
      }
      slot = this.#next[slot];
    }
    return NONE;
  }

  /** Adds `slot`, which must not be in the index yet. Keeps a reference to `address`. */
  add(slot: number, owner: number, address: Uint8Array): void {
    if (slot >= this.#next.length) this.#grow(slot + 1);
    if (this.#count === this.#buckets.length) this.#rehash(this.#buckets.length * 2);
    this.#owner[slot] = owner;
    this.#addresses[slot] = address;
    this.#count++;
    this.#insert(slot);
  }

  remove(slot: number): void {
    const address = this.#addresses[slot]!;
    const bucket =
      hash(this.#owner[slot] ^ this.#seed, address, 0, address.length) & (this.#buckets.length - 1);
    if (this.#buckets[bucket] === slot) this.#buckets[bucket] = this.#next[slot];
    else {
      let before = this.#buckets[bucket];
      while (this.#next[before] !== slot) before = this.#next[before];
      this.#next[before] = this.#next[slot];
    }
    this.#addresses[slot] = undefined;
    this.#count--;
  }

  #insert(slot: number): void {
    const address = this.#addresses[slot]!;
    const bucket =
      hash(this.#owner[slot] ^ this.#seed, address, 0, address.length) & (this.#buckets.length - 1);
    this.#next[slot] = this.#buckets[bucket];
    this.#buckets[bucket] = slot;
  }

  #grow(slots: number): void {
    const size = 2 ** Math.ceil(Math.log2(slots));
    this.#next = grown(this.#next, new Int32Array(size));
    this.#owner = grown(this.#owner, new Int32Array(size));
  }

  #rehash(buckets: number): void {
    this.#buckets = new Int32Array(buckets).fill(NONE);
    for (let slot = 0; slot < this.#addresses.length; slot++) {
      if (this.#addresses[slot] !== undefined) this.#insert(slot);
    }
  }
}

/** FNV-1a over the address, mixed with its owner. */
function hash(start: number, bytes: Uint8Array, offset: number, length: number): number {
  let value = Math.imul(start ^ 0x811c_9dc5, 0x0100_0193);
  for (let i = offset; i < offset + length; i++) value = Math.imul(value ^ bytes[i], 0x0100_0193);
  return (value ^ (value >>> 15)) >>> 0;
}
