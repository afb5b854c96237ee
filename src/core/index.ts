/** The protocol without I/O, for hosts other than Node: the exports of `underpass/core`. */
export type { UnreachableKind } from "../wire/capsule.ts";
export type { LatencyClass } from "../wire/latency-class.ts";
export type { AddressBytes } from "../wire/socket-address.ts";
export { copyAddress, formatAddress, makeAddress } from "../wire/socket-address.ts";
export { TunnelClient } from "./client/client.ts";
export type { ClientOutput, TunnelClientOptions } from "./client/client-parts.ts";
export type { Way } from "./client/ways/way-race.ts";
export type { DropReason, RefusalReason, UnreachableCount } from "./counters.ts";
export { Counters, DROP_REASONS, REFUSAL_REASONS, UNREACHABLE_COUNTS } from "./counters.ts";
export type { ErrorCode } from "./errors.ts";
export { ERROR_CODES, HostError, ProtocolError, UsageError } from "./errors.ts";
export type { Cryptography } from "./handshakes/credentials.ts";
export { HttpConnect } from "./handshakes/http-connect.ts";
export { Socks5Client } from "./handshakes/socks5-client.ts";
export type { Socks5Credentials, Socks5ServerOutput } from "./handshakes/socks5-server.ts";
export { Socks5ServerConnection } from "./handshakes/socks5-server.ts";
export { TunnelServer } from "./server/server.ts";
export type { Filtering } from "./server/server-associations.ts";
export type { TunnelServerOptions } from "./server/server-options.ts";
export type { ServerOutput } from "./server/server-output.ts";
export type { ContextTable } from "./session/context-table.ts";
export type { DatagramBatch } from "./session/datagram-batch.ts";
export type { LatencyRule } from "./session/latency-rules.ts";
export { parseLatencyRule } from "./session/latency-rules.ts";
export type { DeviceAddresses, Tun2SocksLimits, Tun2SocksOptions } from "./tun2socks/options.ts";
export { TUN2SOCKS_LIMITS } from "./tun2socks/options.ts";
export type { InnerDatagramBatch, PacketBatch } from "./tun2socks/packet-batch.ts";
export { ADDRESS_STRIDE } from "./tun2socks/packet-batch.ts";
export type { PacketDropReason } from "./tun2socks/packet-counters.ts";
export { PACKET_DROP_REASONS, PacketCounters } from "./tun2socks/packet-counters.ts";
export type { Rule } from "./tun2socks/rules.ts";
export {
  MAX_SOCKS_ROUTES,
  parseRule,
  ROUTE_DIRECT,
  ROUTE_DROP,
  ROUTE_REJECT,
  ROUTE_SOCKS,
  ROUTE_TUNNEL,
} from "./tun2socks/rules.ts";
export type { AcceptedFlow } from "./tun2socks/tcp/tcp-segments.ts";
export type { Tun2SocksOutput } from "./tun2socks/tun2socks.ts";
export { Tun2Socks } from "./tun2socks/tun2socks.ts";
