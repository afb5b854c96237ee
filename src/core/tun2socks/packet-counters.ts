/** Why packets were dropped. Every drop is counted under one of these. */
export const PACKET_DROP_REASONS = [
  "malformed",
  "bad_checksum",
  /** A source or destination that no packet on a wire may have: loopback, unspecified, a multicast source. */
  "martian",
  /** From the peer address, which only rewritten packets have. */
  "own_source",
  /** To the device's own address, which the kernel would have kept. */
  "own_destination",
  "multicast",
  "hop_limit",
  "protocol",
  "icmp",
  "rule_reject",
  "rule_drop",
  "route_down",
  "no_listener",
  "unknown_flow",
  "flow_limit",
  /** From a new source, when too many others were evicted in the same second. */
  "association_limit",
  "association_closed",
  "family",
  "too_long",
  "unroutable",
  "reassembly_limit",
  "reassembly_timeout",
  "reassembly_overlap",
] as const;
export type PacketDropReason = (typeof PACKET_DROP_REASONS)[number];

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
}
