import type { Explanation } from "../../core/metrics/reasons.ts";
import { METRICS, readMetric } from "../../core/metrics/table.ts";

/** A count by reason, with its meaning and remedy. */
export interface ExplainedCount extends Explanation {
  /** `drops`, `refused`, … */
  readonly of: string;
  readonly reason: string;
  readonly count: number;
}

/** The counts by reason that are not 0, the largest of each kind first. */
export function explainCounts(stats: object): ExplainedCount[] {
  return METRICS.filter(({ kind, label }) => kind === "counter" && label !== undefined).flatMap((metric) => {
    const counts = Object.entries((readMetric(stats, metric) ?? {}) as Record<string, number>);
    return counts
      .filter(([, count]) => count > 0)
      .sort(([, a], [, b]) => b - a)
      .map(([reason, count]) => {
        const { meaning = "", remedy = "" } = metric.label?.values?.[reason] ?? {};
        return { of: metric.stat, reason, count, meaning, remedy };
      });
  });
}
