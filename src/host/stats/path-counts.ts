import type { PACKET_COUNTS } from "../../core/metrics/table.ts";
import type { TunnelStats } from "./tunnel-stats.ts";
import { sumRecords } from "./tunnel-stats.ts";

/** The counts of IP packets that udp-server has, too, if its egress leads to a tun2socks. */
const OF_PATHS = [
  "packetsIn",
  "packetsOut",
  "fragmentsIn",
  "reassembled",
] as const satisfies readonly (keyof typeof PACKET_COUNTS)[];

/** What a path has counted that carries datagrams as IP packets. `in`: from the tun2socks. */
export interface PathCounts extends Readonly<Record<(typeof OF_PATHS)[number], number>> {
  /** Packets dropped, by reason. */
  readonly drops: Readonly<Record<string, number>>;
}

/** Adds what the paths of an endpoint have counted to its statistics. */
export function withPathCounts(stats: TunnelStats, paths: readonly PathCounts[]): TunnelStats {
  if (paths.length === 0) return stats;
  return {
    ...stats,
    ...sumRecords(paths.map((path) => Object.fromEntries(OF_PATHS.map((name) => [name, path[name]])))),
    drops: sumRecords([stats.drops, ...paths.map(({ drops }) => drops)]),
  };
}
