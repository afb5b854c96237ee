import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Filtering } from "../server/server-associations.ts";
import type { DialectLinkLimits } from "./dialect-link.ts";

/** All durations in milliseconds, sizes in bytes. */
export interface DialectServerOptions extends DialectLinkLimits {
  /** The target of dialects without addresses: an IP or a name. */
  readonly target: AddressBytes | undefined;
  /** The server's own resolver, for datagrams that are for it. */
  readonly nameserver: AddressBytes | undefined;
  /** True if an IPv4 or IPv6 address may be sent to. */
  readonly permits: (target: AddressBytes) => boolean;
  /** False: datagrams to names are passed on as such, for another server to resolve. */
  readonly resolvesNames: boolean;
  /** Which senders are heard by flows with many addresses. */
  readonly filtering: Filtering;
  /** Past it, the connection that has been idle longest ends. */
  readonly maxConnections: number;
  /** Connections in their SOCKS5 handshake. Past it, the oldest ends. */
  readonly maxHalfOpen: number;
  /** Of all connections. Past it, a connection that opens one loses its idlest; one that has none makes the one with most do so. */
  readonly maxFlows: number;
  /** Of one connection. Past it, it loses its idlest. */
  readonly maxFlowsPerConnection: number;
  /** Remote addresses of one connection. Past it, the idlest is forgotten. */
  readonly maxRemotes: number;
  readonly handshakeTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** A random 32-bit number. */
  readonly seed: number;
  readonly unixSeconds: () => number;
}
