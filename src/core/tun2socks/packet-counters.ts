import { PACKET_DROPS } from "../metrics/packet-reasons.ts";

/** Why packets were dropped. Every drop is counted under one of these. */
export type PacketDropReason = keyof typeof PACKET_DROPS;
export const PACKET_DROP_REASONS = Object.keys(PACKET_DROPS) as readonly PacketDropReason[];

/** Counts since the start. `in`: from the device; `out`: to the device. */
export class PacketCounters {
  packetsIn = 0;
  packetsOut = 0;
  /** UDP payloads from the device into associations, and back. */
  datagramsIn = 0;
  datagramsOut = 0;
  bytesIn = 0;
  bytesOut = 0;
  fragmentsIn = 0;
  /** Packets reassembled from fragments. */
  reassembled = 0;
  associationsOpened = 0;
  associationsEvicted = 0;
  flowsOpened = 0;
  /** Half-open flows that were evicted for newer ones. */
  halfOpenEvicted = 0;
  flowsEvicted = 0;
  echoes = 0;
  resets = 0;
  icmpErrors = 0;
  /** ICMP errors that were not sent because of the rate limit. */
  icmpErrorsLimited = 0;
  readonly drops = Object.fromEntries(PACKET_DROP_REASONS.map((name) => [name, 0])) as Record<
    PacketDropReason,
    number
  >;
  #dropped: PacketDropReason | undefined;

  drop(reason: PacketDropReason): void {
    this.drops[reason]++;
    this.#dropped = reason;
  }

  /** The last reason for a drop since the previous call. */
  takeDropped(): PacketDropReason | undefined {
    const dropped = this.#dropped;
    this.#dropped = undefined;
    return dropped;
  }
}
