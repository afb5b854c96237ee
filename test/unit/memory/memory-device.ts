import type { PacketBatch } from "../../../src/core/tun2socks/packet-batch.ts";
import type { Device, DeviceEvents } from "../../../src/host/index.ts";

/** A device that native I/O reads. It recognises UDP in packets that are not fragmented. */
export class MemoryDevice implements Device {
  readonly description = "fd:9";
  readonly virtio = false;
  readonly uso = false;
  readonly hasKernel = false;
  readonly descriptor: number;
  readonly events: DeviceEvents;
  /** Packets that its applications have sent and received. */
  readonly sent: Uint8Array[] = [];
  readonly written: Uint8Array[] = [];
  mtu = 0;

  constructor(descriptor: number, events: DeviceEvents) {
    this.descriptor = descriptor;
    this.events = events;
  }

  write(packets: PacketBatch): number {
    for (let i = 0; i < packets.count; i++) {
      const at = packets.offset[i];
      this.written.push(packets.buffer(i).slice(at, at + packets.length[i]));
    }
    return 0;
  }

  async close(): Promise<void> {}
}
