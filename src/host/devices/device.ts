import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";

/** A source and sink of IP packets, in batches. */
export interface Device {
  /** `tun:NAME` or similar, with the actual name. */
  readonly description: string;
  /** True if a virtio-net header (wire/virtio-net) precedes each packet, both ways. */
  readonly virtio: boolean;
  /** With virtio: true if it accepts USO packets. */
  readonly uso: boolean;
  /** True if the kernel's own stack is behind it, which receives packets written to the device's addresses. */
  readonly hasKernel: boolean;
  /** Writes all packets, whose memory is borrowed until it returns. @returns how many were dropped */
  write(packets: PacketBatch): number;
  /**
   * True while packets that can wait should wait; {@link DeviceEvents.onWritable} follows. Undefined if it always accepts packets.
   */
  isBlocked?(): boolean;
  /** The device's descriptor in native I/O, which may carry its flows by itself. */
  readonly descriptor?: number;
  /** @returns how many packets of such flows were dropped, and not returned by {@link write} */
  takeDropped?(): number;
  /** Undefined if it has no effect. */
  setLatency?(latency: LatencyClass): void;
  close(): Promise<void>;
}

export interface DeviceEvents {
  /** Packets, in writable memory that is borrowed until the call returns. */
  readonly onPackets: OnPackets;
  /** The device is no longer blocked. */
  readonly onWritable: () => void;
  /** The device is gone for good. */
  readonly onEnd: (error: Error | undefined) => void;
  /** Nothing more is accepted at a device that others connect to. */
  readonly onListenerFailed: (error: Error) => void;
}

/** A device of the embedding program. */
export interface CustomDevice {
  /** Called once; `onPackets` may be called from then on, whenever packets arrive. */
  start(onPackets: OnPackets): void;
  /** Writes packets, whose memory is borrowed until it returns. */
  write(packets: PacketBatch): void;
  close?(): void | Promise<void>;
}

/** @see CustomDevice */
export function openCustomDevice(custom: CustomDevice, { onPackets }: DeviceEvents): Device {
  custom.start(onPackets);
  return {
    description: "the caller's device",
    virtio: false,
    uso: false,
    hasKernel: false,
    write: (packets) => {
      custom.write(packets);
      return 0;
    },
    close: async () => custom.close?.(),
  };
}
