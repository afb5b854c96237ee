import { randomSeed } from "../../core/handshakes/credentials.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import type { CustomDevice } from "../../host/devices/device.ts";
import type { PacketLink } from "../../host/devices/packet-link.ts";
import { connectPackets } from "../../host/devices/packet-link.ts";
import type { Logger } from "../../host/log.ts";
import type { System } from "../../host/system.ts";
import type { OpenPacketEgress } from "../../host/udp-paths/egress.ts";
import { handPackets, PacketPath } from "../../host/udp-paths/packets.ts";
import type { UdpPath, UdpPathHost } from "../../host/udp-paths/udp-path.ts";
import { spawnPackets } from "../devices/packet-link.ts";

/** @see OpenPacketEgress */
export const openPacketEgress: OpenPacketEgress = async (egress, idleTimeoutS, host, system, log) => {
  const seed = randomSeed(system.cryptography);
  switch (egress.kind) {
    case "unix":
      return new PacketPath(host, system, seed, (onPackets) =>
        connectPackets(egress.path, system.io.tcp, system, onPackets, log),
      );
    case "exec":
      return new PacketPath(host, system, seed, (onPackets) =>
        spawnPackets(egress.argv, system, onPackets, log),
      );
    case "tun2socks":
      return openInner(egress.udpVia, idleTimeoutS, host, system, log, seed);
  }
};

/** A tun2socks in the same thread: packets are passed in memory. */
async function openInner(
  udpVia: string,
  idleTimeoutS: number,
  host: UdpPathHost,
  system: System,
  log: Logger,
  seed: number,
): Promise<UdpPath> {
  // Loaded only where it is used.
  const { startTun2Socks } = await import("../tun2socks.ts");
  let toInner: OnPackets = () => {};
  let toEgress: OnPackets = () => {};
  const device: CustomDevice = {
    start: (onPackets) => {
      toInner = onPackets;
    },
    write: (packets) => handPackets(packets, (...batch) => toEgress(...batch)),
  };
  const { udp, latency } = system.io;
  const inner = await startTun2Socks(
    { device, udpVia, mtu: 65_535, idleTimeoutS, io: udp.kind, latency },
    log,
  );
  return new PacketPath(host, system, seed, (onPackets): PacketLink => {
    toEgress = onPackets;
    return {
      write: (packets) => {
        handPackets(packets, toInner);
        return 0;
      },
      close: () => inner.close(),
    };
  });
}
