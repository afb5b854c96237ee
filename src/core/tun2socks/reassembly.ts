import type { IpPacket } from "../../wire/ip/ip-packet.ts";
import { MAX_IP_PACKET_BYTES } from "../../wire/ip/ip-packet.ts";
import { IPV4_HEADER_BYTES, IPV4_SOURCE, writeIpv4Header } from "../../wire/ip/ipv4.ts";
import { IPV6_HEADER_BYTES, IPV6_SOURCE, writeIpv6Header } from "../../wire/ip/ipv6.ts";
import { sameBytes } from "../../wire/socket-address.ts";
import type { PacketCounters } from "./packet-counters.ts";

/** Fragments start at multiples of this. */
const BLOCK_BYTES = 8;
const BITMAP_BYTES = 65_536 / BLOCK_BYTES / 8;
/** Most memory that one incomplete packet takes. */
const PENDING_BYTES = MAX_IP_PACKET_BYTES + BITMAP_BYTES;

/** An incomplete packet. */
class Pending {
  /** Header and data, each at its place in the complete packet. */
  buffer = new Uint8Array(MAX_IP_PACKET_BYTES);
  /** A bit for each block of data that has arrived. */
  readonly have = new Uint8Array(BITMAP_BYTES);
  isUsed = false;
  /** Whether fragments overlapped, so that the rest of this packet is dropped (RFC 5722 §4). */
  isRefused = false;
  version = 4;
  identification = 0;
  protocol = 0;
  hopLimit = 0;
  dscp = 0;
  deadline = 0;
  blocks = 0;
  /** Bytes of data up to the end of the furthest fragment. */
  reached = 0;
  /** Bytes of data in the complete packet; -1 while the last fragment is missing. */
  total = -1;
}

/**
 * Reassembles fragmented packets of both versions: RFC 791 §3.2, RFC 8200 §4.5. The complete packet gets a plain header, without IPv4
 * options and IPv6 extension headers before the fragment header, which have served their purpose. A packet with overlapping fragments,
 * except exact repetitions, is discarded. At the bound, the oldest packet is dropped.
 */
export class Reassembler {
  /** The last complete packet, from its first byte; valid until the next call. */
  whole = new Uint8Array(MAX_IP_PACKET_BYTES);

  readonly #pending: Pending[] = [];
  readonly #maxPending: number;
  readonly #timeoutMs: number;
  readonly #counters: PacketCounters;
  #used = 0;

  /** @param maxBytes  bound for incomplete packets, each of which counts as the largest possible packet */
  constructor(maxBytes: number, timeoutMs: number, counters: PacketCounters) {
    this.#maxPending = Math.max(1, Math.floor(maxBytes / PENDING_BYTES));
    this.#timeoutMs = timeoutMs;
    this.#counters = counters;
  }

  /** Number of incomplete packets. */
  get size(): number {
    return this.#used;
  }

  /**
   * Takes one fragment; `bytes` are borrowed.
   *
   * @returns the length of the packet in {@link whole} that this fragment completed, or 0
   */
  add(now: number, bytes: Uint8Array, packet: IpPacket): number {
    this.#counters.fragmentsIn++;
    const { transport, end, fragmentOffset, moreFragments, version } = packet;
    const length = end - transport;
    const headerBytes = version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const dataEnd = fragmentOffset + length;
    const maxData = version === 4 ? 65_535 - IPV4_HEADER_BYTES : 65_535;
    if (length === 0 || dataEnd > maxData || (moreFragments && length % BLOCK_BYTES !== 0)) {
      this.#counters.drop("malformed");
      return 0;
    }
    if (fragmentOffset === 0 && !moreFragments) {
      // RFC 6946: an atomic fragment is independent of all others.
      copy(
        bytes,
        packet.source,
        this.whole,
        version === 4 ? IPV4_SOURCE : IPV6_SOURCE,
        packet.addressBytes * 2,
      );
      copy(bytes, transport, this.whole, headerBytes, length);
      return this.#complete(version, packet.protocol, packet.hopLimit, packet.dscp, length);
    }
    const pending = this.#find(bytes, packet) ?? this.#open(now, bytes, packet);
    if (pending.isRefused) {
      this.#counters.drop("reassembly_overlap");
      return 0;
    }
    const isEndWrong = moreFragments
      ? pending.total >= 0 && dataEnd > pending.total
      : (pending.total >= 0 && pending.total !== dataEnd) || pending.reached > dataEnd;
    const added = isEndWrong
      ? -1
      : mark(pending.have, fragmentOffset / BLOCK_BYTES, Math.ceil(length / BLOCK_BYTES));
    const isRepeated =
      added === 0 && sameBytes(pending.buffer, headerBytes + fragmentOffset, bytes, transport, length);
    if (isRepeated) return 0;
    if (added <= 0) {
      pending.isRefused = true;
      this.#counters.drop("reassembly_overlap");
      return 0;
    }
    copy(bytes, transport, pending.buffer, headerBytes + fragmentOffset, length);
    pending.blocks += added;
    pending.reached = Math.max(pending.reached, dataEnd);
    if (!moreFragments) pending.total = dataEnd;
    if (fragmentOffset === 0) {
      pending.protocol = packet.protocol;
      pending.hopLimit = packet.hopLimit;
      pending.dscp = packet.dscp;
    }
    if (pending.total < 0 || pending.blocks < Math.ceil(pending.total / BLOCK_BYTES)) return 0;
    const { buffer } = pending;
    pending.buffer = this.whole;
    this.whole = buffer;
    this.#release(pending);
    return this.#complete(version, pending.protocol, pending.hopLimit, pending.dscp, pending.total);
  }

  /** Drops packets that have timed out. */
  expire(now: number): void {
    if (this.#used === 0) return;
    for (const pending of this.#pending) {
      if (!pending.isUsed || now < pending.deadline) continue;
      if (!pending.isRefused) this.#counters.drop("reassembly_timeout");
      this.#release(pending);
    }
  }

  #find(bytes: Uint8Array, packet: IpPacket): Pending | undefined {
    if (this.#used === 0) return undefined;
    const { version, identification, protocol, source, addressBytes } = packet;
    for (const pending of this.#pending) {
      if (!pending.isUsed || pending.identification !== identification || pending.version !== version)
        continue;
      if (version === 4 && pending.protocol !== protocol) continue;
      const at = version === 4 ? IPV4_SOURCE : IPV6_SOURCE;
      if (sameBytes(pending.buffer, at, bytes, source, addressBytes * 2)) return pending;
    }
    return undefined;
  }

  #open(now: number, bytes: Uint8Array, packet: IpPacket): Pending {
    const pending = this.#unused();
    this.#used++;
    pending.isUsed = true;
    pending.isRefused = false;
    pending.version = packet.version;
    pending.identification = packet.identification;
    pending.protocol = packet.protocol;
    pending.deadline = now + this.#timeoutMs;
    pending.blocks = 0;
    pending.reached = 0;
    pending.total = -1;
    pending.have.fill(0);
    const at = packet.version === 4 ? IPV4_SOURCE : IPV6_SOURCE;
    copy(bytes, packet.source, pending.buffer, at, packet.addressBytes * 2);
    return pending;
  }

  #unused(): Pending {
    let oldest: Pending | undefined;
    for (const pending of this.#pending) {
      if (!pending.isUsed) return pending;
      if (oldest === undefined || pending.deadline < oldest.deadline) oldest = pending;
    }
    if (oldest === undefined || this.#pending.length < this.#maxPending) {
      const pending = new Pending();
      this.#pending.push(pending);
      return pending;
    }
    this.#counters.drop("reassembly_limit");
    this.#release(oldest);
    return oldest;
  }

  #release(pending: Pending): void {
    pending.isUsed = false;
    this.#used--;
  }

  #complete(version: number, protocol: number, hopLimit: number, dscp: number, length: number): number {
    this.#counters.reassembled++;
    if (version === 4) {
      writeIpv4Header(this.whole, 0, IPV4_HEADER_BYTES + length, 0, 0, hopLimit, protocol, dscp);
      return IPV4_HEADER_BYTES + length;
    }
    writeIpv6Header(this.whole, 0, length, hopLimit, protocol, dscp);
    return IPV6_HEADER_BYTES + length;
  }
}

/**
 * Marks blocks as received.
 *
 * @returns `count`; 0 if all had been received already; -1 if only some had
 */
function mark(have: Uint8Array, first: number, count: number): number {
  let there = 0;
  for (let block = first; block < first + count; block++) there += (have[block >> 3] >> (block & 7)) & 1;
  if (there > 0) return there === count ? 0 : -1;
  for (let block = first; block < first + count; block++) have[block >> 3] |= 1 << (block & 7);
  return count;
}

function copy(from: Uint8Array, at: number, to: Uint8Array, toAt: number, length: number): void {
  to.set(from.subarray(at, at + length), toAt);
}
