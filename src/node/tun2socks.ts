import { HostError } from "../core/errors.ts";
import type { Device, DeviceEvents } from "../host/devices/device.ts";
import { openCustomDevice } from "../host/devices/device.ts";
import { openPacketListener } from "../host/devices/packet-listener.ts";
import { openDescriptor, openTun } from "../host/devices/tun.ts";
import type { Io } from "../host/io/io.ts";
import type { Logger } from "../host/log.ts";
import { silentLogger } from "../host/log.ts";
import type { ResolvedTun2SocksOptions } from "../host/options/tun2socks.ts";
import type { Tun2SocksEvents } from "../host/tun2socks.ts";
import { Tun2SocksHost } from "../host/tun2socks.ts";
import { nodeTun } from "./devices/node-tun.ts";
import { openPipe } from "./devices/packet-stream.ts";
import type { Tun2SocksHandle } from "./handles.ts";
import { HostHandle } from "./handles.ts";
import { chooseIo } from "./io/io.ts";
import { loadNativeModule } from "./load-native-module.ts";
import type { Tun2SocksOptions } from "./options/tun2socks.ts";
import { resolveTun2SocksOptions } from "./options/tun2socks.ts";
import { nodeSystem } from "./system.ts";
import { featuresOf } from "./udp-local.ts";

const EVENTS = {
  "session-up": true,
  "session-down": true,
  "session-resumed": true,
  "session-renewed": true,
  "listener-failed": true,
  error: true,
  end: true,
} satisfies Record<keyof Tun2SocksEvents, true>;

/** Starts tun2socks. @throws UsageError for options, HostError when the device cannot be opened */
export async function startTun2Socks(
  options: Tun2SocksOptions,
  log: Logger = silentLogger,
): Promise<Tun2SocksHandle> {
  const { tunnel: checked, ...rest } = resolveTun2SocksOptions(options);
  const { carrier, ...tunnel } = checked;
  const io = chooseIo(options.io, tunnel.latency, log);
  const host = new Tun2SocksHost({ ...rest, tunnel }, log, nodeSystem(io), {
    openDevice,
    tunnel: featuresOf(carrier, io, undefined),
  });
  const handle = new HostHandle(host, EVENTS);
  try {
    await host.open();
  } catch (error) {
    await host.close();
    throw error;
  }
  return handle;
}

async function openDevice(
  options: ResolvedTun2SocksOptions,
  io: Io,
  events: DeviceEvents,
  log: Logger,
): Promise<Device> {
  const { device, familyHeader, offload } = options;
  const { latency } = options.tunnel;
  if (typeof device !== "string") return openCustomDevice(device, events);
  if (device === "pipe:") return openPipe(events, log);
  if (device.startsWith("unix:")) return openPacketListener(device.slice(5), io.tcp, events, log);
  if (io.native?.tunWatch === undefined) {
    if (io.native !== undefined) throw new HostError("ERR_NATIVE", `${device}: not available on this system`);
    const isBuilt = !(loadNativeModule() instanceof Error);
    const remedy = isBuilt ? "do not choose plain I/O" : 'build it with "npm run build:native"';
    throw new HostError("ERR_NATIVE", `${device} needs native I/O: ${remedy}`);
  }
  if (device.startsWith("fd:")) {
    return openDescriptor(Number(device.slice(3)), familyHeader, latency, io.native, events);
  }
  return openTun(
    { ...options, latency, name: device.slice(4), hasOffload: offload === "on" },
    io.native,
    events,
    log,
    nodeTun,
  );
}
