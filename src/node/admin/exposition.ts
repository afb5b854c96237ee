import type { Metric as PromMetric, Registry } from "prom-client";
import type { HistogramReading } from "../../core/metrics/histogram.ts";
import type { Metric } from "../../core/metrics/table.ts";
import { METRICS, readMetric } from "../../core/metrics/table.ts";

interface Sample {
  readonly value: number;
  readonly labels: Readonly<Record<string, string>>;
  /** If it differs from the metric's. */
  readonly metricName?: string;
}

/** Values that stay the same for the whole run. */
export interface BuildInfo {
  readonly program: string;
  readonly version: string;
  /** Start of the process, in seconds since 1970. */
  readonly startedAt: number;
}

/** The metrics of an endpoint in the formats of Prometheus and OpenMetrics. */
export class Exposition {
  readonly #read: () => object;
  readonly #info: BuildInfo;
  /** Stats of the current scrape. */
  #stats: object = {};
  #registries: Promise<{ readonly text: Registry; readonly openMetrics: Registry }> | undefined;

  /** @param read  `stats()` of the endpoint */
  constructor(read: () => object, info: BuildInfo) {
    this.#read = read;
    this.#info = info;
  }

  async scrape(isOpenMetrics: boolean): Promise<{ readonly type: string; readonly body: string }> {
    this.#stats = this.#read();
    this.#registries ??= this.#open();
    const { text, openMetrics } = await this.#registries;
    const registry = isOpenMetrics ? openMetrics : text;
    return { type: registry.contentType, body: await registry.metrics() };
  }

  async #open() {
    // Loaded with the first scrape, because most runs have none.
    const { Registry } = (await import("prom-client")).default;
    const text = new Registry();
    const openMetrics = new Registry();
    openMetrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE as never);
    for (const registry of [text, openMetrics]) {
      const add = (name: string, help: string, kind: string, samples: () => readonly Sample[]) => {
        // The registry changes the name for OpenMetrics.
        const metric = { name, help, type: kind, get: async () => ({ ...metric, values: samples() }) };
        registry.registerMetric(metric as unknown as PromMetric<string>);
      };
      const { program, version, startedAt } = this.#info;
      const labels = { program, version, node: process.versions.node };
      add("underpass_build_info", "Always 1; labels have the versions.", "gauge", () => [
        { value: 1, labels },
      ]);
      add("process_start_time_seconds", "When the process started, since 1970.", "gauge", () => [
        { value: startedAt, labels: {} },
      ]);
      for (const metric of METRICS.filter((one) => this.#has(one))) {
        add(metric.name, metric.help, metric.kind, () => samplesOf(metric, readMetric(this.#stats, metric)));
      }
    }
    return { text, openMetrics };
  }

  #has(metric: Metric): boolean {
    const isOptional = metric.isOfTun2Socks || metric.isOfKeys;
    return !isOptional || readMetric(this.#stats, metric) !== undefined;
  }
}

function samplesOf(metric: Metric, value: unknown): Sample[] {
  if (value === undefined) return [];
  const { scale = 1, label } = metric;
  if (typeof value === "number") return [{ value: value * scale, labels: {} }];
  const labelled = Object.entries(value as Record<string, number | HistogramReading>);
  return labelled.flatMap(([text, of]) => {
    const labels: Record<string, string> = label === undefined ? {} : { [label.name]: text };
    return typeof of === "number" ? [{ value: of * scale, labels }] : bucketsOf(metric, of, labels);
  });
}

function bucketsOf(
  { name, bounds, scale = 1 }: Metric,
  { counts, sum }: HistogramReading,
  labels: Record<string, string>,
): Sample[] {
  let total = 0;
  const buckets = counts.map((count, i) => {
    total += count;
    const le = i < bounds!.length ? String(Number((bounds![i] * scale).toPrecision(12))) : "+Inf";
    return { metricName: `${name}_bucket`, value: total, labels: { ...labels, le } };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, value: sum * scale, labels },
    { metricName: `${name}_count`, value: total, labels },
  ];
}
