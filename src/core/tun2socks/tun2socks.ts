import type { UnreachableKind } from "../../wire/capsule.ts";
import { updateChecksum } from "../../wire/checksum.ts";
import {
  ICMP_CHECKSUM,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_HEADER_BYTES,
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  icmpSum,
  writeIcmpChecksum,
} from "../../wire/icmp.ts";

import {
  IpPacket,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../../wire/ip-packet.ts";
import { isIpv4ChecksumRight, writeIpv4Checksum } from "../../wire/ipv4.ts";
import { IPV6_MIN_MTU } from "../../wire/ipv6.ts";
import { readUint16, writeUint16 } from "../../wire/network-order.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, isIpv4Mapped, sameBytes, writeAddress } from "../../wire/socket-address.ts";

import {
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  tcpAcknowledgment,
  tcpFlags,
  tcpHeaderLength,
  tcpSequence,
} from "../../wire/tcp.ts";
import {
  isUdpChecksumRight,
  MAX_UDP_PAYLOAD_BYTES,
  UDP_CHECKSUM,
  UDP_HEADER_BYTES,
  udpEnd,
} from "../../wire/udp.ts";
import {
  VIRTIO_GSO_NONE,
  VIRTIO_GSO_TCPV4,
  VIRTIO_GSO_TCPV6,
  VIRTIO_GSO_UDP,
  VIRTIO_GSO_UDP_L4,
  VIRTIO_NEEDS_CHECKSUM,
  VIRTIO_NET_HEADER_BYTES,
  virtioChecksumOffset,
  virtioChecksumStart,
  virtioFlags,
  virtioGsoSize,
  virtioGsoType,
  virtioHeaderLength,
  writeVirtioNetHeader,
} from "../../wire/virtio-net.ts";
import { UsageError } from "../errors.ts";
import { TokenBucket } from "../token-bucket.ts";
import { IcmpErrors } from "./icmp-errors.ts";
import { ADDRESS_STRIDE, InnerDatagramBatch, PacketBatch } from "./packet-batch.ts";
import { PacketCounters } from "./packet-counters.ts";
import { PacketWriter } from "./packet-writer.ts";
import { Reassembler } from "./reassembly.ts";
import type { Rule } from "./rules.ts";
import { ROUTE_COUNT, ROUTE_DROP, ROUTE_REJECT, routeOf } from "./rules.ts";
import { rewriteSegment } from "./segment-rewrite.ts";
import {
  FIN_OF_LISTENER,
  FIN_OF_SOURCE,
  FLOW_CLOSING,
  FLOW_HALF_OPEN,
  FLOW_OPEN,
  MAX_FLOWS,
  SYN_OF_LISTENER,
  TcpFlows,
} from "./tcp-flows.ts";
import { UdpAssociations } from "./udp-associations.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
const SWEEP_MS = 1_000;
/** So long is a flow remembered after both FINs or a RST, for what is still on its way: as TIME-WAIT of Linux. */
const CLOSING_MS = 60_000;
/** An open flow that was idle for so long gives way when there are too many. */
const SPARE_IDLE_MS = 600_000;
const ECHO_HOP_LIMIT = 64;
/** The kernel makes no more of one packet (UDP_MAX_SEGMENTS). */
const MAX_SEGMENTS = 128;

const BATCH_PACKETS = 1024;
const TO_DEVICE_ARENA_BYTES = 2 * 1024 * 1024;
const DATAGRAM_ARENA_BYTES = 256 * 1024;

/** Addresses of a device for one family, 4 or 16 bytes each. */
export interface DeviceAddresses {
  /** The device's own address: the kernel's listener is bound to it. */
  readonly own: Uint8Array;
  /**
   * An address on the device's network that no host has. It stands for all targets of TCP in what is written back to
   * the device, and is where ICMP errors of a router come from.
   */
  readonly peer: Uint8Array;
  /** Port of the listener; 0 for none: then TCP is refused. */
  readonly listenerPort: number;
}

/** Bounds. Durations in milliseconds. */
export interface Tun2SocksLimits {
  /** Past it, the association that is unanswered, then the one that was idle longest, gives way. */
  readonly maxAssociations: number;
  /** So many give way; past it, datagrams of new sources are dropped, as each costs the tunnel more than one that is known. */
  readonly evictionsPerSecond: number;
  /** 1 to 60,000. Past it, flows that are closing, half-open, or idle for ten minutes give way; else SYNs are refused. */
  readonly maxFlows: number;
  /** Past it, the oldest half-open flow gives way. */
  readonly maxHalfOpen: number;
  /** Memory for packets of which fragments are missing. */
  readonly reassemblyBytes: number;
  readonly reassemblyTimeoutMs: number;
  readonly udpIdleMs: number;
  /** For associations that were answered more than once. */
  readonly udpActiveIdleMs: number;
  readonly halfOpenMs: number;
  readonly tcpIdleMs: number;
  readonly icmpErrorsPerSecond: number;
}

/** What fits most devices. RFC 4787 REQ-5 and RFC 5382 REQ-5 ask for no less than these idle times. */
export const TUN2SOCKS_LIMITS: Tun2SocksLimits = {
  maxAssociations: 16_384,
  evictionsPerSecond: 8_192,
  maxFlows: 16_384,
  maxHalfOpen: 1_024,
  reassemblyBytes: 4 * 1024 * 1024,
  reassemblyTimeoutMs: 30_000,
  udpIdleMs: 60_000,
  udpActiveIdleMs: 300_000,
  halfOpenMs: 30_000,
  tcpIdleMs: 7_440_000,
  icmpErrorsPerSecond: 1_000,
};

export interface Tun2SocksOptions {
  /** Of the device, 1280 to 65,535: packets built here are fragmented above it. */
  readonly mtu: number;
  /** undefined where the device has no address of the family; its UDP is served all the same. */
  readonly ipv4: DeviceAddresses | undefined;
  readonly ipv6: DeviceAddresses | undefined;
  /** Whether each packet, in both directions, is preceded by a virtio-net header (wire/virtio-net). */
  readonly virtio: boolean;
  /**
   * With virtio: whether the device takes USO packets (Linux 6.2, TUN_F_USO4 and 6). Replies in a row to one application
   * from one remote then leave as one packet.
   */
  readonly uso: boolean;
  /** First match decides. */
  readonly rules: readonly Rule[];
  /** ROUTE_… for what no rule matches. */
  readonly udpRoute: number;
  readonly tcpRoute: number;
  readonly limits: Tun2SocksLimits;
  /** A random 32-bit number, so that nobody can choose addresses that collide. */
  readonly seed: number;
}

export type Tun2SocksOutput =
  /** Comes before the association's first datagram. */
  | {
      readonly kind: "association-open";
      readonly association: number;
      readonly source: AddressBytes;
      readonly route: number;
    }
  /** The slot may be another's after this; not told after {@link Tun2Socks.closeAssociation}. */
  | {
      readonly kind: "association-closed";
      readonly association: number;
      readonly reason: "idle" | "evicted";
    }
  /**
   * An accepted flow has been forgotten, and its slot may be another's. `finished`: the host's connection ends, or has
   * ended, by itself; otherwise the host should destroy it.
   */
  | {
      readonly kind: "flow-closed";
      readonly flow: number;
      readonly reason: "finished" | "idle" | "evicted";
    };

/** A connection that the kernel's listener has accepted. */
export interface AcceptedFlow {
  readonly flow: number;
  readonly source: AddressBytes;
  readonly target: AddressBytes;
  readonly route: number;
}

/**
 * IP packets of a device to UDP associations and TCP flows, and back. TCP is left to the kernel: a packet from
 * `source` to `target` is written back to the device as one from `peer:port` to the listener on the device's own
 * address, with a port that stands for the flow; the listener's answers get the real addresses again.
 *
 * Does no I/O and reads no clock. After each `handle*` and verb: write {@link toDevice} to the device and clear it, drain
 * {@link pollOutput}, then send {@link datagrams} on; then arm one timer for {@link nextTimeout}. Nothing is thrown for
 * what comes from the device.
 */
export class Tun2Socks {
  readonly counters = new PacketCounters();
  /** Packets for the device. Those in `input` lie in the `data` that {@link handlePackets} got, until cleared. */
  readonly toDevice = new PacketBatch(BATCH_PACKETS, TO_DEVICE_ARENA_BYTES);
  /**
   * Datagrams from the last {@link handlePackets}; cleared by its next call. An association may have been closed in the
   * same call; its datagrams are then to be skipped.
   */
  readonly datagrams = new InnerDatagramBatch(BATCH_PACKETS, DATAGRAM_ARENA_BYTES);

  readonly #options: Tun2SocksOptions;
  readonly #limits: Tun2SocksLimits;
  readonly #outputs: Tun2SocksOutput[] = [];
  readonly #associations: UdpAssociations;
  readonly #evictions: TokenBucket;
  readonly #flows: TcpFlows;
  readonly #reassembler: Reassembler;
  readonly #writer: PacketWriter;
  readonly #icmp: IcmpErrors;
  readonly #packet = new IpPacket();
  readonly #source = new Uint8Array(ADDRESS_STRIDE);
  readonly #key = new Uint8Array(36);
  readonly #isRouteDown = new Uint8Array(ROUTE_COUNT);
  #lastAssociation = NONE;
  #sweepAt = NEVER;

  /** @throws UsageError ERR_OPTION */
  constructor(options: Tun2SocksOptions) {
    checkOptions(options);
    const { limits, seed, mtu, virtio, uso, ipv4, ipv6 } = options;
    this.#options = options;
    this.#limits = limits;
    this.#associations = new UdpAssociations(seed);
    this.#evictions = new TokenBucket(limits.evictionsPerSecond);
    this.#flows = new TcpFlows(seed);
    this.#reassembler = new Reassembler(limits.reassemblyBytes, limits.reassemblyTimeoutMs, this.counters);
    this.#writer = new PacketWriter(this.toDevice, this.counters, mtu, virtio, uso, seed);
    this.#icmp = new IcmpErrors(this.#writer, this.counters, limits.icmpErrorsPerSecond, [
      ipv4?.peer,
      ipv6?.peer,
    ]);
  }

  // Getters

  get associationCount(): number {
    return this.#associations.size;
  }

  get flowCount(): number {
    return this.#flows.size;
  }

  get halfOpenCount(): number {
    return this.#flows.sizeOf(FLOW_HALF_OPEN);
  }

  /** Packets of which fragments are missing. */
  get pendingReassemblies(): number {
    return this.#reassembler.size;
  }

  // Events

  /**
   * Packets `first` to `end - 1` from the device: packet i is `data[offsets[i] .. offsets[i] + lengths[i])`, with its
   * virtio-net header where there are such. Packets of TCP and echo requests are rewritten in `data`, which stays lent
   * until {@link toDevice} is cleared.
   *
   * @returns the index of the first packet that was not taken, because a batch is full: drain, then call again
   * @throws UsageError ERR_STATE when toDevice still has packets in another buffer
   */
  handlePackets(
    now: number,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
  ): number {
    const { toDevice, datagrams } = this;
    if (toDevice.hasInput && toDevice.input !== data) {
      throw new UsageError("ERR_STATE", "toDevice was not cleared");
    }
    toDevice.input = data;
    datagrams.clear();
    datagrams.input = data;
    let index = first;
    while (index < end && this.#writer.hasRoom() && datagrams.hasRoom(MAX_SEGMENTS, MAX_UDP_PAYLOAD_BYTES)) {
      this.counters.packetsIn++;
      this.#handlePacket(now, data, offsets[index], offsets[index] + lengths[index]);
      index++;
    }
    this.#armSweep(now);
    return index;
  }

  /**
   * A datagram for an association's application; `data` is copied.
   *
   * @param remote  where it came from, a whole address; it is dropped when it is of another family
   * @returns false when {@link toDevice} has no room: drain it, then call again
   */
  handleDatagram(
    now: number,
    association: number,
    remote: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    const { counters } = this;
    if (!this.#associations.isOpen(association)) {
      counters.drops.association_closed++;
      return true;
    }
    const source = this.#associations.source(association);
    if (remote[0] !== source[0]) {
      counters.drops.family++;
      return true;
    }
    if (length > MAX_UDP_PAYLOAD_BYTES) {
      counters.drops.too_long++;
      return true;
    }
    if (!this.#writer.hasRoom(length)) return false;
    this.#associations.answered(now, association);
    counters.datagramsOut++;
    counters.bytesOut += length;
    this.#writer.writeUdp(remote, source, data, offset, length);
    return true;
  }

  /**
   * Tells an association's application that its datagrams do not reach `remote`, as an ICMP error.
   *
   * @param mtu  for `too-big`: the largest packet that would get through; see {@link IcmpErrors.answerDatagram}
   * @returns false when {@link toDevice} has no room: drain it, then call again
   */
  handleUnreachable(
    now: number,
    association: number,
    remote: AddressBytes,
    kind: UnreachableKind,
    mtu = 0,
  ): boolean {
    if (!this.#associations.isOpen(association)) return true;
    const source = this.#associations.source(association);
    if (remote[0] !== source[0]) return true;
    if (!this.#writer.hasRoom()) return false;
    this.#icmp.answerDatagram(now, source, remote, kind, mtu);
    return true;
  }

  handleTimeout(now: number): void {
    if (now < this.#sweepAt) return;
    this.#sweepAt = NEVER;
    this.#sweep(now);
    this.#armSweep(now);
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. */
  nextTimeout(): number {
    return this.#sweepAt;
  }

  pollOutput(): Tun2SocksOutput | undefined {
    const output = this.#outputs.shift();
    if (output?.kind === "association-closed") this.#associations.release(output.association);
    else if (output?.kind === "flow-closed") this.#flows.release(output.flow);
    return output;
  }

  // Verbs

  /** Whether what a route leads to is there. While it is not, new flows and all datagrams to it are refused at once. */
  setRouteUp(route: number, isUp: boolean): void {
    this.#isRouteDown[route] = isUp ? 0 : 1;
  }

  closeAssociation(association: number): void {
    if (!this.#associations.isOpen(association)) return;
    this.#associations.end(association);
    this.#associations.release(association);
  }

  /**
   * The kernel's listener has accepted a connection from the peer address.
   *
   * @param family  4 or 6. @param peerPort  port that it came from
   * @returns undefined when no flow has that port: the host destroys the connection
   */
  acceptFlow(now: number, family: 4 | 6, peerPort: number): AcceptedFlow | undefined {
    const flow = this.#flows.findPort(family === 4 ? 4 : 16, peerPort);
    if (flow === undefined || flow === NONE || this.#flows.accepted[flow] === 1) return undefined;
    this.#flows.accepted[flow] = 1;
    if (this.#flows.state(flow) === FLOW_HALF_OPEN) this.#flows.move(now, flow, FLOW_OPEN);
    return {
      flow,
      source: this.#flows.source(flow),
      target: this.#flows.target(flow),
      route: this.#flows.route[flow],
    };
  }

  /** The host's connection of an accepted flow is over; what the kernel still sends of it is passed on for a while. */
  endFlow(now: number, flow: number): void {
    if (this.#flows.state(flow) === NONE || this.#flows.accepted[flow] === 0) return;
    this.#flows.accepted[flow] = 0;
    this.#flows.move(now, flow, FLOW_CLOSING);
    this.#armSweep(now);
  }

  /**
   * Ends an accepted flow with a RST for the application, and forgets it: the host destroys its connection.
   *
   * @returns false when {@link toDevice} has no room: drain it, then call again
   */
  refuseFlow(flow: number): boolean {
    if (this.#flows.state(flow) === NONE || this.#flows.accepted[flow] === 0) return true;
    if (!this.#writer.hasRoom()) return false;
    const key = this.#flows.key(flow);
    const addressBytes = this.#flows.addressBytes(flow);
    const ports = 2 * addressBytes;
    this.counters.resets++;
    this.#writer.writeSegment(
      addressBytes,
      key,
      addressBytes,
      readUint16(key, ports + 2),
      key,
      0,
      readUint16(key, ports),
      this.#flows.expected[flow],
      0,
      TCP_RST,
    );
    this.#flows.end(flow);
    this.#flows.release(flow);
    return true;
  }

  // Packets

  #handlePacket(now: number, data: Uint8Array, offset: number, end: number): void {
    const { counters } = this;
    const packet = this.#packet;
    const start = this.#options.virtio ? offset + VIRTIO_NET_HEADER_BYTES : offset;
    if (start >= end || !packet.read(data, start, end)) {
      counters.drops.malformed++;
      return;
    }
    if (packet.version === 4 && !isIpv4ChecksumRight(data, start)) {
      counters.drops.bad_checksum++;
      return;
    }
    if (this.#options.virtio && !isOffloadRight(data, offset, packet)) {
      counters.drops.malformed++;
      return;
    }
    const device = packet.version === 4 ? this.#options.ipv4 : this.#options.ipv6;
    if (!this.#checkAddresses(data, device)) return;
    const isForPeer = isAddress(device?.peer, data, packet.destination);
    if (packet.hopLimit <= 1 && !isForPeer) {
      counters.drops.hop_limit++;
      if (!isIcmpError(data, packet) && packet.fragmentOffset === 0) {
        this.#icmp.answer(now, data, packet, "hop-limit");
      }
      return;
    }
    if (!packet.isFragment) {
      this.#handleWhole(now, data, offset, device, isForPeer);
      return;
    }
    const length = this.#reassembler.add(now, data, packet);
    if (length === 0) return;
    const { whole } = this.#reassembler;
    if (!packet.read(whole, 0, length) || packet.isFragment) {
      counters.drops.malformed++;
      return;
    }
    this.#handleWhole(now, whole, NONE, device, isForPeer);
  }

  /** @param offset  of the virtio-net header or the packet in the caller's data, or -1 for a reassembled packet */
  #handleWhole(
    now: number,
    bytes: Uint8Array,
    offset: number,
    device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void {
    const { protocol, version } = this.#packet;
    if (protocol === PROTOCOL_UDP) this.#handleUdp(now, bytes, offset, isForPeer);
    else if (protocol === PROTOCOL_TCP) this.#handleTcp(now, bytes, offset, device, isForPeer);
    else if (protocol === (version === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6)) this.#handleIcmp(bytes, offset);
    else {
      this.counters.drops.protocol++;
      this.#icmp.answer(now, bytes, this.#packet, "protocol");
    }
  }

  /** Counts and refuses what must not be on a device, or would lead in a circle. */
  #checkAddresses(bytes: Uint8Array, device: DeviceAddresses | undefined): boolean {
    const { source, destination, addressBytes, protocol } = this.#packet;
    const { drops } = this.counters;
    if (isMulticast(bytes, destination, addressBytes)) drops.multicast++;
    else if (
      isMulticast(bytes, source, addressBytes) ||
      isMartian(bytes, source, addressBytes) ||
      isMartian(bytes, destination, addressBytes)
    ) {
      drops.martian++;
    } else if (isAddress(device?.peer, bytes, source)) drops.own_source++;
    else if (
      protocol !== PROTOCOL_ICMP &&
      protocol !== PROTOCOL_ICMPV6 &&
      isAddress(device?.own, bytes, destination)
    ) {
      drops.own_destination++;
    } else return true;
    return false;
  }

  // UDP

  #handleUdp(now: number, bytes: Uint8Array, offset: number, isForPeer: boolean): void {
    const { counters, datagrams } = this;
    const packet = this.#packet;
    const { transport, source, destination, addressBytes } = packet;
    const end = udpEnd(bytes, packet);
    const destinationPort = end < 0 ? 0 : readUint16(bytes, transport + 2);
    if (destinationPort === 0 || readUint16(bytes, transport) === 0) {
      counters.drops.malformed++;
      return;
    }
    const hasOffload = this.#options.virtio && offset !== NONE;
    const isPartial = hasOffload && (virtioFlags(bytes, offset) & VIRTIO_NEEDS_CHECKSUM) !== 0;
    if (!isPartial && !isUdpChecksumRight(bytes, packet, end)) {
      counters.drops.bad_checksum++;
      return;
    }
    const payload = transport + UDP_HEADER_BYTES;
    if (isForPeer) {
      counters.drops.unroutable++;
      this.#icmp.answer(now, bytes, packet, "port");
      return;
    }
    const { rules, udpRoute } = this.#options;
    const route = routeOf(
      rules,
      PROTOCOL_UDP,
      bytes,
      destination,
      addressBytes,
      destinationPort,
      payload,
      end,
      udpRoute,
    );
    if (route === ROUTE_DROP) {
      counters.drops.rule_drop++;
      return;
    }
    if (route === ROUTE_REJECT || this.#isRouteDown[route] === 1) {
      counters.drops[route === ROUTE_REJECT ? "rule_reject" : "route_down"]++;
      this.#icmp.answer(now, bytes, packet, "port");
      return;
    }
    const isSegmented = hasOffload && virtioGsoType(bytes, offset) === VIRTIO_GSO_UDP_L4;
    const segment = isSegmented ? virtioGsoSize(bytes, offset) : Math.max(1, end - payload);
    if (end - payload > segment * MAX_SEGMENTS) {
      counters.drops.malformed++;
      return;
    }
    const association = this.#associationOf(now, bytes, route, source, addressBytes, transport);
    if (association === NONE) {
      counters.drops.association_limit++;
      return;
    }
    let at = payload;
    if (offset === NONE) {
      // It lies in the reassembler's memory, which the next fragment uses again.
      at = datagrams.arenaEnd;
      datagrams.arena.set(bytes.subarray(payload, end), at);
      datagrams.arenaEnd += end - payload;
    }
    const last = at + end - payload;
    do {
      const length = Math.min(segment, last - at);
      const index = datagrams.add(offset === NONE ? 0 : 1, at, length);
      datagrams.association[index] = association;
      datagrams.addressLength[index] = writeAddress(
        datagrams.addresses,
        index * ADDRESS_STRIDE,
        bytes,
        destination,
        addressBytes,
        transport + 2,
      );
      counters.datagramsIn++;
      counters.bytesIn += length;
      at += length;
    } while (at < last);
  }

  /** @returns the slot, or -1 when the source is new and too many others had to give way */
  #associationOf(
    now: number,
    bytes: Uint8Array,
    route: number,
    sourceAt: number,
    addressBytes: 4 | 16,
    portAt: number,
  ): number {
    const source = this.#source;
    const associations = this.#associations;
    const length = writeAddress(source, 0, bytes, sourceAt, addressBytes, portAt);
    const last = this.#lastAssociation;
    if (associations.isOpen(last) && associations.route(last) === route) {
      const known = associations.source(last);
      if (known.length === length && sameBytes(known, 0, source, 0, length)) {
        associations.sent(now, last);
        return last;
      }
    }
    let association = associations.find(route, source, 0, length);
    if (association === NONE) {
      if (associations.size >= this.#limits.maxAssociations) {
        if (!this.#evictions.take(now)) return NONE;
        this.counters.associationsEvicted++;
        this.#endAssociation(associations.leastWanted(), "evicted");
      }
      const address = copyAddress(source, 0, length);
      association = associations.open(now, route, address);
      this.counters.associationsOpened++;
      this.#outputs.push({ kind: "association-open", association, source: address, route });
    } else associations.sent(now, association);
    this.#lastAssociation = association;
    return association;
  }

  #endAssociation(association: number, reason: "idle" | "evicted"): void {
    this.#associations.end(association);
    this.#outputs.push({ kind: "association-closed", association, reason });
  }

  // TCP

  #handleTcp(
    now: number,
    bytes: Uint8Array,
    offset: number,
    device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void {
    const { counters } = this;
    const { transport, end, source } = this.#packet;
    const headerBytes = end - transport < TCP_HEADER_BYTES ? 0 : tcpHeaderLength(bytes, transport);
    if (headerBytes < TCP_HEADER_BYTES || transport + headerBytes > end) {
      counters.drops.malformed++;
      return;
    }
    if (device === undefined || device.listenerPort === 0) {
      counters.drops.no_listener++;
      this.#reset(bytes);
      return;
    }
    if (!isForPeer) {
      this.#handleSegmentOfSource(now, bytes, offset, device);
      return;
    }
    const isFromListener =
      readUint16(bytes, transport) === device.listenerPort && isAddress(device.own, bytes, source);
    if (isFromListener) this.#handleSegmentOfListener(now, bytes, offset);
    else {
      counters.drops.unroutable++;
      this.#reset(bytes);
    }
  }

  #handleSegmentOfSource(now: number, bytes: Uint8Array, offset: number, device: DeviceAddresses): void {
    const { counters } = this;
    const flows = this.#flows;
    const { transport, source, addressBytes } = this.#packet;
    const flags = tcpFlags(bytes, transport);
    const isSyn = (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) === TCP_SYN;
    const hasKey = transport === source + 2 * addressBytes;
    const key = hasKey ? bytes : this.#key;
    const keyAt = hasKey ? source : 0;
    if (!hasKey) {
      for (let i = 0; i < 2 * addressBytes; i++) key[i] = bytes[source + i];
      for (let i = 0; i < 4; i++) key[2 * addressBytes + i] = bytes[transport + i];
    }
    let flow = flows.find(key, keyAt, addressBytes);
    if (flow !== NONE && isSyn && flows.state(flow) === FLOW_CLOSING) {
      this.#endFlow(flow, "finished");
      flow = NONE;
    }
    if (flow === NONE) {
      if (!isSyn) {
        counters.drops.unknown_flow++;
        this.#reset(bytes);
        return;
      }
      flow = this.#openFlow(now, bytes, key, keyAt);
      if (flow === NONE) return;
    }
    if ((flags & TCP_ACK) !== 0) {
      const acknowledgment = tcpAcknowledgment(bytes, transport);
      // Only who has seen the listener's SYN knows its number: the kernel's own test of a handshake.
      const isHandshake =
        flows.state(flow) === FLOW_HALF_OPEN &&
        (flows.seen[flow] & SYN_OF_LISTENER) !== 0 &&
        flows.expected[flow] === acknowledgment;
      if (isHandshake) flows.move(now, flow, FLOW_OPEN);
      flows.expected[flow] = acknowledgment;
    }
    this.#follow(now, flow, flags, FIN_OF_SOURCE);
    const { own, peer, listenerPort } = device;
    this.#rewrite(bytes, offset, peer, 0, flows.port[flow], own, 0, listenerPort);
  }

  #handleSegmentOfListener(now: number, bytes: Uint8Array, offset: number): void {
    const flows = this.#flows;
    const { transport, addressBytes } = this.#packet;
    const flow = flows.findPort(addressBytes, readUint16(bytes, transport + 2));
    if (flow === NONE) {
      this.counters.drops.unknown_flow++;
      this.#reset(bytes);
      return;
    }
    const flags = tcpFlags(bytes, transport);
    if ((flags & TCP_SYN) !== 0) {
      flows.seen[flow] |= SYN_OF_LISTENER;
      flows.expected[flow] = tcpSequence(bytes, transport) + 1;
    }
    this.#follow(now, flow, flags, FIN_OF_LISTENER);
    const key = flows.key(flow);
    const ports = 2 * addressBytes;
    this.#rewrite(
      bytes,
      offset,
      key,
      addressBytes,
      readUint16(key, ports + 2),
      key,
      0,
      readUint16(key, ports),
    );
  }

  /** @returns the slot, or -1 when the SYN was refused or dropped */
  #openFlow(now: number, bytes: Uint8Array, key: Uint8Array, keyAt: number): number {
    const { counters } = this;
    const flows = this.#flows;
    const limits = this.#limits;
    const { destination, addressBytes, transport, end } = this.#packet;
    const { rules, tcpRoute } = this.#options;
    const port = readUint16(bytes, transport + 2);
    const route = routeOf(
      rules,
      PROTOCOL_TCP,
      bytes,
      destination,
      addressBytes,
      port,
      transport,
      end,
      tcpRoute,
    );
    if (route === ROUTE_DROP) {
      counters.drops.rule_drop++;
      return NONE;
    }
    if (route === ROUTE_REJECT || this.#isRouteDown[route] === 1) {
      counters.drops[route === ROUTE_REJECT ? "rule_reject" : "route_down"]++;
      this.#reset(bytes);
      return NONE;
    }
    if (flows.sizeOf(FLOW_HALF_OPEN) >= limits.maxHalfOpen) {
      counters.halfOpenEvicted++;
      this.#endFlow(flows.oldest(FLOW_HALF_OPEN), "evicted");
    }
    if (flows.size >= limits.maxFlows && !this.#evictFlow(now)) {
      counters.drops.flow_limit++;
      this.#reset(bytes);
      return NONE;
    }
    counters.flowsOpened++;
    return flows.open(now, key, keyAt, addressBytes, route);
  }

  #evictFlow(now: number): boolean {
    const flows = this.#flows;
    let spare = flows.oldest(FLOW_CLOSING);
    if (spare === NONE) spare = flows.oldest(FLOW_HALF_OPEN);
    if (spare === NONE) spare = flows.idle(now, FLOW_OPEN, SPARE_IDLE_MS);
    if (spare === NONE) return false;
    this.counters.flowsEvicted++;
    this.#endFlow(spare, flows.state(spare) === FLOW_CLOSING ? "finished" : "evicted");
    return true;
  }

  /** Keeps a flow's state up with a segment's flags. */
  #follow(now: number, flow: number, flags: number, fin: number): void {
    const flows = this.#flows;
    if ((flags & TCP_FIN) !== 0) flows.seen[flow] |= fin;
    const isOver =
      (flows.seen[flow] & (FIN_OF_SOURCE | FIN_OF_LISTENER)) === (FIN_OF_SOURCE | FIN_OF_LISTENER);
    if (isOver || (flags & TCP_RST) !== 0) flows.move(now, flow, FLOW_CLOSING);
    else flows.used(now, flow);
  }

  #endFlow(flow: number, reason: "finished" | "idle" | "evicted"): void {
    const isAccepted = this.#flows.accepted[flow] === 1;
    this.#flows.end(flow);
    if (isAccepted) this.#outputs.push({ kind: "flow-closed", flow, reason });
    else this.#flows.release(flow);
  }

  #rewrite(
    bytes: Uint8Array,
    offset: number,
    source: Uint8Array,
    sourceAt: number,
    sourcePort: number,
    destination: Uint8Array,
    destinationAt: number,
    destinationPort: number,
  ): void {
    const { start, transport, end, addressBytes } = this.#packet;
    if (offset !== NONE) {
      const isPartial = this.#options.virtio && (virtioFlags(bytes, offset) & VIRTIO_NEEDS_CHECKSUM) !== 0;
      rewriteSegment(
        bytes,
        start,
        transport,
        addressBytes,
        isPartial,
        source,
        sourceAt,
        sourcePort,
        destination,
        destinationAt,
        destinationPort,
      );
      this.counters.packetsOut++;
      this.toDevice.add(1, offset, end - offset);
      return;
    }
    const writer = this.#writer;
    const { arena } = this.toDevice;
    const to = writer.begin(addressBytes, bytes, this.#packet.source, bytes, this.#packet.destination);
    arena.set(bytes.subarray(transport, end), to);
    // The IP header is written by finish; only its addresses are there.
    rewriteSegment(
      arena,
      writer.start,
      to,
      addressBytes,
      false,
      source,
      sourceAt,
      sourcePort,
      destination,
      destinationAt,
      destinationPort,
    );
    writer.finish(addressBytes, PROTOCOL_TCP, to + end - transport, NONE);
  }

  /** Answers a segment that belongs to nothing, RFC 9293 §3.10.7.1; the caller has checked its header. */
  #reset(bytes: Uint8Array): void {
    const { transport, end, source, destination, addressBytes } = this.#packet;
    const flags = tcpFlags(bytes, transport);
    if ((flags & TCP_RST) !== 0) return;
    const hasAck = (flags & TCP_ACK) !== 0;
    const length =
      end -
      transport -
      tcpHeaderLength(bytes, transport) +
      ((flags & TCP_SYN) !== 0 ? 1 : 0) +
      ((flags & TCP_FIN) !== 0 ? 1 : 0);
    this.counters.resets++;
    this.#writer.writeSegment(
      addressBytes,
      bytes,
      destination,
      readUint16(bytes, transport + 2),
      bytes,
      source,
      readUint16(bytes, transport),
      hasAck ? tcpAcknowledgment(bytes, transport) : 0,
      hasAck ? 0 : tcpSequence(bytes, transport) + length,
      hasAck ? TCP_RST : TCP_RST | TCP_ACK,
    );
  }

  // ICMP

  /** Answers echo requests, RFC 792 and RFC 4443 §4.1; everything else is for nobody here. */
  #handleIcmp(bytes: Uint8Array, offset: number): void {
    const { counters } = this;
    const packet = this.#packet;
    const { transport, end, source, destination, addressBytes, start } = packet;
    const request = addressBytes === 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
    const reply = addressBytes === 4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
    if (end - transport < ICMP_HEADER_BYTES) {
      counters.drops.malformed++;
      return;
    }
    if (bytes[transport] !== request || bytes[transport + 1] !== 0) {
      counters.drops.icmp++;
      return;
    }
    const hasOffload = this.#options.virtio && offset !== NONE;
    const isPartial = hasOffload && (virtioFlags(bytes, offset) & VIRTIO_NEEDS_CHECKSUM) !== 0;
    if (isPartial) writeIcmpChecksum(bytes, transport, end, source, destination, addressBytes);
    else if (icmpSum(bytes, transport, end, source, destination, addressBytes) !== 0xffff) {
      counters.drops.bad_checksum++;
      return;
    }
    counters.echoes++;
    bytes[transport] = reply;
    const checksum = readUint16(bytes, transport + ICMP_CHECKSUM);
    writeUint16(bytes, transport + ICMP_CHECKSUM, updateChecksum(checksum, request << 8, reply << 8));
    if (offset === NONE) {
      const writer = this.#writer;
      const to = writer.begin(addressBytes, bytes, destination, bytes, source);
      this.toDevice.arena.set(bytes.subarray(transport, end), to);
      writer.finish(addressBytes, packet.protocol, to + end - transport, NONE);
      return;
    }
    for (let i = 0; i < addressBytes; i++) {
      const byte = bytes[source + i];
      bytes[source + i] = bytes[destination + i];
      bytes[destination + i] = byte;
    }
    if (addressBytes === 4) {
      bytes[start + 8] = ECHO_HOP_LIMIT;
      writeIpv4Checksum(bytes, start);
    } else bytes[start + 7] = ECHO_HOP_LIMIT;
    if (this.#options.virtio) writeVirtioNetHeader(bytes, offset, 0, VIRTIO_GSO_NONE, 0, 0, 0, 0);
    counters.packetsOut++;
    this.toDevice.add(1, offset, end - offset);
  }

  // Time

  #armSweep(now: number): void {
    if (this.#sweepAt !== NEVER) return;
    const isIdle = this.#associations.size + this.#flows.size + this.#reassembler.size === 0;
    if (!isIdle) this.#sweepAt = now + SWEEP_MS;
  }

  #sweep(now: number): void {
    const { udpIdleMs, udpActiveIdleMs, halfOpenMs, tcpIdleMs } = this.#limits;
    const associations = this.#associations;
    for (
      let slot = associations.idle(now, udpIdleMs, udpActiveIdleMs);
      slot !== NONE;
      slot = associations.idle(now, udpIdleMs, udpActiveIdleMs)
    ) {
      this.#endAssociation(slot, "idle");
    }
    this.#endIdleFlows(now, FLOW_HALF_OPEN, halfOpenMs, "idle");
    this.#endIdleFlows(now, FLOW_CLOSING, CLOSING_MS, "finished");
    this.#endIdleFlows(now, FLOW_OPEN, tcpIdleMs, "idle");
    this.#reassembler.expire(now);
  }

  #endIdleFlows(now: number, state: number, idleMs: number, reason: "idle" | "finished"): void {
    const flows = this.#flows;
    for (let flow = flows.idle(now, state, idleMs); flow !== NONE; flow = flows.idle(now, state, idleMs)) {
      this.#endFlow(flow, reason);
    }
  }
}

function checkOptions({ mtu, limits, ipv4, ipv6 }: Tun2SocksOptions): void {
  const wrong = (what: string) => new UsageError("ERR_OPTION", what);
  if (!Number.isInteger(mtu) || mtu < IPV6_MIN_MTU || mtu > 65_535) throw wrong("mtu is 1280 to 65,535");
  if (limits.maxFlows < 1 || limits.maxFlows > MAX_FLOWS - 4_512) throw wrong("maxFlows is 1 to 60,000");
  if (limits.maxHalfOpen < 1 || limits.maxAssociations < 1 || limits.evictionsPerSecond < 1)
    throw wrong("a bound below 1");
  for (const [device, bytes] of [
    [ipv4, 4],
    [ipv6, 16],
  ] as const) {
    if (device === undefined) continue;
    if (device.own.length !== bytes || device.peer.length !== bytes) throw wrong("a device address's length");
    if (sameBytes(device.own, 0, device.peer, 0, bytes)) throw wrong("own and peer address are one");
  }
}

/** Whether the header of a packet that the kernel left work in goes with the packet. */
function isOffloadRight(bytes: Uint8Array, offset: number, packet: IpPacket): boolean {
  const { start, transport, end, protocol, version } = packet;
  const isTcp = protocol === PROTOCOL_TCP;
  const isPartial = (virtioFlags(bytes, offset) & VIRTIO_NEEDS_CHECKSUM) !== 0;
  const gsoType = virtioGsoType(bytes, offset);
  if (!isPartial && gsoType === VIRTIO_GSO_NONE) return true;
  if (packet.isFragment || virtioHeaderLength(bytes, offset) > end - start) return false;
  if (isPartial) {
    const checksumStart = start + virtioChecksumStart(bytes, offset);
    const checksumOffset = virtioChecksumOffset(bytes, offset);
    if (checksumStart + checksumOffset + 2 > end) return false;
    if (isTcp && (checksumStart !== transport || checksumOffset !== TCP_CHECKSUM)) return false;
    if (protocol === PROTOCOL_UDP && (checksumStart !== transport || checksumOffset !== UDP_CHECKSUM))
      return false;
  }
  if (gsoType === VIRTIO_GSO_NONE) return true;
  if (virtioGsoSize(bytes, offset) === 0 || !isPartial) return false;
  if (gsoType === VIRTIO_GSO_UDP || gsoType === VIRTIO_GSO_UDP_L4) return protocol === PROTOCOL_UDP;
  return isTcp && gsoType === (version === 4 ? VIRTIO_GSO_TCPV4 : VIRTIO_GSO_TCPV6);
}

function isAddress(address: Uint8Array | undefined, bytes: Uint8Array, at: number): boolean {
  return address !== undefined && sameBytes(address, 0, bytes, at, address.length);
}

/** Multicast and the limited broadcast. */
function isMulticast(bytes: Uint8Array, at: number, addressBytes: number): boolean {
  if (addressBytes === 16) return bytes[at] === 0xff;
  if (bytes[at] >> 4 === 0xe) return true;
  return bytes[at] === 255 && bytes[at + 1] === 255 && bytes[at + 2] === 255 && bytes[at + 3] === 255;
}

/** This network, loopback and class E; of IPv6 the unspecified and the loopback address, and mapped ones. */
function isMartian(bytes: Uint8Array, at: number, addressBytes: number): boolean {
  if (addressBytes === 4) return bytes[at] === 0 || bytes[at] === 127 || bytes[at] >= 240;
  if (isIpv4Mapped(bytes, at)) return true;
  for (let i = 0; i < 15; i++) if (bytes[at + i] !== 0) return false;
  return bytes[at + 15] <= 1;
}

/** True for ICMP messages that no error may answer: all errors, and redirects (RFC 1122 §3.2.2, RFC 4443 §2.4). */
function isIcmpError(bytes: Uint8Array, { protocol, transport, end, version }: IpPacket): boolean {
  if (version === 4) {
    if (protocol !== PROTOCOL_ICMP) return false;
    return (
      transport >= end || (bytes[transport] !== ICMP_ECHO_REQUEST && bytes[transport] !== ICMP_ECHO_REPLY)
    );
  }
  return (
    protocol === PROTOCOL_ICMPV6 && (transport >= end || bytes[transport] < 128 || bytes[transport] === 137)
  );
}
