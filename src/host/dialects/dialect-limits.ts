import type { ResolvedUdpServerOptions } from "../options/udp-server.ts";
import { parseDialectListen } from "./dialect-listen.ts";

/** True if any dialect is served. */
export function hasDialects({ dialects, listen }: ResolvedUdpServerOptions): boolean {
  return dialects.length > 0 || listen.some((text) => parseDialectListen(text) !== undefined);
}

/** The connections and flows that a number of descriptors allows besides those of tunnels. */
export function dialectLimits(
  { maxTunnels, maxAssociations }: ResolvedUdpServerOptions,
  limit: number,
): { readonly connections: number; readonly flows: number } {
  return {
    connections: Math.max(1, Math.min(maxTunnels, Math.floor(limit / 8))),
    flows: Math.max(1, Math.min(maxAssociations, Math.floor(limit / 4))),
  };
}
