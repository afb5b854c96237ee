/** The IPv4 header, RFC 791 §3.1. Offsets point at its first byte. The caller has checked that there are 20 bytes. */
import { readUint16, writeUint16 } from "../network-order.ts";
import { checksumOf, sumBytes, updateChecksum } from "./checksum.ts";

export const IPV4_HEADER_BYTES = 20;
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;
/** RFC 791 §3.2. */
export const IPV4_MIN_MTU = 68;
export const IPV4_DONT_FRAGMENT = 0x4000;
export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_FRAGMENT_OFFSET = 0x1fff;

const CHECKSUM = 10;

/** Header with options, in bytes. */
export function ipv4HeaderLength(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] & 0x0f) * 4;
}

/** RFC 2474 §3. */
export function ipv4Dscp(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 1] >> 2;
}

export function ipv4TotalLength(bytes: Uint8Array, offset: number): number {
  return readUint16(bytes, offset + 2);
}

export function ipv4Identification(bytes: Uint8Array, offset: number): number {
  return readUint16(bytes, offset + 4);
}

/** The flags word as it is: DF, MF and the fragment offset in units of 8 bytes. */
export function ipv4Flags(bytes: Uint8Array, offset: number): number {
  return readUint16(bytes, offset + 6);
}

export function ipv4Ttl(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 8];
}

export function ipv4Protocol(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 9];
}

/** Whether the header's checksum is correct. */
export function isIpv4ChecksumRight(bytes: Uint8Array, offset: number): boolean {
  return sumBytes(bytes, offset, offset + ipv4HeaderLength(bytes, offset), 0) === 0xffff;
}

/** Updates the header's checksum after words that sum to `oldSum` were replaced by words that sum to `newSum`. */
export function updateIpv4Checksum(bytes: Uint8Array, offset: number, oldSum: number, newSum: number): void {
  const at = offset + CHECKSUM;
  writeUint16(bytes, at, updateChecksum(readUint16(bytes, at), oldSum, newSum));
}

/** Computes the header's checksum from scratch. */
export function writeIpv4Checksum(bytes: Uint8Array, offset: number): void {
  writeUint16(bytes, offset + CHECKSUM, 0);
  const sum = sumBytes(bytes, offset, offset + ipv4HeaderLength(bytes, offset), 0);
  writeUint16(bytes, offset + CHECKSUM, checksumOf(sum));
}

/**
 * Writes a header of 20 bytes with its checksum around addresses that are already in place.
 *
 * @param flags  DF, MF and the fragment offset in units of 8 bytes
 */
export function writeIpv4Header(
  bytes: Uint8Array,
  offset: number,
  totalLength: number,
  identification: number,
  flags: number,
  ttl: number,
  protocol: number,
  dscp = 0,
): void {
  bytes[offset] = 0x45;
  bytes[offset + 1] = dscp << 2;
  writeUint16(bytes, offset + 2, totalLength);
  writeUint16(bytes, offset + 4, identification);
  writeUint16(bytes, offset + 6, flags);
  bytes[offset + 8] = ttl;
  bytes[offset + 9] = protocol;
  writeIpv4Checksum(bytes, offset);
}
