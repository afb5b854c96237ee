// Tables from the records of a run: medians over the rounds.
import { median } from "../statistics.mjs";
import { format } from "../tables.mjs";
import { WAY_NAMES } from "./ways.mjs";

/** @typedef {import("./case.mjs").CaseRecord} CaseRecord */
/** @typedef {import("./case.mjs").FlowResult} FlowResult */
/** @typedef {import("../tables.mjs").Table} Table */
/** One flow of a case. @typedef {{ record: CaseRecord, flow: FlowResult }} Sample */

/** Goals of the main table: p50 and p99 in ms, loss in %, by way. */
const GOALS = {
  "50/s": { p50: 52, p99: 76, loss: { direct: 0, ss: 0 } },
  "1,200/s (60 %)": { p50: 53, p99: 122, loss: { direct: 0.5, ss: 0.5 } },
  "2,500/s (120 %)": { p50: 95, p99: 200, loss: { direct: 26, ss: 28 } },
  "voice beside 2,500/s": { p50: 58, p99: 90, loss: { direct: 0, ss: 0 } },
};
/** How a change of the link is found: this near to the end of the time until the next, in rate and in delay. */
const SETTLED = { rate: 0.85, delay: 1.25, slackMs: 5 };
const SHARES = /** @type {const} */ (["p50", "p99"]);
/** Seconds whose delays the table of changes shows, from the change. */
const SECONDS = [-1, 0, 1, 2, 3];

/** @template T @param {T[]} items @param {(item: T) => string} key @returns {Map<string, T[]>}  in the order in which they came */
export function groupBy(items, key) {
  /** @type {Map<string, T[]>} */
  const groups = new Map();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

/** @param {CaseRecord[]} records @returns {Sample[]} */
export function samples(records) {
  return records.flatMap((record) => record.flows.map((flow) => ({ record, flow })));
}

/** Per cent. @param {Sample} sample */
export function lossOf({ flow }) {
  return flow.sent === 0 ? Number.NaN : 100 * (1 - flow.received / flow.sent);
}

/** The median over the rounds of a value, where it exists. @param {Sample[]} of @param {(sample: Sample) => number} value */
export function middle(of, value) {
  return median(of.map(value).filter(Number.isFinite));
}

/** A delay of datagrams that arrived; none if none did. @param {"p50" | "p99" | "p999" | "max"} share @returns {(sample: Sample) => number} */
export function delay(share) {
  return ({ flow }) => (flow.received === 0 ? Number.NaN : flow[share]);
}

/** @param {Sample} sample */
const kindOf = ({ flow }) => ({ round: "", up: ", one way", down: ", down" })[flow.kind];

/** `p50/p99, loss` of the first flow of each scenario. @param {CaseRecord[]} records @param {"direct" | "ss"} way @returns {Table} */
function mainTable(records, way) {
  const own = records.filter((record) => record.group === "main" && record.way === way);
  const scenarios = [...new Set(own.map(({ scenario }) => scenario))];
  const rows = [...groupBy(own, ({ subject }) => subject)].map(([subject, ofSubject]) => [
    subject,
    ...scenarios.map((scenario) => {
      const runs = ofSubject
        .filter((record) => record.scenario === scenario)
        .map((record) => ({ record, flow: record.flows[0] }));
      if (runs.length === 0) return "-";
      const [p50, p99] = [middle(runs, delay("p50")), middle(runs, delay("p99"))];
      return `${format(p50)}/${format(p99)}, ${format(middle(runs, lossOf), 1)} %${kindOf(runs[0])}`;
    }),
  ]);
  const wanted = scenarios.map((scenario) => {
    const goal = GOALS[/** @type {keyof typeof GOALS} */ (scenario)];
    return goal === undefined ? "-" : `${goal.p50}/${goal.p99}, ${format(goal.loss[way], 1)} %`;
  });
  return {
    title: `Main link, ${titleOf(way)}: p50/p99 in ms, loss`,
    header: ["subject", ...scenarios],
    rows: rows.length === 0 ? [] : [...rows, ["goal", ...wanted]],
  };
}

/** @param {string} way */
export function titleOf(way) {
  const names = /** @type {const} */ ({
    direct: "direct",
    ss: "through ss-tunnel and ss-server",
    "ss-local": "through ss-tunnel and ss-server, other TCP through ss-local",
  });
  return names[/** @type {import("./ways.mjs").WayName} */ (way)];
}

/** Everything of one group. @param {CaseRecord[]} records @param {string} group @param {string} way @returns {Table} */
function detailTable(records, group, way) {
  const own = samples(records.filter((record) => record.group === group && record.way === way));
  const hasFrames = own.some(({ flow }) => flow.frames !== undefined);
  const hasRivals = own.some(({ record }) => record.streams.length > 0);
  const rows = [
    ...groupBy(own, ({ record, flow }) => JSON.stringify([record.scenario, flow.name, record.subject])),
  ].map(([, runs]) => {
    const { record, flow } = runs[0];
    const seconds = record.seconds;
    const cpu = runs.map((run) => 100 * (run.record.cpu.local + run.record.cpu.server));
    return [
      `${record.scenario}${record.flows.length > 1 ? `: ${flow.name}` : ""}`,
      `${record.subject}${kindOf(runs[0])}`,
      ...[delay("p50"), delay("p99"), delay("p999")].map((value) => format(middle(runs, value), 1)),
      `${format(middle(runs, lossOf), 2)} %`,
      format(
        middle(runs, (run) => (run.flow.bytes * 8) / seconds / 1e6),
        2,
      ),
      `${format(
        middle(runs, (run) => (100 * run.flow.overtaken) / run.flow.received),
        1,
      )} %, ${format(middle(runs, (run) => run.flow.overtakenP99))}`,
      ...(hasFrames
        ? [
            flow.frames === undefined
              ? "-"
              : `${format(
                  middle(runs, (run) => (100 * (run.flow.frames?.complete ?? 0)) / run.flow.sentFrames),
                  1,
                )} %, ${format(middle(runs, (run) => run.flow.frames?.p99 ?? Number.NaN))} ms`,
          ]
        : []),
      ...(hasRivals
        ? [
            record.streams
              .map(
                ({ name }, i) =>
                  `${name} ${format(
                    middle(runs, (run) => run.record.streams[i].mbits),
                    2,
                  )}`,
              )
              .join(", ") || "-",
          ]
        : []),
      record.subject === "bare" ? "-" : `${format(median(cpu), 1)} %`,
    ];
  });
  return {
    title: `${group}, ${titleOf(way)}`,
    header: [
      "scenario",
      "subject",
      ...["p50 ms", "p99 ms", "p99.9 ms", "loss", "Mbit/s", "overtaken, by (p99)"],
      ...(hasFrames ? ["whole frames, p99"] : []),
      ...(hasRivals ? ["beside it, Mbit/s"] : []),
      "CPU of both ends",
    ],
    rows,
  };
}

/**
 * Seconds from a change of the link until a flow is near what it comes to in the end, and stays there for a second.
 *
 * @param {FlowResult} flow @param {number} at  of the change, s @param {"p50" | "p99"} share  of the delays in each interval
 * @returns {number} NaN: never
 */
export function settling({ bins }, at, share = "p50") {
  if (bins === undefined) return Number.NaN;
  const first = Math.ceil((at * 1000) / bins.ms);
  const after = bins.received.slice(first);
  const tail = Math.floor(after.length / 2);
  // The end cuts the last bin short.
  const rate = median(after.slice(tail, -1));
  const wait = median(bins[share].slice(first + tail, -1));
  const second = Math.ceil(1000 / bins.ms);
  const isSettled = after.map(
    (received, i) =>
      received >= SETTLED.rate * rate && bins[share][first + i] <= SETTLED.delay * wait + SETTLED.slackMs,
  );
  const found = isSettled.findIndex(
    (_, i) =>
      i + second <= isSettled.length && isSettled.slice(i, i + second).filter(Boolean).length >= 0.8 * second,
  );
  return found < 0 ? Number.NaN : (found * bins.ms) / 1000;
}

/** The median of p50 and the highest p99 of the intervals in one second. @param {Sample[]} runs @param {number} from  s */
function secondOf(runs, from) {
  const of = (/** @type {"p50" | "p99"} */ share) =>
    runs.map(({ flow: { bins } }) => {
      if (bins === undefined) return [];
      const delays = bins[share].map((ms, i) => (bins.received[i] === 0 ? Number.NaN : ms));
      const [first, end] = [from, from + 1].map((s) => Math.ceil((s * 1000) / bins.ms));
      return delays.slice(first, end).filter(Number.isFinite);
    });
  const p50 = median(of("p50").flatMap((delays) => (delays.length === 0 ? [] : [median(delays)])));
  const p99 = median(of("p99").flatMap((delays) => (delays.length === 0 ? [] : [Math.max(...delays)])));
  return `${format(p50)}/${format(p99)}`;
}

/** @param {CaseRecord[]} records @param {(scenario: string) => number | undefined} changeAt @returns {Table} */
function changesTable(records, changeAt) {
  const own = samples(records).filter(
    ({ record, flow }) => flow.bins !== undefined && changeAt(record.scenario) !== undefined,
  );
  const key = (/** @type {Sample} */ { record, flow }) =>
    JSON.stringify([record.scenario, record.way, flow.name, record.subject]);
  const rows = [...groupBy(own, key)].map(([, runs]) => {
    const { record, flow } = runs[0];
    const at = changeAt(record.scenario) ?? 0;
    const late = (/** @type {Sample} */ { flow: { bins } }) =>
      median(bins?.p50.slice(Math.ceil(bins.p50.length * 0.75), -1) ?? []);
    return [
      `${record.scenario}, ${titleOf(record.way)}: ${flow.name}`,
      record.subject,
      ...SHARES.map((share) =>
        format(
          middle(runs, (run) => settling(run.flow, at, share)),
          1,
        ),
      ),
      ...SECONDS.map((second) => secondOf(runs, at + second)),
      format(middle(runs, late), 1),
    ];
  });
  return {
    title: "Until a change of the link is found; p50/p99 ms by seconds after it",
    header: [
      ...["scenario", "subject", "s until settled", "s until p99 is"],
      ...SECONDS.map((second) => (second < 0 ? "before" : `${second} to ${second + 1} s`)),
      "p50 ms at the end",
    ],
    rows,
  };
}

/** Goodput of transfers inside a tunnel. @param {CaseRecord[]} records @returns {Table} */
function innerTable(records) {
  const own = records.filter(({ group }) => group === "inner");
  const rows = [
    ...groupBy(own, (record) => JSON.stringify([record.scenario, record.way, record.subject])),
  ].map(([, runs]) => {
    const [{ scenario, way, subject }] = runs;
    const of = (/** @type {string} */ name) =>
      median(
        runs
          .flatMap(({ streams }) => streams.filter((stream) => stream.name === name))
          .map(({ mbits }) => mbits),
      );
    return [`${scenario}, ${titleOf(way)}`, subject, format(of("up"), 2), format(of("down"), 2)];
  });
  return {
    title: "Transfers inside the tunnel, Mbit/s",
    header: ["scenario", "subject", "up", "down"],
    rows,
  };
}

/** Jain's fairness index of sessions side by side. @param {CaseRecord[]} records @returns {Table} */
function sharesTable(records) {
  const own = records.filter(({ group }) => group === "sessions");
  const rows = [
    ...groupBy(own, (record) => JSON.stringify([record.scenario, record.way, record.subject])),
  ].map(([, runs]) => {
    const [{ scenario, way, subject }] = runs;
    const rates = runs.map(({ flows, seconds }) => flows.map(({ bytes }) => (bytes * 8) / seconds / 1e6));
    const jain = (/** @type {number[]} */ of) =>
      of.reduce((sum, rate) => sum + rate, 0) ** 2 /
      (of.length * of.reduce((sum, rate) => sum + rate ** 2, 0));
    return [
      `${scenario}, ${titleOf(way)}`,
      subject,
      rates[0].map((rate) => format(rate, 1)).join(", "),
      format(median(rates.map(jain)), 3),
    ];
  });
  return {
    title: "Sessions side by side",
    header: ["scenario", "subject", "Mbit/s of each, first round", "Jain's index"],
    rows,
  };
}

/** @param {CaseRecord[]} records @param {(scenario: string) => number | undefined} changeAt  when the link of a scenario changes, s @returns {Table[]} */
export function tables(records, changeAt) {
  const groups = [...new Set(records.map(({ group }) => group))];
  return [
    ...["direct", "ss"].map((way) => mainTable(records, /** @type {"direct" | "ss"} */ (way))),
    changesTable(records, changeAt),
    sharesTable(records),
    innerTable(records),
    ...groups.flatMap((group) => WAY_NAMES.map((way) => detailTable(records, group, way))),
  ].filter(({ rows }) => rows.length > 0);
}
