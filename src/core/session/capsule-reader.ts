import {
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_ASSOCIATION_OPEN,
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_ASSIGN,
  CAPSULE_COMPRESSION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_DATAGRAM,
  CAPSULE_DSCP,
  CAPSULE_HEARTBEAT,
  CAPSULE_HEARTBEAT_ECHO,
  CAPSULE_LATENCY_CLASS,
  CAPSULE_SHUTDOWN,
  CAPSULE_UNREACHABLE,
  MAX_CONTROL_VALUE_BYTES,
  MAX_PAYLOAD_BYTES,
} from "../../wire/capsule.ts";
import { CAPSULE_PARITY, CAPSULE_PARITY_LIMIT, MAX_PARITY_VALUE_BYTES } from "../../wire/parity.ts";
import { CAPSULE_MEASURE, CAPSULE_PROBE, MAX_PROBE_BYTES } from "../../wire/probe.ts";
import { CAPSULE_RECEIPT } from "../../wire/receipt.ts";
import { readVarint, varintLengthFrom } from "../../wire/varint.ts";

/** Results of {@link CapsuleReader.next}. */
export const READ_NEED = 0;
export const READ_CAPSULE = 1;
export const READ_TOO_LONG = 2;

/** The capsule types that were negotiated: those of RFC 9297, of the bind draft, ours, and receipts. Each set includes those before it. */
export type CapsuleSet = "datagram" | "bind" | "extension" | "receipts";

const MAX_HEADER_BYTES = 16;
const FIRST_CARRY_BYTES = 2048;
/** A larger carry is released once it is used up. */
const KEPT_CARRY_BYTES = 16_384;

/**
 * Splits a byte stream into capsules in O(bytes), and copies only a capsule that spans two chunks. Unknown capsules are
 * skipped by their length (RFC 9297 §3.2). Holds at most one capsule, and only the part of it that has arrived.
 */
export class CapsuleReader {
  /** The type of the last capsule. Like the other fields, it is valid until the next call. */
  type = 0;
  data: Uint8Array;
  valueOffset = 0;
  valueEnd = 0;
  /** Offset of the capsule in the chunk, from which it can be read again; -1 if it began in an earlier chunk. */
  start = 0;
  /** End offset in the chunk of the bytes that the last call consumed. */
  offset = 0;

  readonly #known: CapsuleSet;
  #carry: Uint8Array | undefined;
  #carryLength = 0;
  /** Bytes of an unknown capsule that are still to be skipped. */
  #skip = 0;

  constructor(known: CapsuleSet) {
    this.#known = known;
    this.data = new Uint8Array(0);
  }

  /** Whether the stream is between two capsules, where it may end in an orderly way. */
  get atBoundary(): boolean {
    return this.#carryLength === 0 && this.#skip === 0;
  }

  /**
   * Continues in `chunk[offset..end)`, which is borrowed as long as the returned capsule is in use.
   *
   * @returns {@link READ_CAPSULE}; {@link READ_NEED} if the chunk is used up; {@link READ_TOO_LONG} if a known capsule exceeds its limit,
   *          after which the stream is unusable. {@link offset} is where to continue.
   */
  next(chunk: Uint8Array, offset: number, end: number): number {
    let at = offset;
    for (;;) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, end - at);
        this.#skip -= skipped;
        at += skipped;
      }
      if (at >= end) {
        this.offset = at;
        return READ_NEED;
      }
      if (this.#carryLength > 0) {
        const status = this.#continueCarry(chunk, at, end);
        at = this.offset;
        if (status >= 0) return status;
        continue;
      }
      const lengthAt = at + varintLengthFrom(chunk[at]);
      if (lengthAt >= end) return this.#keep(chunk, at, end);
      const valueOffset = lengthAt + varintLengthFrom(chunk[lengthAt]);
      if (valueOffset > end) return this.#keep(chunk, at, end);
      const type = readVarint(chunk, at);
      const length = readVarint(chunk, lengthAt);
      const limit = this.#limit(type);
      this.offset = at;
      if (limit < 0) {
        if (length < 0) return this.#refuse(type);
        this.#skip = length;
        at = valueOffset;
        continue;
      }
      if (length < 0 || length > limit) return this.#refuse(type);
      if (valueOffset + length > end) return this.#keep(chunk, at, end);
      this.type = type;
      this.data = chunk;
      this.start = at;
      this.valueOffset = valueOffset;
      this.valueEnd = valueOffset + length;
      this.offset = valueOffset + length;
      return READ_CAPSULE;
    }
  }

  #keep(chunk: Uint8Array, from: number, end: number): number {
    this.#append(chunk, from, end);
    this.offset = end;
    return READ_NEED;
  }

  #refuse(type: number): number {
    this.type = type;
    return READ_TOO_LONG;
  }

  /** @returns a status, or -1 if the carry is a capsule to skip */
  #continueCarry(chunk: Uint8Array, offset: number, end: number): number {
    let at = offset;
    let carry = this.#carry!;
    let headerLength = headerLengthAt(carry, 0, this.#carryLength);
    while (headerLength < 0 && at < end) {
      this.#append(chunk, at, at + 1);
      carry = this.#carry!;
      at++;
      headerLength = headerLengthAt(carry, 0, this.#carryLength);
    }
    this.offset = at;
    if (headerLength < 0) return READ_NEED;
    const type = readVarint(carry, 0);
    const length = readVarint(carry, varintLengthFrom(carry[0]));
    const limit = this.#limit(type);
    if (length < 0 || (limit >= 0 && length > limit)) return this.#refuse(type);
    if (limit < 0) {
      // The carry of an unknown capsule is only its header, as its value is never kept.
      this.#skip = length;
      this.#carryLength = 0;
      return -1;
    }
    const missing = headerLength + length - this.#carryLength;
    const taken = Math.min(missing, end - at);
    this.#append(chunk, at, at + taken);
    this.offset = at + taken;
    if (taken < missing) return READ_NEED;
    this.type = type;
    this.data = this.#carry!;
    this.start = -1;
    this.valueOffset = headerLength;
    this.valueEnd = headerLength + length;
    this.#carryLength = 0;
    if (this.#carry!.length > KEPT_CARRY_BYTES) this.#carry = undefined;
    return READ_CAPSULE;
  }

  #append(chunk: Uint8Array, from: number, end: number): void {
    const length = this.#carryLength + end - from;
    if (this.#carry === undefined || this.#carry.length < length) {
      const grown = new Uint8Array(Math.max(FIRST_CARRY_BYTES, 2 ** Math.ceil(Math.log2(length))));
      if (this.#carry !== undefined) grown.set(this.#carry.subarray(0, this.#carryLength));
      this.#carry = grown;
    }
    if (end - from === 1) this.#carry[this.#carryLength] = chunk[from];
    else this.#carry.set(chunk.subarray(from, end), this.#carryLength);
    this.#carryLength = length;
  }

  /** Longest value of a known type; -1 for a type to skip. */
  #limit(type: number): number {
    switch (type) {
      case CAPSULE_DATAGRAM:
        return MAX_PAYLOAD_BYTES + 8;
      case CAPSULE_COMPRESSION_ASSIGN:
      case CAPSULE_COMPRESSION_ACK:
      case CAPSULE_COMPRESSION_CLOSE:
        return this.#known === "datagram" ? -1 : MAX_CONTROL_VALUE_BYTES;
      case CAPSULE_HEARTBEAT:
      case CAPSULE_HEARTBEAT_ECHO:
      case CAPSULE_ASSOCIATION_OPEN:
      case CAPSULE_ASSOCIATION_CLOSE:
      case CAPSULE_CONTEXT_ASSIGN:
      case CAPSULE_SHUTDOWN:
      case CAPSULE_UNREACHABLE:
      case CAPSULE_LATENCY_CLASS:
      case CAPSULE_DSCP:
      case CAPSULE_MEASURE:
        return this.#known === "datagram" || this.#known === "bind" ? -1 : MAX_CONTROL_VALUE_BYTES;
      case CAPSULE_PROBE:
        return this.#known === "datagram" || this.#known === "bind" ? -1 : MAX_PROBE_BYTES;
      case CAPSULE_PARITY:
        return this.#known === "receipts" ? MAX_PARITY_VALUE_BYTES : -1;
      case CAPSULE_PARITY_LIMIT:
      case CAPSULE_RECEIPT:
        return this.#known === "receipts" ? MAX_CONTROL_VALUE_BYTES : -1;
      default:
        return -1;
    }
  }
}

/** Size of the type and length fields at `bytes[offset]`; -1 if they do not end before `end`. */
function headerLengthAt(bytes: Uint8Array, offset: number, end: number): number {
  if (offset >= end) return -1;
  const typeLength = varintLengthFrom(bytes[offset]);
  if (offset + typeLength >= end) return -1;
  const headerLength = typeLength + varintLengthFrom(bytes[offset + typeLength]);
  return headerLength <= MAX_HEADER_BYTES && offset + headerLength <= end ? headerLength : -1;
}
