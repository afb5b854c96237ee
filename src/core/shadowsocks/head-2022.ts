import { readUint16, readUint32, writeUint32 } from "../../wire/network-order.ts";

/** `type 1 | unix seconds 8 | length of the next piece 2` (SIP022 §3.1.3); a response has the request's salt before the length. */
export const FIXED_HEAD_BYTES = 11;
export const TYPE_CLIENT = 0;
export const TYPE_SERVER = 1;
/** Most padding, of which a request without payload must have at least 1 byte. */
export const MAX_PADDING = 900;
/** Most payload in the heads of our requests and responses. */
export const MAX_FIRST_PAYLOAD = 4096;
/** Largest accepted difference between the clocks of the two ends. */
export const MAX_CLOCK_DIFFERENCE_S = 30;

export function writeFixedHead(head: Uint8Array, type: number, unixSeconds: number): void {
  head[0] = type;
  writeUint32(head, 1, Math.floor(unixSeconds / 2 ** 32));
  writeUint32(head, 5, unixSeconds % 2 ** 32);
}

/** Whether the time in a head is within {@link MAX_CLOCK_DIFFERENCE_S} of ours. */
export function isTimely(head: Uint8Array, unixSeconds: number): boolean {
  const sent = readUint32(head, 1) * 2 ** 32 + readUint32(head, 5);
  return Math.abs(sent - unixSeconds) <= MAX_CLOCK_DIFFERENCE_S;
}

/** The length of the next piece, which is the last field of a head. */
export function nextLength(head: Uint8Array): number {
  return readUint16(head, head.length - 2);
}
