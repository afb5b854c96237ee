import type { CustomDevice } from "../host/devices/device.ts";
import { openCustomDevice } from "../host/devices/device.ts";
import type { Logger } from "../host/log.ts";
import type { ResolvedTun2SocksOptions } from "../host/options/tun2socks.ts";
import type { System } from "../host/system.ts";
import { Tun2SocksHost } from "../host/tun2socks.ts";

/** Starts the tun2socks of udp-server's egress on this device. @throws HostError */
export async function startInnerTun2Socks(
  options: ResolvedTun2SocksOptions,
  device: CustomDevice,
  system: System,
  log: Logger,
): Promise<Tun2SocksHost> {
  const inner = new Tun2SocksHost({ ...options, device }, log, system, {
    openDevice: async (_options, _io, events) => openCustomDevice(device, events),
    tunnel: {},
  });
  try {
    await inner.open();
  } catch (error) {
    await inner.close();
    throw error;
  }
  return inner;
}
