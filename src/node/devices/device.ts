import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";

/** Where IP packets come from and go to, in batches. */
export interface Device {
  /** `tun:NAME` and the like, with the name as it is. */
  readonly description: string;
  /** Whether a virtio-net header (wire/virtio-net) precedes each packet, both ways. */
  readonly virtio: boolean;
  /** With virtio: whether it takes USO packets. */
  readonly uso: boolean;
  /** Whether the kernel's own stack is behind it, and takes what is written to the device's addresses. */
  readonly hasKernel: boolean;
  /** Takes all packets; their memory is borrowed until it returns. @returns how many were dropped */
  write(packets: PacketBatch): number;
  close(): Promise<void>;
}

export interface DeviceEvents {
  /** Packets, in memory that may be written to and is borrowed until it returns. */
  readonly onPackets: OnPackets;
  /** The device is gone for good. */
  readonly onEnd: (error: Error | undefined) => void;
}

/** A device of the embedding program. */
export interface CustomDevice {
  /** Called once; `onPackets` may be called from then on, whenever packets are there. */
  start(onPackets: OnPackets): void;
  /** Takes packets; their memory is borrowed until it returns. */
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
