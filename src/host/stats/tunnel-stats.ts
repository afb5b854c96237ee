import type { Counters } from "../../core/counters.ts";
import type { HistogramReading } from "../../core/metrics/histogram.ts";
import { sumHistograms } from "../../core/metrics/histogram.ts";
import type { Metric } from "../../core/metrics/table.ts";
import {
  COUNTS,
  type COUNTS_BY_LABEL,
  type FLOW_STATES,
  HISTOGRAMS,
  type KEY_COUNTS,
  type KEY_STATES,
  METRICS,
  type PACKET_COUNTS,
  readMetric,
  type STATES,
  writeMetric,
} from "../../core/metrics/table.ts";
import type { SpreadState } from "../../core/session/spread-state.ts";

type Numbers<Rows> = Readonly<Record<keyof Rows, number>>;
type Records<Name extends string> = Readonly<Record<Name, Readonly<Record<string, number>>>>;

/**
 * `in`: from a tunnel; `out`: into a tunnel. Counts are since the start; bytes are UDP payload. docs/reference/metrics.md explains each member,
 * and each reason in `drops`, `refused` and `unreachable`. Only tun2socks and a server whose egress leads to one have counts of packets.
 */
export interface TunnelStats
  extends Numbers<typeof STATES>,
    Numbers<typeof COUNTS>,
    Records<Exclude<keyof typeof COUNTS_BY_LABEL, "spread">>,
    Partial<Numbers<typeof PACKET_COUNTS>> {
  /** Smoothed round-trip time of the tunnel in milliseconds; undefined before the first heartbeat is answered. */
  readonly rttMs: number | undefined;
  /** Sessions with receipts, whose datagrams are spread over lanes. */
  readonly spread: {
    /**
     * Current sessions by the way they find their rate: `start`, not known yet; `delay`; or `compete`, against others that fill
     * queues.
     */
    readonly modes: Readonly<Record<string, number>>;
    /** The rate that all of them together may send now. */
    readonly bitsPerSecond: number;
    /** Lanes that are held up now. */
    readonly lanesLate: number;
    /**
     * Since the start: how often a lane became `late`; datagrams sent in a second copy (`copies`), or once more because they were
     * stuck (`hedges`); `parities` sent, and datagrams `restored` from those received; copies that arrived and were dropped without
     * loss (`duplicates`).
     */
    readonly counts: Readonly<Record<string, number>>;
  };
  /** Values by size since the start, by the label of each; docs/reference/metrics.md has the bounds. */
  readonly histograms: Readonly<Record<keyof typeof HISTOGRAMS, Readonly<Record<string, HistogramReading>>>>;
  /** Only for a server with keys of single clients: the first keys by name, and the sums of the others as `(others)`. */
  readonly keys?: KeyStats;
}

/** Current and past counts of the keys of single clients, by name. */
export type KeyStats = Records<keyof typeof KEY_STATES | keyof typeof KEY_COUNTS>;

/** Statistics of a running tun2socks; `in` and `out` are those of udp-local: towards and from the applications. */
export interface Tun2SocksStats
  extends Omit<TunnelStats, keyof typeof PACKET_COUNTS>,
    Numbers<typeof FLOW_STATES>,
    Numbers<typeof PACKET_COUNTS> {}

/** The current state of an endpoint, with all its counters. */
export function tunnelStats(
  counters: Counters,
  now: Numbers<typeof STATES> & Pick<TunnelStats, "rttMs">,
  spread: SpreadState,
  keys?: KeyStats,
): TunnelStats {
  const stats = { ...now, spread: { ...spread }, ...(keys === undefined ? {} : { keys }) };
  for (const metric of METRICS) {
    const value = counterOf(counters, metric);
    if (value !== undefined) writeMetric(stats, metric, value);
  }
  return stats as unknown as TunnelStats;
}

function counterOf(counters: Counters, metric: Metric): unknown {
  if (metric.kind === "gauge" || metric.isOfTun2Socks || metric.isOfKeys) return undefined;
  const name = metric.stat.split(".")[metric.kind === "histogram" ? 1 : 0];
  if (name in HISTOGRAMS) return counters.histograms[name as keyof typeof HISTOGRAMS].read();
  if (name in COUNTS) return counters[name as keyof typeof COUNTS];
  return { ...counters[name as keyof typeof COUNTS_BY_LABEL] };
}

/** The statistics of an endpoint without a tunnel. */
export function noTunnelStats(): TunnelStats {
  return sumStats([]);
}

/** Sums the statistics of several workers. */
export function sumStats(all: readonly TunnelStats[]): TunnelStats {
  const total = {};
  for (const metric of METRICS) {
    const isOptional = metric.isOfTun2Socks || metric.isOfKeys;
    if (!isOptional || all.some((stats) => readMetric(stats, metric) !== undefined))
      writeMetric(
        total,
        metric,
        combine(
          metric,
          all.map((stats) => readMetric(stats, metric)),
        ),
      );
  }
  return total as TunnelStats;
}

/** The statistics of an endpoint that has ended: its counts stay, its state does not. */
export function statsOfGone(stats: TunnelStats): TunnelStats {
  const gone = sumStats([stats]);
  for (const metric of METRICS) {
    const isState = metric.kind === "gauge" && !metric.isOfTun2Socks;
    if (isState && readMetric(gone, metric) !== undefined) writeMetric(gone, metric, combine(metric, []));
  }
  return gone;
}

function combine(metric: Metric, values: readonly unknown[]): unknown {
  if (metric.kind === "histogram") return sumHistograms(values as Record<string, HistogramReading>[]);
  if (metric.label !== undefined) return sumRecords(values as Record<string, number>[]);
  const numbers = values.filter((value) => value !== undefined) as number[];
  const total = numbers.reduce((sum, value) => sum + value, 0);
  if (metric.sum === "add") return total;
  return numbers.length === 0 ? undefined : total / numbers.length;
}

/** Adds up counts by name. */
export function sumRecords(
  records: readonly (Readonly<Record<string, number>> | undefined)[],
): Record<string, number> {
  const total: Record<string, number> = {};
  for (const record of records) {
    for (const [name, count] of Object.entries(record ?? {})) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}
