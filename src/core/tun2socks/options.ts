import { IPV6_MIN_MTU } from "../../wire/ip/ipv6.ts";
import { sameBytes } from "../../wire/socket-address.ts";
import { UsageError } from "../errors.ts";
import type { Rule } from "./rules.ts";

/** Leaves some ports of the peer address free, so that a new flow finds one quickly. */
const MAX_FLOW_LIMIT = 60_000;

/** Addresses of a device for one family, 4 or 16 bytes each. */
export interface DeviceAddresses {
  /** The device's own address, to which the kernel's listener is bound. */
  readonly own: Uint8Array;
  /**
   * An unused address on the device's network. It stands for all TCP targets in packets written back to the device, and is the source of
   * a router's ICMP errors.
   */
  readonly peer: Uint8Array;
  /** Port of the listener; 0 for none, which refuses TCP unless the host has a stack. */
  readonly listenerPort: number;
}

/** Bounds. Durations are in milliseconds. */
export interface Tun2SocksLimits {
  /** Beyond it, the idlest unanswered association is evicted, or else the idlest of all. */
  readonly maxAssociations: number;
  /** Beyond it, datagrams of new sources are dropped, because a new source costs the tunnel more than a known one. */
  readonly evictionsPerSecond: number;
  /** 1 to 60,000. Beyond it, a flow that is closing, half-open, or idle for ten minutes is evicted; else SYNs are refused. */
  readonly maxFlows: number;
  /** Beyond it, the oldest half-open flow is evicted. */
  readonly maxHalfOpen: number;
  /** Memory for incomplete packets, in bytes. */
  readonly reassemblyBytes: number;
  readonly reassemblyTimeoutMs: number;
  readonly udpIdleMs: number;
  /** For associations that were answered more than once. */
  readonly udpActiveIdleMs: number;
  readonly halfOpenMs: number;
  readonly tcpIdleMs: number;
  readonly icmpErrorsPerSecond: number;
}

/** Bounds that suit most devices. RFC 4787 REQ-5 and RFC 5382 REQ-5 require at least these idle times. */
export const TUN2SOCKS_LIMITS: Tun2SocksLimits = {
  maxAssociations: 16_384,
  evictionsPerSecond: 8_192,
  maxFlows: 16_384,
  maxHalfOpen: 1_024,
  reassemblyBytes: 4 * 1024 * 1024,
  reassemblyTimeoutMs: 30_000,
  udpIdleMs: 60_000,
  udpActiveIdleMs: 300_000,
  halfOpenMs: 30_000,
  tcpIdleMs: 7_440_000,
  icmpErrorsPerSecond: 1_000,
};

export interface Tun2SocksOptions {
  /** MTU of the device, 1280 to 65,535. Longer packets that are built here are fragmented. */
  readonly mtu: number;
  /** undefined if the device has no address of the family; its UDP is served nevertheless. */
  readonly ipv4: DeviceAddresses | undefined;
  readonly ipv6: DeviceAddresses | undefined;
  /** True if each packet, in both directions, is preceded by a virtio-net header (wire/virtio-net). */
  readonly virtio: boolean;
  /**
   * With virtio: true if the device accepts USO packets (Linux 6.2, TUN_F_USO4 and 6). Consecutive replies from one remote
   * to one application then leave as one packet.
   */
  readonly uso: boolean;
  /** True if the host has a TCP stack, which then gets the segments instead of the kernel's listener. */
  readonly hasTcpStack: boolean;
  /** The first match decides. */
  readonly rules: readonly Rule[];
  /** ROUTE_… for UDP that no rule matches. */
  readonly udpRoute: number;
  readonly tcpRoute: number;
  readonly limits: Tun2SocksLimits;
  /** A random 32-bit number, so that nobody can choose colliding addresses. */
  readonly seed: number;
}

/** @throws UsageError ERR_OPTION */
export function checkOptions({ mtu, limits, ipv4, ipv6 }: Tun2SocksOptions): void {
  const wrong = (what: string) => new UsageError("ERR_OPTION", what);
  if (!Number.isInteger(mtu) || mtu < IPV6_MIN_MTU || mtu > 65_535) throw wrong("mtu must be 1280 to 65,535");
  if (limits.maxFlows < 1 || limits.maxFlows > MAX_FLOW_LIMIT) throw wrong("maxFlows must be 1 to 60,000");
  if (limits.maxHalfOpen < 1 || limits.maxAssociations < 1 || limits.evictionsPerSecond < 1)
    throw wrong("a bound is below 1");
  for (const [device, bytes] of [
    [ipv4, 4],
    [ipv6, 16],
  ] as const) {
    if (device === undefined) continue;
    if (device.own.length !== bytes || device.peer.length !== bytes)
      throw wrong("a device address has the wrong length");
    if (sameBytes(device.own, 0, device.peer, 0, bytes)) throw wrong("own and peer address are the same");
  }
}
