import type { Explanation } from "../../core/metrics/reasons.ts";
import { METRICS, readMetric } from "../../core/metrics/table.ts";

/** A count by reason, with its meaning and remedy. */
export interface ExplainedCount extends Explanation {
  /** `drops`, `refused`, … */
  readonly of: string;
  readonly reason: string;
  readonly count: number;
}

/** The counts by reason that are not 0, the largest of each kind first. Counts by the name of a key have no reasons. */
export function explainCounts(stats: object): ExplainedCount[] {
  return METRICS.flatMap((metric) => {
    const reasons = metric.label?.values;
    if (metric.kind !== "counter" || reasons === undefined) return [];
    const counts = Object.entries((readMetric(stats, metric) ?? {}) as Record<string, number>);
    return counts
      .filter(([, count]) => count > 0)
      .sort(([, a], [, b]) => b - a)
      .map(([reason, count]) => {
        const { meaning = "", remedy = "" } = reasons[reason] ?? {};
        return { of: metric.stat, reason, count, meaning, remedy };
      });
  });
}
