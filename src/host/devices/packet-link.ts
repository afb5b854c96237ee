import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";

/** A connection to a device elsewhere. */
export interface PacketLink {
  /** Writes all packets, whose memory is borrowed until it returns. @returns how many were dropped */
  write(packets: PacketBatch): number;
  close(): Promise<void>;
}
