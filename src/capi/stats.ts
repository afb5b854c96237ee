import type { TunnelStats } from "../host/tunnel-stats.ts";

const sum = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((total, count) => total + count, 0);

/** In the order of capi/src/instance.h. */
export function statsArray(stats: TunnelStats): Float64Array {
  const { sessions, lanes, associations, contexts, datagramsIn, datagramsOut, bytesIn, bytesOut } = stats;
  return Float64Array.of(
    ...[sessions, lanes, associations, contexts],
    ...[datagramsIn, datagramsOut, bytesIn, bytesOut, stats.resumed],
    ...[sum(stats.drops), sum(stats.refused), stats.rttMs ?? -1],
  );
}
