import { readUint16, readUint32 } from "../network-order.ts";
import {
  IPV4_DESTINATION,
  IPV4_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_SOURCE,
  ipv4Dscp,
  ipv4Flags,
  ipv4HeaderLength,
  ipv4Identification,
  ipv4Protocol,
  ipv4TotalLength,
  ipv4Ttl,
} from "./ipv4.ts";
import {
  extensionHeaderLength,
  HEADER_FRAGMENT,
  HEADER_HOP_BY_HOP,
  IPV6_DESTINATION,
  IPV6_HEADER_BYTES,
  IPV6_SOURCE,
  ipv6Dscp,
  ipv6HopLimit,
  ipv6NextHeader,
  ipv6PayloadLength,
  MAX_EXTENSION_HEADERS,
} from "./ipv6.ts";

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;

/** Largest IPv6 packet without a jumbogram option: 40 bytes more than the largest of IPv4. */
export const MAX_IP_PACKET_BYTES = 65_575;

/** See {@link packetLength}. */
export const PACKET_INVALID = 0;

/**
 * Length of the IP packet that starts at `bytes[offset]`, for streams of packets.
 *
 * @returns length in bytes, 20 to 65,575; {@link PACKET_INVALID} if no IP packet can start like this; -n if at least n more bytes are needed
 */
export function packetLength(bytes: Uint8Array, offset: number, end: number): number {
  const have = end - offset;
  if (have < 1) return -1;
  const version = bytes[offset] >> 4;
  if (version === 6) return have < 6 ? have - 6 : IPV6_HEADER_BYTES + ipv6PayloadLength(bytes, offset);
  if (version !== 4) return PACKET_INVALID;
  if (have < 4) return have - 4;
  const total = ipv4TotalLength(bytes, offset);
  return ipv4HeaderLength(bytes, offset) < IPV4_HEADER_BYTES || total < ipv4HeaderLength(bytes, offset)
    ? PACKET_INVALID
    : total;
}

/**
 * A view of the headers of one IP packet of either version, which is reused for every packet. Offsets refer to the bytes that were read.
 */
export class IpPacket {
  version: 4 | 6 = 4;
  /** First byte of the IP header. */
  start = 0;
  /** End offset of the packet, by its own length field. */
  end = 0;
  /** First byte of the transport header, or of this fragment's data. */
  transport = 0;
  /** Protocol of the transport header, which follows all extension headers. */
  protocol = 0;
  /** Offset of that number, for an ICMPv6 parameter problem. */
  protocolAt = 0;
  hopLimit = 0;
  /** DSCP (RFC 2474), without the two bits of ECN. */
  dscp = 0;
  source = 0;
  destination = 0;
  addressBytes: 4 | 16 = 4;
  isFragment = false;
  moreFragments = false;
  /** Offset of this fragment in the complete packet, in bytes. */
  fragmentOffset = 0;
  identification = 0;

  /**
   * Reads the headers of the packet in `bytes[offset..end)`; anything beyond the packet's own length is ignored.
   *
   * @returns false if the packet is truncated or its headers are inconsistent; the view is then invalid
   */
  read(bytes: Uint8Array, offset: number, end: number): boolean {
    const length = packetLength(bytes, offset, end);
    if (length <= 0 || length > end - offset) return false;
    this.start = offset;
    this.end = offset + length;
    this.isFragment = false;
    this.moreFragments = false;
    this.fragmentOffset = 0;
    return bytes[offset] >> 4 === 4 ? this.#readIpv4(bytes) : this.#readIpv6(bytes);
  }

  #readIpv4(bytes: Uint8Array): boolean {
    const { start } = this;
    const flags = ipv4Flags(bytes, start);
    this.version = 4;
    this.addressBytes = 4;
    this.source = start + IPV4_SOURCE;
    this.destination = start + IPV4_DESTINATION;
    this.transport = start + ipv4HeaderLength(bytes, start);
    this.protocol = ipv4Protocol(bytes, start);
    this.protocolAt = start + 9;
    this.hopLimit = ipv4Ttl(bytes, start);
    this.dscp = ipv4Dscp(bytes, start);
    if ((flags & 0x3fff) === 0) return true;
    this.isFragment = true;
    this.moreFragments = (flags & IPV4_MORE_FRAGMENTS) !== 0;
    this.fragmentOffset = (flags & 0x1fff) * 8;
    this.identification = ipv4Identification(bytes, start);
    return true;
  }

  #readIpv6(bytes: Uint8Array): boolean {
    const { start, end } = this;
    this.version = 6;
    this.addressBytes = 16;
    this.source = start + IPV6_SOURCE;
    this.destination = start + IPV6_DESTINATION;
    this.hopLimit = ipv6HopLimit(bytes, start);
    this.dscp = ipv6Dscp(bytes, start);
    let header = ipv6NextHeader(bytes, start);
    let headerAt = start + 6;
    let at = start + IPV6_HEADER_BYTES;
    for (let count = 0; ; count++) {
      const length = extensionHeaderLength(header, bytes, at, end);
      if (length === 0) break;
      if (length < 0 || count === MAX_EXTENSION_HEADERS) return false;
      // RFC 8200 §4.1: hop-by-hop options may only come first.
      if (header === HEADER_HOP_BY_HOP && count > 0) return false;
      const isFragment = header === HEADER_FRAGMENT;
      header = bytes[at];
      headerAt = at;
      at += length;
      if (!isFragment) continue;
      // Further headers belong to the complete packet, and are read after reassembly.
      const word = readUint16(bytes, at - 6);
      this.isFragment = true;
      this.moreFragments = (word & 1) !== 0;
      this.fragmentOffset = word & 0xfff8;
      this.identification = readUint32(bytes, at - 4);
      break;
    }
    this.protocol = header;
    this.protocolAt = headerAt;
    this.transport = at;
    return true;
  }
}
