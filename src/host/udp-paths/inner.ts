import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import type { CustomDevice } from "../devices/device.ts";
import type { PacketLink } from "../devices/packet-link.ts";
import type { Tun2SocksStats } from "../stats/tunnel-stats.ts";
import type { System } from "../system.ts";
import { handPackets, PacketPath } from "./packets.ts";
import type { UdpPath, UdpPathHost } from "./udp-path.ts";

/**
 * A path through a tun2socks in the same thread: packets are passed in memory.
 *
 * @param start  starts it with this device
 */
export async function openInner(
  host: UdpPathHost,
  system: System,
  seed: number,
  start: (
    device: CustomDevice,
  ) => Promise<{ close(): Promise<void>; stats(): Pick<Tun2SocksStats, "drops"> }>,
): Promise<UdpPath> {
  let toInner: OnPackets = () => {};
  let toEgress: OnPackets = () => {};
  const inner = await start({
    start: (onPackets) => {
      toInner = onPackets;
    },
    write: (packets) => handPackets(packets, (...batch) => toEgress(...batch)),
  });
  return new PacketPath(host, system, seed, (onPackets): PacketLink => {
    toEgress = onPackets;
    return {
      write: (packets) => {
        handPackets(packets, toInner);
        return 0;
      },
      close: () => inner.close(),
      drops: () => inner.stats().drops,
    };
  });
}
