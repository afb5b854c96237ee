/** STUN messages (RFC 8489 §5 and §14), and the attributes with which RFC 5780 discovers the behaviour of a NAT. */
import { readUint16, readUint32, writeUint16, writeUint32 } from "./network-order.ts";
import type { AddressBytes } from "./socket-address.ts";
import { ipAddress } from "./socket-address.ts";

const BINDING_REQUEST = 0x0001;
const BINDING_SUCCESS = 0x0101;
const MAGIC_COOKIE = 0x2112_a442;
const HEADER_BYTES = 20;
export const TRANSACTION_BYTES = 12;
const ATTRIBUTE_MAPPED = 0x0001;
const ATTRIBUTE_CHANGE_REQUEST = 0x0003;
const ATTRIBUTE_XOR_MAPPED = 0x0020;
const ATTRIBUTE_OTHER = 0x802c;
const FAMILY_IPV4 = 1;
const FAMILY_IPV6 = 2;
/** Flags of CHANGE-REQUEST, RFC 5780 §7.2. */
export const CHANGE_IP = 4;
export const CHANGE_PORT = 2;

/** The answer of a server. */
export interface StunAnswer {
  readonly transaction: Uint8Array;
  /** The source of the request as the server saw it. */
  readonly mapped: AddressBytes;
  /** Its other address and port, if it has them (RFC 5780 §7.4). */
  readonly other: AddressBytes | undefined;
}

/** @param change  from where the server should answer: 0, {@link CHANGE_PORT}, or both flags */
export function encodeBindingRequest(transaction: Uint8Array, change: number): Uint8Array {
  const length = change === 0 ? 0 : 8;
  const bytes = new Uint8Array(HEADER_BYTES + length);
  writeUint16(bytes, 0, BINDING_REQUEST);
  writeUint16(bytes, 2, length);
  writeUint32(bytes, 4, MAGIC_COOKIE);
  bytes.set(transaction, 8);
  if (change !== 0) {
    writeUint16(bytes, HEADER_BYTES, ATTRIBUTE_CHANGE_REQUEST);
    writeUint16(bytes, HEADER_BYTES + 2, 4);
    writeUint32(bytes, HEADER_BYTES + 4, change);
  }
  return bytes;
}

/** @returns undefined for anything but a well-formed success */
export function decodeBindingAnswer(bytes: Uint8Array): StunAnswer | undefined {
  if (bytes.length < HEADER_BYTES || readUint16(bytes, 0) !== BINDING_SUCCESS) return undefined;
  const end = HEADER_BYTES + readUint16(bytes, 2);
  if (readUint32(bytes, 4) !== MAGIC_COOKIE || end !== bytes.length) return undefined;
  let plain: AddressBytes | undefined;
  let exclusive: AddressBytes | undefined;
  let other: AddressBytes | undefined;
  for (let at = HEADER_BYTES; at + 4 <= end; ) {
    const type = readUint16(bytes, at);
    const length = readUint16(bytes, at + 2);
    const value = at + 4;
    if (value + length > end) return undefined;
    if (type === ATTRIBUTE_MAPPED) plain ??= decodeAddress(bytes, value, length, false);
    else if (type === ATTRIBUTE_XOR_MAPPED) exclusive ??= decodeAddress(bytes, value, length, true);
    else if (type === ATTRIBUTE_OTHER) other ??= decodeAddress(bytes, value, length, false);
    at = value + ((length + 3) & ~3);
  }
  const mapped = exclusive ?? plain;
  return mapped && { transaction: bytes.slice(8, HEADER_BYTES), mapped, other };
}

/** @param isXored  with the cookie and, for IPv6, the transaction (RFC 8489 §14.2), which precede the attributes */
function decodeAddress(
  bytes: Uint8Array,
  at: number,
  length: number,
  isXored: boolean,
): AddressBytes | undefined {
  const size = bytes[at + 1] === FAMILY_IPV4 ? 4 : bytes[at + 1] === FAMILY_IPV6 ? 16 : 0;
  if (size === 0 || length !== 4 + size) return undefined;
  const ip = bytes.slice(at + 4, at + 4 + size);
  let port = readUint16(bytes, at + 2);
  if (isXored) {
    port ^= MAGIC_COOKIE >>> 16;
    for (let i = 0; i < size; i++) ip[i] ^= bytes[4 + i];
  }
  return ipAddress(ip, port);
}
