import { randomSeed } from "../core/handshakes/credentials.ts";
import type { OnPackets } from "../core/tun2socks/packet-stream-reader.ts";
import type { PacketLink } from "../host/devices/packet-link.ts";
import { connectPackets, RevivedLink } from "../host/devices/packet-link.ts";
import { PacketStream } from "../host/devices/packet-stream.ts";
import type { Logger } from "../host/log.ts";
import type { ResolvedTun2SocksOptions } from "../host/options/tun2socks.ts";
import type { System } from "../host/system.ts";
import { required } from "../host/system.ts";
import type { OpenPacketEgress } from "../host/udp-paths/egress.ts";
import { openInner } from "../host/udp-paths/inner.ts";
import { PacketPath } from "../host/udp-paths/packets.ts";
import type { CHost } from "./c-host.ts";
import { startInnerTun2Socks } from "./inner-tun2socks.ts";

/**
 * The ways out of udp-server that lead to a tun2socks.
 *
 * @param inner  options of the tun2socks in this instance, if the egress is that one
 * @see OpenPacketEgress
 */
export function packetEgress(host: CHost, inner: ResolvedTun2SocksOptions | undefined): OpenPacketEgress {
  return async (egress, _idleTimeoutS, pathHost, system, log) => {
    const seed = randomSeed(system.cryptography);
    switch (egress.kind) {
      case "unix":
        return new PacketPath(pathHost, system, seed, (onPackets) =>
          connectPackets(egress.path, system.io.tcp, system, onPackets, log),
        );
      case "exec":
        required(host.processSpawn, "programs");
        return new PacketPath(pathHost, system, seed, (onPackets) =>
          spawnPackets(host, egress.argv, system, onPackets, log),
        );
      case "tun2socks":
        return openInner(pathHost, system, seed, (device) =>
          startInnerTun2Socks(inner!, device, system, log),
        );
    }
  };
}

/** Starts a program with a device on its standard input and output for the first packet, and again after it has ended. */
function spawnPackets(
  host: CHost,
  argv: readonly string[],
  system: System,
  onPackets: OnPackets,
  log: Logger,
): PacketLink {
  return new RevivedLink(argv[0], system, log, (onEnd) => {
    try {
      let packets: PacketStream | undefined;
      const [child, descriptor] = host.processSpawn!(argv, (text) => {
        packets?.close();
        onEnd(text);
      });
      const stop = () => host.processKill!(child);
      // Anything but packets ends the stream, like a closed pipe.
      packets = new PacketStream(system.io.tcp.adopt!(descriptor), onPackets, stop);
      return { write: (batch) => packets!.write(batch), end: stop };
    } catch (error) {
      system.nextTurn(() => onEnd((error as Error).message));
      return { write: ({ count }) => count, end: () => {} };
    }
  });
}
