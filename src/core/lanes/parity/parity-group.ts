/** A group of consecutive datagrams that were sent on different lanes, and the exclusive or of their records (wire/parity.ts). */
import {
  MAX_RECORD_BYTES,
  MAX_RECORD_PAYLOAD_BYTES,
  PARITY_VALUE_HEADER_BYTES,
  RECORD_HEADER_BYTES,
} from "../../../wire/parity.ts";
import { SEQUENCE_BYTES, SEQUENCE_MODULUS } from "../../../wire/receipt.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";

/** The context of a stored parity, instead of a datagram's. Its number is that of the first datagram in the group. */
export const PARITY_CONTEXT = -1;

/** Where the record is, as in the value of PARITY, which makes its words aligned. */
const RECORD = PARITY_VALUE_HEADER_BYTES;
const PAYLOAD = RECORD + RECORD_HEADER_BYTES;

export class ParityGroup {
  /** How many datagrams it has. */
  count = 0;
  /** Bits of the lanes that carry the only copy of one. */
  lanes = 0;
  /** When the first was sent. */
  openedAt = 0;

  readonly #store: DatagramStore;
  /** Allocated for the first datagram, because most sessions need none. */
  #words = new Int32Array(0);
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #first = 0;
  /** Length of the longest payload. */
  #length = 0;

  constructor(store: DatagramStore) {
    this.#store = store;
  }

  /**
   * Adds a datagram that was just sent. One that is too long for a record ends the group without a parity, as does one whose number does not
   * follow the last.
   *
   * @param bit  of its lane; 0 if several carry it
   */
  add(now: number, entry: number, bit: number): void {
    const store = this.#store;
    const length = store.length[entry];
    if (length > MAX_RECORD_PAYLOAD_BYTES) {
      this.clear();
      return;
    }
    if (this.count > 0 && store.sequence[entry] !== (this.#first + this.count) % SEQUENCE_MODULUS)
      this.clear();
    if (this.#words.length === 0) {
      this.#words = new Int32Array((RECORD + MAX_RECORD_BYTES) / 4);
      this.#bytes = new Uint8Array(this.#words.buffer);
      this.#view = new DataView(this.#words.buffer);
    }
    if (this.count === 0) {
      this.#first = store.sequence[entry];
      this.openedAt = now;
    }
    const view = this.#view;
    view.setUint32(RECORD, view.getUint32(RECORD) ^ store.context[entry]);
    view.setUint32(RECORD + 4, view.getUint32(RECORD + 4) ^ length);
    store.xorInto(entry, this.#words, PAYLOAD / 4);
    this.#length = Math.max(this.#length, length);
    this.count++;
    this.lanes |= bit;
  }

  /** Ends the group. @returns its parity, as a new entry of the store with one reference: the count and the exclusive or */
  take(now: number): number {
    const store = this.#store;
    this.#bytes[SEQUENCE_BYTES] = this.count;
    const length = PAYLOAD + this.#length - SEQUENCE_BYTES;
    const entry = store.add(now, NONE, PARITY_CONTEXT, 0, this.#bytes, SEQUENCE_BYTES, length);
    store.sequence[entry] = this.#first;
    this.clear();
    return entry;
  }

  /** Ends the group without a parity. */
  clear(): void {
    if (this.count === 0) return;
    this.#bytes.fill(0, 0, PAYLOAD + this.#length);
    this.count = 0;
    this.lanes = 0;
    this.#length = 0;
  }
}
