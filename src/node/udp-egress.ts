import { randomSeed } from "../core/credentials.ts";
import type { OnPackets } from "../core/tun2socks/packet-stream-reader.ts";
import type { CustomDevice } from "../host/devices/device.ts";
import type { PacketLink } from "../host/devices/packet-link.ts";
import type { Io } from "../host/io/io.ts";
import type { Logger } from "../host/log.ts";
import type { Egress } from "../host/options/egress-option.ts";
import { handPackets, PacketPath } from "../host/udp-paths/packets.ts";
import type { UdpPath, UdpPathHost } from "../host/udp-paths/udp-path.ts";
import { nodeCryptography } from "./cryptography.ts";
import { connectPackets, spawnPackets } from "./devices/packet-link.ts";
import { nodeLoop } from "./system.ts";
import { Socks5Path } from "./udp-paths/socks5.ts";

/** Opens the egress; undefined for sockets, which the server has itself. @param idleTimeoutS  of its associations */
export async function openEgress(
  egress: Egress,
  idleTimeoutS: number,
  host: UdpPathHost,
  io: Io,
  log: Logger,
): Promise<UdpPath | undefined> {
  const seed = randomSeed(nodeCryptography);
  switch (egress.kind) {
    case "sockets":
      return undefined;
    case "socks5":
      return new Socks5Path(egress.url, io, host, log, seed);
    case "unix":
      return new PacketPath(host, nodeLoop, seed, (onPackets) => connectPackets(egress.path, onPackets, log));
    case "exec":
      return new PacketPath(host, nodeLoop, seed, (onPackets) => spawnPackets(egress.argv, onPackets, log));
    case "tun2socks":
      return openInner(egress.udpVia, idleTimeoutS, host, io, log, seed);
  }
}

/** A tun2socks in the same thread: packets are passed in memory. */
async function openInner(
  udpVia: string,
  idleTimeoutS: number,
  host: UdpPathHost,
  io: Io,
  log: Logger,
  seed: number,
): Promise<UdpPath> {
  // Loaded only where it is used.
  const { startTun2Socks } = await import("./tun2socks.ts");
  let toInner: OnPackets = () => {};
  let toEgress: OnPackets = () => {};
  const device: CustomDevice = {
    start: (onPackets) => {
      toInner = onPackets;
    },
    write: (packets) => handPackets(packets, (...batch) => toEgress(...batch)),
  };
  const inner = await startTun2Socks(
    { device, udpVia, mtu: 65_535, idleTimeoutS, io: io.udp.kind, latency: io.latency },
    log,
  );
  return new PacketPath(host, nodeLoop, seed, (onPackets): PacketLink => {
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
