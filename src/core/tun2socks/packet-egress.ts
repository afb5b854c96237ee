import type { UnreachableKind } from "../../wire/capsule.ts";
import { MAX_MTU } from "../../wire/capsule.ts";
import { ICMP_HEADER_BYTES, icmpSum } from "../../wire/ip/icmp.ts";
import { IpPacket, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP } from "../../wire/ip/ip-packet.ts";
import {
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER_BYTES,
  IPV4_SOURCE,
  ipv4Flags,
  ipv4Protocol,
  isIpv4ChecksumRight,
} from "../../wire/ip/ipv4.ts";
import { IPV6_HEADER_BYTES, IPV6_SOURCE, ipv6NextHeader } from "../../wire/ip/ipv6.ts";
import { isUdpChecksumRight, UDP_HEADER_BYTES, udpEnd } from "../../wire/ip/udp.ts";
import { readUint16, readUint32 } from "../../wire/network-order.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import {
  ATYP_DOMAIN,
  ATYP_IPV6,
  addressPort,
  copyAddress,
  ipAddress,
  isIpv4Mapped,
  makeAddress,
  sameBytes,
  writeAddress,
} from "../../wire/socket-address.ts";
import { AddressIndex } from "../address-index.ts";
import { unreachableKindOf } from "./icmp-errors.ts";
import { PacketBatch } from "./packet-batch.ts";
import { PacketCounters } from "./packet-counters.ts";
import { PacketWriter } from "./packet-writer.ts";
import { Reassembler } from "./reassembly.ts";

const BATCH_PACKETS = 1024;
const ARENA_BYTES = 2 * 1024 * 1024;
/** There is no device in between, so only the largest datagrams over IPv6 have to be fragmented. */
const MTU = 65_535;
const REASSEMBLY_BYTES = 4 * 1024 * 1024;
const REASSEMBLY_MS = 30_000;
/** Sources for associations whose own address cannot be used: a network for device tests (RFC 2544) and a unique local one. */
const POOL_IPV4 = makeAddress("198.19.0.0", 0)!;
const POOL_IPV6 = makeAddress("fd75:6e64:7270:1::", 0)!;
const FIRST_PORT = 1024;
const PORTS_BYTES = 4;

/** Receives answers. All memory is borrowed until the call returns. */
export interface PacketEgressEvents {
  onDatagram(
    association: number,
    remote: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void;
  /** A datagram did not reach `remote`. @param mtu  for too-big, as in the ICMP error; otherwise 0 */
  onUnreachable(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void;
}

/**
 * Converts datagrams of associations to IP packets and back, for a tun2socks at the other end of a pipe. A packet's source is the client's
 * own address if that is known, valid in a packet and not used by another association; otherwise an address of a pool.
 *
 * After {@link send}, and at the latest when it returns false, write {@link toDevice} and clear it.
 */
export class PacketEgress {
  readonly counters = new PacketCounters();
  readonly toDevice = new PacketBatch(BATCH_PACKETS, ARENA_BYTES);
  readonly #writer: PacketWriter;
  readonly #reassembler = new Reassembler(REASSEMBLY_BYTES, REASSEMBLY_MS, this.counters);
  readonly #packet = new IpPacket();
  /** (0, source) → association * 2, plus 1 for IPv6. */
  readonly #index: AddressIndex;
  /** The address of each client, by association. */
  readonly #own: (AddressBytes | undefined)[] = [];
  /** The source of each association's packets, by the number that the index returns. */
  readonly #sources: (AddressBytes | undefined)[] = [];
  readonly #remote4 = makeAddress("0.0.0.0", 0)!;
  readonly #remote6 = makeAddress("::", 0)!;
  readonly #inner = new Uint8Array(19);

  /** @param seed  a random 32-bit number */
  constructor(seed: number) {
    this.#index = new AddressIndex(seed);
    this.#writer = new PacketWriter(this.toDevice, this.counters, MTU, false, false, seed);
  }

  /** @param own  the client's own address, if known */
  open(association: number, own: AddressBytes | undefined): void {
    this.#own[association] = own;
  }

  close(association: number): void {
    this.#own[association] = undefined;
    for (const number of [2 * association, 2 * association + 1]) {
      if (this.#sources[number] === undefined) continue;
      this.#index.remove(number);
      this.#sources[number] = undefined;
    }
  }

  /**
   * Builds the packet of a datagram; `data` is copied.
   *
   * @param target  IPv4 or IPv6
   * @param dscp  0 to 63
   * @returns false when {@link toDevice} has no room
   */
  send(
    association: number,
    target: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
    dscp = 0,
  ): boolean {
    if (!this.#writer.hasRoom(length)) return false;
    const number = 2 * association + (target[0] === ATYP_IPV6 ? 1 : 0);
    const source = this.#sources[number] ?? this.#chooseSource(association, number);
    this.counters.datagramsIn++;
    this.#writer.writeUdp(source, target, data, offset, length, dscp);
    return true;
  }

  /** Handles the packet `bytes[offset..end)`, which is borrowed. */
  handlePacket(
    now: number,
    bytes: Uint8Array,
    offset: number,
    end: number,
    events: PacketEgressEvents,
  ): void {
    const { counters } = this;
    const packet = this.#packet;
    counters.packetsIn++;
    if (!packet.read(bytes, offset, end)) {
      counters.drop("malformed");
      return;
    }
    if (packet.version === 4 && !isIpv4ChecksumRight(bytes, offset)) {
      counters.drop("bad_checksum");
      return;
    }
    if (!packet.isFragment) {
      this.#handleWhole(bytes, events);
      return;
    }
    this.#reassembler.expire(now);
    const length = this.#reassembler.add(now, bytes, packet);
    if (length === 0) return;
    const { whole } = this.#reassembler;
    if (packet.read(whole, 0, length) && !packet.isFragment) this.#handleWhole(whole, events);
    else counters.drop("malformed");
  }

  #handleWhole(bytes: Uint8Array, events: PacketEgressEvents): void {
    const { drops } = this.counters;
    const packet = this.#packet;
    const { transport, source, destination, addressBytes, protocol } = packet;
    if (protocol === (addressBytes === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6)) {
      this.#handleIcmp(bytes, events);
      return;
    }
    if (protocol !== PROTOCOL_UDP) {
      drops.protocol++;
      return;
    }
    const end = udpEnd(bytes, packet);
    // No host answers from a mapped address, and it would be taken for an IPv4 datagram of another host.
    const isMapped = addressBytes === 16 && isIpv4Mapped(bytes, source);
    if (end < 0 || readUint16(bytes, transport) === 0 || isMapped) {
      drops.malformed++;
      return;
    }
    if (!isUdpChecksumRight(bytes, packet, end)) {
      drops.bad_checksum++;
      return;
    }
    const length = writeAddress(this.#inner, 0, bytes, destination, addressBytes, transport + 2);
    const number = this.#index.find(0, this.#inner, 0, length);
    if (number < 0) {
      drops.association_closed++;
      return;
    }
    const remote = addressBytes === 4 ? this.#remote4 : this.#remote6;
    writeAddress(remote, 0, bytes, source, addressBytes, transport);
    this.counters.datagramsOut++;
    const payload = transport + UDP_HEADER_BYTES;
    events.onDatagram(number >> 1, remote, bytes, payload, end - payload);
  }

  /** Reports an error about one of our packets. Other ICMP messages have no recipient here. */
  #handleIcmp(bytes: Uint8Array, events: PacketEgressEvents): void {
    const { drops } = this.counters;
    const { transport, end, source, destination, addressBytes } = this.#packet;
    const isIpv4 = addressBytes === 4;
    const quote = transport + ICMP_HEADER_BYTES;
    const quotedHeaderBytes = isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    if (end - transport < ICMP_HEADER_BYTES) {
      drops.malformed++;
      return;
    }
    if (icmpSum(bytes, transport, end, source, destination, addressBytes) !== 0xffff) {
      drops.bad_checksum++;
      return;
    }
    const kind = unreachableKindOf(addressBytes, bytes[transport], bytes[transport + 1]);
    // Our packets have no options. Only the largest over IPv6 are fragmented, and errors about fragments cannot be attributed.
    const isOurs =
      kind !== undefined &&
      end - quote >= quotedHeaderBytes + PORTS_BYTES &&
      (isIpv4
        ? bytes[quote] === 0x45 &&
          ipv4Protocol(bytes, quote) === PROTOCOL_UDP &&
          (ipv4Flags(bytes, quote) & IPV4_FRAGMENT_OFFSET) === 0
        : bytes[quote] >> 4 === 6 && ipv6NextHeader(bytes, quote) === PROTOCOL_UDP);
    const quotedSource = quote + (isIpv4 ? IPV4_SOURCE : IPV6_SOURCE);
    if (!isOurs || !sameBytes(bytes, quotedSource, bytes, destination, addressBytes)) {
      drops.icmp++;
      return;
    }
    const ports = quote + quotedHeaderBytes;
    const length = writeAddress(this.#inner, 0, bytes, quotedSource, addressBytes, ports);
    const number = this.#index.find(0, this.#inner, 0, length);
    if (number < 0) {
      drops.association_closed++;
      return;
    }
    const target = bytes.subarray(quotedSource + addressBytes, quotedSource + 2 * addressBytes);
    const remote = ipAddress(target, readUint16(bytes, ports + 2));
    const mtu = isIpv4 ? readUint16(bytes, transport + 6) : readUint32(bytes, transport + 4);
    events.onUnreachable(number >> 1, remote, kind, kind === "too-big" ? Math.min(mtu, MAX_MTU) : 0);
  }

  #chooseSource(association: number, number: number): AddressBytes {
    const isIpv6 = (number & 1) === 1;
    const own = this.#own[association];
    const isFree = (address: AddressBytes) => this.#index.find(0, address, 0, address.length) < 0;
    let source = own;
    if (
      source === undefined ||
      (source[0] === ATYP_IPV6) !== isIpv6 ||
      !canBeSource(source) ||
      !isFree(source)
    ) {
      const pool = isIpv6 ? POOL_IPV6 : POOL_IPV4;
      source = copyAddress(pool, 0, pool.length);
      const last = source.length - 3;
      source[last] = association;
      source[last - 1] = association >>> 8;
      let port = FIRST_PORT + (association >>> 16);
      do {
        source[last + 1] = port >>> 8;
        source[last + 2] = port++;
      } while (!isFree(source));
    }
    this.#sources[number] = source;
    this.#index.add(number, 0, source);
    return source;
  }
}

/** Whether an address is unicast and not loopback: a device delivers no others. */
function canBeSource(address: AddressBytes): boolean {
  if (address[0] === ATYP_DOMAIN || addressPort(address) === 0) return false;
  if (address[0] !== ATYP_IPV6) return address[1] !== 0 && address[1] !== 127 && address[1] < 224;
  if (address[1] === 0xff) return false;
  for (let i = 1; i < 16; i++) if (address[i] !== 0) return true;
  return false;
}
