import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { STATS_MEMBERS, statsArray } from "../../../src/capi/stats/stats.ts";
import { Counters } from "../../../src/core/counters.ts";
import { NamedKey } from "../../../src/core/keys/named-key.ts";
import { Histograms } from "../../../src/core/metrics/histogram.ts";
import { DEVICE_DROPS, EVICTIONS, PACKET_DROPS } from "../../../src/core/metrics/packet-reasons.ts";
import { DROPS, REFUSALS, UNREACHABLES } from "../../../src/core/metrics/reasons.ts";
import { METRICS, PACKET_COUNTS, readMetric } from "../../../src/core/metrics/table.ts";
import { PacketCounters } from "../../../src/core/tun2socks/packet-counters.ts";
import { keyStats } from "../../../src/host/stats/key-stats.ts";
import { noTunnelStats, statsOfGone, sumStats, tunnelStats } from "../../../src/host/stats/tunnel-stats.ts";
import { TUN2SOCKS_FIELDS } from "../../../src/node/options/tun2socks.ts";
import { UDP_LOCAL_FIELDS } from "../../../src/node/options/udp-local.ts";
import { UDP_SERVER_FIELDS } from "../../../src/node/options/udp-server.ts";
import { metricsDocument } from "../documents/metrics-document.ts";

const NOW = { sessions: 1, lanes: 4, associations: 7, contexts: 9, rttMs: 50 };
const SPREAD = { modes: { start: 0, delay: 1, compete: 0 }, bitsPerSecond: 8_000, lanesLate: 1 };
const EXPLANATIONS = METRICS.flatMap(({ label }) => Object.entries(label?.values ?? {}));

describe("the table of metrics", () => {
  it("names each metric once, by the conventions of Prometheus", () => {
    const names = METRICS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { name, kind, help, scale, stat } of METRICS) {
      expect(name).toMatch(/^underpass_[a-z_]+[a-z]$/);
      expect(name.endsWith("_total"), name).toBe(kind === "counter");
      expect(help, name).toMatch(/^[A-Z].*\.$/);
      if (stat.endsWith("Ms")) expect([name.endsWith("_seconds"), scale], name).toEqual([true, 0.001]);
      if (/bytes/i.test(stat)) expect(name).toContain("bytes");
      expect(name).not.toMatch(/milli|micro|kilo|bits/);
    }
  });

  it("has bounds that ascend", () => {
    for (const { bounds = [] } of METRICS) expect([...bounds].sort((a, b) => a - b)).toEqual(bounds);
  });

  it("has a place in stats() for every metric, and a metric for every number there", () => {
    const counters = new Counters();
    counters.histograms.datagramBytes.add("in", 100);
    const alice = new NamedKey({
      ...{ name: "alice", key: new Uint8Array(16), expiresAt: undefined, maxAssociations: undefined },
      ...{ bitsPerSecond: undefined, datagramsPerSecond: undefined },
    });
    const stats = tunnelStats(counters, NOW, SPREAD, keyStats([alice]));
    const own = METRICS.filter(({ isOfTun2Socks }) => !isOfTun2Socks);
    for (const metric of own) expect(readMetric(stats, metric), metric.stat).toBeDefined();
    const members = Object.entries(stats).flatMap(([name, value]) =>
      ["spread", "histograms", "keys"].includes(name)
        ? Object.keys(value).map((inner) => `${name}.${inner}`)
        : name,
    );
    expect(members.sort()).toEqual(own.map(({ stat }) => stat).sort());
  });

  it("has a row for every counter of tun2socks, or shows the counter under a label", () => {
    const labels = EXPLANATIONS.map(([label]) => label);
    const elsewhere = ["datagramsIn", "datagramsOut", "bytesIn", "bytesOut", "icmpErrorsLimited", "drops"];
    for (const name of Object.keys(new PacketCounters())) {
      expect(name in PACKET_COUNTS || labels.includes(name) || elsewhere.includes(name), name).toBe(true);
    }
    expect(Object.keys(new PacketCounters())).toEqual(expect.arrayContaining(Object.keys(PACKET_COUNTS)));
  });

  it("explains every value of a label, with options that exist", () => {
    const fields = { ...UDP_SERVER_FIELDS, ...UDP_LOCAL_FIELDS, ...TUN2SOCKS_FIELDS };
    const flags = new Set([
      "log-level",
      ...Object.values(fields).map((field) => (field as { flag?: string }).flag),
    ]);
    for (const [label, { meaning, remedy }] of EXPLANATIONS) {
      expect(meaning, label).toMatch(/^[A-Z].*\.$/);
      for (const [, flag] of remedy.matchAll(/--([a-z0-9-]+)/g))
        expect(flags, `${label}: --${flag}`).toContain(flag);
    }
  });

  it("has a row with a remedy for every reason of a drop, refusal, eviction or report", () => {
    const page = readFileSync(new URL("../../../docs/reference/metrics.md", import.meta.url), "utf8");
    const rows = new Map(
      [...page.matchAll(/^\| `([\w-]+)` +\| (.*?) +\| (.*?) *\|$/gm)].map(([, ...row]) => [row[0], row]),
    );
    for (const reasons of [DROPS, PACKET_DROPS, DEVICE_DROPS, REFUSALS, EVICTIONS, UNREACHABLES]) {
      for (const [reason, { remedy }] of Object.entries(reasons)) {
        expect(remedy, reason).toMatch(/^[A-Z].{9,}\.$/);
        expect(rows.get(reason)?.[2], reason).toMatch(/^[A-Z].{9,}\.$/);
      }
    }
  });

  it("matches the C library's report, in the order of its header", () => {
    const header = readFileSync(new URL("../../../capi/src/instance.h", import.meta.url), "utf8");
    const order = [...header.matchAll(/STAT_([A-Z_]+)/g)].map(([, name]) => name.toLowerCase());
    expect(STATS_MEMBERS).toEqual(order);
    const interfaceText = readFileSync(new URL("../../../capi/include/underpass.h", import.meta.url), "utf8");
    for (const member of STATS_MEMBERS) expect(interfaceText).toMatch(new RegExp(`\\b${member}[,;]`));
    const counters = new Counters();
    counters.drops.age = 2;
    counters.drops.no_lane = 3;
    const values = statsArray(tunnelStats(counters, { ...NOW, rttMs: undefined }, SPREAD));
    expect([values[STATS_MEMBERS.indexOf("dropped")], values[STATS_MEMBERS.indexOf("rtt_ms")]]).toEqual([
      5, -1,
    ]);
  });

  it("is documented in docs/reference/metrics.md", async () => {
    await expect(metricsDocument()).toMatchFileSnapshot("../../../docs/reference/metrics.md");
  });
});

describe("histograms", () => {
  it("count each value in the first bound that is not below it", () => {
    const histograms = new Histograms([1, 10]);
    for (const value of [0, 1, 1.5, 10, 11, 1e9]) histograms.add("a", value);
    expect(histograms.read()).toEqual({ a: { counts: [2, 2, 2], sum: 1e9 + 23.5 } });
  });

  it("are added up over threads", () => {
    const counters = new Counters();
    counters.histograms.queueDelayMs.add(0, 3);
    counters.histograms.queueDelayMs.add(1, 3);
    const one = tunnelStats(counters, NOW, SPREAD);
    const all = sumStats([one, one, noTunnelStats()]);
    expect(Object.keys(all.histograms.queueDelayMs)).toEqual(["0", "1"]);
    expect(all.histograms.queueDelayMs[0].sum).toBe(6);
    expect(all.histograms.queueDelayMs[0].counts).toContain(2);
  });
});

it("a thread that has ended leaves its counts, and none of its state", () => {
  const counters = new Counters();
  counters.datagramsIn = 5;
  counters.drops.age = 2;
  const gone = statsOfGone(tunnelStats(counters, NOW, SPREAD));
  expect(gone).toMatchObject({ sessions: 0, lanes: 0, datagramsIn: 5, rttMs: undefined });
  expect(gone.spread).toMatchObject({ bitsPerSecond: 0, lanesLate: 0, modes: {} });
  expect(gone.drops.age).toBe(2);
});

describe("the statistics of keys", () => {
  const keyOf = (name: string) =>
    new NamedKey({
      ...{ name, key: new Uint8Array(16), expiresAt: undefined, maxAssociations: undefined },
      ...{ bitsPerSecond: undefined, datagramsPerSecond: undefined },
    });

  it("have a bounded number of names, and the sums of the others", () => {
    const keys = Array.from({ length: 1_000 }, (_, i) => keyOf(`k${i}`));
    for (const key of keys) key.admitIn(0, 10);
    const { bytesIn } = keyStats(keys);
    expect(Object.keys(bytesIn)).toHaveLength(257);
    expect(bytesIn).toMatchObject({ k0: 10, k255: 10, "(others)": 7_440 });
  });

  it("are added up over threads, and stay when a thread has ended, without its sessions", () => {
    const alice = keyOf("alice");
    alice.sessions = 2;
    alice.admitOut(0, 5);
    const one = tunnelStats(new Counters(), NOW, SPREAD, keyStats([alice]));
    expect(sumStats([one, one, noTunnelStats()]).keys).toMatchObject({
      sessions: { alice: 4 },
      bytesOut: { alice: 10 },
    });
    expect(statsOfGone(one).keys).toMatchObject({ sessions: {}, bytesOut: { alice: 5 } });
    expect(sumStats([noTunnelStats()]).keys).toBeUndefined();
  });
});
