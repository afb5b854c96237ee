import type { CloseReason } from "../wire/capsule.ts";
import { Histograms } from "./metrics/histogram.ts";
import { DROPS, REFUSALS, type SPREADS, UNREACHABLES } from "./metrics/reasons.ts";
import { COUNTS, COUNTS_BY_LABEL, HISTOGRAMS } from "./metrics/table.ts";
import type { DatagramTap } from "./tap.ts";

/** Why datagrams were dropped. Every drop is counted under one of these. */
export const DROP_REASONS = keysOf(DROPS);
export type DropReason = keyof typeof DROPS;

/** The reason for which datagrams are dropped that arrive for an association after it has ended, or wait in it then. */
export function dropReasonOf(reason: CloseReason): DropReason {
  if (reason === "limit" || reason === "evicted") return "association_limit";
  return reason === "failed" ? "send_error" : "unknown_context";
}

/** Why a peer or a request was refused, or something was evicted for it. */
export const REFUSAL_REASONS = keysOf(REFUSALS);
export type RefusalReason = keyof typeof REFUSALS;

/**
 * Reports of datagrams that did not get through: a server counts those to its clients, a client those to its applications.
 * `limited` counts those that the rate limit suppressed.
 */
export const UNREACHABLE_COUNTS = keysOf(UNREACHABLES);
export type UnreachableCount = keyof typeof UNREACHABLES;

/**
 * Counts of sessions with receipts: lanes that became late, second copies of sparse flows, hedges and parities that were sent, datagrams
 * that were restored from parity, and copies that arrived and were dropped, which loses nothing.
 */
export type SpreadCount = keyof typeof SPREADS;

type ByLabel = typeof COUNTS_BY_LABEL;

/** Counts since the start, as the table of metrics has them. `in`: out of a tunnel; `out`: into a tunnel. Bytes are UDP payload. */
export type Counters = Record<keyof typeof COUNTS, number> & {
  readonly [Name in keyof ByLabel]: Record<keyof ByLabel[Name]["values"], number>;
} & {
  readonly histograms: Readonly<Record<keyof typeof HISTOGRAMS, Histograms>>;
  /** Observes the datagrams that are counted. */
  tap: DatagramTap | undefined;
};

class TableCounters {
  tap: DatagramTap | undefined = undefined;
  readonly histograms = mapped(
    HISTOGRAMS,
    ({ bounds }: { bounds: readonly number[] }) => new Histograms(bounds),
  );

  constructor() {
    Object.assign(
      this,
      mapped(COUNTS, () => 0),
      mapped(COUNTS_BY_LABEL, ({ values }: { values: object }) => mapped(values, () => 0)),
    );
  }
}

export const Counters = TableCounters as unknown as new () => Counters;

function keysOf<Key extends string>(rows: Readonly<Record<Key, unknown>>): readonly Key[] {
  return Object.keys(rows) as Key[];
}

function mapped<Row, To>(rows: object, to: (row: Row) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(rows).map(([key, row]: [string, Row]) => [key, to(row)]));
}
