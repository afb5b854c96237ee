import { METRICS, readMetric } from "../../core/metrics/table.ts";
import type { TunnelStats } from "../../host/stats/tunnel-stats.ts";

const ROWS = METRICS.filter(({ c }) => c !== undefined);
/** Members of `underpass_stats`, in the order of {@link statsArray} and of capi/src/instance.h. */
export const STATS_MEMBERS = ROWS.map(({ c }) => c!);

/** What the C library reports: numbers, sums of metrics with a label, and -1 for unknown ones. */
export function statsArray(stats: TunnelStats): Float64Array {
  return Float64Array.from(ROWS, (row) => {
    const value = readMetric(stats, row);
    if (typeof value === "number") return value;
    if (value === undefined) return -1;
    return Object.values(value as Record<string, number>).reduce((total, count) => total + count, 0);
  });
}
