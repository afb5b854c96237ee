/** The logic of the programs, for a host that is not Node. */
export type { Io } from "./io/io.ts";
export type { NativeModule } from "./io/native-module.ts";
export type { UdpIo, UdpSocket, UdpSocketOptions } from "./io/udp-io.ts";
export { openNativeUdpIo } from "./io/udp-io-native.ts";
export { Listeners } from "./listeners.ts";
export type { Logger, LogMethod } from "./log.ts";
export type { Loop, System, Timer } from "./system.ts";
export type { TunnelStats } from "./tunnel-stats.ts";
export { DirectPath } from "./udp-paths/direct.ts";
export type { UdpPath, UdpPathHost } from "./udp-paths/udp-path.ts";
export { OutgoingDatagram } from "./udp-paths/udp-path.ts";
