import type { IpPacket } from "../../../wire/ip/ip-packet.ts";
import { VIRTIO_NET_HEADER_BYTES } from "../../../wire/ip/virtio-net.ts";
import type { DeviceAddresses, Tun2SocksOptions } from "../options.ts";
import type { PacketCounters } from "../packet-counters.ts";
import type { PacketWriter } from "../packet-writer.ts";
import type { Router } from "../router.ts";
import type { SegmentBatch } from "./segment-batch.ts";
import { FLOW_CLOSING } from "./tcp-flows.ts";
import type { AcceptedFlow, FlowEnd } from "./tcp-segments.ts";
import { TcpSegments } from "./tcp-segments.ts";

const NONE = -1;

/**
 * TCP that a stack of the host terminates: passes it segments, each with the number of its flow. The stack decides when a flow is open and
 * when it has ended; rules and bounds stay here.
 */
export class StackSegments extends TcpSegments {
  readonly #batch: SegmentBatch;

  constructor(
    options: Tun2SocksOptions,
    packet: IpPacket,
    writer: PacketWriter,
    router: Router,
    counters: PacketCounters,
    onClosed: (flow: number, reason: FlowEnd) => void,
    batch: SegmentBatch,
  ) {
    super(options, packet, writer, router, counters, onClosed);
    this.#batch = batch;
  }

  /** As {@link Tun2Socks.acceptStackFlow}. */
  accept(now: number, flow: number): AcceptedFlow | undefined {
    return this.acceptFlow(now, flow);
  }

  /** As {@link Tun2Socks.forgetFlow}. */
  forget(flow: number): void {
    if (this.flows.state(flow) === NONE) return;
    this.flows.end(flow);
    this.flows.release(flow);
  }

  protected override handleSegment(
    now: number,
    bytes: Uint8Array,
    offset: number,
    _device: DeviceAddresses | undefined,
    isForPeer: boolean,
  ): void {
    if (isForPeer) {
      this.counters.drop("unroutable");
      this.reset(bytes);
      return;
    }
    const flow = this.findFlow(now, bytes);
    if (flow === NONE) return;
    // A flow that the host has closed lasts until the stack forgets it.
    if (this.flows.state(flow) !== FLOW_CLOSING) this.flows.used(now, flow);
    const { start, transport, end } = this.packet;
    if (offset !== NONE) this.#batch.add(flow, offset, transport, end);
    else
      this.#batch.addCopy(
        flow,
        bytes,
        start,
        transport,
        end,
        this.options.virtio ? VIRTIO_NET_HEADER_BYTES : 0,
      );
  }

  /** The stack knows each flow from its first segment on. */
  protected override isKnownElsewhere(): boolean {
    return true;
  }
}
