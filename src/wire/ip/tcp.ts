/** The TCP header, RFC 9293 §3.1. Offsets point at its first byte. The caller has checked that there are 20 bytes. */
import { readUint32, writeUint16, writeUint32 } from "../network-order.ts";
import { checksumOf, pseudoHeaderSum, sumBytes } from "./checksum.ts";
import { PROTOCOL_TCP } from "./ip-packet.ts";

export const TCP_HEADER_BYTES = 20;
export const TCP_CHECKSUM = 16;
export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_ACK = 0x10;

/** Header with options, in bytes. */
export function tcpHeaderLength(bytes: Uint8Array, offset: number): number {
  return (bytes[offset + 12] >> 4) * 4;
}

export function tcpFlags(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 13];
}

export function tcpSequence(bytes: Uint8Array, offset: number): number {
  return readUint32(bytes, offset + 4);
}

export function tcpAcknowledgment(bytes: Uint8Array, offset: number): number {
  return readUint32(bytes, offset + 8);
}

/** Writes a header of 20 bytes with an empty window and checksum 0. */
export function writeTcpHeader(
  bytes: Uint8Array,
  offset: number,
  sourcePort: number,
  destinationPort: number,
  sequence: number,
  acknowledgment: number,
  flags: number,
): void {
  writeUint16(bytes, offset, sourcePort);
  writeUint16(bytes, offset + 2, destinationPort);
  writeUint32(bytes, offset + 4, sequence);
  writeUint32(bytes, offset + 8, acknowledgment);
  bytes[offset + 12] = (TCP_HEADER_BYTES / 4) << 4;
  bytes[offset + 13] = flags;
  writeUint16(bytes, offset + 14, 0);
  writeUint32(bytes, offset + TCP_CHECKSUM, 0);
}

/** Computes the checksum of the segment `bytes[offset..end)`; its addresses are at `source` and `destination`. */
export function writeTcpChecksum(
  bytes: Uint8Array,
  offset: number,
  end: number,
  source: number,
  destination: number,
  addressBytes: number,
): void {
  writeUint16(bytes, offset + TCP_CHECKSUM, 0);
  const sum = pseudoHeaderSum(bytes, source, destination, addressBytes, PROTOCOL_TCP, end - offset);
  writeUint16(bytes, offset + TCP_CHECKSUM, checksumOf(sumBytes(bytes, offset, end, sum)));
}
