/** Counts of values by size, as `stats()` has them. */
export interface HistogramReading {
  /** How many values were at most each bound, and above the one before; and, last, how many were above all. */
  readonly counts: readonly number[];
  readonly sum: number;
}

/** A histogram for each value of a label, made when it is first used. */
export class Histograms {
  readonly #bounds: readonly number[];
  readonly #byLabel = new Map<string | number, { counts: number[]; sum: number }>();

  /** @param bounds  upper ones, ascending */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
  }

  /** @param label  from a small, fixed set; "" where the histogram has none */
  add(label: string | number, value: number): void {
    let of = this.#byLabel.get(label);
    if (of === undefined) {
      of = { counts: new Array(this.#bounds.length + 1).fill(0), sum: 0 };
      this.#byLabel.set(label, of);
    }
    let bucket = 0;
    while (bucket < this.#bounds.length && value > this.#bounds[bucket]) bucket++;
    of.counts[bucket]++;
    of.sum += value;
  }

  /** A copy, by label. */
  read(): Record<string, HistogramReading> {
    const entries = [...this.#byLabel].map(([label, { counts, sum }]) => [
      label,
      { counts: [...counts], sum },
    ]);
    return Object.fromEntries(entries);
  }
}

/** Adds up readings of the same bounds. */
export function sumHistograms(
  all: readonly Readonly<Record<string, HistogramReading>>[],
): Record<string, HistogramReading> {
  const total: Record<string, HistogramReading> = {};
  for (const [label, { counts, sum }] of all.flatMap((one) => Object.entries(one))) {
    const before = total[label];
    total[label] = {
      counts: counts.map((count, bucket) => count + (before?.counts[bucket] ?? 0)),
      sum: sum + (before?.sum ?? 0),
    };
  }
  return total;
}
