/** The reasons of reasons.ts that only tun2socks counts. */
import type { Explanation } from "./reasons.ts";

type Explanations = Readonly<Record<string, Explanation>>;

/** Why IP packets were dropped. */
export const PACKET_DROPS = {
  malformed: {
    meaning: "The packet could not be parsed.",
    remedy: "Find out what sends it: --tap records it.",
  },
  bad_checksum: {
    meaning: "A checksum of the packet is wrong.",
    remedy: "Turn off checksum offloading where the packets come from.",
  },
  /** A source or destination that no packet on a wire may have: loopback, unspecified, a multicast source. */
  martian: {
    meaning: "The packet has an address that must not occur on a network.",
    remedy: "Check the routes to the device.",
  },
  /** From the peer address, which only rewritten packets have. */
  own_source: {
    meaning: "The packet claims to come from the device's peer.",
    remedy:
      "If a host of your network has that address, give the device another --address; otherwise it is forged.",
  },
  /** To the device's own address, which the kernel would have kept. */
  own_destination: {
    meaning: "The packet is for the device's own address.",
    remedy: "If a host of your network has that address, give the device another --address.",
  },
  multicast: {
    meaning: "The packet is multicast or broadcast, which does not enter the tunnel.",
    remedy: "None: discovery and routing protocols send it on every device.",
  },
  hop_limit: { meaning: "The packet's hop limit was used up.", remedy: "Check for a routing loop." },
  protocol: {
    meaning: "The packet is neither TCP, UDP nor an echo request.",
    remedy: "Route what uses other protocols around the device.",
  },
  icmp: {
    meaning: "The packet is an ICMP message that is not answered here.",
    remedy: "None: it concerns no packet that is known here, or asks for something other than an echo.",
  },
  rule_reject: { meaning: "A rule rejects the packet, and the sender is informed.", remedy: "See --rule." },
  rule_drop: { meaning: "A rule drops the packet.", remedy: "See --rule." },
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
    meaning: "TCP in lwIP had reached its memory limit; the application's system repeats the segment.",
    remedy: "Raise --tcp-memory, or find the flows with servers that do not read.",
  },
  flow_limit: { meaning: "The limit of TCP flows was reached.", remedy: "Raise --max-flows." },
  /** From a new source, when too many others were evicted in the same second. */
  association_limit: {
    meaning: "The limit of associations was reached, and too many had been evicted within the second.",
    remedy: "Raise --max-associations, or find the host that sends from so many ports.",
  },
  association_closed: {
    meaning: "The answer arrived for an association that has ended.",
    remedy: "A few are normal. If applications miss answers, raise --idle-timeout or --active-idle-timeout.",
  },
  family: {
    meaning: "The answer has an address family that the device lacks.",
    remedy: "Give the device an --address of each family.",
  },
  too_long: {
    meaning: "The datagram is longer than an IPv4 packet can carry.",
    remedy: "Make what sends it send smaller datagrams.",
  },
  unroutable: {
    meaning: "The packet is for the address of the device's peer, where nothing answers.",
    remedy: "If a host of your network has that address, give the device another --address.",
  },
  reassembly_limit: {
    meaning: "Too many fragments waited for the rest of their packets.",
    remedy: "Make applications send datagrams that fit in a packet; a flood of fragments is an attack.",
  },
  reassembly_timeout: {
    meaning: "The rest of a fragmented packet did not arrive in time.",
    remedy: "Check the way to the device for loss, or make applications send datagrams that fit in a packet.",
  },
  reassembly_overlap: {
    meaning: "Fragments overlap, which is an attack or a fault.",
    remedy: "Find out what sends them: a sound system does not.",
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
    remedy: "Something may be scanning behind the device.",
  },
} as const satisfies Explanations;
