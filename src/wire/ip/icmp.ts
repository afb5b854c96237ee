/** ICMP (RFC 792) and ICMPv6 (RFC 4443) headers: type, code, checksum, four bytes that depend on the type. */
import { writeUint16, writeUint32 } from "../network-order.ts";
import { checksumOf, pseudoHeaderSum, sumBytes } from "./checksum.ts";
import { PROTOCOL_ICMPV6 } from "./ip-packet.ts";

export const ICMP_HEADER_BYTES = 8;
export const ICMP_CHECKSUM = 2;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_TIME_EXCEEDED = 11;
/** Codes of {@link ICMP_UNREACHABLE}. */
export const ICMP_HOST = 1;
export const ICMP_PROTOCOL = 2;
export const ICMP_PORT = 3;
export const ICMP_FRAGMENTATION_NEEDED = 4;
/** RFC 1122 §3.2.2.1, like the next. */
export const ICMP_NET_PROHIBITED = 9;
export const ICMP_HOST_PROHIBITED = 10;
/** RFC 1812 §5.2.7.1. */
export const ICMP_PROHIBITED = 13;

export const ICMPV6_UNREACHABLE = 1;
export const ICMPV6_TOO_BIG = 2;
export const ICMPV6_TIME_EXCEEDED = 3;
export const ICMPV6_PARAMETER_PROBLEM = 4;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;
/** Codes of {@link ICMPV6_UNREACHABLE}. */
export const ICMPV6_PROHIBITED = 1;
export const ICMPV6_ADDRESS = 3;
export const ICMPV6_PORT = 4;
export const ICMPV6_SOURCE_POLICY = 5;
export const ICMPV6_REJECTED = 6;
/** Code of {@link ICMPV6_PARAMETER_PROBLEM}. */
export const ICMPV6_NEXT_HEADER = 1;

/** Writes a header with checksum 0. @param rest  the last four bytes: 0, the next hop's MTU, or a pointer */
export function writeIcmpHeader(
  bytes: Uint8Array,
  offset: number,
  type: number,
  code: number,
  rest: number,
): void {
  bytes[offset] = type;
  bytes[offset + 1] = code;
  writeUint16(bytes, offset + ICMP_CHECKSUM, 0);
  writeUint32(bytes, offset + 4, rest);
}

/**
 * Sum over the message `bytes[offset..end)` and, with addresses of 16 bytes, its pseudo header: 0xffff when the
 * checksum is right.
 */
export function icmpSum(
  bytes: Uint8Array,
  offset: number,
  end: number,
  source: number,
  destination: number,
  addressBytes: number,
): number {
  const start =
    addressBytes === 4
      ? 0
      : pseudoHeaderSum(bytes, source, destination, addressBytes, PROTOCOL_ICMPV6, end - offset);
  return sumBytes(bytes, offset, end, start);
}

/** Writes the checksum of the message `bytes[offset..end)`. */
export function writeIcmpChecksum(
  bytes: Uint8Array,
  offset: number,
  end: number,
  source: number,
  destination: number,
  addressBytes: number,
): void {
  writeUint16(bytes, offset + ICMP_CHECKSUM, 0);
  const sum = icmpSum(bytes, offset, end, source, destination, addressBytes);
  writeUint16(bytes, offset + ICMP_CHECKSUM, checksumOf(sum));
}
