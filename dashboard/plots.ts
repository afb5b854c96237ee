import uPlot from "uplot";
import type { HistogramReading } from "../src/core/metrics/histogram.ts";
import { HISTOGRAMS } from "../src/core/metrics/table.ts";
import type { TunnelStats } from "../src/host/stats/tunnel-stats.ts";
import { element } from "./page.ts";

/** Five minutes. */
const READINGS = 300;
const HEIGHT = 180;
const COLORS = ["--a", "--b", "--good", "--bad", "--dim"];

interface Panel {
  readonly id: string;
  readonly names: readonly string[];
  /** band: fills the second series down to the first; stack: each series is the sum of those before it, filled down to the last. */
  readonly kind: "lines" | "band" | "stack";
  values(before: TunnelStats, now: TunnelStats, seconds: number): (number | null)[];
}

const DROPS = ["age", "queue_full", "no_lane", "refused_target"];

const PANELS: readonly Panel[] = [
  {
    id: "rates",
    names: ["in", "out"],
    kind: "lines",
    values: (before, now, seconds) =>
      (["bytesIn", "bytesOut"] as const).map((name) => (8 * (now[name] - before[name])) / seconds / 1e6),
  },
  { id: "round-trip", names: ["median", "99 %"], kind: "band", values: band("roundTripMs") },
  { id: "wait", names: ["median", "99 %"], kind: "band", values: band("queueDelayMs") },
  {
    id: "drops",
    names: [...DROPS, "others"],
    kind: "stack",
    values(before, now, seconds) {
      const rates = Object.entries(now.drops).map(
        ([reason, count]) => [reason, (count - (before.drops[reason] ?? 0)) / seconds] as const,
      );
      const named = DROPS.map((name) => rates.find(([reason]) => reason === name)?.[1] ?? 0);
      const all = rates.reduce((total, [, rate]) => total + rate, 0);
      const others = all - named.reduce((total, rate) => total + rate, 0);
      // In a stack, each line is the sum of those before it.
      let sum = 0;
      return [...named, others].map((rate) => (sum += rate));
    },
  },
];

/** The plots of the last minutes. They are redrawn when the colours of the page change. */
export class Plots {
  readonly #times: number[] = [];
  readonly #series = PANELS.map(({ names }) => names.map((): (number | null)[] => []));
  #plots: uPlot[] = [];
  #before: { readonly stats: TunnelStats; readonly at: number } | undefined;

  constructor() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#make());
    addEventListener("resize", () => this.#make());
  }

  /** @param at  in milliseconds */
  add(stats: TunnelStats, at: number): void {
    const before = this.#before;
    this.#before = { stats, at };
    if (before === undefined) return;
    const seconds = (at - before.at) / 1000;
    this.#times.push(Date.now() / 1000);
    for (const [i, panel] of PANELS.entries()) {
      panel.values(before.stats, stats, seconds).forEach((value, n) => void this.#series[i][n].push(value));
    }
    if (this.#times.length > READINGS) {
      this.#times.shift();
      for (const lines of this.#series) for (const line of lines) line.shift();
    }
    if (this.#plots.length === 0) this.#make();
    else for (const [i, plot] of this.#plots.entries()) plot.setData([this.#times, ...this.#series[i]]);
  }

  #make(): void {
    for (const plot of this.#plots) plot.destroy();
    const style = getComputedStyle(document.documentElement);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color("--dim"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { stroke: color("--line") },
    };
    this.#plots = PANELS.map(({ id, names, kind }, i) => {
      const stroke = (n: number) => color(COLORS[kind === "band" ? 0 : n]);
      const series = names.map((label, n) => ({
        label,
        stroke: stroke(n),
        width: 1.5,
        ...(kind === "stack" && n === 0 ? { fill: `${stroke(0)}60` } : {}),
        value: (plot: uPlot, value: number | null, at: number, row: number | null) => {
          if (value === null || row === null) return "–";
          const below = kind === "stack" && at > 1 ? (plot.data[at - 1][row] ?? 0) : 0;
          return (value - below).toFixed(2);
        },
      }));
      const bands = names.slice(1).map((_, n) => ({
        series: [n + 2, n + 1] as [number, number],
        fill: `${stroke(n + 1)}60`,
      }));
      const target = element(id);
      const size = { width: target.clientWidth, height: HEIGHT };
      const options = {
        ...size,
        axes: [axis, axis],
        series: [{}, ...series],
        bands: kind === "lines" ? [] : bands,
      };
      return new uPlot(options, [this.#times, ...this.#series[i]], target);
    });
  }
}

/** Median and 99th percentile of a histogram's increase, as the upper limits of its buckets. */
function band(name: "roundTripMs" | "queueDelayMs"): Panel["values"] {
  const { bounds } = HISTOGRAMS[name];
  return (before, now) => {
    const gained = new Array<number>(bounds.length + 1).fill(0);
    for (const [sign, stats] of [
      [1, now],
      [-1, before],
    ] as const) {
      for (const { counts } of Object.values(stats.histograms[name]) as HistogramReading[]) {
        for (const [bucket, count] of counts.entries()) gained[bucket] += sign * count;
      }
    }
    return [0.5, 0.99].map((share) => quantile(gained, bounds, share));
  };
}

function quantile(counts: readonly number[], bounds: readonly number[], share: number): number | null {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total <= 0) return null;
  let seen = 0;
  for (const [bucket, count] of counts.entries()) {
    seen += count;
    if (seen >= share * total) return bounds[Math.min(bucket, bounds.length - 1)];
  }
  return bounds.at(-1)!;
}
