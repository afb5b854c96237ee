import { expect, it } from "vitest";
import { statusText } from "../../../src/cli/admin/admin-text.ts";
import { Counters } from "../../../src/core/counters.ts";
import { tunnelStats } from "../../../src/host/stats/tunnel-stats.ts";
import type { AdminStatus } from "../../../src/node/admin/admin-server.ts";
import { explainCounts } from "../../../src/node/admin/explained.ts";

const NOW = { sessions: 1, lanes: 2, associations: 3, contexts: 4, rttMs: 12.34 };
const SPREAD = { modes: { start: 0, delay: 1, compete: 0 }, bitsPerSecond: 8_000, lanesLate: 1 };

function status(counters: Counters, carrier: string): AdminStatus {
  const stats = tunnelStats(counters, NOW, SPREAD);
  return {
    program: "udp-local",
    version: "1.2.3",
    versions: {},
    pid: 1,
    uptimeS: 7_300,
    isReady: true,
    address: {},
    stats,
    explained: explainCounts(stats),
    sessions: [
      {
        session: "0",
        kind: "native",
        state: "up",
        associations: 3,
        lanes: [
          { lane: 0, state: "up", rttMs: 12.34, isLate: true, carrier },
          { lane: 1, state: "waiting", rttMs: undefined, isLate: false, carrier },
          ...[2, 3].map((lane) => ({ lane, state: "held", rttMs: undefined, isLate: false, carrier })),
        ],
      },
    ],
    sessionsLeftOut: 2,
  };
}

it("shows lanes with their health, and every reason that occurred with what to do", () => {
  const counters = new Counters();
  counters.drops.age = 3;
  counters.drops.no_lane = 5;
  const text = statusText(status(counters, "192.0.2.1:3456 via socks5"));
  expect(text).toContain("udp-local 1.2.3, ready, up 2 h\n");
  expect(text).toContain("  lane 0: up, late, rtt 12.3 ms, 192.0.2.1:3456 via socks5\n");
  expect(text).toContain("  lane 1: waiting, rtt -, 192.0.2.1:3456 via socks5\n");
  expect(text).toContain("via socks5\n  2 more held back until they help\n");
  expect(text).toContain("and 2 more sessions\n");
  expect(text.indexOf("drops no_lane 5\n  No connection")).toBeLessThan(
    text.indexOf("drops age 3\n  The datagram"),
  );
  expect(text).not.toContain("queue_full");
});

it("lists no counts by the name of a key, which have no reason", () => {
  const counts = { sessions: {}, associations: {}, limited: { alice: 5 } };
  const keys = { ...counts, datagramsIn: { alice: 2 }, datagramsOut: {}, bytesIn: {}, bytesOut: {} };
  const stats = { ...tunnelStats(new Counters(), NOW, SPREAD), keys };
  const text = statusText({ ...status(new Counters(), "TCP"), stats, explained: explainCounts(stats) });
  expect(text).not.toContain("alice");
});

it("lets no answer control the terminal", () => {
  const text = statusText(status(new Counters(), "\x1b]0;x\x07\x9b2J"));
  expect(text).toContain("?]0;x??2J");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
});
