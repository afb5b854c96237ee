/** The UDP header, RFC 768. Offsets point at its first byte. */
import { readUint16, writeUint16 } from "../network-order.ts";
import { checksumOf, fold, pseudoHeaderSum, sumBytes } from "./checksum.ts";
import type { IpPacket } from "./ip-packet.ts";
import { PROTOCOL_UDP } from "./ip-packet.ts";

export const UDP_HEADER_BYTES = 8;
export const UDP_CHECKSUM = 6;
/** The largest payload that fits into an IPv4 packet. */
export const MAX_UDP_PAYLOAD_BYTES = 65_507;

/**
 * End offset of the datagram in a complete packet.
 *
 * @returns -1 if the header is truncated, or its length contradicts the packet's
 */
export function udpEnd(bytes: Uint8Array, packet: IpPacket): number {
  const { transport, end } = packet;
  if (end - transport < UDP_HEADER_BYTES) return -1;
  const length = readUint16(bytes, transport + 4);
  return length < UDP_HEADER_BYTES || transport + length > end ? -1 : transport + length;
}

/** Whether the checksum is correct. In IPv4 it may be 0 for none; in IPv6 it may not (RFC 8200 §8.1). */
export function isUdpChecksumRight(bytes: Uint8Array, packet: IpPacket, end: number): boolean {
  const { transport, source, destination, addressBytes } = packet;
  if (readUint16(bytes, transport + UDP_CHECKSUM) === 0) return addressBytes === 4;
  const sum = pseudoHeaderSum(bytes, source, destination, addressBytes, PROTOCOL_UDP, end - transport);
  return sumBytes(bytes, transport, end, sum) === 0xffff;
}

/** Writes a header with checksum 0. @param length  of header and payload */
export function writeUdpHeader(
  bytes: Uint8Array,
  offset: number,
  sourcePort: number,
  destinationPort: number,
  length: number,
): void {
  writeUint16(bytes, offset, sourcePort);
  writeUint16(bytes, offset + 2, destinationPort);
  writeUint16(bytes, offset + 4, length);
  writeUint16(bytes, offset + UDP_CHECKSUM, 0);
}

/** The checksum for a sum over pseudo header, header and payload; never 0, which would mean none. */
export function udpChecksumOf(sum: number): number {
  return checksumOf(fold(sum)) || 0xffff;
}
