/** The IPv6 header and its extension headers, RFC 8200 §3 and §4. Offsets point at the first byte of a header. */
import { readUint16, writeUint16, writeUint32 } from "../network-order.ts";

export const IPV6_HEADER_BYTES = 40;
export const IPV6_FRAGMENT_HEADER_BYTES = 8;
export const IPV6_SOURCE = 8;
export const IPV6_DESTINATION = 24;
/** Smallest MTU of an IPv6 link, RFC 8200 §5. */
export const IPV6_MIN_MTU = 1280;

export const HEADER_HOP_BY_HOP = 0;
export const HEADER_ROUTING = 43;
export const HEADER_FRAGMENT = 44;
export const HEADER_AUTHENTICATION = 51;
export const HEADER_DESTINATION_OPTIONS = 60;

/** Most extension headers, which is more than any legitimate packet has; RFC 8504 §5.3 allows a bound. */
export const MAX_EXTENSION_HEADERS = 8;

/** RFC 2474 §3: the upper six bits of the traffic class. */
export function ipv6Dscp(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] & 0x0f) << 2) | (bytes[offset + 1] >> 6);
}

export function ipv6PayloadLength(bytes: Uint8Array, offset: number): number {
  return readUint16(bytes, offset + 4);
}

export function ipv6NextHeader(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 6];
}

export function ipv6HopLimit(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 7];
}

/**
 * Length of the extension header of type `header` at `bytes[at]`.
 *
 * @returns 0 if `header` is not an extension header that can be skipped; -1 if it does not end before `end`, or if it routes the packet on
 *          to another address (RFC 5095 forbids that for type 0, and this end supports no other type)
 */
export function extensionHeaderLength(header: number, bytes: Uint8Array, at: number, end: number): number {
  let length: number;
  switch (header) {
    case HEADER_HOP_BY_HOP:
    case HEADER_DESTINATION_OPTIONS:
    case HEADER_ROUTING:
      if (end - at < 8) return -1;
      length = 8 + bytes[at + 1] * 8;
      if (header === HEADER_ROUTING && bytes[at + 3] !== 0) return -1;
      break;
    case HEADER_AUTHENTICATION:
      if (end - at < 8) return -1;
      length = 8 + bytes[at + 1] * 4;
      break;
    case HEADER_FRAGMENT:
      length = IPV6_FRAGMENT_HEADER_BYTES;
      break;
    default:
      return 0;
  }
  return at + length > end ? -1 : length;
}

/** Writes a header around addresses that are already in place. */
export function writeIpv6Header(
  bytes: Uint8Array,
  offset: number,
  payloadLength: number,
  hopLimit: number,
  nextHeader: number,
  dscp = 0,
): void {
  writeUint32(bytes, offset, 0x6000_0000 | (dscp << 22));
  writeUint16(bytes, offset + 4, payloadLength);
  bytes[offset + 6] = nextHeader;
  bytes[offset + 7] = hopLimit;
}

/** Writes a fragment header, RFC 8200 §4.5. @param fragmentOffset  in bytes, a multiple of 8 */
export function writeIpv6FragmentHeader(
  bytes: Uint8Array,
  at: number,
  nextHeader: number,
  fragmentOffset: number,
  moreFragments: boolean,
  identification: number,
): void {
  bytes[at] = nextHeader;
  bytes[at + 1] = 0;
  writeUint16(bytes, at + 2, fragmentOffset | (moreFragments ? 1 : 0));
  writeUint32(bytes, at + 4, identification);
}
