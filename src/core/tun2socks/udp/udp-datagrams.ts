import type { UnreachableKind } from "../../../wire/capsule.ts";
import type { IpPacket } from "../../../wire/ip/ip-packet.ts";
import { PROTOCOL_UDP } from "../../../wire/ip/ip-packet.ts";
import { isUdpChecksumRight, MAX_UDP_PAYLOAD_BYTES, UDP_HEADER_BYTES, udpEnd } from "../../../wire/ip/udp.ts";
import { VIRTIO_GSO_UDP_L4, virtioGsoSize, virtioGsoType } from "../../../wire/ip/virtio-net.ts";
import { readUint16 } from "../../../wire/network-order.ts";
import type { AddressBytes } from "../../../wire/socket-address.ts";
import { copyAddress, sameBytes, writeAddress } from "../../../wire/socket-address.ts";
import type { PacketTap } from "../../tap.ts";
import { TokenBucket } from "../../token-bucket.ts";
import type { IcmpErrors } from "../icmp-errors.ts";
import type { Tun2SocksOptions } from "../options.ts";
import type { InnerDatagramBatch } from "../packet-batch.ts";
import { ADDRESS_STRIDE } from "../packet-batch.ts";
import { isChecksumPartial } from "../packet-checks.ts";
import type { PacketCounters } from "../packet-counters.ts";
import type { PacketWriter } from "../packet-writer.ts";
import type { Router } from "../router.ts";
import { ROUTE_DROP, ROUTE_REJECT } from "../rules.ts";
import { UdpAssociations } from "./udp-associations.ts";

const NONE = -1;
/** Most datagrams that the kernel puts into one packet (UDP_MAX_SEGMENTS). */
export const MAX_SEGMENTS = 128;

export type AssociationOutput =
  /** Comes before the association's first datagram. */
  | {
      readonly kind: "association-open";
      readonly association: number;
      readonly source: AddressBytes;
      readonly route: number;
    }
  /** The slot may be reused after this. Not emitted after {@link Tun2Socks.closeAssociation}. */
  | {
      readonly kind: "association-closed";
      readonly association: number;
      readonly reason: "idle" | "evicted";
    };

/** The UDP part of {@link Tun2Socks}: finds or opens the association of each datagram, and writes datagrams for applications. */
export class UdpDatagrams {
  readonly #options: Tun2SocksOptions;
  readonly #packet: IpPacket;
  readonly #writer: PacketWriter;
  readonly #router: Router;
  readonly #counters: PacketCounters;
  readonly #icmp: IcmpErrors;
  readonly #batch: InnerDatagramBatch;
  readonly #onOutput: (output: AssociationOutput) => void;
  readonly #associations: UdpAssociations;
  readonly #evictions: TokenBucket;
  readonly #source = new Uint8Array(ADDRESS_STRIDE);
  #lastAssociation = NONE;

  /**
   * @param packet    the view of the packet that {@link handle} gets
   * @param batch     gets the datagrams of applications
   * @param onOutput  called when an association opens or ends; {@link release} then frees the slot of an ended one
   */
  constructor(
    options: Tun2SocksOptions,
    packet: IpPacket,
    writer: PacketWriter,
    router: Router,
    counters: PacketCounters,
    icmp: IcmpErrors,
    batch: InnerDatagramBatch,
    onOutput: (output: AssociationOutput) => void,
  ) {
    this.#options = options;
    this.#packet = packet;
    this.#writer = writer;
    this.#router = router;
    this.#counters = counters;
    this.#icmp = icmp;
    this.#batch = batch;
    this.#onOutput = onOutput;
    this.#associations = new UdpAssociations(options.seed);
    this.#evictions = new TokenBucket(options.limits.evictionsPerSecond);
  }

  get size(): number {
    return this.#associations.size;
  }

  /** The source of an open association. */
  sourceOf(association: number): AddressBytes | undefined {
    return this.#associations.isOpen(association) ? this.#associations.source(association) : undefined;
  }

  /**
   * Handles a packet whose IP header was checked.
   *
   * @param offset     offset of the virtio-net header or the packet in the caller's data; -1 for a reassembled packet
   * @param isForPeer  whether the destination is the device's peer address
   */
  handle(now: number, bytes: Uint8Array, offset: number, isForPeer: boolean): void {
    const counters = this.#counters;
    const datagrams = this.#batch;
    const packet = this.#packet;
    const { transport, source, destination, addressBytes } = packet;
    const end = udpEnd(bytes, packet);
    const destinationPort = end < 0 ? 0 : readUint16(bytes, transport + 2);
    if (destinationPort === 0 || readUint16(bytes, transport) === 0) {
      counters.drop("malformed");
      return;
    }
    const hasOffload = this.#options.virtio && offset !== NONE;
    const isPartial = hasOffload && isChecksumPartial(bytes, offset);
    if (!isPartial && !isUdpChecksumRight(bytes, packet, end)) {
      counters.drop("bad_checksum");
      return;
    }
    const payload = transport + UDP_HEADER_BYTES;
    if (isForPeer) {
      counters.drop("unroutable");
      this.#icmp.answer(now, bytes, packet, "port");
      return;
    }
    const route = this.#router.choose(PROTOCOL_UDP, bytes, packet, payload, end);
    if (route === ROUTE_REJECT) this.#icmp.answer(now, bytes, packet, "port");
    if (route === ROUTE_REJECT || route === ROUTE_DROP) return;
    const isSegmented = hasOffload && virtioGsoType(bytes, offset) === VIRTIO_GSO_UDP_L4;
    const segment = isSegmented ? virtioGsoSize(bytes, offset) : Math.max(1, end - payload);
    if (end - payload > segment * MAX_SEGMENTS) {
      counters.drop("malformed");
      return;
    }
    // Up to 65,527 bytes fit in an IPv6 packet, but neither the memory here nor what follows takes so many.
    if (Math.min(segment, end - payload) > MAX_UDP_PAYLOAD_BYTES) {
      counters.drop("too_long");
      return;
    }
    const association = this.#associationOf(now, bytes, route, source, addressBytes, transport);
    if (association === NONE) {
      counters.drop("association_limit");
      return;
    }
    let at = payload;
    if (offset === NONE) {
      // The datagram is in the reassembler's memory, which the next fragment overwrites.
      at = datagrams.arenaEnd;
      datagrams.arena.set(bytes.subarray(payload, end), at);
      datagrams.arenaEnd += end - payload;
    }
    const last = at + end - payload;
    do {
      const length = Math.min(segment, last - at);
      const index = datagrams.add(offset === NONE ? 0 : 1, at, length);
      datagrams.association[index] = association;
      datagrams.dscp[index] = packet.dscp;
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

  /** @returns the slot, or -1 if the source is new and too many others were evicted */
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
      if (associations.size >= this.#options.limits.maxAssociations) {
        if (!this.#evictions.take(now)) return NONE;
        this.#counters.associationsEvicted++;
        this.#end(associations.leastWanted(), "evicted");
      }
      const address = copyAddress(source, 0, length);
      association = associations.open(now, route, address);
      this.#counters.associationsOpened++;
      this.#onOutput({ kind: "association-open", association, source: address, route });
    } else associations.sent(now, association);
    this.#lastAssociation = association;
    return association;
  }

  /** As {@link Tun2Socks.handleDatagram}. @param tap  observes a datagram that is dropped */
  writeDatagram(
    now: number,
    association: number,
    remote: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
    tap: PacketTap | undefined,
  ): boolean {
    const counters = this.#counters;
    const source = this.sourceOf(association);
    const isFamily = remote[0] === source?.[0];
    if (source === undefined || !isFamily || length > MAX_UDP_PAYLOAD_BYTES) {
      const reason = source === undefined ? "association_closed" : isFamily ? "too_long" : "family";
      counters.drop(reason);
      tap?.record(true, reason, association, source, remote, data, offset, length);
      return true;
    }
    if (!this.#writer.hasRoom(length)) return false;
    this.#associations.answered(now, association);
    counters.datagramsOut++;
    counters.bytesOut += length;
    this.#writer.writeUdp(remote, source, data, offset, length);
    return true;
  }

  /** As {@link Tun2Socks.handleUnreachable}. */
  writeUnreachable(
    now: number,
    association: number,
    remote: AddressBytes,
    kind: UnreachableKind,
    mtu: number,
  ): boolean {
    const source = this.sourceOf(association);
    if (source === undefined || remote[0] !== source[0]) return true;
    if (!this.#writer.hasRoom()) return false;
    this.#icmp.answerDatagram(now, source, remote, kind, mtu);
    return true;
  }

  /** As {@link Tun2Socks.handleShortcut}. */
  handleShortcut(
    time: number,
    association: number,
    isOut: boolean,
    count: number,
    bytes: number,
    packets: number,
  ): void {
    const counters = this.#counters;
    const isOpen = this.#associations.isOpen(association);
    if (isOut) {
      counters.packetsIn += packets;
      counters.datagramsIn += count;
      counters.bytesIn += bytes;
      if (isOpen) this.#associations.sent(time, association);
    } else {
      counters.packetsOut += packets;
      counters.datagramsOut += count;
      counters.bytesOut += bytes;
      if (isOpen) this.#associations.answered(time, association, count);
    }
  }

  /** As {@link Tun2Socks.closeAssociation}. */
  close(association: number): void {
    if (!this.#associations.isOpen(association)) return;
    this.#associations.end(association);
    this.#associations.release(association);
  }

  /** Frees the slot of an association that was reported as closed. */
  release(association: number): void {
    this.#associations.release(association);
  }

  /** Ends associations that have timed out. */
  sweep(now: number): void {
    const { udpIdleMs, udpActiveIdleMs } = this.#options.limits;
    const associations = this.#associations;
    for (
      let slot = associations.idle(now, udpIdleMs, udpActiveIdleMs);
      slot !== NONE;
      slot = associations.idle(now, udpIdleMs, udpActiveIdleMs)
    ) {
      this.#end(slot, "idle");
    }
  }

  #end(association: number, reason: "idle" | "evicted"): void {
    this.#associations.end(association);
    this.#onOutput({ kind: "association-closed", association, reason });
  }
}
