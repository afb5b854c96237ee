import { HostError } from "../../core/errors.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { NativeModule } from "../io/native-module.ts";
import type { Logger } from "../log.ts";
import { required } from "../system.ts";
import { systemErrorCode } from "../system-error.ts";
import type { Device, DeviceEvents } from "./device.ts";
import type { InterfaceAddress } from "./interface-address.ts";

/**
 * Limit for one turn of the loop: a few packets of maximum size, or many small ones. No more than fits into one batch of a lane (256 KiB),
 * because the rest would be copied to the lane's queue or dropped, while it could wait in the device.
 */
const ARENA_BYTES = 2 * 1024 * 1024;
const ARENA_PACKETS = 192;
const NO_BYTES = new Uint8Array(0);
const NO_INTS = new Int32Array(0);

export interface TunOptions {
  readonly name: string;
  readonly mtu: number;
  readonly addresses: readonly InterfaceAddress[];
  /** Networks that are routed to the device. */
  readonly routes: readonly { readonly network: Uint8Array; readonly prefixLength: number }[];
  /** True to exchange packets longer than the MTU with the kernel, if the system can. */
  readonly hasOffload: boolean;
  /** Like that of sockets; native I/O on Linux only. */
  readonly latency: LatencyClass;
}

/** What a TUN device needs from the program besides the native module. */
export interface TunSystem {
  /** Sets up a device if the native module cannot. @throws Error */
  readonly setUp?: (name: string, options: TunOptions) => void;
  /** @returns why there are no TUN devices, if known */
  readonly explainNoDevice?: () => string | undefined;
}

/**
 * Creates a TUN device, or opens an existing one, and sets it up. A device that was created disappears with the process,
 * together with its addresses and routes.
 *
 * @throws HostError ERR_DEVICE
 */
export function openTun(
  options: TunOptions,
  native: NativeModule,
  events: DeviceEvents,
  log: Logger,
  system: TunSystem = {},
): Device {
  const { name, mtu, addresses, routes, hasOffload, latency } = options;
  if (native.tunOpen === undefined) throw new HostError("ERR_DEVICE", "this system has no TUN devices");
  try {
    const [descriptor, realName, hasFamily, virtio, uso] = native.tunOpen(name, hasOffload);
    const format = { hasFamily, virtio, uso, latency };
    const device = watchPackets(native, descriptor, format, `tun:${realName}`, events);
    try {
      if (native.interfaceUp === undefined)
        required(system.setUp, "setting up a TUN device")(realName, options);
      else {
        const added = addresses.filter(({ own }) => native.addressIsLocal?.(own) === false);
        native.interfaceUp(realName, mtu);
        for (const { own, prefixLength } of addresses) native.interfaceAddress!(realName, own, prefixLength);
        for (const { network, prefixLength } of routes)
          native.interfaceRoute!(realName, network, prefixLength);
        for (const { own } of added) endLeftConnections(own, native, log);
      }
    } catch (error) {
      void device.close();
      throw error;
    }
    return device;
  } catch (cause) {
    throw new HostError("ERR_DEVICE", `tun:${name}: ${hint(cause as Error, system)}`, { cause });
  }
}

/** A descriptor with one IP packet per read and write; it is closed with the device. */
export function openDescriptor(
  descriptor: number,
  hasFamily: boolean,
  latency: LatencyClass,
  native: NativeModule,
  events: DeviceEvents,
): Device {
  try {
    const format = { hasFamily, virtio: false, uso: false, latency };
    return watchPackets(native, descriptor, format, `fd:${descriptor}`, events);
  } catch (cause) {
    throw new HostError("ERR_DEVICE", `fd:${descriptor}: ${(cause as Error).message}`, { cause });
  }
}

function watchPackets(
  native: NativeModule,
  descriptor: number,
  format: Pick<Device, "virtio" | "uso"> & { readonly hasFamily: boolean; readonly latency: LatencyClass },
  description: string,
  { onPackets, onEnd }: DeviceEvents,
): Device {
  const { hasFamily, virtio, uso, latency } = format;
  const arena = new Uint8Array(ARENA_BYTES);
  const offsets = new Int32Array(ARENA_PACKETS);
  const lengths = new Int32Array(ARENA_PACKETS);
  native.tunWatch!(descriptor, hasFamily, arena, offsets, lengths, (count) => {
    if (count > 0) onPackets(arena, offsets, lengths, count);
    else onEnd(new HostError("ERR_DEVICE", `${description}: gone (system error ${count})`));
  });
  const setLatency = (next: LatencyClass) => native.tunLatency?.(descriptor, LATENCY_CLASSES.indexOf(next));
  setLatency(latency);
  return {
    description,
    virtio,
    uso,
    hasKernel: true,
    setLatency,
    descriptor,
    takeDropped: () => native.tunWrite!(descriptor, NO_BYTES, NO_BYTES, NO_BYTES, NO_INTS, NO_INTS, 0),
    write: ({ input, arena: built, isInput, offset, length, count }) =>
      native.tunWrite!(descriptor, input, built, isInput, offset, length, count),
    close: async () => native.tunClose!(descriptor),
  };
}

function hint(error: Error, { explainNoDevice }: TunSystem): string {
  const code = systemErrorCode(error);
  if (code === "EPERM") return `${error.message}: run as root, or with CAP_NET_ADMIN`;
  const reason = code === "ENOENT" ? explainNoDevice?.() : undefined;
  if (reason !== undefined) return reason;
  if (code === "EEXIST") return `${error.message}: another route leads there, at the same metric`;
  if (code === "EBUSY") return `${error.message}: another program has this device`;
  return error.message;
}

/**
 * Ends the connections from an address that is new to the system. They remain from a device that disappeared with its process, and would
 * notice only when they send. This runs after the routes are set, so that the kernel's RSTs to their peers enter the device instead of
 * leaving through the default route.
 */
function endLeftConnections(own: Uint8Array, native: NativeModule, log: Logger): void {
  try {
    const ended = native.tcpDestroyFrom!(own);
    if (ended > 0) log.info({ ended }, "ended TCP connections of an earlier device");
  } catch (error) {
    log.debug({ error: (error as Error).message }, "cannot end TCP connections of an earlier device");
  }
}
