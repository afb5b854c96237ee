/** Frames of WebSockets (RFC 6455 §5.2). */

export const OPCODE_CONTINUATION = 0;
export const OPCODE_TEXT = 1;
export const OPCODE_BINARY = 2;
export const OPCODE_CLOSE = 8;
export const OPCODE_PING = 9;
export const OPCODE_PONG = 10;

export const FINAL = 0x80;
export const RESERVED_BITS = 0x70;
export const MASKED = 0x80;
const LENGTH_16 = 126;
const LENGTH_64 = 127;

export const MASK_BYTES = 4;
/** Most payload of a control frame (§5.5). */
export const MAX_CONTROL_PAYLOAD_BYTES = 125;
/** Longest header, with a mask. */
export const MAX_FRAME_HEADER_BYTES = 14;

/** Codes of close frames (§7.4.1). */
export const CLOSE_NORMAL = 1000;
export const CLOSE_GOING_AWAY = 1001;
export const CLOSE_PROTOCOL_ERROR = 1002;
export const CLOSE_UNSUPPORTED_DATA = 1003;
/** A close frame had no code. Never sent. */
export const CLOSE_NONE = 1005;
/** The connection ended without a close frame. Never sent. */
export const CLOSE_ABNORMAL = 1006;
export const CLOSE_POLICY = 1008;
export const CLOSE_TOO_BIG = 1009;

/** The length of a header, including its mask. @param second  its second byte */
export function frameHeaderLength(second: number): number {
  const length = second & 0x7f;
  const extended = length === LENGTH_16 ? 2 : length === LENGTH_64 ? 8 : 0;
  return 2 + extended + ((second & MASKED) === 0 ? 0 : MASK_BYTES);
}

/** The length of the payload, from a complete header; beyond 2^32, some number above that. */
export function framePayloadLength(header: Uint8Array): number {
  const length = header[1] & 0x7f;
  if (length < LENGTH_16) return length;
  if (length === LENGTH_16) return header[2] * 256 + header[3];
  let value = 0;
  for (let i = 2; i < 10; i++) value = value * 256 + header[i];
  return value;
}

/**
 * Writes the header of a final frame.
 *
 * @param mask  4 bytes; undefined for a server, which does not mask
 * @returns its length
 */
export function writeFrameHeader(
  to: Uint8Array,
  opcode: number,
  length: number,
  mask: Uint8Array | undefined,
): number {
  const masked = mask === undefined ? 0 : MASKED;
  to[0] = FINAL | opcode;
  let at = 2;
  if (length < LENGTH_16) to[1] = masked | length;
  else if (length < 65_536) {
    to[1] = masked | LENGTH_16;
    to[at++] = length >> 8;
    to[at++] = length;
  } else {
    to[1] = masked | LENGTH_64;
    for (let shift = 56; shift >= 0; shift -= 8) to[at++] = Math.floor(length / 2 ** shift);
  }
  if (mask === undefined) return at;
  to.set(mask, at);
  return at + MASK_BYTES;
}

/**
 * Copies `from[start..end)` to `to` from `at` on, masked or unmasked (§5.3).
 *
 * @param phase  how many bytes of the payload precede these
 */
export type MaskBytes = (
  from: Uint8Array,
  start: number,
  end: number,
  to: Uint8Array,
  at: number,
  mask: Uint8Array,
  phase: number,
) => void;

export const maskBytes: MaskBytes = (from, start, end, to, at, mask, phase) => {
  for (let i = start, k = phase, out = at; i < end; i++, k++, out++) to[out] = from[i] ^ mask[k & 3];
};
