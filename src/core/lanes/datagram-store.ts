/**
 * Memory for the datagrams that wait for a lane, are on one without a receipt, are held to restore order, or are kept for parity.
 *
 * Payloads are stored in blocks of 2 KiB, so a payload of any length needs no allocation. Entries are reference-counted: the queue holds a
 * reference while the datagram waits, and each lane that carries a copy holds one until the copy is receipted or the lane ends. The last
 * release frees the entry. Everything is in typed arrays, which grow by doubling and are reused.
 */
import { copyBytes } from "../copy-bytes.ts";
import { grown } from "../grown.ts";
import type { DatagramTap, QueueOwner, TapReason } from "../tap.ts";
import { recordQueued } from "../tap.ts";

/** A full-sized datagram fits in one. */
const BLOCK_BYTES = 2048;
export const NONE = -1;

export class DatagramStore {
  /** Payload bytes in the store. */
  bytes = 0;
  /** Resolves flows and contexts for a tap. */
  owner: QueueOwner | undefined;

  /** The next waiting entry of the same flow. */
  next = new Int32Array(64);
  flow = new Int32Array(64);
  length = new Int32Array(64);
  context = new Int32Array(64);
  /** When it was stored. */
  time = new Float64Array(64);
  /** Bits of the lanes that may carry it. */
  allowed = new Int32Array(64);
  /** Its sequence number in the session; -1 until it is sent. */
  sequence = new Int32Array(64);
  /** Bits of the lanes that hold a copy without a receipt. */
  holders = new Int32Array(64);
  /** 1 once a copy has been receipted. */
  isDone = new Uint8Array(64);
  /** How often it was sent again because all its lanes were late or had ended. */
  hedges = new Uint8Array(64);

  #references = new Int32Array(64);
  #block = new Int32Array(64);
  #blocks = new Uint8Array(8 * BLOCK_BYTES);
  /** The same memory. */
  #words = new Int32Array(this.#blocks.buffer);
  #blockNext = new Int32Array(8);
  #freeBlock = NONE;
  #blockCount = 0;
  #freeEntry = NONE;
  #entryCount = 0;

  /** Copies a payload into a new entry with one reference. @returns the entry */
  add(
    now: number,
    flow: number,
    context: number,
    allowed: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): number {
    const entry = this.#takeEntry();
    let first = NONE;
    let last = NONE;
    for (let at = 0; at < length; at += BLOCK_BYTES) {
      const block = this.#takeBlock();
      copyBytes(data, offset + at, Math.min(BLOCK_BYTES, length - at), this.#blocks, block * BLOCK_BYTES);
      if (first === NONE) first = block;
      else this.#blockNext[last] = block;
      this.#blockNext[block] = NONE;
      last = block;
    }
    this.#block[entry] = first;
    this.#references[entry] = 1;
    this.next[entry] = NONE;
    this.flow[entry] = flow;
    this.length[entry] = length;
    this.context[entry] = context;
    this.time[entry] = now;
    this.allowed[entry] = allowed;
    this.sequence[entry] = NONE;
    this.holders[entry] = 0;
    this.isDone[entry] = 0;
    this.hedges[entry] = 0;
    this.bytes += length;
    return entry;
  }

  /** Copies the payload of an entry to `out[at]`. */
  copyOut(entry: number, out: Uint8Array, at: number): void {
    let to = at;
    let left = this.length[entry];
    for (let block = this.#block[entry]; block !== NONE; block = this.#blockNext[block]) {
      const size = Math.min(BLOCK_BYTES, left);
      copyBytes(this.#blocks, block * BLOCK_BYTES, size, out, to);
      to += size;
      left -= size;
    }
  }

  /** Changes `words` from index `at` by exclusive or with the payload of an entry, which is at most a block. */
  xorInto(entry: number, words: Int32Array, at: number): void {
    const length = this.length[entry];
    if (length === 0) return;
    const start = this.#block[entry] * BLOCK_BYTES;
    const count = Math.ceil(length / 4);
    // The last word may have bytes of an earlier payload.
    for (let i = length; i < 4 * count; i++) this.#blocks[start + i] = 0;
    for (let i = 0; i < count; i++) words[at + i] ^= this.#words[start / 4 + i];
  }

  /** Passes an entry to a tap. */
  record(tap: DatagramTap, reason: TapReason | undefined, entry: number): void {
    const data = new Uint8Array(this.length[entry]);
    this.copyOut(entry, data, 0);
    recordQueued(tap, this.owner, reason, this.flow[entry], this.context[entry], data, 0, data.length);
  }

  retain(entry: number): void {
    this.#references[entry]++;
  }

  release(entry: number): void {
    if (--this.#references[entry] > 0) return;
    for (let block = this.#block[entry]; block !== NONE; ) {
      const next = this.#blockNext[block];
      this.#blockNext[block] = this.#freeBlock;
      this.#freeBlock = block;
      block = next;
    }
    this.bytes -= this.length[entry];
    this.next[entry] = this.#freeEntry;
    this.#freeEntry = entry;
  }

  #takeBlock(): number {
    const block = this.#freeBlock;
    if (block !== NONE) {
      this.#freeBlock = this.#blockNext[block];
      return block;
    }
    if (this.#blockCount === this.#blockNext.length) {
      const size = this.#blockNext.length * 2;
      this.#blockNext = grown(this.#blockNext, new Int32Array(size));
      this.#blocks = grown(this.#blocks, new Uint8Array(size * BLOCK_BYTES));
      this.#words = new Int32Array(this.#blocks.buffer);
    }
    return this.#blockCount++;
  }

  #takeEntry(): number {
    const entry = this.#freeEntry;
    if (entry !== NONE) {
      this.#freeEntry = this.next[entry];
      return entry;
    }
    if (this.#entryCount === this.next.length) this.#growEntries(this.next.length * 2);
    return this.#entryCount++;
  }

  #growEntries(size: number): void {
    this.next = grown(this.next, new Int32Array(size));
    this.flow = grown(this.flow, new Int32Array(size));
    this.length = grown(this.length, new Int32Array(size));
    this.context = grown(this.context, new Int32Array(size));
    this.time = grown(this.time, new Float64Array(size));
    this.allowed = grown(this.allowed, new Int32Array(size));
    this.sequence = grown(this.sequence, new Int32Array(size));
    this.holders = grown(this.holders, new Int32Array(size));
    this.isDone = grown(this.isDone, new Uint8Array(size));
    this.hedges = grown(this.hedges, new Uint8Array(size));
    this.#references = grown(this.#references, new Int32Array(size));
    this.#block = grown(this.#block, new Int32Array(size));
  }
}
