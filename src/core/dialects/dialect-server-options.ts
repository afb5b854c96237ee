import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Filtering } from "../server/server-associations.ts";
import type { DialectLinkLimits } from "./dialect-link.ts";

/** All durations in milliseconds, sizes in bytes. */
export interface DialectServerOptions extends DialectLinkLimits {
  /** The target of datagrams in dialects without addresses: an IP address or a name. */
  readonly target: AddressBytes | undefined;
  /** The server's resolver, which gets the datagrams of flows for DNS. */
  readonly nameserver: AddressBytes | undefined;
  /** Whether clients may send to an IPv4 or IPv6 address. */
  readonly permits: (target: AddressBytes) => boolean;
  /** Whether this server resolves names. If not, datagrams to names are passed on as they are, for another server to resolve. */
  readonly resolvesNames: boolean;
  /** Which senders a flow with many addresses accepts. */
  readonly filtering: Filtering;
  /** Past this bound the idlest connection ends. */
  readonly maxConnections: number;
  /** Bound of the connections in their SOCKS5 handshake. Past it, the oldest ends. */
  readonly maxHalfOpen: number;
  /** Bound for all connections together. Past it, a connection that opens a flow loses its idlest; if it has none, the one with most does. */
  readonly maxFlows: number;
  /** Bound for one connection. Past it, the connection loses its idlest flow. */
  readonly maxFlowsPerConnection: number;
  /** Bound of the remote addresses of one connection. Past it, the idlest is forgotten. */
  readonly maxRemotes: number;
  readonly handshakeTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** A random 32-bit number. */
  readonly seed: number;
  readonly unixSeconds: () => number;
}
