import { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { SegmentBatch } from "../../core/tun2socks/tcp/segment-batch.ts";
import type { NativeModule } from "../io/native-module.ts";
import { lazyMemory } from "../io/native-module.ts";

/** What happened to a flow: numbers of a row of events. */
export const STACK_ACCEPTED = 0;
export const STACK_BYTES = 1;
export const STACK_ENDED = 2;
export const STACK_WRITABLE = 3;
export const STACK_CLOSED = 4;
export const STACK_EVENT_INTS = 4;

const PACKETS = 2048;
const PACKET_BYTES = 2 * 1024 * 1024;
const RECEIVED_BYTES = 1024 * 1024;
const EVENTS = 512;

/** The counts of {@link NativeModule.tcpStackCounts}, in their order. */
export const STACK_COUNTS = ["bad_checksum", "malformed", "stack_memory", "resets", "packetsOut"] as const;

export interface TcpStackOptions {
  readonly mtu: number;
  /** Packets have virtio-net headers. */
  readonly virtio: boolean;
  readonly maxFlows: number;
  /** Limit for its connections and all data that waits in it. */
  readonly memoryBytes: number;
  /** 16 random bytes. */
  readonly secret: Uint8Array;
}

/** The native module's TCP. It terminates the connections of a device that has no kernel behind it. */
export class TcpStack {
  readonly native: NativeModule;
  readonly id: number;
  /** Packets for the device, after {@link pollPackets}. */
  readonly packets = new PacketBatch(PACKETS, PACKET_BYTES);
  /** Rows of {@link STACK_EVENT_INTS}, after {@link pollEvents}: flow, what, and two numbers. */
  readonly events = new Int32Array(EVENTS * STACK_EVENT_INTS);
  /** Bytes that flows have received, to which those rows refer. */
  readonly received: Uint8Array;
  readonly #counts = new Float64Array(STACK_COUNTS.length);

  constructor(native: NativeModule, options: TcpStackOptions) {
    const { mtu, virtio, maxFlows, memoryBytes, secret } = options;
    const { packets, events } = this;
    this.native = native;
    this.received = lazyMemory(native, RECEIVED_BYTES);
    const { arena, offset, length } = packets;
    this.id = native.tcpStackOpen!(
      mtu,
      virtio,
      maxFlows,
      memoryBytes,
      secret,
      arena,
      offset,
      length,
      this.received,
      events,
    );
  }

  /** Takes the segments of a batch, changes their memory, and clears the batch. */
  handleSegments(now: number, segments: SegmentBatch, input: Uint8Array): void {
    const { native, id } = this;
    const { rows, count, copyRows, copyCount, copies } = segments;
    if (count > 0) native.tcpStackSegments!(id, now, input, rows, count);
    if (copyCount > 0) native.tcpStackSegments!(id, now, copies, copyRows, copyCount);
    segments.clear();
  }

  handleTimeout(now: number): void {
    this.native.tcpStackTimeout!(this.id, now);
  }

  /** @returns Infinity for never */
  nextTimeout(): number {
    return this.native.tcpStackNextTimeout!(this.id);
  }

  /** Puts packets into {@link packets}, in place of those of the last call. @returns their number */
  pollPackets(): number {
    const count = this.native.tcpStackPollPackets!(this.id);
    this.packets.count = count;
    return count;
  }

  /** Puts rows into {@link events}. @returns their number */
  pollEvents(): number {
    return this.native.tcpStackPollEvents!(this.id);
  }

  /** Forgets a flow at once; no more events of it follow. */
  drop(flow: number, hasReset: boolean): void {
    this.native.tcpStackDrop!(this.id, flow, hasReset);
  }

  counts(): Readonly<Record<(typeof STACK_COUNTS)[number], number>> {
    this.native.tcpStackCounts!(this.id, this.#counts);
    const [bad_checksum, malformed, stack_memory, resets, packetsOut] = this.#counts;
    return { bad_checksum, malformed, stack_memory, resets, packetsOut };
  }

  close(): void {
    this.native.tcpStackFree!(this.id);
  }
}
