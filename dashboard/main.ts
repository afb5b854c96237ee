/** The dashboard: asks /status once a second and draws it. */
import type { AdminStatus } from "../src/node/admin/admin-server.ts";
import { LaneTable } from "./lane-table.ts";
import { element, fill } from "./page.ts";
import { Plots } from "./plots.ts";

const INTERVAL_MS = 1_000;

/** Lanes that are held are not wanted now. */
const CLASS_OF: Readonly<Record<string, string>> = { up: "", held: "idle" };

let token: string | undefined;
const plots = new Plots();
const table = new LaneTable();

async function poll(): Promise<void> {
  try {
    const response = await fetch(
      "status",
      token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } },
    );
    if (response.status === 401) return askForToken();
    if (!response.ok) throw new Error(await response.text());
    show((await response.json()) as AdminStatus);
  } catch (error) {
    element("state").textContent = `No answer: ${(error as Error).message}`;
  }
  setTimeout(poll, INTERVAL_MS);
}

function askForToken(): void {
  element("state").textContent = token === undefined ? "A token is required." : "That token is wrong.";
  element("login").hidden = false;
  element("main").hidden = true;
  element<HTMLInputElement>("token").focus();
}

element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element<HTMLInputElement>("token").value;
  element("login").hidden = true;
  void poll();
});

function show(status: AdminStatus): void {
  const { program, version, isReady, stats, sessions, explained } = status;
  document.title = `${program} · Underpass`;
  element("main").hidden = false;
  element("title").textContent = `${program} ${version}`;
  element("state").textContent = isReady ? "Ready" : "Not ready";
  const numbers = {
    Sessions: stats.sessions,
    Lanes: stats.lanes,
    Late: stats.spread.lanesLate,
    Associations: stats.associations,
    Contexts: stats.contexts,
    "Round trip": stats.rttMs === undefined ? "–" : `${stats.rttMs.toFixed(1)} ms`,
  };
  fill(
    "numbers",
    Object.entries(numbers).map(([name, value]) => [
      "div",
      {},
      [
        ["dt", {}, name],
        ["dd", {}, String(value)],
      ],
    ]),
  );
  const lanes = sessions.flatMap((session) => session.lanes.map((lane) => ({ session, lane })));
  fill(
    "lanes",
    lanes.slice(0, 64).map(({ lane }) => {
      const health = lane.isLate ? "late" : lane.state;
      const rtt = lane.rttMs === undefined ? "" : `, ${lane.rttMs.toFixed(1)} ms`;
      return [
        "li",
        { class: CLASS_OF[health] ?? "bad", title: lane.carrier },
        `${lane.lane}: ${health}${rtt}`,
      ];
    }),
  );
  fill(
    "reasons",
    explained
      .filter(({ of }) => of !== "spread.counts")
      .map(({ of, reason, count, meaning, remedy }) => [
        "tr",
        {},
        [of, reason, String(count), meaning, remedy].map((text) => ["td", {}, text] as const),
      ]),
  );
  table.show(lanes);
  plots.add(stats, performance.now());
}

void poll();
