/** UDP over TCP by any carrier: the two ends as a library. */
export type { ErrorCode } from "./core/errors.ts";
export { ERROR_CODES, HostError, ProtocolError, UsageError } from "./core/errors.ts";
export type { Filtering } from "./core/server-associations.ts";
export type { PacketBatch } from "./core/tun2socks/packet-batch.ts";
export type { OnPackets } from "./core/tun2socks/packet-stream-reader.ts";
export type { CustomDevice } from "./node/devices/device.ts";
export type { Tun2SocksHandle, Tun2SocksStats, TunnelStats, UdpLocal, UdpServer } from "./node/handles.ts";
export type { Logger, LogMethod } from "./node/log.ts";
export type {
  Carrier,
  CommonOptions,
  ForwardOptions,
  SocksCredentials,
  UdpLocalOptions,
  UdpServerOptions,
} from "./node/options.ts";
export { startTun2Socks } from "./node/tun2socks.ts";
export type { Tun2SocksOptions } from "./node/tun2socks-options.ts";
export { startUdpLocal } from "./node/udp-local.ts";
export { startUdpServer } from "./node/udp-server.ts";
export type { LatencyClass } from "./wire/latency-class.ts";
