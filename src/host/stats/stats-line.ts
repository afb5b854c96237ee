import { METRICS, readMetric } from "../../core/metrics/table.ts";
import type { Tun2SocksStats, TunnelStats } from "./tunnel-stats.ts";

type Stats = TunnelStats & Partial<Pick<Tun2SocksStats, "flows" | "halfOpenFlows">>;

const RATES = ["datagramsIn", "datagramsOut", "bytesIn", "bytesOut"] as const;
const COUNTERS = METRICS.filter(({ kind, isOfTun2Socks }) => kind === "counter" && !isOfTun2Socks);
/** Counts by reason that appear in the line under their own name. */
const REASONS = COUNTERS.filter(({ label, stat }) => label !== undefined && !stat.includes("."));
/** Plain counts that are not shown as rates. */
const OTHERS = COUNTERS.filter(
  ({ label, stat }) => label === undefined && !RATES.some((name) => name === stat),
);

/** How datagrams are spread over lanes. */
export interface StatsSpread {
  /** Sessions by the way they find their rate, and the rate that they may send, in bits per second. */
  readonly modes: Readonly<Record<string, number>>;
  readonly bitPerS: number;
  /** Lanes that are held up now. */
  readonly lanesLate: number;
  /** Counts of this interval; only those that occurred. */
  readonly counts: Readonly<Record<string, number>>;
}

/** The changes between two readings of the counters. */
export interface StatsSummary {
  /** Datagrams and bits of UDP payload per second. */
  readonly inPerS: number;
  readonly outPerS: number;
  readonly inBitPerS: number;
  readonly outBitPerS: number;
  readonly rttMs: number | undefined;
  readonly sessions: number;
  readonly lanes: number;
  readonly associations: number;
  /** For sessions with receipts; undefined if there are none. */
  readonly spread: StatsSpread | undefined;
  /** Only for tun2socks. */
  readonly flows: number | undefined;
  readonly halfOpenFlows: number | undefined;
  /** Other counts of this interval; only those that occurred. */
  readonly counts: Readonly<Record<string, number>>;
  /** Counts of this interval; only reasons that occurred. */
  readonly drops: Readonly<Record<string, number>>;
  readonly refused: Readonly<Record<string, number>>;
  readonly unreachable: Readonly<Record<string, number>>;
}

/** @param seconds  between the readings, more than 0 */
export function summarize(before: Stats, after: Stats, seconds: number): StatsSummary {
  const rate = (count: (typeof RATES)[number]) => Math.round((after[count] - before[count]) / seconds);
  const reasons = REASONS.map((metric) => [
    metric.stat,
    increases(countsOf(before, metric), countsOf(after, metric)),
  ]);
  return {
    inPerS: rate("datagramsIn"),
    outPerS: rate("datagramsOut"),
    inBitPerS: rate("bytesIn") * 8,
    outBitPerS: rate("bytesOut") * 8,
    rttMs: after.rttMs === undefined ? undefined : Math.round(after.rttMs * 100) / 100,
    sessions: after.sessions,
    lanes: after.lanes,
    associations: after.associations,
    spread: spreadOf(before, after),
    flows: after.flows,
    halfOpenFlows: after.halfOpenFlows,
    counts: increases(othersOf(before), othersOf(after)),
    ...(Object.fromEntries(reasons) as Pick<StatsSummary, "drops" | "refused" | "unreachable">),
  };
}

function countsOf(stats: Stats, metric: (typeof METRICS)[number]): Readonly<Record<string, number>> {
  return readMetric(stats, metric) as Record<string, number>;
}

function othersOf(stats: Stats): Record<string, number> {
  return Object.fromEntries(OTHERS.map((metric) => [metric.stat, readMetric(stats, metric) as number]));
}

function spreadOf(before: Stats, after: Stats): StatsSpread | undefined {
  const { modes, bitsPerSecond, lanesLate, counts } = after.spread;
  const used = Object.fromEntries(Object.entries(modes).filter(([, sessions]) => sessions > 0));
  if (Object.keys(used).length === 0) return undefined;
  const bitPerS = Math.round(bitsPerSecond);
  return { modes: used, bitPerS, lanesLate, counts: increases(before.spread.counts, counts) };
}

/** `in 1200/s 11.5 Mbit/s, out 3/s 0.0 Mbit/s, rtt 1.23 ms, sessions 1, lanes 1, associations 7, drops age 3` */
export function statsLine(summary: StatsSummary): string {
  const megabits = (bits: number) => (bits / 1e6).toFixed(1);
  const counts = (name: string, record: Readonly<Record<string, number>>) => {
    const entries = Object.entries(record).map(([reason, count]) => `${reason} ${count}`);
    return entries.length === 0 ? [] : [`${name} ${entries.join(" ")}`];
  };
  const { spread } = summary;
  const late = spread?.lanesLate ?? 0;
  return [
    `in ${summary.inPerS}/s ${megabits(summary.inBitPerS)} Mbit/s`,
    `out ${summary.outPerS}/s ${megabits(summary.outBitPerS)} Mbit/s`,
    `rtt ${summary.rttMs === undefined ? "-" : `${summary.rttMs} ms`}`,
    `sessions ${summary.sessions}`,
    `lanes ${summary.lanes}${late === 0 ? "" : ` (${late} late)`}`,
    `associations ${summary.associations}`,
    ...(summary.flows === undefined ? [] : [`flows ${summary.flows}, half-open ${summary.halfOpenFlows}`]),
    ...(spread === undefined ? [] : [`pace ${megabits(spread.bitPerS)} Mbit/s ${modesOf(spread)}`]),
    ...counts("spread", spread?.counts ?? {}),
    ...Object.entries(summary.counts).map(([name, count]) => `${name} ${count}`),
    ...REASONS.flatMap(({ stat }) => counts(stat, summary[stat as "drops"])),
  ].join(", ");
}

/** `delay`, or `delay 3 start 1` for several sessions. */
function modesOf({ modes }: StatsSpread): string {
  const entries = Object.entries(modes);
  const isOne = entries.length === 1 && entries[0][1] === 1;
  return isOne ? entries[0][0] : entries.map(([mode, sessions]) => `${mode} ${sessions}`).join(" ");
}

function increases(
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): Record<string, number> {
  const differences = Object.entries(after).map(
    ([name, count]) => [name, count - (before[name] ?? 0)] as const,
  );
  return Object.fromEntries(differences.filter(([, difference]) => difference > 0));
}
