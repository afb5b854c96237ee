import type { IpPacket } from "../../wire/ip-packet.ts";
import { PROTOCOL_TCP } from "../../wire/ip-packet.ts";
import { readUint16 } from "../../wire/network-order.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import {
  TCP_ACK,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  tcpAcknowledgment,
  tcpFlags,
  tcpHeaderLength,
  tcpSequence,
} from "../../wire/tcp.ts";
import type { DeviceAddresses, Tun2SocksOptions } from "./options.ts";
import { isAddress, isChecksumPartial } from "./packet-checks.ts";
import type { PacketCounters } from "./packet-counters.ts";
import type { PacketWriter } from "./packet-writer.ts";
import type { Router } from "./router.ts";
import { ROUTE_DROP, ROUTE_REJECT } from "./rules.ts";
import { rewriteSegment } from "./segment-rewrite.ts";
import {
  FIN_OF_LISTENER,
  FIN_OF_SOURCE,
  FLOW_CLOSING,
  FLOW_HALF_OPEN,
  FLOW_OPEN,
  SYN_OF_LISTENER,
  TcpFlows,
} from "./tcp-flows.ts";

const NONE = -1;
/** How long a flow is kept after both FINs or a RST, for segments still in flight: as TIME-WAIT of Linux. */
const CLOSING_MS = 60_000;
/** An open flow that has been idle for this long may be evicted when there are too many. */
const SPARE_IDLE_MS = 600_000;

/** A connection that the kernel's listener has accepted. */
export interface AcceptedFlow {
  readonly flow: number;
  readonly source: AddressBytes;
  readonly target: AddressBytes;
  readonly route: number;
}

/** Why an accepted flow was forgotten. `finished`: the host's connection ends, or has ended, by itself. */
export type FlowEnd = "finished" | "idle" | "evicted";

/** The TCP part of {@link Tun2Socks}: finds the flow of each segment and rewrites it. */
export class TcpSegments {
  readonly #options: Tun2SocksOptions;
  readonly #packet: IpPacket;
  readonly #writer: PacketWriter;
  readonly #router: Router;
  readonly #counters: PacketCounters;
  readonly #onClosed: (flow: number, reason: FlowEnd) => void;
  readonly #flows: TcpFlows;
  readonly #key = new Uint8Array(36);

  /**
   * @param packet    the view of the packet that {@link handle} gets
   * @param onClosed  is called when an accepted flow is forgotten; {@link release} then frees its slot
   */
  constructor(
    options: Tun2SocksOptions,
    packet: IpPacket,
    writer: PacketWriter,
    router: Router,
    counters: PacketCounters,
    onClosed: (flow: number, reason: FlowEnd) => void,
  ) {
    this.#options = options;
    this.#packet = packet;
    this.#writer = writer;
    this.#router = router;
    this.#counters = counters;
    this.#onClosed = onClosed;
    this.#flows = new TcpFlows(options.seed);
  }

  get size(): number {
    return this.#flows.size;
  }

  get halfOpenCount(): number {
    return this.#flows.sizeOf(FLOW_HALF_OPEN);
  }

  /**
   * Takes a segment whose IP header was checked.
   *
   * @param offset     of the virtio-net header or the packet in the caller's data, or -1 for a reassembled packet
   * @param isForPeer  the destination is the device's peer address
   */
  handle(
    now: number,
    bytes: Uint8Array,
    offset: number,
    device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void {
    const counters = this.#counters;
    const { transport, end, source } = this.#packet;
    const headerBytes = end - transport < TCP_HEADER_BYTES ? 0 : tcpHeaderLength(bytes, transport);
    if (headerBytes < TCP_HEADER_BYTES || transport + headerBytes > end) {
      counters.drop("malformed");
      return;
    }
    if (device === undefined || device.listenerPort === 0) {
      counters.drop("no_listener");
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
      counters.drop("unroutable");
      this.#reset(bytes);
    }
  }

  /** As {@link Tun2Socks.acceptFlow}. */
  accept(now: number, family: 4 | 6, peerPort: number): AcceptedFlow | undefined {
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

  /** As {@link Tun2Socks.endFlow}. */
  end(now: number, flow: number): void {
    if (this.#flows.state(flow) === NONE || this.#flows.accepted[flow] === 0) return;
    this.#flows.accepted[flow] = 0;
    this.#flows.move(now, flow, FLOW_CLOSING);
  }

  /** As {@link Tun2Socks.refuseFlow}. */
  refuse(flow: number): boolean {
    if (this.#flows.state(flow) === NONE || this.#flows.accepted[flow] === 0) return true;
    if (!this.#writer.hasRoom()) return false;
    const key = this.#flows.key(flow);
    const addressBytes = this.#flows.addressBytes(flow);
    const ports = 2 * addressBytes;
    this.#counters.resets++;
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

  /** Frees the slot of a flow that was reported as closed. */
  release(flow: number): void {
    this.#flows.release(flow);
  }

  /** Forgets flows that have timed out. */
  sweep(now: number): void {
    const { halfOpenMs, tcpIdleMs } = this.#options.limits;
    this.#endIdleFlows(now, FLOW_HALF_OPEN, halfOpenMs, "idle");
    this.#endIdleFlows(now, FLOW_CLOSING, CLOSING_MS, "finished");
    this.#endIdleFlows(now, FLOW_OPEN, tcpIdleMs, "idle");
  }

  #handleSegmentOfSource(now: number, bytes: Uint8Array, offset: number, device: DeviceAddresses): void {
    const counters = this.#counters;
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
        counters.drop("unknown_flow");
        this.#reset(bytes);
        return;
      }
      flow = this.#openFlow(now, bytes, key, keyAt);
      if (flow === NONE) return;
    }
    if ((flags & TCP_ACK) !== 0) {
      const acknowledgment = tcpAcknowledgment(bytes, transport);
      // Knowing its number proves that the listener's SYN arrived: the kernel's own test of a handshake.
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
      this.#counters.drop("unknown_flow");
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
    const counters = this.#counters;
    const flows = this.#flows;
    const { limits } = this.#options;
    const { addressBytes, transport, end } = this.#packet;
    const route = this.#router.choose(PROTOCOL_TCP, bytes, this.#packet, transport, end);
    if (route === ROUTE_REJECT) this.#reset(bytes);
    if (route === ROUTE_REJECT || route === ROUTE_DROP) return NONE;
    if (flows.sizeOf(FLOW_HALF_OPEN) >= limits.maxHalfOpen) {
      counters.halfOpenEvicted++;
      this.#endFlow(flows.oldest(FLOW_HALF_OPEN), "evicted");
    }
    if (flows.size >= limits.maxFlows && !this.#evictFlow(now)) {
      counters.drop("flow_limit");
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
    this.#counters.flowsEvicted++;
    this.#endFlow(spare, flows.state(spare) === FLOW_CLOSING ? "finished" : "evicted");
    return true;
  }

  /** Updates a flow's state from a segment's flags. */
  #follow(now: number, flow: number, flags: number, fin: number): void {
    const flows = this.#flows;
    if ((flags & TCP_FIN) !== 0) flows.seen[flow] |= fin;
    const isOver =
      (flows.seen[flow] & (FIN_OF_SOURCE | FIN_OF_LISTENER)) === (FIN_OF_SOURCE | FIN_OF_LISTENER);
    if (isOver || (flags & TCP_RST) !== 0) flows.move(now, flow, FLOW_CLOSING);
    else flows.used(now, flow);
  }

  #endFlow(flow: number, reason: FlowEnd): void {
    const isAccepted = this.#flows.accepted[flow] === 1;
    this.#flows.end(flow);
    if (isAccepted) this.#onClosed(flow, reason);
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
      const isPartial = this.#options.virtio && isChecksumPartial(bytes, offset);
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
      this.#counters.packetsOut++;
      this.#writer.batch.add(1, offset, end - offset);
      return;
    }
    const writer = this.#writer;
    const { arena } = writer.batch;
    const to = writer.begin(addressBytes, bytes, this.#packet.source, bytes, this.#packet.destination);
    arena.set(bytes.subarray(transport, end), to);
    // finish() writes the IP header; only its addresses are in place.
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

  /** Answers a segment outside any flow, RFC 9293 §3.10.7.1; the caller has checked its header. */
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
    this.#counters.resets++;
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

  #endIdleFlows(now: number, state: number, idleMs: number, reason: FlowEnd): void {
    const flows = this.#flows;
    for (let flow = flows.idle(now, state, idleMs); flow !== NONE; flow = flows.idle(now, state, idleMs)) {
      this.#endFlow(flow, reason);
    }
  }
}
