import { randomSeed } from "../../core/handshakes/credentials.ts";
import { connectPackets } from "../../host/devices/packet-link.ts";
import { INNER_MTU } from "../../host/options/egress-option.ts";
import type { OpenPacketEgress } from "../../host/udp-paths/egress.ts";
import { openInner } from "../../host/udp-paths/inner.ts";
import { PacketPath } from "../../host/udp-paths/packets.ts";
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
      return openInner(host, system, seed, async (device) => {
        // Loaded only if it is used.
        const { startTun2Socks } = await import("../tun2socks.ts");
        const { udp, latency } = system.io;
        const { udpVia } = egress;
        return startTun2Socks({ device, udpVia, mtu: INNER_MTU, idleTimeoutS, io: udp.kind, latency }, log);
      });
  }
};
