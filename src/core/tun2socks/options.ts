import { IPV6_MIN_MTU } from "../../wire/ipv6.ts";
import { sameBytes } from "../../wire/socket-address.ts";
import { UsageError } from "../errors.ts";
import type { Rule } from "./rules.ts";
import { MAX_FLOWS } from "./tcp-flows.ts";

/** Addresses of a device for one family, 4 or 16 bytes each. */
export interface DeviceAddresses {
  /** The device's own address: the kernel's listener is bound to it. */
  readonly own: Uint8Array;
  /**
   * An address on the device's network that no host has. It stands for all targets of TCP in what is written back to
   * the device, and is where ICMP errors of a router come from.
   */
  readonly peer: Uint8Array;
  /** Port of the listener; 0 for none: then TCP is refused. */
  readonly listenerPort: number;
}

/** Bounds. Durations in milliseconds. */
export interface Tun2SocksLimits {
  /** Past it, the association that is unanswered, then the one that was idle longest, gives way. */
  readonly maxAssociations: number;
  /** So many give way; past it, datagrams of new sources are dropped, as each costs the tunnel more than one that is known. */
  readonly evictionsPerSecond: number;
  /** 1 to 60,000. Past it, flows that are closing, half-open, or idle for ten minutes give way; else SYNs are refused. */
  readonly maxFlows: number;
  /** Past it, the oldest half-open flow gives way. */
  readonly maxHalfOpen: number;
  /** Memory for packets of which fragments are missing. */
  readonly reassemblyBytes: number;
  readonly reassemblyTimeoutMs: number;
  readonly udpIdleMs: number;
  /** For associations that were answered more than once. */
  readonly udpActiveIdleMs: number;
  readonly halfOpenMs: number;
  readonly tcpIdleMs: number;
  readonly icmpErrorsPerSecond: number;
}

/** What fits most devices. RFC 4787 REQ-5 and RFC 5382 REQ-5 ask for no less than these idle times. */
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
  /** Of the device, 1280 to 65,535: packets built here are fragmented above it. */
  readonly mtu: number;
  /** undefined where the device has no address of the family; its UDP is served all the same. */
  readonly ipv4: DeviceAddresses | undefined;
  readonly ipv6: DeviceAddresses | undefined;
  /** Whether each packet, in both directions, is preceded by a virtio-net header (wire/virtio-net). */
  readonly virtio: boolean;
  /**
   * With virtio: whether the device takes USO packets (Linux 6.2, TUN_F_USO4 and 6). Replies in a row to one application
   * from one remote then leave as one packet.
   */
  readonly uso: boolean;
  /** First match decides. */
  readonly rules: readonly Rule[];
  /** ROUTE_… for what no rule matches. */
  readonly udpRoute: number;
  readonly tcpRoute: number;
  readonly limits: Tun2SocksLimits;
  /** A random 32-bit number, so that nobody can choose addresses that collide. */
  readonly seed: number;
}

/** @throws UsageError ERR_OPTION */
export function checkOptions({ mtu, limits, ipv4, ipv6 }: Tun2SocksOptions): void {
  const wrong = (what: string) => new UsageError("ERR_OPTION", what);
  if (!Number.isInteger(mtu) || mtu < IPV6_MIN_MTU || mtu > 65_535) throw wrong("mtu is 1280 to 65,535");
  if (limits.maxFlows < 1 || limits.maxFlows > MAX_FLOWS - 4_512) throw wrong("maxFlows is 1 to 60,000");
  if (limits.maxHalfOpen < 1 || limits.maxAssociations < 1 || limits.evictionsPerSecond < 1)
    throw wrong("a bound below 1");
  for (const [device, bytes] of [
    [ipv4, 4],
    [ipv6, 16],
  ] as const) {
    if (device === undefined) continue;
    if (device.own.length !== bytes || device.peer.length !== bytes) throw wrong("a device address's length");
    if (sameBytes(device.own, 0, device.peer, 0, bytes)) throw wrong("own and peer address are one");
  }
}
