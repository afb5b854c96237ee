import type { NetworkInterfaceInfo } from "node:os";
import { networkInterfaces } from "node:os";

/** How far away peers may be that an address serves: 0 on this machine, 1 in this organization, 2 anywhere; -1 nowhere. */
function reach({ address, internal }: NetworkInterfaceInfo): number {
  if (internal) return 0;
  // A link-local one needs a zone.
  if (/^(169\.254\.|fe[89ab])/i.test(address)) return -1;
  return /^f[cd]/i.test(address) ? 1 : 2;
}

/**
 * IPs by which peers reach the UDP sockets of this machine, at most one of each family: of the interface to which a
 * client's connection came, and of its addresses the one that it came to.
 *
 * @param localIp  the connection's; undefined for a Unix socket, which leaves those that reach farthest
 */
export function publicIps(localIp: string | undefined, machine = networkInterfaces()): string[] {
  const interfaces = Object.values(machine).map((addresses) => addresses ?? []);
  const own = interfaces.find((addresses) => addresses.some(({ address }) => address === localIp));
  // An address that routing makes local has no interface.
  if (own === undefined && localIp !== undefined) return [localIp];
  return ["IPv4", "IPv6"].flatMap((family) => {
    let best: string | undefined;
    let bestReach = -1;
    for (const info of own ?? interfaces.flat()) {
      if (info.family !== family) continue;
      const its = info.address === localIp && reach(info) >= 0 ? 3 : reach(info);
      if (its > bestReach) [best, bestReach] = [info.address, its];
    }
    return best ?? [];
  });
}
