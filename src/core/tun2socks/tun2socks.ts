import type { UnreachableKind } from "../../wire/capsule.ts";
import {
  IpPacket,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../../wire/ip/ip-packet.ts";
import { isIpv4ChecksumRight } from "../../wire/ip/ipv4.ts";
import { MAX_UDP_PAYLOAD_BYTES } from "../../wire/ip/udp.ts";
import { VIRTIO_NET_HEADER_BYTES } from "../../wire/ip/virtio-net.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort } from "../../wire/socket-address.ts";
import { UsageError } from "../errors.ts";
import { Fifo } from "../fifo.ts";
import type { PacketTap } from "../tap.ts";
import { EchoReplies } from "./echo-replies.ts";
import { IcmpErrors } from "./icmp-errors.ts";
import type { DeviceAddresses, Tun2SocksOptions } from "./options.ts";
import { checkOptions } from "./options.ts";
import { InnerDatagramBatch, PacketBatch } from "./packet-batch.ts";
import { findAddressFault, isAddress, isIcmpError, isOffloadRight } from "./packet-checks.ts";
import { PacketCounters } from "./packet-counters.ts";
import { PacketWriter } from "./packet-writer.ts";
import { Reassembler } from "./reassembly.ts";
import { Router } from "./router.ts";
import { dependsOnPayload } from "./rules.ts";
import { KernelSegments } from "./tcp/kernel-segments.ts";
import { SegmentBatch } from "./tcp/segment-batch.ts";
import { StackSegments } from "./tcp/stack-segments.ts";
import type { AcceptedFlow, FlowEnd } from "./tcp/tcp-segments.ts";
import type { AssociationOutput } from "./udp/udp-datagrams.ts";
import { MAX_SEGMENTS, UdpDatagrams } from "./udp/udp-datagrams.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
const SWEEP_MS = 1_000;

const BATCH_PACKETS = 1024;
const TO_DEVICE_ARENA_BYTES = 2 * 1024 * 1024;
const DATAGRAM_ARENA_BYTES = 256 * 1024;

export type Tun2SocksOutput =
  | AssociationOutput
  /**
   * A flow that was accepted, or that a stack of the host knows, has been forgotten, and its slot may be reused. `finished`: the host's
   * connection ends, or has ended, by itself; otherwise the host should destroy it.
   */
  | {
      readonly kind: "flow-closed";
      readonly flow: number;
      readonly reason: FlowEnd;
    };

/**
 * Converts the IP packets of a device to UDP associations and TCP flows, and back.
 *
 * The kernel terminates TCP: a packet from `source` to `target` is written back to the device as one from `peer:port` to the listener on the
 * device's own address, with a port that stands for the flow. The listener's answers get the real addresses again. Alternatively, a stack
 * of the host terminates TCP: it gets {@link segments}, each with the number of its flow, and sends its own packets to the device.
 *
 * It does no I/O and reads no clock. After each `handle*` or verb: pass {@link segments} to the stack and clear them, write
 * {@link toDevice} to the device and clear it, drain {@link pollOutput}, send {@link datagrams} on, and arm one timer for
 * {@link nextTimeout}. It never throws because of packets from the device.
 */
export class Tun2Socks {
  readonly counters = new PacketCounters();
  /** Observes the packets that are dropped. The host passes datagrams to it. */
  tap: PacketTap | undefined;
  /** Packets for the device. Those in `input` are in the `data` passed to {@link handlePackets}, until cleared. */
  readonly toDevice = new PacketBatch(BATCH_PACKETS, TO_DEVICE_ARENA_BYTES);
  /**
   * Datagrams from the last {@link handlePackets}; cleared by its next call. If an association was closed in the same call,
   * skip its datagrams.
   */
  readonly datagrams = new InnerDatagramBatch(BATCH_PACKETS, DATAGRAM_ARENA_BYTES);

  /** Segments from the last {@link handlePackets} for a stack of the host, which clears them. */
  readonly segments: SegmentBatch;

  readonly #options: Tun2SocksOptions;
  readonly #outputs = new Fifo<Tun2SocksOutput>();
  readonly #reassembler: Reassembler;
  readonly #writer: PacketWriter;
  readonly #icmp: IcmpErrors;
  readonly #echo: EchoReplies;
  readonly #router: Router;
  readonly #udp: UdpDatagrams;
  readonly #tcp: KernelSegments | StackSegments;
  readonly #packet = new IpPacket();
  #sweepAt = NEVER;

  /** @throws UsageError ERR_OPTION */
  constructor(options: Tun2SocksOptions) {
    checkOptions(options);
    const { limits, seed, mtu, virtio, uso, ipv4, ipv6 } = options;
    this.#options = options;
    this.#reassembler = new Reassembler(limits.reassemblyBytes, limits.reassemblyTimeoutMs, this.counters);
    this.#writer = new PacketWriter(this.toDevice, this.counters, mtu, virtio, uso, seed);
    this.#icmp = new IcmpErrors(this.#writer, this.counters, limits.icmpErrorsPerSecond, [
      ipv4?.peer,
      ipv6?.peer,
    ]);
    this.#echo = new EchoReplies(this.#packet, this.#writer, this.toDevice, this.counters, virtio);
    this.#router = new Router(options, this.counters);
    this.segments = new SegmentBatch(BATCH_PACKETS, options.hasTcpStack);
    const onClosed = (flow: number, reason: FlowEnd) =>
      void this.#outputs.push({ kind: "flow-closed", flow, reason });
    const parts = [options, this.#packet, this.#writer, this.#router, this.counters] as const;
    this.#udp = new UdpDatagrams(...parts, this.#icmp, this.datagrams, (output) => {
      this.#outputs.push(output);
    });
    this.#tcp = options.hasTcpStack
      ? new StackSegments(...parts, onClosed, this.segments)
      : new KernelSegments(...parts, onClosed);
  }

  // Getters

  get associationCount(): number {
    return this.#udp.size;
  }

  get flowCount(): number {
    return this.#tcp.size;
  }

  get halfOpenCount(): number {
    return this.#tcp.halfOpenCount;
  }

  /** Incomplete packets that wait for fragments. */
  get pendingReassemblies(): number {
    return this.#reassembler.size;
  }

  // Events

  /**
   * Handles packets `first` to `end - 1` from the device. Packet i is `data[offsets[i] .. offsets[i] + lengths[i])`, including its virtio-net
   * header if packets have one. TCP packets and echo requests are rewritten in `data`, which stays borrowed until {@link toDevice} is
   * cleared.
   *
   * @returns `end`, or the first packet that was not processed because a batch is full: drain, then call again
   * @throws UsageError ERR_STATE if toDevice still has packets in another buffer
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
    this.counters.takeDropped();
    let index = first;
    while (
      index < end &&
      this.#writer.hasRoom() &&
      this.segments.hasRoom() &&
      datagrams.hasRoom(MAX_SEGMENTS, MAX_UDP_PAYLOAD_BYTES)
    ) {
      this.counters.packetsIn++;
      this.#handlePacket(now, data, offsets[index], offsets[index] + lengths[index]);
      if (this.tap !== undefined) this.#recordDropped(data, offsets[index], offsets[index] + lengths[index]);
      index++;
    }
    this.#armSweep(now);
    return index;
  }

  /**
   * Writes a datagram for an association's application. `data` is copied.
   *
   * @param remote  its sender, a complete address; the datagram is dropped if this is of another family
   * @returns false if {@link toDevice} has no room: drain it, then call again
   */
  handleDatagram(
    now: number,
    association: number,
    remote: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    return this.#udp.writeDatagram(now, association, remote, data, offset, length, this.tap);
  }

  /**
   * Sends an association's application an ICMP error because its datagrams do not reach `remote`.
   *
   * @param mtu  for `too-big`: the largest packet that would get through; see {@link IcmpErrors.answerDatagram}
   * @returns false if {@link toDevice} has no room: drain it, then call again
   */
  handleUnreachable(
    now: number,
    association: number,
    remote: AddressBytes,
    kind: UnreachableKind,
    mtu = 0,
  ): boolean {
    return this.#udp.writeUnreachable(now, association, remote, kind, mtu);
  }

  /**
   * Whether all datagrams of an association to `remote` are treated alike, so that native I/O may carry them; some have already arrived.
   */
  mayCutShort(association: number, remote: AddressBytes): boolean {
    if (this.tap !== undefined || this.sourceOf(association)?.[0] !== remote[0]) return false;
    return !dependsOnPayload(this.#options.rules, addressPort(remote));
  }

  /**
   * Native I/O has carried datagrams of an association, which count as if they had arrived here. Call it before the next call with a later
   * time, and before counts are read.
   *
   * @param time  of the last one @param isOut  whether they came from the device @param bytes  of payload
   */
  handleShortcut(
    time: number,
    association: number,
    isOut: boolean,
    count: number,
    bytes: number,
    packets: number,
  ): void {
    this.#udp.handleShortcut(time, association, isOut, count, bytes, packets);
  }

  handleTimeout(now: number): void {
    if (now < this.#sweepAt) return;
    this.#sweepAt = NEVER;
    this.#sweep(now);
    this.#armSweep(now);
  }

  /** When to call {@link handleTimeout}; Infinity for never. */
  nextTimeout(): number {
    return this.#sweepAt;
  }

  pollOutput(): Tun2SocksOutput | undefined {
    const output = this.#outputs.shift();
    if (output?.kind === "association-closed") this.#udp.release(output.association);
    else if (output?.kind === "flow-closed") this.#tcp.release(output.flow);
    return output;
  }

  // Verbs

  /** Marks a route as up or down. While it is down, new flows and all datagrams to it are refused at once. */
  setRouteUp(route: number, isUp: boolean): void {
    this.#router.setUp(route, isUp);
  }

  closeAssociation(association: number): void {
    this.#udp.close(association);
  }

  /**
   * The kernel's listener has accepted a connection from the peer address.
   *
   * @param peerPort  the connection's source port
   * @returns undefined if no flow has that port: the host then destroys the connection
   */
  acceptFlow(now: number, family: 4 | 6, peerPort: number): AcceptedFlow | undefined {
    return this.#tcp instanceof KernelSegments ? this.#tcp.accept(now, family, peerPort) : undefined;
  }

  /** The stack has completed the handshake of a flow. @returns undefined if there is no such flow: the host then drops it */
  acceptStackFlow(now: number, flow: number): AcceptedFlow | undefined {
    return this.#tcp instanceof StackSegments ? this.#tcp.accept(now, flow) : undefined;
  }

  /** The stack has forgotten a flow, whose slot may be reused. */
  forgetFlow(flow: number): void {
    if (this.#tcp instanceof StackSegments) this.#tcp.forget(flow);
  }

  /**
   * The host's connection of an accepted flow has ended. Segments that the kernel still sends are passed on for a while, and those for a
   * stack until {@link forgetFlow}.
   */
  endFlow(now: number, flow: number): void {
    this.#tcp.end(now, flow);
    this.#armSweep(now);
  }

  /**
   * Ends a flow that the kernel has accepted, with a RST for the application, and forgets it. The host destroys its connection.
   *
   * @returns false if {@link toDevice} has no room: drain it, then call again
   */
  refuseFlow(flow: number): boolean {
    return this.#tcp instanceof KernelSegments ? this.#tcp.refuse(flow) : true;
  }

  /** The source of an open association. */
  sourceOf(association: number): AddressBytes | undefined {
    return this.#udp.sourceOf(association);
  }

  // Packets

  #recordDropped(data: Uint8Array, offset: number, end: number): void {
    const reason = this.counters.takeDropped();
    if (reason === undefined) return;
    const start = this.#options.virtio ? offset + VIRTIO_NET_HEADER_BYTES : offset;
    this.tap!.recordPacket(reason, data, Math.min(start, end), end);
  }

  #handlePacket(now: number, data: Uint8Array, offset: number, end: number): void {
    const { counters } = this;
    const packet = this.#packet;
    const start = this.#options.virtio ? offset + VIRTIO_NET_HEADER_BYTES : offset;
    if (start >= end || !packet.read(data, start, end)) {
      counters.drop("malformed");
      return;
    }
    if (packet.version === 4 && !isIpv4ChecksumRight(data, start)) {
      counters.drop("bad_checksum");
      return;
    }
    if (this.#options.virtio && !isOffloadRight(data, offset, packet)) {
      counters.drop("malformed");
      return;
    }
    const device = packet.version === 4 ? this.#options.ipv4 : this.#options.ipv6;
    const fault = findAddressFault(data, packet, device);
    if (fault !== undefined) {
      counters.drop(fault);
      return;
    }
    const isForPeer = isAddress(device?.peer, data, packet.destination);
    if (packet.hopLimit <= 1 && !isForPeer) {
      counters.drop("hop_limit");
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
      counters.drop("malformed");
      return;
    }
    this.#handleWhole(now, whole, NONE, device, isForPeer);
  }

  /** @param offset  offset of the virtio-net header or the packet in the caller's data; -1 for a reassembled packet */
  #handleWhole(
    now: number,
    bytes: Uint8Array,
    offset: number,
    device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void {
    const { protocol, version } = this.#packet;
    if (protocol === PROTOCOL_UDP) this.#udp.handle(now, bytes, offset, isForPeer);
    else if (protocol === PROTOCOL_TCP) this.#tcp.handle(now, bytes, offset, device, isForPeer);
    else if (protocol === (version === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6)) this.#echo.handle(bytes, offset);
    else {
      this.counters.drop("protocol");
      this.#icmp.answer(now, bytes, this.#packet, "protocol");
    }
  }

  // Time

  #armSweep(now: number): void {
    if (this.#sweepAt !== NEVER) return;
    const isIdle = this.#udp.size + this.#tcp.size + this.#reassembler.size === 0;
    if (!isIdle) this.#sweepAt = now + SWEEP_MS;
  }

  #sweep(now: number): void {
    this.#udp.sweep(now);
    this.#tcp.sweep(now);
    this.#reassembler.expire(now);
  }
}
