import type { Counters } from "../core/counters.ts";
import type { SpreadState } from "../core/spread-state.ts";
import type { TunnelStats } from "./handles.ts";

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
