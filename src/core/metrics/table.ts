/**
 * The table of all metrics of an endpoint. `Counters`, `stats()`, the sums over threads, the numbers of the C library, Prometheus and
 * docs/reference/metrics.md are derived from it, so a new counter is a row here. Names follow the conventions of Prometheus: base units, and
 * the suffix `_total` for counters.
 */
import { DEVICE_DROPS, EVICTIONS, PACKET_DROPS } from "./packet-reasons.ts";
import type { Explanation } from "./reasons.ts";
import { DIRECTIONS, DROPS, RATE_MODES, REFUSALS, SPREADS, UNREACHABLES } from "./reasons.ts";

interface Row {
  readonly name: string;
  readonly help: string;
  /** Factor from the value in `stats()` to that of `name`. Default: 1. */
  readonly scale?: number;
  /** Its member of `stats()`, if that is not the row's key. */
  readonly stat?: string;
  /** Its member of the C library's `underpass_stats`. */
  readonly c?: string;
}

/** A label of a metric. `values` is undefined if these are numbers or the names of keys. */
export interface MetricLabel {
  readonly name: string;
  readonly values: Readonly<Record<string, Explanation>> | undefined;
}

export interface Metric extends Row {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly stat: string;
  readonly label?: MetricLabel;
  /** Bounds of a histogram, in the unit of `stats()`. */
  readonly bounds?: readonly number[];
  /** How the values of threads are combined. */
  readonly sum: "add" | "mean";
  /** Whether only tun2socks has it; some a server, too, whose egress leads to a tun2socks. */
  readonly isOfTun2Socks: boolean;
  /** Whether only a server with keys of single clients has it. */
  readonly isOfKeys: boolean;
}

type Rows<Extra = object> = Readonly<Record<string, Row & Extra>>;

/** Current values. */
export const STATES = {
  sessions: { name: "underpass_sessions", help: "Sessions now.", c: "sessions" },
  lanes: {
    name: "underpass_lanes",
    help: "Tunnels that are up now: the connections of sessions.",
    c: "lanes",
  },
  associations: { name: "underpass_associations", help: "Sources of datagrams now.", c: "associations" },
  contexts: {
    name: "underpass_contexts",
    help: "Pairs of an association and an address now.",
    c: "contexts",
  },
} as const satisfies Rows;

/** Counts since the start; members of `Counters`. */
export const COUNTS = {
  datagramsIn: {
    name: "underpass_received_datagrams_total",
    help: "Datagrams out of a tunnel.",
    c: "datagrams_in",
  },
  datagramsOut: {
    name: "underpass_sent_datagrams_total",
    help: "Datagrams into a tunnel.",
    c: "datagrams_out",
  },
  bytesIn: { name: "underpass_received_bytes_total", help: "UDP payload out of a tunnel.", c: "bytes_in" },
  bytesOut: { name: "underpass_sent_bytes_total", help: "UDP payload into a tunnel.", c: "bytes_out" },
  resumed: {
    name: "underpass_resumed_sessions_total",
    help: "Sessions that a new connection resumed.",
    c: "resumed",
  },
  restored: {
    name: "underpass_restored_sessions_total",
    help: "Sessions that a server continued after a restart (--keep-sessions).",
  },
  tapRecords: { name: "underpass_tap_records_total", help: "Records that --tap has written." },
  tapLost: {
    name: "underpass_tap_lost_records_total",
    help: "Records that --tap has lost, because the disk was too slow or full.",
  },
} as const satisfies Rows;

/** Counts since the start by the values of a label; members of `Counters`. */
export const COUNTS_BY_LABEL = {
  drops: {
    name: "underpass_dropped_datagrams_total",
    help: "Datagrams dropped, by reason.",
    label: "reason",
    values: DROPS,
    c: "dropped",
  },
  refused: {
    name: "underpass_refusals_total",
    help: "Refusals and evictions, by reason.",
    label: "reason",
    values: REFUSALS,
    c: "refused",
  },
  unreachable: {
    name: "underpass_unreachable_reports_total",
    help: "Reports of datagrams that did not get through: from a server to its clients, from a client to its applications.",
    label: "kind",
    values: UNREACHABLES,
  },
  spread: {
    name: "underpass_spread_events_total",
    help: "Events in sessions with receipts: late lanes, copies, hedges, parity and duplicates.",
    label: "kind",
    values: SPREADS,
    stat: "spread.counts",
  },
} as const satisfies Rows<{ readonly label: string; readonly values: Readonly<Record<string, Explanation>> }>;

const DELAY_BOUNDS_MS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500];

/** Members of `Counters`, and of `stats().histograms`. */
export const HISTOGRAMS = {
  roundTripMs: {
    name: "underpass_round_trip_seconds",
    help: "Round trips of heartbeats on all lanes.",
    scale: 0.001,
    bounds: DELAY_BOUNDS_MS,
  },
  queueDelayMs: {
    name: "underpass_queue_delay_seconds",
    help: "How long the first datagram of each batch waited in the program before it was written to its lane.",
    scale: 0.001,
    bounds: DELAY_BOUNDS_MS,
    label: "lane",
  },
  standingDelayMs: {
    name: "underpass_standing_delay_seconds",
    help: "One-way delay of the newest datagram in each receipt, above the recent minimum, because clocks differ; without late lanes.",
    scale: 0.001,
    bounds: DELAY_BOUNDS_MS,
  },
  datagramBytes: {
    name: "underpass_datagram_size_bytes",
    help: "UDP payload of the first datagram of each batch.",
    bounds: [32, 64, 128, 256, 512, 1_024, 1_200, 1_350, 1_500, 4_096, 16_384, 65_535],
    label: "direction",
    values: DIRECTIONS,
  },
} as const satisfies Rows<{
  readonly bounds: readonly number[];
  readonly label?: string;
  readonly values?: Readonly<Record<string, Explanation>>;
}>;

/** Further current values, each in the named member of `stats()`. */
const MORE_STATES = {
  rttMs: {
    name: "underpass_smoothed_round_trip_seconds",
    help: "Smoothed round-trip time of the tunnel, a mean of lanes; absent before the first heartbeat is answered.",
    scale: 0.001,
    c: "rtt_ms",
  },
  rateModes: {
    name: "underpass_rate_sessions",
    help: "Current sessions with receipts, by how they set their rate.",
    label: "mode",
    values: RATE_MODES,
    stat: "spread.modes",
  },
  rate: {
    name: "underpass_rate_bytes_per_second",
    help: "Current rate of all sessions with receipts together.",
    scale: 1 / 8,
    stat: "spread.bitsPerSecond",
  },
  lanesLate: {
    name: "underpass_late_lanes",
    help: "Lanes of sessions with receipts that are held up now.",
    stat: "spread.lanesLate",
  },
} as const satisfies Rows<{
  readonly label?: string;
  readonly values?: Readonly<Record<string, Explanation>>;
}>;

/** Current values by key of a single client, ... */
export const KEY_STATES = {
  sessions: { name: "underpass_key_sessions", help: "Current sessions, by key." },
  associations: { name: "underpass_key_associations", help: "Current associations, by key." },
} as const satisfies Rows;

/** ... and counts, which are members of `KeyCounts`. */
export const KEY_COUNTS = {
  datagramsIn: {
    name: "underpass_key_received_datagrams_total",
    help: "Datagrams out of the tunnels of a key.",
  },
  datagramsOut: {
    name: "underpass_key_sent_datagrams_total",
    help: "Datagrams into the tunnels of a key.",
  },
  bytesIn: {
    name: "underpass_key_received_bytes_total",
    help: "UDP payload out of the tunnels of a key.",
  },
  bytesOut: { name: "underpass_key_sent_bytes_total", help: "UDP payload into the tunnels of a key." },
  limited: {
    name: "underpass_key_limited_datagrams_total",
    help: "Datagrams dropped because they exceeded the rate of a key.",
  },
} as const satisfies Rows;

/** Further current values of tun2socks. */
export const FLOW_STATES = {
  flows: { name: "underpass_tcp_flows", help: "Current TCP flows." },
  halfOpenFlows: {
    name: "underpass_half_open_tcp_flows",
    help: "TCP flows that have not completed their handshake.",
  },
} as const satisfies Rows;

/** Counts since the start; members of `PacketCounters`. */
export const PACKET_COUNTS = {
  packetsIn: {
    name: "underpass_device_received_packets_total",
    help: "IP packets from the device; at udp-server, from the tun2socks of --egress.",
  },
  packetsOut: {
    name: "underpass_device_sent_packets_total",
    help: "IP packets to the device; at udp-server, to the tun2socks of --egress.",
  },
  fragmentsIn: {
    name: "underpass_device_received_fragments_total",
    help: "Fragments among these packets from the device or tun2socks.",
  },
  reassembled: {
    name: "underpass_reassembled_packets_total",
    help: "Packets reassembled from fragments.",
  },
  associationsOpened: {
    name: "underpass_opened_associations_total",
    help: "UDP associations opened.",
  },
  flowsOpened: { name: "underpass_opened_tcp_flows_total", help: "TCP flows opened." },
  echoes: { name: "underpass_echo_replies_total", help: "Echo requests answered." },
  resets: { name: "underpass_tcp_resets_total", help: "TCP resets sent to the device." },
  icmpErrors: { name: "underpass_icmp_errors_total", help: "ICMP errors sent to the device." },
} as const satisfies Rows;

/** The reasons that tun2socks adds to labels. */
const MORE_VALUES: Readonly<Record<string, Readonly<Record<string, Explanation>>>> = {
  drops: { ...PACKET_DROPS, ...DEVICE_DROPS },
  refused: EVICTIONS,
};

type AnyRow = Row & {
  readonly label?: string;
  readonly values?: Readonly<Record<string, Explanation>>;
  readonly bounds?: readonly number[];
};

function metrics(
  kind: Metric["kind"],
  rows: Readonly<Record<string, AnyRow>>,
  isOfTun2Socks = false,
  isOfKeys = false,
): Metric[] {
  return Object.entries(rows).map(([key, { label, values, ...row }]) => ({
    ...row,
    kind,
    stat: row.stat ?? (kind === "histogram" ? `histograms.${key}` : key),
    ...(label === undefined
      ? {}
      : { label: { name: label, values: values && { ...values, ...MORE_VALUES[key], ...values } } }),
    sum: key === "rttMs" ? "mean" : "add",
    isOfTun2Socks,
    isOfKeys,
  }));
}

/** Rows for the keys of single clients, labelled with the names of the keys. */
function keyMetrics(kind: Metric["kind"], rows: Rows): Metric[] {
  return metrics(kind, rows, false, true).map((metric) => ({
    ...metric,
    stat: `keys.${metric.stat}`,
    label: { name: "key", values: undefined },
  }));
}

/** All metrics. The order of those that the C library has is part of its interface. */
export const METRICS: readonly Metric[] = [
  ...metrics("gauge", STATES),
  ...metrics("counter", COUNTS),
  ...metrics("counter", COUNTS_BY_LABEL),
  ...metrics("gauge", MORE_STATES),
  ...metrics("histogram", HISTOGRAMS),
  ...keyMetrics("gauge", KEY_STATES),
  ...keyMetrics("counter", KEY_COUNTS),
  ...metrics("gauge", FLOW_STATES, true),
  ...metrics("counter", PACKET_COUNTS, true),
];

/** Reads a metric's value from an object like `stats()`. */
export function readMetric(stats: object, { stat }: Metric): unknown {
  return stat
    .split(".")
    .reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], stats);
}

/** Writes a metric's value to such an object. */
export function writeMetric(stats: object, { stat }: Metric, value: unknown): void {
  const path = stat.split(".");
  const last = path.pop()!;
  let at = stats as Record<string, unknown>;
  for (const key of path) {
    at[key] ??= {};
    at = at[key] as Record<string, unknown>;
  }
  at[last] = value;
}
