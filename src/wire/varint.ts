/** QUIC's variable-length integers, RFC 9000 §16: the top two bits of the first byte select 1, 2, 4 or 8 bytes. */

/** Largest integer that a JavaScript number represents exactly; larger ones count as malformed. */
export const VARINT_MAX = Number.MAX_SAFE_INTEGER;

/** Number of bytes in which {@link writeVarint} writes `value` (0 to {@link VARINT_MAX}). */
export function varintLength(value: number): 1 | 2 | 4 | 8 {
  if (value < 0x40) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x4000_0000) return 4;
  return 8;
}

/** Length of a varint whose first byte is `first`. */
export function varintLengthFrom(first: number): 1 | 2 | 4 | 8 {
  return (1 << (first >> 6)) as 1 | 2 | 4 | 8;
}

/**
 * Reads the varint at `bytes[offset]`. The caller has checked that it has {@link varintLengthFrom} bytes.
 *
 * @returns the value; -1 if it exceeds {@link VARINT_MAX}
 */
export function readVarint(bytes: Uint8Array, offset: number): number {
  const first = bytes[offset];
  switch (first >> 6) {
    case 0:
      return first;
    case 1:
      return ((first & 0x3f) << 8) | bytes[offset + 1];
    case 2:
      return (
        ((first & 0x3f) << 24) | (bytes[offset + 1] << 16) | (bytes[offset + 2] << 8) | bytes[offset + 3]
      );
    default: {
      const high =
        ((first & 0x3f) << 24) | (bytes[offset + 1] << 16) | (bytes[offset + 2] << 8) | bytes[offset + 3];
      if (high > 0x1f_ffff) return -1;
      const low =
        bytes[offset + 4] * 0x100_0000 +
        ((bytes[offset + 5] << 16) | (bytes[offset + 6] << 8) | bytes[offset + 7]);
      return high * 0x1_0000_0000 + low;
    }
  }
}

/**
 * Writes `value` (0 to {@link VARINT_MAX}) in its shortest form at `bytes[offset]`.
 *
 * @returns its end offset; the caller has made room for {@link varintLength} bytes
 */
export function writeVarint(bytes: Uint8Array, offset: number, value: number): number {
  if (value < 0x40) {
    bytes[offset] = value;
    return offset + 1;
  }
  if (value < 0x4000) {
    bytes[offset] = 0x40 | (value >> 8);
    bytes[offset + 1] = value;
    return offset + 2;
  }
  if (value < 0x4000_0000) {
    bytes[offset] = 0x80 | (value >>> 24);
    bytes[offset + 1] = value >>> 16;
    bytes[offset + 2] = value >>> 8;
    bytes[offset + 3] = value;
    return offset + 4;
  }
  const high = Math.floor(value / 0x1_0000_0000);
  bytes[offset] = 0xc0 | (high >>> 24);
  bytes[offset + 1] = high >>> 16;
  bytes[offset + 2] = high >>> 8;
  bytes[offset + 3] = high;
  bytes[offset + 4] = value / 0x100_0000;
  bytes[offset + 5] = value >>> 16;
  bytes[offset + 6] = value >>> 8;
  bytes[offset + 7] = value;
  return offset + 8;
}
