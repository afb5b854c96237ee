/**
 * Sequence numbers and receipts (PROTOCOL.md §4.6): the sequence number in the DATAGRAM capsules of a session that has negotiated receipts,
 * and the RECEIPT capsule, which reports to the sender what has arrived on each lane, and when.
 *
 *     DATAGRAM   00 | varint length | varint context | sequence 3 | payload
 *     RECEIPT    80 55 50 07 | varint length | clock 4 | (lane 1 | count 2 | varint age)*
 *
 * Clock and age are microseconds: the receiver's clock modulo 2³² as it writes the receipt, and how long before that the newest
 * frame of the lane arrived. The count is that of DATAGRAM and PARITY capsules on the lane's connection, modulo 2¹⁶.
 */
import { readVarint, varintLength, varintLengthFrom, writeVarint } from "./varint.ts";

/** Type of RECEIPT, which is sent only in a session that has negotiated receipts. */
export const CAPSULE_RECEIPT = 0x55_5007;

/** Sequence numbers count modulo this. */
export const SEQUENCE_MODULUS = 0x100_0000;
export const SEQUENCE_BYTES = 3;

/** How far sequence number `a` is ahead of `b`, at most half of the modulus; negative if it is behind. */
export function sequenceDistance(a: number, b: number): number {
  const ahead = (a - b) & (SEQUENCE_MODULUS - 1);
  return ahead >= SEQUENCE_MODULUS / 2 ? ahead - SEQUENCE_MODULUS : ahead;
}

/** Counts of frames on a lane are modulo this. */
export const COUNT_MODULUS = 0x1_0000;
/** Largest age in a receipt: 2³⁰ − 1 microseconds. */
const MAX_AGE = 0x3fff_ffff;
const CLOCK_BYTES = 4;
const RECEIPT_TYPE_BYTES = 4;
/** Type, and a length in two bytes. */
const RECEIPT_HEADER_BYTES = RECEIPT_TYPE_BYTES + 2;
const MAX_ITEM_BYTES = 7;
/** Most lanes in one receipt. */
export const MAX_RECEIPT_ITEMS = 32;
export const MAX_RECEIPT_BYTES = RECEIPT_HEADER_BYTES + CLOCK_BYTES + MAX_RECEIPT_ITEMS * MAX_ITEM_BYTES;

/** Most bytes of a sequenced DATAGRAM capsule before its payload: type, length, context, sequence. */
export const MAX_SEQUENCED_HEADER_BYTES = 1 + 4 + 8 + SEQUENCE_BYTES;

/** Bytes of a sequenced DATAGRAM capsule before its payload. */
export function sequencedHeaderLength(contextId: number, payloadLength: number): number {
  const contextLength = varintLength(contextId);
  return 1 + varintLength(contextLength + SEQUENCE_BYTES + payloadLength) + contextLength + SEQUENCE_BYTES;
}

/** Writes a sequenced DATAGRAM capsule up to its payload, which follows at the returned offset. */
export function writeSequencedHeader(
  bytes: Uint8Array,
  offset: number,
  contextId: number,
  sequence: number,
  payloadLength: number,
): number {
  bytes[offset] = 0;
  const length = varintLength(contextId) + SEQUENCE_BYTES + payloadLength;
  return writeSequence(
    bytes,
    writeVarint(bytes, writeVarint(bytes, offset + 1, length), contextId),
    sequence,
  );
}

/** Writes a sequence number. @returns its end offset */
export function writeSequence(bytes: Uint8Array, offset: number, sequence: number): number {
  bytes[offset] = sequence >>> 16;
  bytes[offset + 1] = sequence >>> 8;
  bytes[offset + 2] = sequence;
  return offset + SEQUENCE_BYTES;
}

/** The sequence number at `bytes[offset]`. The caller has checked that there are three bytes. */
export function readSequence(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] << 16) | (bytes[offset + 1] << 8) | bytes[offset + 2];
}

/** Writes one RECEIPT capsule: {@link begin}, {@link add} for each lane, {@link end}. */
export class ReceiptWriter {
  #bytes: Uint8Array = new Uint8Array(0);
  #start = 0;
  #at = 0;
  count = 0;

  /** @param bytes  with room for {@link MAX_RECEIPT_BYTES} at `offset` @param clock  microseconds, any number */
  begin(bytes: Uint8Array, offset: number, clock: number): void {
    this.#bytes = bytes;
    this.#start = offset;
    this.count = 0;
    writeVarint(bytes, offset, CAPSULE_RECEIPT);
    const at = offset + RECEIPT_HEADER_BYTES;
    const value = clock >>> 0;
    bytes[at] = value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
    this.#at = at + CLOCK_BYTES;
  }

  /** @param age  microseconds since the newest frame of the lane arrived */
  add(lane: number, count: number, age: number): void {
    const bytes = this.#bytes;
    const at = this.#at;
    bytes[at] = lane;
    bytes[at + 1] = count >>> 8;
    bytes[at + 2] = count;
    this.#at = writeVarint(bytes, at + 3, Math.min(MAX_AGE, Math.max(0, Math.floor(age))));
    this.count++;
  }

  /** @returns the end offset of the capsule */
  end(): number {
    const length = this.#at - this.#start - RECEIPT_HEADER_BYTES;
    const at = this.#start + RECEIPT_TYPE_BYTES;
    // Always in two bytes, because it is known only now. This is the only varint that may be longer than necessary.
    this.#bytes[at] = 0x40 | (length >> 8);
    this.#bytes[at + 1] = length;
    return this.#at;
  }
}

/** Reads the value of a RECEIPT capsule: {@link begin}, then {@link next} for each lane. */
export class ReceiptReader {
  /** The receiver's clock, 0 to 2³² − 1 microseconds. */
  clock = 0;
  /** Fields of the lane that was read last. */
  lane = 0;
  count = 0;
  age = 0;
  isMalformed = false;
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;

  /** @returns false if the value is malformed */
  begin(bytes: Uint8Array, offset: number, end: number): boolean {
    this.isMalformed = end - offset < CLOCK_BYTES;
    if (this.isMalformed) return false;
    this.clock =
      ((bytes[offset] << 24) | (bytes[offset + 1] << 16) | (bytes[offset + 2] << 8) | bytes[offset + 3]) >>>
      0;
    this.#bytes = bytes;
    this.#at = offset + CLOCK_BYTES;
    this.#end = end;
    return true;
  }

  /** Reads the next lane. @returns false at the end, and if the rest is malformed ({@link isMalformed}) */
  next(): boolean {
    const bytes = this.#bytes;
    const at = this.#at;
    if (at === this.#end) return false;
    this.isMalformed = at + 4 > this.#end || at + 3 + varintLengthFrom(bytes[at + 3]) > this.#end;
    if (this.isMalformed) return false;
    this.lane = bytes[at];
    this.count = (bytes[at + 1] << 8) | bytes[at + 2];
    this.age = readVarint(bytes, at + 3);
    this.isMalformed = this.age < 0 || this.age > MAX_AGE;
    this.#at = at + 3 + varintLengthFrom(bytes[at + 3]);
    return !this.isMalformed;
  }
}
