/**
 * The Internet checksum (RFC 1071). Sums are ones' complement sums of 16-bit big-endian words, folded to 0 to 0xffff; a checksum is the
 * complement of a sum.
 */

/** From this size on, whole words are read, which is three times as fast as reading bytes. */
const WIDE_BYTES = 64;
const IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** The buffer that was summed last and a view of its words, since packets of one buffer are summed one after another. */
let lastBuffer: ArrayBufferLike = new ArrayBuffer(0);
let lastWords: Uint16Array = new Uint16Array(lastBuffer);

/** Sum of `bytes[offset..end)`, added to `start`; an odd last byte is the high half of a word. */
export function sumBytes(bytes: Uint8Array, offset: number, end: number, start: number): number {
  if (end - offset >= WIDE_BYTES) return sumWide(bytes, offset, end, start);
  let sum = start;
  let at = offset;
  for (; at + 2 <= end; at += 2) sum += (bytes[at] << 8) + bytes[at + 1];
  if (at < end) sum += bytes[at] << 8;
  return fold(sum);
}

/** Words in the machine's byte order give the same sum with its bytes swapped: RFC 1071 §2 (B). */
function sumWide(bytes: Uint8Array, offset: number, end: number, start: number): number {
  const { buffer, byteOffset } = bytes;
  if (buffer !== lastBuffer) {
    lastBuffer = buffer;
    lastWords = new Uint16Array(buffer, 0, buffer.byteLength >> 1);
  }
  const words = lastWords;
  // Words that begin at an odd byte are swapped once more.
  const isOdd = ((byteOffset + offset) & 1) === 1;
  let at = (byteOffset + offset + 1) >> 1;
  const last = (byteOffset + end) >> 1;
  // 65,575 bytes are 32,787 words: the sum stays below 2^32.
  let swapped = 0;
  for (; at + 8 <= last; at += 8) {
    swapped +=
      words[at] +
      words[at + 1] +
      words[at + 2] +
      words[at + 3] +
      (words[at + 4] + words[at + 5] + words[at + 6] + words[at + 7]);
  }
  for (; at < last; at++) swapped += words[at];
  const folded = fold(swapped);
  const whole = isOdd === IS_LITTLE_ENDIAN ? folded : ((folded & 0xff) << 8) | (folded >> 8);
  const first = isOdd ? bytes[offset] << 8 : 0;
  const hasLast = ((byteOffset + end) & 1) === 1;
  const rest = hasLast ? (isOdd ? bytes[end - 1] : bytes[end - 1] << 8) : 0;
  return fold(start + whole + first + rest);
}

/** Folds the carries back in, so that any sum below 2^48 becomes 0 to 0xffff. */
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
