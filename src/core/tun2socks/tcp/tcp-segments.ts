import type { IpPacket } from "../../../wire/ip/ip-packet.ts";
import { PROTOCOL_TCP } from "../../../wire/ip/ip-packet.ts";
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
} from "../../../wire/ip/tcp.ts";
import { readUint16 } from "../../../wire/network-order.ts";
import type { AddressBytes } from "../../../wire/socket-address.ts";
import type { DeviceAddresses, Tun2SocksOptions } from "../options.ts";
import type { PacketCounters } from "../packet-counters.ts";
import type { PacketWriter } from "../packet-writer.ts";
import type { Router } from "../router.ts";
import { ROUTE_DROP, ROUTE_REJECT } from "../rules.ts";
import { FLOW_CLOSING, FLOW_HALF_OPEN, FLOW_OPEN, TcpFlows } from "./tcp-flows.ts";

const NONE = -1;
/** Idle time after which an open flow may be evicted if there are too many, in milliseconds. */
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

/** The TCP part of {@link Tun2Socks}: finds or opens the flow of each segment. Subclasses pass it to what terminates TCP. */
export abstract class TcpSegments {
  protected readonly options: Tun2SocksOptions;
  protected readonly packet: IpPacket;
  protected readonly writer: PacketWriter;
  protected readonly counters: PacketCounters;
  protected readonly flows: TcpFlows;
  readonly #router: Router;
  readonly #onClosed: (flow: number, reason: FlowEnd) => void;
  readonly #key = new Uint8Array(36);

  /**
   * @param packet    the view of the packet that {@link handle} gets
   * @param onClosed  called when an accepted flow is forgotten; {@link release} then frees its slot
   */
  constructor(
    options: Tun2SocksOptions,
    packet: IpPacket,
    writer: PacketWriter,
    router: Router,
    counters: PacketCounters,
    onClosed: (flow: number, reason: FlowEnd) => void,
  ) {
    this.options = options;
    this.packet = packet;
    this.writer = writer;
    this.#router = router;
    this.counters = counters;
    this.#onClosed = onClosed;
    this.flows = new TcpFlows(options.seed);
  }

  get size(): number {
    return this.flows.size;
  }

  get halfOpenCount(): number {
    return this.flows.sizeOf(FLOW_HALF_OPEN);
  }

  /**
   * Handles a segment whose IP header was checked.
   *
   * @param offset     offset of the virtio-net header or the packet in the caller's data; -1 for a reassembled packet
   * @param isForPeer  whether the destination is the device's peer address
   */
  handle(
    now: number,
    bytes: Uint8Array,
    offset: number,
    device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void {
    const { transport, end } = this.packet;
    const headerBytes = end - transport < TCP_HEADER_BYTES ? 0 : tcpHeaderLength(bytes, transport);
    if (headerBytes < TCP_HEADER_BYTES || transport + headerBytes > end) this.counters.drop("malformed");
    else this.handleSegment(now, bytes, offset, device, isForPeer);
  }

  /** Handles a segment whose TCP header has been checked to be complete. */
  protected abstract handleSegment(
    now: number,
    bytes: Uint8Array,
    offset: number,
    device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void;

  /** As {@link Tun2Socks.endFlow}. */
  end(now: number, flow: number): void {
    if (this.flows.state(flow) === NONE || this.flows.accepted[flow] === 0) return;
    this.flows.accepted[flow] = 0;
    this.flows.move(now, flow, FLOW_CLOSING);
  }

  /** Frees the slot of a flow that was reported as closed. */
  release(flow: number): void {
    this.flows.release(flow);
  }

  /** Forgets flows that have timed out. */
  sweep(now: number): void {
    const { halfOpenMs, tcpIdleMs } = this.options.limits;
    this.endIdleFlows(now, FLOW_HALF_OPEN, halfOpenMs, "idle");
    this.endIdleFlows(now, FLOW_OPEN, tcpIdleMs, "idle");
  }

  /** The flow of a segment from an application; -1 if there is none, in which case the segment was answered and counted. */
  protected findFlow(now: number, bytes: Uint8Array): number {
    const { flows } = this;
    const { transport, source, addressBytes } = this.packet;
    const flags = tcpFlags(bytes, transport);
    const isSyn = (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) === TCP_SYN;
    const hasKey = transport === source + 2 * addressBytes;
    const key = hasKey ? bytes : this.#key;
    const keyAt = hasKey ? source : 0;
    if (!hasKey) {
      for (let i = 0; i < 2 * addressBytes; i++) key[i] = bytes[source + i];
      for (let i = 0; i < 4; i++) key[2 * addressBytes + i] = bytes[transport + i];
    }
    const flow = flows.find(key, keyAt, addressBytes);
    const isNew = flow !== NONE && isSyn && flows.state(flow) === FLOW_CLOSING;
    if (flow !== NONE && !isNew) return flow;
    if (isNew) this.endFlow(flow, "finished");
    if (isSyn) return this.#openFlow(now, bytes, key, keyAt);
    this.counters.drop("unknown_flow");
    this.reset(bytes);
    return NONE;
  }

  /** Passes an open or half-open flow to the host, unless the host already has it. */
  protected acceptFlow(now: number, flow: number): AcceptedFlow | undefined {
    const { flows } = this;
    if (flows.state(flow) === NONE || flows.accepted[flow] === 1) return undefined;
    flows.accepted[flow] = 1;
    if (flows.state(flow) === FLOW_HALF_OPEN) flows.move(now, flow, FLOW_OPEN);
    return { flow, source: flows.source(flow), target: flows.target(flow), route: flows.route[flow] };
  }

  /** @returns the slot, or -1 if the SYN was refused or dropped */
  #openFlow(now: number, bytes: Uint8Array, key: Uint8Array, keyAt: number): number {
    const counters = this.counters;
    const flows = this.flows;
    const { limits } = this.options;
    const { addressBytes, transport, end } = this.packet;
    const route = this.#router.choose(PROTOCOL_TCP, bytes, this.packet, transport, end);
    if (route === ROUTE_REJECT) this.reset(bytes);
    if (route === ROUTE_REJECT || route === ROUTE_DROP) return NONE;
    if (flows.sizeOf(FLOW_HALF_OPEN) >= limits.maxHalfOpen) {
      counters.halfOpenEvicted++;
      this.endFlow(flows.oldest(FLOW_HALF_OPEN), "evicted");
    }
    if (flows.size >= limits.maxFlows && !this.#evictFlow(now)) {
      counters.drop("flow_limit");
      this.reset(bytes);
      return NONE;
    }
    counters.flowsOpened++;
    return flows.open(now, key, keyAt, addressBytes, route);
  }

  #evictFlow(now: number): boolean {
    const flows = this.flows;
    let spare = flows.oldest(FLOW_CLOSING);
    if (spare === NONE) spare = flows.oldest(FLOW_HALF_OPEN);
    if (spare === NONE) spare = flows.idle(now, FLOW_OPEN, SPARE_IDLE_MS);
    if (spare === NONE) return false;
    this.counters.flowsEvicted++;
    this.endFlow(spare, flows.state(spare) === FLOW_CLOSING ? "finished" : "evicted");
    return true;
  }

  /** Forgets a flow, and reports that if the host or the stack knows the flow. */
  protected endFlow(flow: number, reason: FlowEnd): void {
    const isKnown = this.isKnownElsewhere(flow);
    this.flows.end(flow);
    if (isKnown) this.#onClosed(flow, reason);
    else this.flows.release(flow);
  }

  /** Whether the end of a flow has to be reported. */
  protected isKnownElsewhere(flow: number): boolean {
    return this.flows.accepted[flow] === 1;
  }

  /** Answers a segment outside any flow, RFC 9293 §3.10.7.1; the caller has checked its header. */
  protected reset(bytes: Uint8Array): void {
    const { transport, end, source, destination, addressBytes } = this.packet;
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
    this.writer.writeSegment(
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

  protected endIdleFlows(now: number, state: number, idleMs: number, reason: FlowEnd): void {
    const flows = this.flows;
    for (let flow = flows.idle(now, state, idleMs); flow !== NONE; flow = flows.idle(now, state, idleMs)) {
      this.endFlow(flow, reason);
    }
  }
}
