import type { Counters } from "../core/counters.ts";
import type { SpreadState } from "../core/spread-state.ts";

/** `in`: from a tunnel; `out`: into a tunnel. Counts are since the start; bytes are UDP payload. */
export interface TunnelStats {
  /** Sessions now. */
  readonly sessions: number;
  /** Tunnels that are up now. */
  readonly lanes: number;
  /** Associations now. */
  readonly associations: number;
  /** Contexts now. */
  readonly contexts: number;
  readonly datagramsIn: number;
  readonly datagramsOut: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Smoothed round-trip time of the tunnel in milliseconds; undefined before the first heartbeat is answered. */
  readonly rttMs: number | undefined;
  /** Sessions that were resumed by a new connection. */
  readonly resumed: number;
  /** Sessions with receipts, whose datagrams are spread over lanes. */
  readonly spread: {
    /** Sessions now by how they find their rate: `start`, not known yet; `delay`; or `compete`, against others that fill queues. */
    readonly modes: Readonly<Record<string, number>>;
    /** What they may send now, together. */
    readonly bitsPerSecond: number;
    /** Lanes that are held up now. */
    readonly lanesLate: number;
    /**
     * Since the start: how often a lane became `late`; datagrams sent in a second copy (`copies`) and once more because they were
     * stuck (`hedges`); copies that came and were dropped (`duplicates`), by which nothing is lost.
     */
    readonly counts: Readonly<Record<string, number>>;
  };
  /** Datagrams dropped, by reason. */
  readonly drops: Readonly<Record<string, number>>;
  /** What was refused or evicted, by reason. */
  readonly refused: Readonly<Record<string, number>>;
  /** Reports of datagrams that did not get through, by kind, and reports suppressed by the rate limit (`limited`). */
  readonly unreachable: Readonly<Record<string, number>>;
}

/** Statistics of a running tun2socks; `in` and `out` are those of udp-local: towards and from the applications. */
export interface Tun2SocksStats extends TunnelStats {
  /** TCP flows now, and those of them that have not completed their handshake. */
  readonly flows: number;
  readonly halfOpenFlows: number;
  /** IP packets from and to the device. */
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly associationsOpened: number;
  readonly flowsOpened: number;
}

/** The current state of an endpoint, with all its counters. */
export function tunnelStats(
  counters: Counters,
  now: Pick<TunnelStats, "sessions" | "lanes" | "associations" | "contexts" | "rttMs">,
  spread: SpreadState,
): TunnelStats {
  const { datagramsIn, datagramsOut, bytesIn, bytesOut, resumed } = counters;
  const { drops, refused, unreachable } = counters;
  return {
    ...now,
    ...{ datagramsIn, datagramsOut, bytesIn, bytesOut, resumed },
    spread: { ...spread, counts: { ...counters.spread } },
    drops: { ...drops },
    refused: { ...refused },
    unreachable: { ...unreachable },
  };
}

/** Sums the statistics of several workers. */
export function sumStats(all: readonly TunnelStats[]): TunnelStats {
  const sum = (pick: (stats: TunnelStats) => number) => all.reduce((total, stats) => total + pick(stats), 0);
  const times = all.flatMap(({ rttMs }) => rttMs ?? []);
  return {
    sessions: sum((stats) => stats.sessions),
    lanes: sum((stats) => stats.lanes),
    associations: sum((stats) => stats.associations),
    contexts: sum((stats) => stats.contexts),
    datagramsIn: sum((stats) => stats.datagramsIn),
    datagramsOut: sum((stats) => stats.datagramsOut),
    bytesIn: sum((stats) => stats.bytesIn),
    bytesOut: sum((stats) => stats.bytesOut),
    resumed: sum((stats) => stats.resumed),
    rttMs: times.length === 0 ? undefined : times.reduce((total, time) => total + time, 0) / times.length,
    spread: {
      modes: sumRecords(all.map(({ spread }) => spread.modes)),
      bitsPerSecond: sum(({ spread }) => spread.bitsPerSecond),
      lanesLate: sum(({ spread }) => spread.lanesLate),
      counts: sumRecords(all.map(({ spread }) => spread.counts)),
    },
    drops: sumRecords(all.map(({ drops }) => drops)),
    refused: sumRecords(all.map(({ refused }) => refused)),
    unreachable: sumRecords(all.map(({ unreachable }) => unreachable)),
  };
}

function sumRecords(records: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const record of records) {
    for (const [name, count] of Object.entries(record)) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}
