import { describe, expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import type { SpreadState } from "../../../src/core/session/spread-state.ts";
import { statsLine, summarize } from "../../../src/host/stats/stats-line.ts";
import { sumStats, tunnelStats } from "../../../src/host/stats/tunnel-stats.ts";

const NOW = { sessions: 1, lanes: 4, associations: 7, contexts: 9, rttMs: 51.234 };
const NONE: SpreadState = { modes: { start: 0, delay: 0, compete: 0 }, bitsPerSecond: 0, lanesLate: 0 };
const ONE: SpreadState = {
  modes: { start: 0, delay: 1, compete: 0 },
  bitsPerSecond: 15_240_000,
  lanesLate: 1,
};

describe("the line of statistics", () => {
  it("omits receipts if no session has them", () => {
    const counters = new Counters();
    const before = tunnelStats(counters, NOW, NONE);
    counters.datagramsIn += 12_000;
    counters.bytesIn += 14_400_000;
    counters.drops.age += 3;
    expect(statsLine(summarize(before, tunnelStats(counters, NOW, NONE), 10))).toBe(
      "in 1200/s 11.5 Mbit/s, out 0/s 0.0 Mbit/s, rtt 51.23 ms, sessions 1, lanes 4, associations 7, drops age 3",
    );
  });

  it("shows how datagrams are spread over lanes, and what that cost since the last line", () => {
    const counters = new Counters();
    counters.spread.hedges = 5;
    const before = tunnelStats(counters, NOW, ONE);
    counters.spread.late += 2;
    counters.spread.copies += 120;
    counters.spread.duplicates += 118;
    expect(statsLine(summarize(before, tunnelStats(counters, NOW, ONE), 10))).toContain(
      "lanes 4 (1 late), associations 7, pace 15.2 Mbit/s delay, spread late 2 copies 120 duplicates 118",
    );
  });

  it("sums those of several threads", () => {
    const counters = new Counters();
    counters.spread.copies = 2;
    const all = sumStats([ONE, ONE, NONE].map((spread) => tunnelStats(counters, NOW, spread)));
    expect(all.spread).toEqual({
      modes: { start: 0, delay: 2, compete: 0 },
      bitsPerSecond: 30_480_000,
      lanesLate: 2,
      counts: { late: 0, copies: 6, hedges: 0, parities: 0, restored: 0, duplicates: 0 },
    });
    const compete: SpreadState = { ...ONE, modes: { start: 1, delay: 0, compete: 3 } };
    const after = tunnelStats(counters, NOW, compete);
    expect(statsLine(summarize(after, after, 1))).toContain("Mbit/s start 1 compete 3");
  });
});
