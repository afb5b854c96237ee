/** The reasons of reasons.ts that only tun2socks counts. */
import type { Explanation } from "./reasons.ts";

type Explanations = Readonly<Record<string, Explanation>>;

/** Why IP packets were dropped. */
export const PACKET_DROPS = {
  malformed: {
    meaning: "The packet could not be parsed.",
    remedy: "Find the sender with --tap, which records such packets.",
  },
  bad_checksum: {
    meaning: "The packet has a wrong checksum.",
    remedy: "Turn off checksum offloading on the host that sends the packets.",
  },
  /** A source or destination that no packet on a wire may have: loopback, unspecified, a multicast source. */
  martian: {
    meaning: "The packet has an address that must not occur on a network.",
    remedy: "Check the routes to the device.",
  },
  /** From the peer address, which only rewritten packets have. */
  own_source: {
    meaning: "The packet's source is the address of the device's peer.",
    remedy:
      "If a host on your network has that address, give the device another --address. Otherwise the packet is forged.",
  },
  /** To the device's own address, which the kernel would have kept. */
  own_destination: {
    meaning: "The packet is addressed to the device itself.",
    remedy: "If a host on your network has that address, give the device another --address.",
  },
  multicast: {
    meaning: "The packet is multicast or broadcast, which the tunnel does not carry.",
    remedy: "None: discovery and routing protocols send such packets on every device.",
  },
  hop_limit: { meaning: "The packet's hop limit (TTL) had run out.", remedy: "Check for a routing loop." },
  protocol: {
    meaning: "The packet is neither TCP, UDP nor an echo request.",
    remedy: "Route traffic of other protocols around the device.",
  },
  icmp: {
    meaning: "The packet is an ICMP message that this program does not handle.",
    remedy: "None: the message refers to an unknown packet, or is a request other than echo.",
  },
  rule_reject: { meaning: "A rule rejected the packet, and the sender was told.", remedy: "See --rule." },
  rule_drop: { meaning: "A rule dropped the packet.", remedy: "See --rule." },
  route_down: {
    meaning: "The way that the rules select is down.",
    remedy: "Check the tunnel's session or the SOCKS5 server.",
  },
  no_listener: { meaning: "No way for TCP is configured.", remedy: "Set --tcp-via." },
  unknown_flow: {
    meaning: "The segment belongs to no TCP flow.",
    remedy: "A few after a restart are normal.",
  },
  stack_memory: {
    meaning: "The TCP stack had reached its memory limit; the application's system sends the segment again.",
    remedy: "Raise --tcp-memory, or find the flows whose servers do not read.",
  },
  flow_limit: { meaning: "The limit of TCP flows was reached.", remedy: "Raise --max-flows." },
  /** From a new source, when too many others were evicted in the same second. */
  association_limit: {
    meaning: "The limit of associations was reached, and too many had been evicted within the second.",
    remedy: "Raise --max-associations, or find the host that sends from so many ports.",
  },
  association_closed: {
    meaning: "The answer was for an association that had ended.",
    remedy: "A few are normal. If applications miss answers, raise --idle-timeout or --active-idle-timeout.",
  },
  family: {
    meaning: "The device has no address of the answer's family.",
    remedy: "Give the device an --address of each family.",
  },
  too_long: {
    meaning: "The datagram is longer than an IPv4 packet can carry.",
    remedy: "Configure the sender to use smaller datagrams.",
  },
  unroutable: {
    meaning: "The packet is addressed to the device's peer, where nothing answers.",
    remedy: "If a host on your network has that address, give the device another --address.",
  },
  reassembly_limit: {
    meaning: "Too many fragments waited for the rest of their packets.",
    remedy:
      "Configure applications to send datagrams that fit into one packet. A flood of fragments is an attack.",
  },
  reassembly_timeout: {
    meaning: "The rest of a fragmented packet did not arrive in time.",
    remedy:
      "Check the path to the device for loss, or configure applications to send datagrams that fit into one packet.",
  },
  reassembly_overlap: {
    meaning: "Fragments overlap, which indicates an attack or a fault.",
    remedy: "Find the sender: a correct network stack never sends overlapping fragments.",
  },
} as const satisfies Explanations;

/** Counted by the host, beside core's reasons. */
export const DEVICE_DROPS = {
  device: { meaning: "The device did not accept the packet.", remedy: "Raise the device's txqueuelen." },
} as const satisfies Explanations;

/** What was evicted at a bound. */
export const EVICTIONS = {
  associationsEvicted: {
    meaning: "An association ended early to make room for a new one.",
    remedy: "Raise --max-associations if applications notice.",
  },
  flowsEvicted: {
    meaning: "A TCP flow that was closing or idle ended early to make room.",
    remedy: "Raise --max-flows if applications notice.",
  },
  halfOpenEvicted: {
    meaning: "A half-open TCP flow ended early to make room.",
    remedy: "Look for a host behind the device that scans addresses or ports.",
  },
} as const satisfies Explanations;
