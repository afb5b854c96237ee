/**
 * The Internet checksum, RFC 1071: sums are ones' complement sums of 16-bit big-endian words, folded to 0 to 0xffff; a
 * checksum is the complement of one.
 */

/** Sum of `bytes[offset..end)`, added to `start`; an odd last byte is the high half of a word. */
export function sumBytes(bytes: Uint8Array, offset: number, end: number, start: number): number {
  let sum = start;
  let at = offset;
  // 65,535 bytes are 32,768 words: the sum stays below 2^32, and mostly in V8's small integers.
  for (; at + 16 <= end; at += 16) {
    sum +=
      ((bytes[at] + bytes[at + 2] + bytes[at + 4] + bytes[at + 6]) << 8) +
      ((bytes[at + 8] + bytes[at + 10] + bytes[at + 12] + bytes[at + 14]) << 8) +
      (bytes[at + 1] + bytes[at + 3] + bytes[at + 5] + bytes[at + 7]) +
      (bytes[at + 9] + bytes[at + 11] + bytes[at + 13] + bytes[at + 15]);
  }
  for (; at + 2 <= end; at += 2) sum += (bytes[at] << 8) + bytes[at + 1];
  if (at < end) sum += bytes[at] << 8;
  return fold(sum);
}

/** Folds carries back in: any sum below 2^48 becomes 0 to 0xffff. */
export function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded % 0x1_0000) + Math.floor(folded / 0x1_0000);
  return folded;
}

/** The checksum of data whose sum is `sum`. */
export function checksumOf(sum: number): number {
  return ~sum & 0xffff;
}

/**
 * The checksum after words that sum to `oldSum` were replaced by words that sum to `newSum`: equation 3 of RFC 1624.
 * A wrong checksum stays wrong.
 */
export function updateChecksum(checksum: number, oldSum: number, newSum: number): number {
  return checksumOf(fold((~checksum & 0xffff) + (~oldSum & 0xffff) + newSum));
}

/**
 * Sum of a pseudo header: RFC 768, RFC 9293 §3.1 for IPv4; RFC 8200 §8.1 for IPv6.
 *
 * @param addressBytes  4 or 16: size of the addresses at `source` and `destination`
 * @param length        of the transport header and its data
 */
export function pseudoHeaderSum(
  bytes: Uint8Array,
  source: number,
  destination: number,
  addressBytes: number,
  protocol: number,
  length: number,
): number {
  const start = protocol + (length >>> 16) + (length & 0xffff);
  const sum = sumBytes(bytes, source, source + addressBytes, start);
  return sumBytes(bytes, destination, destination + addressBytes, sum);
}
