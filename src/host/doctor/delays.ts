import type { ProbeSample } from "../../core/session/probe-train.ts";
import { CLOCK_MODULUS } from "../../wire/probe.ts";

/** Delays above the lowest one, in milliseconds. */
export interface Delays {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** How many exceed a limit. */
  readonly late: number;
}

const MODULUS_MS = CLOCK_MODULUS / 1_000;

/** The delay of each sample above the lowest one, by sequence. */
export function delaysOf(samples: readonly ProbeSample[]): Map<number, number> {
  if (samples.length === 0) return new Map();
  const [first] = samples;
  const base = first.arrivedMs - first.sentMs;
  const raw = samples.map(({ sequence, sentMs, arrivedMs }): [number, number] => [
    sequence,
    wrapped(arrivedMs - sentMs - base),
  ]);
  const least = Math.min(...raw.map(([, delay]) => delay));
  return new Map(raw.map(([sequence, delay]) => [sequence, delay - least]));
}

/** Wraps a time into half of the clocks' range on either side of 0. */
function wrapped(ms: number): number {
  const within = ((ms % MODULUS_MS) + MODULUS_MS) % MODULUS_MS;
  return within >= MODULUS_MS / 2 ? within - MODULUS_MS : within;
}

/** @param lateMs  the limit for `late` */
export function summarizeDelays(values: readonly number[], lateMs: number): Delays {
  const sorted = values.toSorted((one, other) => one - other);
  return {
    count: sorted.length,
    p50: quantile(sorted, 0.5),
    p99: quantile(sorted, 0.99),
    max: sorted.at(-1) ?? 0,
    late: sorted.filter((value) => value > lateMs).length,
  };
}

/**
 * @param sorted  ascending
 * @returns 0 if it is empty
 */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

/** Whether long waits recur. Some waits may be short, because the ACK for the first segments of a burst is not delayed. */
export function isHeld(waits: readonly number[]): boolean {
  const long = waits.filter((wait) => wait > MIN_WAIT_MS);
  return long.length >= Math.max(MIN_HELD, waits.length / 3);
}

/**
 * Whether probes sent a gap after another were held until a fixed time after that one, as by Nagle's algorithm until a delayed ACK. Their
 * waits then shrink as the gap grows.
 *
 * @param waits  by gap: how much longer each probe was delayed than the one before it
 * @param rttMs  of the path, which an ACK also takes
 * @returns that fixed time in milliseconds; undefined if the probes are not held
 */
export function heldUntil(waits: ReadonlyMap<number, readonly number[]>, rttMs: number): number | undefined {
  const releases: number[] = [];
  for (const [gapMs, own] of waits) {
    if (!isHeld(own)) return undefined;
    const long = own.filter((wait) => wait > MIN_WAIT_MS).toSorted((one, other) => one - other);
    releases.push(quantile(long, 0.5) + gapMs);
  }
  const spread = Math.max(...releases) - Math.min(...releases);
  const mean = releases.reduce((sum, release) => sum + release, 0) / releases.length;
  return releases.length > 1 && spread <= MAX_SPREAD_MS && mean <= rttMs + MAX_ACK_DELAY_MS
    ? mean
    : undefined;
}

/** The scheduling of a busy machine does not cause waits this long again and again. */
const MIN_WAIT_MS = 8;
const MIN_HELD = 3;
/** Largest difference between the fixed times of two gaps. */
const MAX_SPREAD_MS = 8;
/** Longest delay of an ACK (RFC 9293 §3.8.6.3 allows 500 ms; systems wait 40 to 200). */
const MAX_ACK_DELAY_MS = 260;
