import { randomSeed } from "../../core/handshakes/credentials.ts";
import type { Logger } from "../log.ts";
import type { Egress } from "../options/egress-option.ts";
import type { System } from "../system.ts";
import { required } from "../system.ts";
import { Socks5Path } from "./socks5.ts";
import type { UdpPath, UdpPathHost } from "./udp-path.ts";

/** The egress options that lead to a tun2socks. */
export type PacketEgressOption = Exclude<Egress, { readonly kind: "sockets" | "socks5" }>;

/** Opens an egress to a tun2socks. */
export type OpenPacketEgress = (
  egress: PacketEgressOption,
  idleTimeoutS: number,
  host: UdpPathHost,
  system: System,
  log: Logger,
) => Promise<UdpPath>;

/**
 * Opens the egress; undefined for sockets, which the server has itself.
 *
 * @param idleTimeoutS  of its associations
 * @throws HostError ERR_UNSUPPORTED
 */
export async function openEgress(
  egress: Egress,
  idleTimeoutS: number,
  host: UdpPathHost,
  system: System,
  log: Logger,
  openPacketEgress: OpenPacketEgress | undefined,
): Promise<UdpPath | undefined> {
  switch (egress.kind) {
    case "sockets":
      return undefined;
    case "socks5":
      return new Socks5Path(egress.url, system, host, log, randomSeed(system.cryptography));
    default:
      return required(openPacketEgress, `the egress ${egress.kind}:`)(
        egress,
        idleTimeoutS,
        host,
        system,
        log,
      );
  }
}
