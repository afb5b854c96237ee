/** The dashboard: requests /status once a second and draws it. */
import type { LaneStatus, SessionStatus } from "../src/host/stats/status.ts";
import type { AdminStatus } from "../src/node/admin/admin-server.ts";
import type { FlowsAnswer } from "../src/node/admin/flows-as-json.ts";
import { element, fill } from "./page.ts";
import { Plots } from "./plots.ts";
import type { Cell } from "./row-table.ts";
import { RowTable } from "./row-table.ts";

const INTERVAL_MS = 1_000;
/** There may be thousands of them. */
const FLOWS_INTERVAL_MS = 10_000;

/** Held lanes are not needed now. */
const CLASS_OF: Readonly<Record<string, string>> = { up: "", held: "idle" };

let token: string | undefined;
const plots = new Plots();
const LANE_COLUMNS = [
  ...["Session", "Kind", "State", "Associations"],
  ...["Lane", "Health", "Round trip", "Carrier"],
];
const lanesTable = new RowTable("lane", "lanes", LANE_COLUMNS);
const flowsTable = new RowTable("flow", "flows", [
  ...["Session", "Association", "Application", "Target", "Targets", "Idle, s"],
]);

function ask(path: string): Promise<Response> {
  return fetch(path, token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } });
}

/** Whether the table of flows is in sight; otherwise it is not requested. */
let showsFlows = false;
let isPollingFlows = false;
new IntersectionObserver((entries) => {
  showsFlows = entries.some(({ isIntersecting }) => isIntersecting);
  if (showsFlows && !isPollingFlows) void pollFlows();
}).observe(element("flow-rows"));

async function pollFlows(): Promise<void> {
  isPollingFlows = showsFlows && !document.hidden;
  if (!isPollingFlows) return;
  try {
    const response = await ask("flows");
    if (response.status === 401) {
      isPollingFlows = false;
      return;
    }
    const { rows, isCut, hasAddresses } = (await response.json()) as FlowsAnswer;
    flowsTable.show(rows.map((cells) => cells.map((cell) => cell ?? -1)));
    element("flow-note").textContent = [
      hasAddresses ? "" : "Addresses are visible only with a token or on a Unix socket.",
      isCut ? "The table does not show all flows." : "",
    ].join(" ");
  } catch {
    // The page's state reports the error.
  }
  setTimeout(() => void pollFlows(), FLOWS_INTERVAL_MS);
}

async function poll(): Promise<void> {
  try {
    const response = await ask("status");
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

function laneRow(session: SessionStatus, lane: LaneStatus): Cell[] {
  return [
    ...[session.session, session.kind, session.state, session.associations],
    ...[lane.lane, lane.isLate ? "late" : lane.state],
    ...[lane.rttMs === undefined ? -1 : Math.round(lane.rttMs * 10) / 10, lane.carrier],
  ];
}

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
  lanesTable.show(lanes.map(({ session, lane }) => laneRow(session, lane)));
  plots.add(stats, performance.now());
}

void poll();
document.addEventListener("visibilitychange", () => {
  if (showsFlows && !isPollingFlows) void pollFlows();
});
