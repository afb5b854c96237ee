/// <reference types="node" preserve="true" />
/** UDP over TCP by any carrier: the two ends as a library. */
export type { ErrorCode } from "./core/errors.ts";
export { ERROR_CODES, HostError, ProtocolError, UsageError } from "./core/errors.ts";
export type { Filtering } from "./core/server/server-associations.ts";
export type { PacketBatch } from "./core/tun2socks/packet-batch.ts";
export type { OnPackets } from "./core/tun2socks/packet-stream-reader.ts";
export type { CustomDevice } from "./host/devices/device.ts";
export type { Logger, LogMethod } from "./host/log.ts";
export type { CommonOptions } from "./host/options/common.ts";
export type { KeyOption } from "./host/options/keys.ts";
export type { ForwardOptions, SocksCredentials } from "./host/options/udp-local.ts";
export type { UdpServerOptions } from "./host/options/udp-server.ts";
export type { Tun2SocksStats, TunnelStats } from "./host/stats/tunnel-stats.ts";
export type { Tun2SocksHandle, UdpLocal, UdpServer } from "./node/handles.ts";
export type { Tun2SocksOptions } from "./node/options/tun2socks.ts";
export type { Carrier, UdpLocalOptions } from "./node/options/udp-local.ts";
export { startTun2Socks } from "./node/tun2socks.ts";
export { startUdpLocal } from "./node/udp-local.ts";
export { startUdpServer } from "./node/udp-server.ts";
export type { LatencyClass } from "./wire/latency-class.ts";
