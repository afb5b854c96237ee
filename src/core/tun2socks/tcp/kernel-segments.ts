import { PROTOCOL_TCP } from "../../../wire/ip/ip-packet.ts";
import {
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
  tcpAcknowledgment,
  tcpFlags,
  tcpSequence,
} from "../../../wire/ip/tcp.ts";
import { readUint16 } from "../../../wire/network-order.ts";
import type { DeviceAddresses } from "../options.ts";
import { isAddress, isChecksumPartial } from "../packet-checks.ts";
import { rewriteSegment } from "./segment-rewrite.ts";
import {
  FIN_OF_LISTENER,
  FIN_OF_SOURCE,
  FLOW_CLOSING,
  FLOW_HALF_OPEN,
  FLOW_OPEN,
  SYN_OF_LISTENER,
} from "./tcp-flows.ts";
import type { AcceptedFlow } from "./tcp-segments.ts";
import { TcpSegments } from "./tcp-segments.ts";

const NONE = -1;
/** How long a flow is kept after both FINs or a RST, for segments still in flight; the same as TIME-WAIT in Linux. */
const CLOSING_MS = 60_000;

/** TCP that the kernel terminates: rewrites segments so that the kernel's listener accepts them, and rewrites its answers back. */
export class KernelSegments extends TcpSegments {
  /** As {@link Tun2Socks.acceptFlow}. */
  accept(now: number, family: 4 | 6, peerPort: number): AcceptedFlow | undefined {
    const flow = this.flows.findPort(family === 4 ? 4 : 16, peerPort);
    return this.acceptFlow(now, flow ?? NONE);
  }

  /** As {@link Tun2Socks.refuseFlow}. */
  refuse(flow: number): boolean {
    if (this.flows.state(flow) === NONE || this.flows.accepted[flow] === 0) return true;
    if (!this.writer.hasRoom()) return false;
    const key = this.flows.key(flow);
    const addressBytes = this.flows.addressBytes(flow);
    const ports = 2 * addressBytes;
    this.counters.resets++;
    this.writer.writeSegment(
      addressBytes,
      key,
      addressBytes,
      readUint16(key, ports + 2),
      key,
      0,
      readUint16(key, ports),
      this.flows.expected[flow],
      0,
      TCP_RST,
    );
    this.flows.end(flow);
    this.flows.release(flow);
    return true;
  }

  override sweep(now: number): void {
    super.sweep(now);
    this.endIdleFlows(now, FLOW_CLOSING, CLOSING_MS, "finished");
  }

  protected override handleSegment(
    now: number,
    bytes: Uint8Array,
    offset: number,
    device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void {
    if (device === undefined || device.listenerPort === 0) {
      this.counters.drop("no_listener");
      this.reset(bytes);
      return;
    }
    if (!isForPeer) {
      this.#handleSegmentOfSource(now, bytes, offset, device);
      return;
    }
    const isFromListener =
      readUint16(bytes, this.packet.transport) === device.listenerPort &&
      isAddress(device.own, bytes, this.packet.source);
    if (isFromListener) this.#handleSegmentOfListener(now, bytes, offset);
    else {
      this.counters.drop("unroutable");
      this.reset(bytes);
    }
  }

  #handleSegmentOfSource(now: number, bytes: Uint8Array, offset: number, device: DeviceAddresses): void {
    const { flows } = this;
    const { transport } = this.packet;
    const flow = this.findFlow(now, bytes);
    if (flow === NONE) return;
    const flags = tcpFlags(bytes, transport);
    if ((flags & TCP_ACK) !== 0) {
      const acknowledgment = tcpAcknowledgment(bytes, transport);
      // The acknowledgment proves that the listener's SYN arrived; the kernel tests a handshake in the same way.
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
    const flows = this.flows;
    const { transport, addressBytes } = this.packet;
    const flow = flows.findPort(addressBytes, readUint16(bytes, transport + 2));
    if (flow === NONE) {
      this.counters.drop("unknown_flow");
      this.reset(bytes);
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

  /** Updates a flow's state from a segment's flags. */
  #follow(now: number, flow: number, flags: number, fin: number): void {
    const flows = this.flows;
    if ((flags & TCP_FIN) !== 0) flows.seen[flow] |= fin;
    const isOver =
      (flows.seen[flow] & (FIN_OF_SOURCE | FIN_OF_LISTENER)) === (FIN_OF_SOURCE | FIN_OF_LISTENER);
    if (isOver || (flags & TCP_RST) !== 0) flows.move(now, flow, FLOW_CLOSING);
    else flows.used(now, flow);
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
    const { start, transport, end, addressBytes } = this.packet;
    if (offset !== NONE) {
      const isPartial = this.options.virtio && isChecksumPartial(bytes, offset);
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
      this.writer.batch.add(1, offset, end - offset);
      return;
    }
    const writer = this.writer;
    const { arena } = writer.batch;
    const to = writer.begin(addressBytes, bytes, this.packet.source, bytes, this.packet.destination);
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
}
