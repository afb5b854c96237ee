import type { InterfaceIp } from "../system.ts";
import { ipFamily } from "./endpoint.ts";

/** The distance of the peers that an address can serve: 0 this machine, 1 this organisation, 2 anywhere; -1 nowhere. */
function reach({ ip, isInternal }: InterfaceIp): number {
  if (isInternal) return 0;
  // A link-local address needs a zone.
  if (/^(169\.254\.|fe[89ab])/i.test(ip)) return -1;
  return /^f[cd]/i.test(ip) ? 1 : 2;
}

/**
 * IPs at which peers reach the UDP sockets of this machine, at most one of each family. They belong to the interface to which a
 * client's connection came, and include the address to which it came.
 *
 * @param localIp     the connection's; undefined for a Unix socket, which selects the addresses that reach farthest
 * @param interfaces  the addresses of each interface
 */
export function publicIps(
  localIp: string | undefined,
  interfaces: readonly (readonly InterfaceIp[])[],
): string[] {
  const own = interfaces.find((addresses) => addresses.some(({ ip }) => ip === localIp));
  // An address that routing makes local belongs to no interface.
  if (own === undefined && localIp !== undefined) return [localIp];
  return [4, 6].flatMap((family) => {
    let best: string | undefined;
    let bestReach = -1;
    for (const info of own ?? interfaces.flat()) {
      if (ipFamily(info.ip) !== family) continue;
      const its = info.ip === localIp && reach(info) >= 0 ? 3 : reach(info);
      if (its > bestReach) [best, bestReach] = [info.ip, its];
    }
    return best ?? [];
  });
}
