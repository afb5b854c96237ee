/**
 * Parity (PROTOCOL.md §4.10): the exclusive or of consecutive datagrams of a session with receipts, from which the other end restores one that
 * waits behind a hole of its lane. RFC 5109 and RFC 8627 protect RTP in the same way.
 *
 *     PARITY_LIMIT   80 55 50 0c | varint length | varint limit
 *     PARITY         80 55 50 0d | varint length | first 3 | count 1 | parity
 *
 * The parity is the exclusive or of the records of `count` datagrams, whose numbers begin with `first`. Shorter records are padded with
 * zeros:
 *
 *     record         context 4 | length 4 | payload
 */
import { SEQUENCE_BYTES, writeSequence } from "./receipt.ts";
import { varintLength, writeVarint } from "./varint.ts";

/** Type of PARITY_LIMIT, which an end of a session with receipts sends on each lane if it accepts PARITY. */
export const CAPSULE_PARITY_LIMIT = 0x55_500c;
/** Type of PARITY, which is sent only on a connection on which PARITY_LIMIT has arrived. */
export const CAPSULE_PARITY = 0x55_500d;

/** Most datagrams in a group that an end accepts; the value of its PARITY_LIMIT. */
export const MAX_GROUP = 32;
/** Bytes of a record before its payload. */
export const RECORD_HEADER_BYTES = 8;
/** Longest payload in a group. */
export const MAX_RECORD_PAYLOAD_BYTES = 2_032;
export const MAX_RECORD_BYTES = RECORD_HEADER_BYTES + MAX_RECORD_PAYLOAD_BYTES;
/** Bytes of the value of PARITY before the parity: first and count. */
export const PARITY_VALUE_HEADER_BYTES = SEQUENCE_BYTES + 1;
/** Longest value of PARITY. */
export const MAX_PARITY_VALUE_BYTES = PARITY_VALUE_HEADER_BYTES + MAX_RECORD_BYTES;

const TYPE_BYTES = 4;

/** Bytes of a PARITY capsule before the count. @param length  of what follows: the count and the parity */
export function parityHeaderLength(length: number): number {
  return TYPE_BYTES + varintLength(SEQUENCE_BYTES + length) + SEQUENCE_BYTES;
}

/**
 * Writes a PARITY capsule up to the count, which follows at the returned offset.
 *
 * @param first   number of the first datagram
 * @param length  of what follows: the count and the parity
 */
export function writeParityHeader(bytes: Uint8Array, offset: number, first: number, length: number): number {
  const at = writeVarint(bytes, offset, CAPSULE_PARITY);
  return writeSequence(bytes, writeVarint(bytes, at, SEQUENCE_BYTES + length), first);
}

/** @param limit  most datagrams in a group */
export function encodeParityLimit(limit: number): Uint8Array {
  const bytes = new Uint8Array(TYPE_BYTES + 1 + varintLength(limit));
  const at = writeVarint(bytes, 0, CAPSULE_PARITY_LIMIT);
  writeVarint(bytes, writeVarint(bytes, at, varintLength(limit)), limit);
  return bytes;
}
