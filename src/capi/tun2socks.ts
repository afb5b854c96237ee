import { HostError } from "../core/errors.ts";
import type { PacketBatch } from "../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../core/tun2socks/packet-stream-reader.ts";
import type { CustomDevice, Device, DeviceEvents } from "../host/devices/device.ts";
import { openCustomDevice } from "../host/devices/device.ts";
import { openPacketListener } from "../host/devices/packet-listener.ts";
import { openDescriptor, openTun } from "../host/devices/tun.ts";
import type { Io } from "../host/io/io.ts";
import type { Logger } from "../host/log.ts";
import type { ResolvedTun2SocksOptions } from "../host/options/tun2socks.ts";
import { noTunnelStats } from "../host/stats/tunnel-stats.ts";
import { Tun2SocksHost } from "../host/tun2socks.ts";
import type { CHost, Instance } from "./c-host.ts";
import { embedderCarrier } from "./carrier.ts";
import { report, runEnd } from "./instance.ts";
import { cLogger } from "./log.ts";
import { offerStart } from "./start.ts";
import { cSystem } from "./system.ts";

/** Memory for the packets passed in one turn. */
const ARENA_BYTES = 1024 * 1024;
const ARENA_PACKETS = 192;

/** Starts a tun2socks. @throws HostError ERR_UNSUPPORTED for a feature that this host lacks */
function startTun2Socks(
  host: CHost,
  options: ResolvedTun2SocksOptions & { readonly tunnel: { readonly carrier?: unknown } },
): Instance {
  const log = cLogger(host);
  const system = cSystem(host, options.tunnel.latency);
  const carrier = options.tunnel.carrier === true ? embedderCarrier(host, system) : undefined;
  const tun2socks = new Tun2SocksHost(options, log, system, {
    openDevice: (resolved, io, events) => openDevice(host, resolved, io, events, log),
    tunnel: { carrier },
  });
  const { events } = tun2socks;
  events.on("session-up", () => report(host, "session-up", undefined));
  events.on("session-renewed", () => report(host, "session-up", undefined));
  events.on("session-resumed", () => report(host, "session-resumed", undefined));
  events.on("session-down", (error) => report(host, "session-down", error));
  events.on("error", (error) => report(host, "unreachable", error));
  events.on("listener-failed", (error) => report(host, "listener-failed", error));
  let isOpen = false;
  const opening = tun2socks.open().then(() => {
    isOpen = true;
  });
  const end = {
    listen: () =>
      opening.catch(async (error: Error) => {
        await tun2socks.close();
        throw error;
      }),
    close: async () => {
      // Otherwise the device that is being opened would leak.
      await opening.catch(() => {});
      await tun2socks.close();
    },
    stats: () => (isOpen ? tun2socks.stats() : noTunnelStats()),
  };
  const { fail, ...instance } = runEnd(host, end, () => host.ready([tun2socks.address.device], undefined));
  events.on("end", (error) => fail(error ?? new HostError("ERR_DEVICE", "the device is gone")));
  return { ...instance, reconnect: () => tun2socks.reconnect() };
}

offerStart(startTun2Socks);

async function openDevice(
  host: CHost,
  options: ResolvedTun2SocksOptions,
  io: Io,
  events: DeviceEvents,
  log: Logger,
): Promise<Device> {
  const { device, familyHeader, offload } = options;
  const { latency } = options.tunnel;
  if (typeof device !== "string") return openCustomDevice(new CallersDevice(host), events);
  if (device.startsWith("unix:")) return openPacketListener(device.slice(5), io.tcp, events, log);
  if (host.tunWatch === undefined) throw new HostError("ERR_DEVICE", `${device}: not on this system`);
  if (device.startsWith("fd:"))
    return openDescriptor(Number(device.slice(3)), familyHeader, latency, host, events);
  const name = device.slice("tun:".length);
  return openTun({ ...options, latency, name, hasOffload: offload === "on" }, host, events, log);
}

/** A device whose packets pass through functions of the embedder. */
class CallersDevice implements CustomDevice {
  readonly #host: CHost;

  constructor(host: CHost) {
    this.#host = host;
  }

  start(onPackets: OnPackets): void {
    const arena = this.#host.lazyMemory!(ARENA_BYTES);
    const offsets = new Int32Array(ARENA_PACKETS);
    const lengths = new Int32Array(ARENA_PACKETS);
    this.#host.packetsSetup(arena, offsets, lengths, (count) => onPackets(arena, offsets, lengths, count));
  }

  write({ input, arena, isInput, offset, length, count }: PacketBatch): void {
    this.#host.packetsWrite(input, arena, isInput, offset, length, count);
  }
}
