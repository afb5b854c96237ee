import { readUint16, writeUint16 } from "./network-order.ts";

/** DNS messages, RFC 1035 §4.1, as far as carrying them between UDP and TCP requires. */
export const DNS_HEADER_BYTES = 12;
/** Size of an answer that every client accepts over UDP, RFC 1035 §4.2.1. */
const PLAIN_UDP_BYTES = 512;
const TYPE_OPT = 41;
const FLAG_TRUNCATED = 0x0200;

/** End offset of the uncompressed name at `at`; -1 if it is truncated or compressed. */
function nameEnd(bytes: Uint8Array, at: number, end: number): number {
  let next = at;
  while (next < end && bytes[next] !== 0) {
    if (bytes[next] > 63) return -1;
    next += 1 + bytes[next];
  }
  return next < end ? next + 1 : -1;
}

/** End offset of the only question of a message; -1 unless there is exactly one and it is complete. */
function questionEnd(bytes: Uint8Array, offset: number, end: number): number {
  if (end - offset < DNS_HEADER_BYTES || readUint16(bytes, offset + 4) !== 1) return -1;
  const name = nameEnd(bytes, offset + DNS_HEADER_BYTES, end);
  return name < 0 || name + 4 > end ? -1 : name + 4;
}

/** Largest UDP answer to the query `bytes[offset..end)`: the size in its OPT record (RFC 6891), at least 512 bytes. */
export function udpAnswerLimit(bytes: Uint8Array, offset: number, end: number): number {
  const additional = questionEnd(bytes, offset, end);
  const hasOthers = additional < 0 || readUint16(bytes, offset + 6) + readUint16(bytes, offset + 8) > 0;
  // The name of an OPT record is the root: one byte.
  if (hasOthers || additional + 5 > end || bytes[additional] !== 0) return PLAIN_UDP_BYTES;
  if (readUint16(bytes, additional + 1) !== TYPE_OPT) return PLAIN_UDP_BYTES;
  return Math.max(PLAIN_UDP_BYTES, readUint16(bytes, additional + 3));
}

/**
 * The replacement for an answer that is too long for UDP: its header and question, marked as truncated.
 *
 * @returns undefined if the answer cannot be parsed
 */
export function truncatedAnswer(answer: Uint8Array): Uint8Array | undefined {
  const end = questionEnd(answer, 0, answer.length);
  if (end < 0) return undefined;
  const short = answer.slice(0, end);
  writeUint16(short, 2, readUint16(short, 2) | FLAG_TRUNCATED);
  for (const count of [6, 8, 10]) writeUint16(short, count, 0);
  return short;
}
