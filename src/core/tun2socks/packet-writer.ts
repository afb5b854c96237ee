import { pseudoHeaderSum, sumBytes } from "../../wire/ip/checksum.ts";
import { ICMP_HEADER_BYTES, writeIcmpChecksum, writeIcmpHeader } from "../../wire/ip/icmp.ts";
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP } from "../../wire/ip/ip-packet.ts";
import {
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_SOURCE,
  writeIpv4Header,
} from "../../wire/ip/ipv4.ts";
import {
  HEADER_FRAGMENT,
  IPV6_DESTINATION,
  IPV6_FRAGMENT_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  IPV6_MIN_MTU,
  IPV6_SOURCE,
  writeIpv6FragmentHeader,
  writeIpv6Header,
} from "../../wire/ip/ipv6.ts";
import { TCP_HEADER_BYTES, writeTcpChecksum, writeTcpHeader } from "../../wire/ip/tcp.ts";
import { UDP_CHECKSUM, UDP_HEADER_BYTES, udpChecksumOf, writeUdpHeader } from "../../wire/ip/udp.ts";
import {
  VIRTIO_GSO_NONE,
  VIRTIO_GSO_UDP_L4,
  VIRTIO_NEEDS_CHECKSUM,
  VIRTIO_NET_HEADER_BYTES,
  writeVirtioNetHeader,
} from "../../wire/ip/virtio-net.ts";
import { writeUint16 } from "../../wire/network-order.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, sameBytes } from "../../wire/socket-address.ts";
import type { PacketBatch } from "./packet-batch.ts";
import type { PacketCounters } from "./packet-counters.ts";

const HOP_LIMIT = 64;
/** Longest quote in an ICMP error: RFC 1812 §4.3.2.3 allows 576 bytes in total, RFC 4443 §2.4 the minimum MTU. */
const ICMP_QUOTE_BYTES = 576 - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES;
const ICMPV6_QUOTE_BYTES = IPV6_MIN_MTU - IPV6_HEADER_BYTES - ICMP_HEADER_BYTES;

/** Room for the largest packet, its fragments at the smallest MTU with all headers, and a margin. */
const ROOM_BYTES = 144 * 1024;
const ROOM_PACKETS = 64;
/** Segments of one USO packet that every kernel accepts. */
const MAX_RUN_SEGMENTS = 64;
const MAX_RUN_BYTES = 65_535;
const MAX_HEADER_BYTES = VIRTIO_NET_HEADER_BYTES + IPV6_HEADER_BYTES + UDP_HEADER_BYTES;

/**
 * Builds packets in the arena of a batch: {@link begin}, then the transport header and data at the offset that it returns,
 * then {@link finish}, which fragments packets above the MTU. The caller checks {@link hasRoom} before each packet.
 */
export class PacketWriter {
  readonly batch: PacketBatch;
  readonly #counters: PacketCounters;
  readonly #mtu: number;
  readonly #virtioBytes: number;
  #identification: number;
  /** First byte of the IP header of the packet that is being built. */
  #start = 0;
  /** DSCP of the datagram that is being built; 0 for other packets. */
  #dscp = 0;

  /** The last datagram written, as long as others may join it in one USO packet. */
  readonly #uso: boolean;
  #runIndex = -1;
  #runGeneration = 0;
  #runSegments = 0;
  /** Payload of each of its datagrams; only the last may be shorter. */
  #runSegment = 0;
  #runRemote: AddressBytes | undefined;
  #runInner: AddressBytes | undefined;

  /**
   * @param mtu     1280 to 65,535
   * @param virtio  true if each packet is preceded by a virtio-net header
   * @param uso     with virtio: true if the device accepts USO packets, many datagrams in one
   * @param seed    a random 32-bit number: the first identification of fragments
   */
  constructor(
    batch: PacketBatch,
    counters: PacketCounters,
    mtu: number,
    virtio: boolean,
    uso: boolean,
    seed: number,
  ) {
    this.batch = batch;
    this.#counters = counters;
    this.#mtu = mtu;
    this.#virtioBytes = virtio ? VIRTIO_NET_HEADER_BYTES : 0;
    this.#uso = virtio && uso;
    this.#identification = seed >>> 0;
  }

  /** Whether a packet with `length` bytes of UDP payload fits; by default, one of any size. */
  hasRoom(length = 65_535): boolean {
    return length + MAX_HEADER_BYTES <= this.#mtu
      ? this.batch.hasRoom(1, length + MAX_HEADER_BYTES)
      : this.batch.hasRoom(ROOM_PACKETS, ROOM_BYTES);
  }

  /**
   * Begins a packet.
   *
   * @param addressBytes  4 or 16: size of the addresses, which implies the version
   * @returns the offset in the arena for the transport header
   */
  begin(
    addressBytes: 4 | 16,
    source: Uint8Array,
    sourceAt: number,
    destination: Uint8Array,
    destinationAt: number,
  ): number {
    const { arena, arenaEnd } = this.batch;
    this.#start = arenaEnd + this.#virtioBytes;
    const isIpv4 = addressBytes === 4;
    const to = this.#start + (isIpv4 ? IPV4_SOURCE : IPV6_SOURCE);
    for (let i = 0; i < addressBytes; i++) arena[to + i] = source[sourceAt + i];
    for (let i = 0; i < addressBytes; i++) arena[to + addressBytes + i] = destination[destinationAt + i];
    return this.#start + (isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
  }

  /** First byte of the IP header of the packet that is being built. */
  get start(): number {
    return this.#start;
  }

  /**
   * Finishes the packet.
   *
   * @param end         end offset of its data
   * @param checksumAt  offset within the transport header of a checksum field that holds the pseudo header's sum, for the kernel to
   *                    complete; -1 if the checksum is complete
   */
  finish(addressBytes: 4 | 16, protocol: number, end: number, checksumAt: number): void {
    const batch = this.batch;
    const { arena } = batch;
    const start = this.#start;
    if (end - start > this.#mtu) {
      this.#finishFragments(addressBytes, protocol, end);
      return;
    }
    const headerBytes = addressBytes === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    if (addressBytes === 4) {
      writeIpv4Header(arena, start, end - start, 0, IPV4_DONT_FRAGMENT, HOP_LIMIT, protocol, this.#dscp);
    } else writeIpv6Header(arena, start, end - start - headerBytes, HOP_LIMIT, protocol, this.#dscp);
    if (this.#virtioBytes > 0) {
      const flags = checksumAt < 0 ? 0 : VIRTIO_NEEDS_CHECKSUM;
      const at = start - this.#virtioBytes;
      if (flags === 0) writeVirtioNetHeader(arena, at, 0, VIRTIO_GSO_NONE, 0, 0, 0, 0);
      else writeVirtioNetHeader(arena, at, flags, VIRTIO_GSO_NONE, 0, 0, headerBytes, checksumAt);
    }
    this.#counters.packetsOut++;
    batch.add(0, start - this.#virtioBytes, end - start + this.#virtioBytes);
    batch.arenaEnd = end;
  }

  /**
   * Writes a datagram from `remote` to `inner`, both IPv4 or both IPv6. `data` is copied. With USO, the datagram joins preceding ones that
   * have the same addresses and are not shorter.
   *
   * @param dscp  0 to 63; a datagram is joined only with 0
   */
  writeUdp(
    remote: AddressBytes,
    inner: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
    dscp = 0,
  ): void {
    if (this.#uso && dscp === 0 && this.#canJoin(remote, inner, length)) {
      this.#join(data, offset, length);
      return;
    }
    const { arena } = this.batch;
    const addressBytes = (inner.length - 3) as 4 | 16;
    const transport = this.begin(addressBytes, remote, 1, inner, 1);
    const udpLength = UDP_HEADER_BYTES + length;
    const end = transport + udpLength;
    const source = transport - 2 * addressBytes;
    writeUdpHeader(arena, transport, addressPort(remote), addressPort(inner), udpLength);
    arena.set(data.subarray(offset, offset + length), transport + UDP_HEADER_BYTES);
    const pseudo = pseudoHeaderSum(
      arena,
      source,
      source + addressBytes,
      addressBytes,
      PROTOCOL_UDP,
      udpLength,
    );
    const isPartial = this.#virtioBytes > 0 && end - this.#start <= this.#mtu;
    const checksum = isPartial ? pseudo : udpChecksumOf(sumBytes(arena, transport, end, pseudo));
    writeUint16(arena, transport + UDP_CHECKSUM, checksum);
    this.#dscp = dscp;
    this.finish(addressBytes, PROTOCOL_UDP, end, isPartial ? UDP_CHECKSUM : -1);
    this.#dscp = 0;
    this.#runIndex = isPartial && length > 0 && dscp === 0 ? this.batch.count - 1 : -1;
    this.#runGeneration = this.batch.generation;
    this.#runSegments = 1;
    this.#runSegment = length;
    this.#runRemote = remote;
    this.#runInner = inner;
  }

  #canJoin(remote: AddressBytes, inner: AddressBytes, length: number): boolean {
    const batch = this.batch;
    if (this.#runIndex < 0 || this.#runIndex !== batch.count - 1) return false;
    if (this.#runGeneration !== batch.generation || this.#runSegments === MAX_RUN_SEGMENTS) return false;
    if (length === 0 || length > this.#runSegment || this.#runInner !== inner) return false;
    if (batch.length[this.#runIndex] + length > MAX_RUN_BYTES) return false;
    const last = this.#runRemote!;
    return last === remote || (last.length === remote.length && sameBytes(last, 0, remote, 0, last.length));
  }

  #join(data: Uint8Array, offset: number, length: number): void {
    const batch = this.batch;
    const { arena } = batch;
    const index = this.#runIndex;
    const addressBytes = (this.#runInner!.length - 3) as 4 | 16;
    const headerBytes = addressBytes === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const virtio = batch.offset[index];
    const start = virtio + this.#virtioBytes;
    const transport = start + headerBytes;
    arena.set(data.subarray(offset, offset + length), batch.arenaEnd);
    const end = batch.arenaEnd + length;
    batch.arenaEnd = end;
    batch.length[index] = end - virtio;
    if (addressBytes === 4) {
      writeIpv4Header(arena, start, end - start, 0, IPV4_DONT_FRAGMENT, HOP_LIMIT, PROTOCOL_UDP);
    } else writeIpv6Header(arena, start, end - transport, HOP_LIMIT, PROTOCOL_UDP);
    const source = transport - 2 * addressBytes;
    const udpLength = end - transport;
    writeUint16(arena, transport + 4, udpLength);
    const sum = pseudoHeaderSum(arena, source, source + addressBytes, addressBytes, PROTOCOL_UDP, udpLength);
    writeUint16(arena, transport + UDP_CHECKSUM, sum);
    writeVirtioNetHeader(
      arena,
      virtio,
      VIRTIO_NEEDS_CHECKSUM,
      VIRTIO_GSO_UDP_L4,
      headerBytes + UDP_HEADER_BYTES,
      this.#runSegment,
      headerBytes,
      UDP_CHECKSUM,
    );
    this.#runSegments++;
    if (length < this.#runSegment) this.#runIndex = -1;
  }

  /** Writes a TCP segment without data and with an empty window. */
  writeSegment(
    addressBytes: 4 | 16,
    source: Uint8Array,
    sourceAt: number,
    sourcePort: number,
    destination: Uint8Array,
    destinationAt: number,
    destinationPort: number,
    sequence: number,
    acknowledgment: number,
    flags: number,
  ): void {
    const { arena } = this.batch;
    const transport = this.begin(addressBytes, source, sourceAt, destination, destinationAt);
    const end = transport + TCP_HEADER_BYTES;
    writeTcpHeader(arena, transport, sourcePort, destinationPort, sequence, acknowledgment, flags);
    const from = transport - 2 * addressBytes;
    writeTcpChecksum(arena, transport, end, from, from + addressBytes, addressBytes);
    this.finish(addressBytes, PROTOCOL_TCP, end, -1);
  }

  /**
   * Writes an ICMP or ICMPv6 error that quotes as much as it may of the packet `quote[quoteAt..quoteEnd)`.
   *
   * @param rest  the last four bytes of its header
   */
  writeIcmpError(
    addressBytes: 4 | 16,
    source: Uint8Array,
    sourceAt: number,
    destination: Uint8Array,
    destinationAt: number,
    type: number,
    code: number,
    rest: number,
    quote: Uint8Array,
    quoteAt: number,
    quoteEnd: number,
  ): void {
    const { arena } = this.batch;
    const transport = this.begin(addressBytes, source, sourceAt, destination, destinationAt);
    const bound = addressBytes === 4 ? ICMP_QUOTE_BYTES : ICMPV6_QUOTE_BYTES;
    const length = Math.min(quoteEnd - quoteAt, bound);
    writeIcmpHeader(arena, transport, type, code, rest);
    arena.set(quote.subarray(quoteAt, quoteAt + length), transport + ICMP_HEADER_BYTES);
    const end = transport + ICMP_HEADER_BYTES + length;
    const from = transport - 2 * addressBytes;
    writeIcmpChecksum(arena, transport, end, from, from + addressBytes, addressBytes);
    this.finish(addressBytes, addressBytes === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6, end, -1);
  }

  /** Fragments the packet that has been built: RFC 791 §3.2, RFC 8200 §4.5. */
  #finishFragments(addressBytes: 4 | 16, protocol: number, end: number): void {
    const { arena } = this.batch;
    const isIpv4 = addressBytes === 4;
    const whole = this.#start;
    const data = whole + (isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
    const headerBytes = isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES + IPV6_FRAGMENT_HEADER_BYTES;
    const step = (this.#mtu - headerBytes) & ~7;
    const addresses = whole + (isIpv4 ? IPV4_SOURCE : IPV6_SOURCE);
    this.#identification = (this.#identification + 1) >>> 0;
    // The whole packet stays where it was built until the batch is cleared; the fragments follow it.
    this.batch.arenaEnd = end;
    for (let at = data; at < end; at += step) {
      const length = Math.min(step, end - at);
      const isLast = at + length === end;
      const transport = this.begin(addressBytes, arena, addresses, arena, addresses + addressBytes);
      const start = this.#start;
      const offset = at - data;
      const packetEnd = start + headerBytes + length;
      if (isIpv4) {
        const flags = (offset >> 3) | (isLast ? 0 : IPV4_MORE_FRAGMENTS);
        const identification = this.#identification & 0xffff;
        writeIpv4Header(
          arena,
          start,
          packetEnd - start,
          identification,
          flags,
          HOP_LIMIT,
          protocol,
          this.#dscp,
        );
      } else {
        const length = packetEnd - start - IPV6_HEADER_BYTES;
        writeIpv6Header(arena, start, length, HOP_LIMIT, HEADER_FRAGMENT, this.#dscp);
        writeIpv6FragmentHeader(arena, transport, protocol, offset, !isLast, this.#identification);
      }
      arena.copyWithin(start + headerBytes, at, at + length);
      const before = this.#virtioBytes;
      if (before > 0) writeVirtioNetHeader(arena, start - before, 0, VIRTIO_GSO_NONE, 0, 0, 0, 0);
      this.#counters.packetsOut++;
      this.batch.add(0, start - before, packetEnd - start + before);
      this.batch.arenaEnd = packetEnd;
    }
  }
}

/** Writes the quote of an ICMP error about a datagram of which only the addresses are known: headers without payload. */
export function writeUdpQuote(to: Uint8Array, inner: AddressBytes, remote: AddressBytes): number {
  const addressBytes = inner.length - 3;
  const isIpv4 = addressBytes === 4;
  const headerBytes = isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  for (let i = 0; i < addressBytes; i++) {
    to[(isIpv4 ? IPV4_SOURCE : IPV6_SOURCE) + i] = inner[1 + i];
    to[(isIpv4 ? IPV4_DESTINATION : IPV6_DESTINATION) + i] = remote[1 + i];
  }
  const length = headerBytes + UDP_HEADER_BYTES;
  if (isIpv4) writeIpv4Header(to, 0, length, 0, IPV4_DONT_FRAGMENT, HOP_LIMIT, PROTOCOL_UDP);
  else writeIpv6Header(to, 0, UDP_HEADER_BYTES, HOP_LIMIT, PROTOCOL_UDP);
  writeUdpHeader(to, headerBytes, addressPort(inner), addressPort(remote), UDP_HEADER_BYTES);
  const source = isIpv4 ? IPV4_SOURCE : IPV6_SOURCE;
  const sum = pseudoHeaderSum(
    to,
    source,
    source + addressBytes,
    addressBytes,
    PROTOCOL_UDP,
    UDP_HEADER_BYTES,
  );
  writeUint16(to, headerBytes + UDP_CHECKSUM, udpChecksumOf(sumBytes(to, headerBytes, length, sum)));
  return length;
}
