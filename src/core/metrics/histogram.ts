/** Counts of values by size, as in `stats()`. */
export interface HistogramReading {
  /** For each bound: how many values were at most that and above the one before. Last: how many were above all bounds. */
  readonly counts: readonly number[];
  readonly sum: number;
}

interface LabelCounts {
  readonly label: string | number;
  readonly counts: number[];
  sum: number;
  /** The bucket of the last value. */
  bucket: number;
  above: number;
  most: number;
}

/** A histogram for each value of a label, created on first use. */
export class Histograms {
  readonly #bounds: readonly number[];
  readonly #byLabel = new Map<string | number, LabelCounts>();
  /** The counts of the previous value's label: many values have the same label, and are in the same bucket. */
  #last: LabelCounts | undefined;

  /** @param bounds  upper bounds, ascending */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
  }

  /** Counts a value. @param label  from a small, fixed set; "" if the histogram has no label */
  add(label: string | number, value: number): void {
    let of = this.#last;
    if (of?.label !== label) {
      of = this.#countsOf(label);
      this.#last = of;
    }
    if (value > of.above && value <= of.most) of.counts[of.bucket]++;
    else this.#addElsewhere(of, value);
    of.sum += value;
  }

  #countsOf(label: string | number): LabelCounts {
    let of = this.#byLabel.get(label);
    if (of === undefined) {
      const counts = new Array(this.#bounds.length + 1).fill(0);
      of = { label, counts, sum: 0, bucket: 0, above: Number.NaN, most: Number.NaN };
      this.#byLabel.set(label, of);
    }
    return of;
  }

  #addElsewhere(of: LabelCounts, value: number): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]) bucket++;
    of.counts[bucket]++;
    of.bucket = bucket;
    of.above = bucket === 0 ? Number.NEGATIVE_INFINITY : bounds[bucket - 1];
    of.most = bucket === bounds.length ? Number.POSITIVE_INFINITY : bounds[bucket];
  }

  /** Copies the counts, by label. */
  read(): Record<string, HistogramReading> {
    const entries = [...this.#byLabel].map(([label, { counts, sum }]) => [
      label,
      { counts: [...counts], sum },
    ]);
    return Object.fromEntries(entries);
  }
}

/** Adds readings with the same bounds. */
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
