// A page of curves from the records of a run.
import { describe } from "../machine.mjs";
import { colours, linePlot, page } from "../plots.mjs";
import { CURVES } from "./scenarios.mjs";
import { delay, groupBy, lossOf, middle, samples, titleOf } from "./tables.mjs";
import { WAY_NAMES } from "./ways.mjs";

/** @typedef {import("./case.mjs").CaseRecord} CaseRecord */
/** @typedef {import("./tables.mjs").Sample} Sample */
/** @typedef {import("../plots.mjs").Line} Line */

/** @type {[name: string, value: (sample: Sample) => number, isLogY: boolean, unit: string][]} */
const MEASURES = [
  ["p50", delay("p50"), true, "ms"],
  ["p99", delay("p99"), true, "ms"],
  ["p99.9", delay("p999"), true, "ms"],
  ["datagrams lost", lossOf, false, "%"],
];

/** One line a subject. @param {Sample[]} of @param {(sample: Sample) => number} value @returns {Line[]} */
function curves(of, value) {
  return [...groupBy(of, ({ record }) => record.subject)].map(([name, runs]) => ({
    name: runs[0].flow.kind === "up" ? `${name} (one way)` : name,
    points: [...groupBy(runs, ({ record }) => String(record.x))].map(([x, ofPlace]) => [
      Number(x),
      middle(ofPlace, value),
    ]),
  }));
}

/** What happened in time, in the first round. @param {CaseRecord[]} records @param {(name: string) => string} colour @returns {string[]} */
function courses(records, colour) {
  const own = samples(records).filter(({ record, flow }) => record.round === 0 && flow.bins !== undefined);
  const key = (/** @type {Sample} */ { record, flow }) =>
    JSON.stringify([record.scenario, record.way, flow.name]);
  return [...groupBy(own, key)].flatMap(([, runs]) => {
    const { record, flow } = runs[0];
    const ms = flow.bins?.ms ?? 1;
    const lines = (/** @type {"p50" | "received"} */ name, scale = 1) =>
      runs.map(({ record: { subject }, flow: { bins } }) => ({
        name: subject,
        points: /** @type {[number, number][]} */ (
          (bins?.[name] ?? []).map((value, i) => [((i + 1) * ms) / 1000, value * scale])
        ),
      }));
    const title = `${record.scenario}, ${titleOf(record.way)}: ${flow.name}`;
    const caption = `In each ${ms} ms of sending; the first round.`;
    return [
      linePlot(`${title}, p50`, caption, lines("p50"), colour, { xName: "s", yName: "ms", isLogY: true }),
      linePlot(`${title}, arrived`, caption, lines("received", 1000 / ms), colour, {
        xName: "s",
        yName: "datagrams/s",
      }),
    ];
  });
}

/** @param {import("../machine.mjs").Machine} about @param {CaseRecord[]} records @param {import("../tables.mjs").Table[]} tables */
export function reportPage(about, records, tables) {
  const names = [...new Set(records.map(({ subject }) => subject))];
  const byName = colours(names);
  const colour = (/** @type {string} */ name) => byName(name.replace(/ \(one way\)$/, ""));
  const plots = Object.entries(CURVES).flatMap(([group, { title, xName }]) =>
    WAY_NAMES.flatMap((way) => {
      const own = samples(records.filter((record) => record.group === group && record.way === way));
      return MEASURES.map(([name, value, isLogY, unit]) =>
        linePlot(
          `${name} against ${title}, ${titleOf(way)}`,
          "Round trips, medians over the rounds.",
          curves(own, value),
          colour,
          { xName, yName: unit, isLogY },
        ),
      );
    }),
  );
  return page(
    "Underpass: latency over a link",
    "Underpass over a link that loses, beside other tunnels",
    describe(about),
    [...plots, ...courses(records, colour)].filter(Boolean),
    tables,
  );
}
