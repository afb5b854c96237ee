/**
 * Restores datagrams from parity (parity-sender.ts has the theory).
 *
 * It exists while parities arrive, and keeps the last datagrams. A parity of which one datagram is missing restores it; one that lacks more
 * waits until all but one have arrived. The first parity restores nothing, because nothing is kept before it.
 *
 * A datagram is restored only if another one of its context is kept, which shows that the context was known then, and to which flow it
 * belongs. Everything is bounded: what is kept, by number and by age; the parities that wait, by number.
 */
import {
  MAX_GROUP,
  MAX_RECORD_BYTES,
  MAX_RECORD_PAYLOAD_BYTES,
  PARITY_VALUE_HEADER_BYTES,
  RECORD_HEADER_BYTES,
} from "../../../wire/parity.ts";
import { readSequence, SEQUENCE_BYTES, SEQUENCE_MODULUS, sequenceDistance } from "../../../wire/receipt.ts";
import { copyBytes } from "../../copy-bytes.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { DuplicateWindow } from "../receiving/duplicate-window.ts";

/** How many datagrams are kept: those of 100 ms at 2,500/s. */
const KEPT = 256;
/** How many parities wait. */
const WAITING = 16;
/** How long datagrams are kept after the last parity, in milliseconds. */
const KEEP_MS = 2_000;

/** Takes a restored datagram, as if it had arrived. `data` is borrowed. */
export type HandleRestored = (
  now: number,
  sequence: number,
  flow: number,
  context: number,
  data: Uint8Array,
  offset: number,
  length: number,
) => void;

export class ParityReceiver {
  /** When it is no longer needed, unless another parity arrives: {@link clear} then releases what it keeps. */
  expiresAt = 0;

  readonly #store: DatagramStore;
  readonly #window: DuplicateWindow;
  readonly #handleRestored: HandleRestored;
  /** Entries of kept datagrams, by number; -1 for none. */
  readonly #kept = new Int32Array(KEPT).fill(NONE);
  /** Where the newest is. */
  #newest = 0;
  /** Parities that wait: their entries, -1 for none; their groups; and how many datagrams are missing. */
  readonly #waiting = new Int32Array(WAITING).fill(NONE);
  readonly #first = new Int32Array(WAITING);
  readonly #count = new Int32Array(WAITING);
  readonly #missing = new Int32Array(WAITING);
  #waitingCount = 0;
  #turn = 0;
  #isRestoring = false;
  readonly #words = new Int32Array(MAX_RECORD_BYTES / 4);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  readonly #view = new DataView(this.#words.buffer);

  /** @param window  of the numbers that have arrived */
  constructor(store: DatagramStore, window: DuplicateWindow, handleRestored: HandleRestored) {
    this.#store = store;
    this.#window = window;
    this.#handleRestored = handleRestored;
  }

  /** A datagram has arrived for the first time, or was restored. It is copied if it may be needed. @param flow  -1 if unknown */
  noteArrival(
    now: number,
    sequence: number,
    flow: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    if (length > MAX_RECORD_PAYLOAD_BYTES) return;
    const slot = sequence & (KEPT - 1);
    const before = this.#kept[slot];
    if (before !== NONE) {
      // A lane that ends its stall brings datagrams too old for any group that may still be completed.
      if (sequenceDistance(sequence, this.#store.sequence[before]) < 0) return;
      this.#store.release(before);
    }
    const entry = this.#store.add(now, flow, context, 0, data, offset, length);
    this.#store.sequence[entry] = sequence;
    this.#kept[slot] = entry;
    this.#newest = slot;
    // What is restored completes no further group: the peer's groups do not overlap.
    if (this.#waitingCount > 0 && !this.#isRestoring) this.#noteMissing(now, sequence);
  }

  /** A datagram has arrived that a waiting parity may lack. */
  #noteMissing(now: number, sequence: number): void {
    for (let index = 0; index < WAITING; index++) {
      if (this.#waiting[index] === NONE) continue;
      const at = sequenceDistance(sequence, this.#first[index]);
      if (at < 0 || at >= this.#count[index]) continue;
      if (--this.#missing[index] > 1) return;
      const entry = this.#waiting[index];
      this.#store.copyOut(entry, this.#bytes, 0);
      const length = this.#store.length[entry];
      this.#discard(index);
      this.#restore(now, this.#first[index], this.#count[index], length);
      return;
    }
  }

  /** A PARITY capsule has arrived, with the value `bytes[offset..end)`. @returns false if it is malformed */
  handleParity(now: number, bytes: Uint8Array, offset: number, end: number): boolean {
    const at = offset + PARITY_VALUE_HEADER_BYTES;
    const length = end - at;
    if (length < RECORD_HEADER_BYTES || length > MAX_RECORD_BYTES) return false;
    const first = readSequence(bytes, offset);
    const count = bytes[offset + SEQUENCE_BYTES];
    if (count === 0 || count > MAX_GROUP) return false;
    this.expiresAt = now + KEEP_MS;
    const missing = this.#missingOf(first, count);
    if (missing === 1) {
      copyBytes(bytes, at, length, this.#bytes, 0);
      this.#restore(now, first, count, length);
    } else if (missing > 1) this.#keep(now, first, count, missing, bytes, at, length);
    return true;
  }

  /** How many datagrams of a group have not arrived; 0 also if one that has arrived is not kept. */
  #missingOf(first: number, count: number): number {
    let missing = 0;
    for (let i = 0; i < count; i++) {
      const sequence = (first + i) % SEQUENCE_MODULUS;
      if (this.#keptEntry(sequence) !== NONE) continue;
      if (this.#window.has(sequence)) return 0;
      missing++;
    }
    return missing;
  }

  #keptEntry(sequence: number): number {
    const entry = this.#kept[sequence & (KEPT - 1)];
    return entry !== NONE && this.#store.sequence[entry] === sequence ? entry : NONE;
  }

  #keep(
    now: number,
    first: number,
    count: number,
    missing: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const index = this.#turn;
    this.#turn = (index + 1) % WAITING;
    if (this.#waiting[index] !== NONE) this.#discard(index);
    this.#waiting[index] = this.#store.add(now, NONE, 0, 0, bytes, offset, length);
    this.#first[index] = first;
    this.#count[index] = count;
    this.#missing[index] = missing;
    this.#waitingCount++;
  }

  #discard(index: number): void {
    this.#store.release(this.#waiting[index]);
    this.#waiting[index] = NONE;
    this.#waitingCount--;
  }

  /** Restores the one datagram of a group that has not arrived. @param recordLength  of the parity, which is in {@link #bytes} */
  #restore(now: number, first: number, count: number, recordLength: number): void {
    const { context, length } = this.#store;
    const longest = recordLength - RECORD_HEADER_BYTES;
    let lost = NONE;
    let id = this.#view.getUint32(0);
    let size = this.#view.getUint32(4);
    this.#bytes.fill(0, recordLength);
    for (let i = 0; i < count; i++) {
      const sequence = (first + i) % SEQUENCE_MODULUS;
      const entry = this.#keptEntry(sequence);
      if (entry === NONE) {
        // Others have taken the place of a kept datagram since.
        if (lost !== NONE) return;
        lost = sequence;
        continue;
      }
      if (length[entry] > longest) return;
      id ^= context[entry];
      size ^= length[entry];
      this.#store.xorInto(entry, this.#words, RECORD_HEADER_BYTES / 4);
    }
    const flow = this.#flowOf(id);
    if (lost === NONE || flow === NONE || size < 0 || size > longest || this.#window.has(lost)) return;
    this.#isRestoring = true;
    this.#handleRestored(now, lost, flow, id, this.#bytes, RECORD_HEADER_BYTES, size);
    this.#isRestoring = false;
  }

  /** The flow of a context, as of the newest datagram of it that is kept; -1 if none is. */
  #flowOf(id: number): number {
    const { context, flow } = this.#store;
    for (let i = 0; i < KEPT; i++) {
      const entry = this.#kept[(this.#newest - i) & (KEPT - 1)];
      if (entry !== NONE && context[entry] === id) return flow[entry];
    }
    return NONE;
  }

  /** A flow has ended, and its number may become that of another. Nothing more of it is restored. */
  forget(flow: number): void {
    for (const entry of this.#kept) {
      if (entry !== NONE && this.#store.flow[entry] === flow) this.#store.flow[entry] = NONE;
    }
  }

  /** Releases everything. */
  clear(): void {
    for (let slot = 0; slot < KEPT; slot++) {
      if (this.#kept[slot] !== NONE) this.#store.release(this.#kept[slot]);
    }
    this.#kept.fill(NONE);
    for (let index = 0; index < WAITING; index++) if (this.#waiting[index] !== NONE) this.#discard(index);
  }
}
