// The tables of a run, from its records: what the terminal and Markdown show.
import { EQUAL_RATE, LOSS_LIMIT } from "./measure.mjs";
import { cpuUs, distinct, median, medianOf, select } from "./statistics.mjs";

/** @typedef {import("./measure.mjs").BenchRecord} BenchRecord */
/** @typedef {{ title: string, header: string[], rows: string[][] }} Table */

const OURS = "underpass";
const DEBIAN = "udptunnel";
const FORK = "rfc1036";

/** @param {number} value @param {number} [digits] */
export function format(value, digits = 0) {
  if (!Number.isFinite(value)) return "-";
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** @param {{ size: number, burst: number }} load */
export function loadName({ size, burst }) {
  return `${format(size)} bytes, ${burst === 1 ? "singles" : `segments of ${burst}`}`;
}

/**
 * The ratios of the run beside their goals.
 *
 * @param {BenchRecord[]} records @returns {Table}
 */
function goals(records) {
  /** @type {string[][]} */
  const rows = [];
  /** @param {string} measure @param {number} ours @param {string} unit @param {string} peer @param {number} theirs @param {string} wanted */
  const compare = (measure, ours, unit, peer, theirs, wanted) => {
    if (!Number.isFinite(ours) || !Number.isFinite(theirs)) return;
    const digits = ours < 100 ? 2 : 0;
    const value = (/** @type {number} */ number) => `${format(number, digits)}${unit}`;
    rows.push([measure, value(ours), `${peer} ${value(theirs)}`, `${format(ours / theirs, 2)} ×`, wanted]);
  };
  const peers = distinct(records, "subject").filter((name) => name !== "bare" && !name.startsWith(OURS));
  /** @param {string} subject @param {Record<string, unknown>} like @param {(record: BenchRecord) => number} value */
  const of = (subject, like, value) => medianOf(records, { ...like, subject }, value);
  const delivered = (/** @type {BenchRecord} */ record) => record.delivered;

  for (const size of [1200, 512, 64]) {
    for (const burst of [64, 1]) {
      const like = { measure: "flood", size, burst, sockets: 1 };
      const name = `flood, ${loadName({ size, burst })}: delivered`;
      for (const peer of peers) {
        const ofSize = { 1200: peer === FORK ? "≥ 2.6 ×" : "≥ 3.0 ×", 512: "-", 64: "≥ 2.5 ×" }[size];
        const wanted = [DEBIAN, FORK].includes(peer) ? (ofSize ?? "-") : "-";
        compare(name, of(OURS, like, delivered), "/s", peer, of(peer, like, delivered), wanted);
      }
    }
  }
  for (const sockets of [64, 1000]) {
    for (const burst of [16, 1]) {
      const like = { measure: "flood", size: 1200, burst };
      const name = `flood, ${loadName({ size: 1200, burst })}: delivered with ${format(sockets)} associations`;
      const ours = of(OURS, { ...like, sockets }, delivered);
      compare(name, ours, "/s", "our own with one", of(OURS, { ...like, sockets: 1 }, delivered), "≥ 0.7 ×");
      for (const peer of peers)
        compare(name, ours, "/s", peer, of(peer, { ...like, sockets }, delivered), "-");
    }
  }
  for (const peer of peers) {
    const isDebian = peer === DEBIAN;
    for (const burst of [1, 16]) {
      const like = { measure: "cpu", burst };
      const name = `CPU of a datagram at ${format(EQUAL_RATE)}/s, ${loadName({ size: 1200, burst })}`;
      const theirs = of(peer, like, delivered);
      // A subject that does not keep up is not compared at an equal rate.
      const isEqual = theirs > 0.98 * EQUAL_RATE;
      const note = isEqual ? name : `${name} (${peer} delivers ${format(theirs)}/s)`;
      compare(note, of(OURS, like, cpuUs), " µs", peer, of(peer, like, cpuUs), isDebian ? "≤ 0.9 ×" : "-");
    }
    for (const burst of [64, 1]) {
      const like = { measure: "flood", size: 1200, burst, sockets: 1 };
      const name = `CPU of a datagram under flood, ${loadName({ size: 1200, burst })}`;
      compare(name, of(OURS, like, cpuUs), " µs", peer, of(peer, like, cpuUs), isDebian ? "≤ 0.35 ×" : "-");
    }
  }
  for (const peer of peers) {
    for (const burst of [1, 16]) {
      const like = { measure: "capacity", burst };
      const offered = (/** @type {BenchRecord} */ record) => record.offered;
      const name = `highest rate with loss under ${LOSS_LIMIT * 100} %, ${loadName({ size: 1200, burst })}`;
      const wanted = [DEBIAN, FORK].includes(peer) ? "≥ 2.5 ×" : "-";
      compare(name, of(OURS, like, offered), "/s", peer, of(peer, like, offered), wanted);
    }
  }
  for (const size of [1200, 64]) {
    for (const [share, wanted] of [
      ["p50", "≤ 1.1 ×"],
      ["p99", "≤ 1.3 ×"],
    ]) {
      for (const peer of peers) {
        const like = { measure: "ping", size };
        const value = (/** @type {BenchRecord} */ record) => record[share];
        const name = `round trip, one outstanding, ${format(size)} bytes: ${share}`;
        const ours = of(OURS, like, value);
        compare(name, ours, " µs", peer, of(peer, like, value), peer === FORK ? wanted : "-");
      }
    }
  }
  for (const burst of [64, 1]) {
    const like = { measure: "flood", size: 1200, burst, sockets: 1 };
    const name = `plain mode, flood, ${loadName({ size: 1200, burst })}: delivered`;
    const ours = of("underpass-plain", like, delivered);
    for (const peer of peers.filter((peer) => [DEBIAN, FORK].includes(peer))) {
      compare(name, ours, "/s", peer, of(peer, like, delivered), peer === DEBIAN ? "≥ 1.0 ×" : "-");
    }
  }
  for (const peer of peers) {
    for (const associations of [0, 1_000, 10_000]) {
      const hasHeld = (/** @type {string} */ subject) =>
        select(records, { measure: "memory", subject, associations }).every(
          ({ answered }) => answered >= 0.99 * associations,
        );
      if (!hasHeld(OURS) || !hasHeld(peer)) continue;
      const [ours, theirs] = [OURS, peer].map((subject) =>
        medianOf(records, { measure: "memory", subject, associations }, bothEnds),
      );
      compare(
        `memory, both ends, ${format(associations)} associations`,
        ours / 1e6,
        " MB",
        peer,
        theirs / 1e6,
        "-",
      );
    }
  }
  for (const peer of peers) {
    for (const associations of distinct(select(records, { measure: "set-up" }), "associations")) {
      const like = { measure: "set-up", associations };
      const name = `new associations, ${format(associations)}`;
      const perSecond = (/** @type {BenchRecord} */ record) => record.perSecond;
      compare(`${name}: answered`, of(OURS, like, perSecond), "/s", peer, of(peer, like, perSecond), "-");
      compare(`${name}: CPU of each`, of(OURS, like, cpuUs), " µs", peer, of(peer, like, cpuUs), "-");
    }
  }
  const { idle, each } = memoryOf(records, OURS);
  if (Number.isFinite(idle))
    rows.push(["memory, both ends, idle", `${format(idle / 1e6, 1)} MB`, "-", "-", "≤ 130 MB"]);
  if (Number.isFinite(idle) && !Number.isFinite(each)) {
    rows.push(["memory of each further association", "10,000 were not held", "-", "-", "≤ 4,096 bytes"]);
  }
  if (Number.isFinite(each)) {
    rows.push(["memory of each further association", `${format(each)} bytes`, "-", "-", "≤ 4,096 bytes"]);
  }
  return { title: "Ratios", header: ["measure", "ours", "peer", "ratio", "wanted"], rows };
}

/** Resident memory, bytes. @param {BenchRecord} record */
const bothEnds = (record) => record.local + record.server;

/** Both ends, bytes. @param {BenchRecord[]} records @param {string} subject */
function memoryOf(records, subject) {
  const at = (/** @type {number} */ associations) =>
    medianOf(records, { measure: "memory", subject, associations }, bothEnds);
  const ten = select(records, { measure: "memory", subject, associations: 10_000 });
  const isHeld = ten.length > 0 && ten.every(({ answered }) => answered >= 9_900);
  return { idle: at(0), each: isHeld ? (at(10_000) - at(1_000)) / 9_000 : Number.NaN };
}

/** @param {BenchRecord[]} records @returns {Table} */
function floods(records) {
  const rows = [];
  const all = select(records, { measure: "flood" });
  for (const sockets of distinct(all, "sockets")) {
    for (const size of distinct(all, "size")) {
      for (const burst of distinct(all, "burst")) {
        for (const subject of distinct(all, "subject")) {
          const runs = select(all, { sockets, size, burst, subject });
          if (runs.length === 0) continue;
          const rates = runs.map(({ delivered }) => delivered);
          const us = (/** @type {(record: BenchRecord) => number} */ value) =>
            subject === "bare" ? "-" : format(median(runs.map(value)), 2);
          rows.push([
            `${loadName({ size, burst })}, ${format(sockets)} association${sockets === 1 ? "" : "s"}`,
            subject,
            format(median(rates)),
            `${format(Math.min(...rates))} to ${format(Math.max(...rates))}`,
            format(median(runs.map(({ offered }) => offered))),
            us(({ localUs }) => localUs),
            us(({ serverUs }) => serverUs),
            us(cpuUs),
          ]);
        }
      }
    }
  }
  return {
    title: "Flood",
    header: ["load", "subject", "delivered/s", "range", "offered/s", "local µs", "server µs", "both µs"],
    rows,
  };
}

/**
 * One row for each different load and subject of a measure.
 *
 * @param {BenchRecord[]} records @param {string} measure @param {string} title @param {string[]} by  members that tell loads apart
 * @param {Record<string, (runs: BenchRecord[]) => string>} columns @returns {Table}
 */
function table(records, measure, title, by, columns) {
  /** @type {Map<string, BenchRecord[]>} */
  const groups = new Map();
  for (const record of select(records, { measure })) {
    const key = JSON.stringify([...by.map((name) => record[name]), record.subject]);
    groups.set(key, [...(groups.get(key) ?? []), record]);
  }
  const rows = [...groups.values()].map((runs) => [
    ...by.map((name) => (name === "burst" ? loadName(/** @type {any} */ (runs[0])) : format(runs[0][name]))),
    runs[0].subject,
    ...Object.values(columns).map((value) => value(runs)),
  ]);
  const names = by.map((name) => (name === "burst" ? "load" : name === "rate" ? "rate/s" : name));
  return { title, header: [...names, "subject", ...Object.keys(columns)], rows };
}

/** @param {string} name @param {number} [digits] @returns {(runs: BenchRecord[]) => string} */
function column(name, digits = 0) {
  return (runs) => format(median(runs.map((record) => record[name])), digits);
}

/** @param {BenchRecord[]} runs */
function lossShare(runs) {
  return `${format(100 * median(runs.map(({ lost, sent }) => lost / sent)), 3)} %`;
}

const MEGABYTES =
  (/** @type {(record: BenchRecord) => number} */ value) => (/** @type {BenchRecord[]} */ runs) =>
    format(median(runs.map(value)) / 1e6, 1);

/** Incorrect arrivals, and losses at rates up to half of a subject's capacity. @param {BenchRecord[]} records @returns {Table} */
function correctness(records) {
  const rows = distinct(records, "subject").map((subject) => {
    const runs = select(records, { subject });
    const sum = (/** @type {string} */ name) =>
      runs.reduce((total, record) => total + (record[name] ?? 0), 0);
    const capacity = medianOf(runs, { measure: "capacity", burst: 1 }, ({ offered }) => offered);
    const below = runs.filter(
      ({ measure, offered }) => ["rate", "cpu"].includes(measure) && offered <= capacity / 2,
    );
    const lost = below.reduce((total, record) => total + record.lost, 0);
    const sent = below.reduce((total, record) => total + record.sent, 0);
    return [
      subject,
      format(sum("count")),
      format(sum("corrupt")),
      format(sum("duplicate")),
      format(sum("reordered")),
      sent === 0 ? "-" : `${format(lost)} of ${format(sent)}`,
    ];
  });
  const header = [
    "subject",
    "checked",
    "corrupt",
    "duplicate",
    "reordered",
    "lost below half its highest rate",
  ];
  return { title: "Correctness", header, rows };
}

/** @param {BenchRecord[]} records @returns {Table[]} */
export function tables(records) {
  const delays = { "p50 µs": column("p50"), "p99 µs": column("p99"), "p99.9 µs": column("p999") };
  const carried = { "delivered/s": column("delivered"), loss: lossShare };
  return [
    goals(records),
    floods(records),
    table(records, "cpu", `CPU at ${format(EQUAL_RATE)}/s`, ["burst"], {
      ...carried,
      "local µs": column("localUs", 2),
      "server µs": column("serverUs", 2),
      "both µs": (runs) => format(median(runs.map(cpuUs)), 2),
    }),
    table(records, "capacity", `Highest rate with loss under ${LOSS_LIMIT * 100} %`, ["burst"], {
      "offered/s": column("offered"),
      range: (runs) =>
        `${format(Math.min(...runs.map(({ offered }) => offered)))} to ${format(Math.max(...runs.map(({ offered }) => offered)))}`,
      "the generator's limit": (runs) =>
        `${runs.filter(({ isOfGenerator }) => isOfGenerator).length} of ${runs.length}`,
    }),
    table(records, "rate", "Fixed rates, one way, 1,200 bytes", ["rate"], { ...carried, ...delays }),
    table(records, "round-trip", "Fixed rates, there and back, 1,200 bytes", ["rate"], {
      ...carried,
      ...delays,
    }),
    table(records, "ping", "Round trip, one outstanding", ["size"], {
      "min µs": column("min", 1),
      "p50 µs": column("p50", 1),
      "p90 µs": column("p90", 1),
      "p99 µs": column("p99", 1),
      lost: column("lost"),
    }),
    table(records, "memory", "Resident memory", ["associations"], {
      answered: column("answered"),
      "local MB": MEGABYTES(({ local }) => local),
      "server MB": MEGABYTES(({ server }) => server),
      "both MB": MEGABYTES(({ local, server }) => local + server),
    }),
    table(records, "set-up", "New associations", ["associations"], {
      answered: column("answered"),
      "answered/s": column("perSecond"),
      "p50 µs": column("p50"),
      "p99 µs": column("p99"),
      "local µs": column("localUs", 1),
      "server µs": column("serverUs", 1),
      "both µs": (runs) => format(median(runs.map(cpuUs)), 1),
    }),
    table(records, "cold", "The first 2 s after the start, 64 associations, 1,200 bytes", ["rate"], {
      ...carried,
      "rounds with loss over 0.1 %": (runs) =>
        `${runs.filter(({ lost, sent }) => lost > LOSS_LIMIT * sent).length} of ${runs.length}`,
    }),
    correctness(records),
  ].filter(({ rows }) => rows.length > 0);
}

/** @param {Table} table */
export function asText({ title, header, rows }) {
  const widths = header.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i].length)));
  const lines = [header, ...rows].map((row) =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  "),
  );
  return `\n${title}\n${lines.map((line) => `  ${line.trimEnd()}\n`).join("")}`;
}

/** @param {Table} table */
export function asMarkdown({ title, header, rows }) {
  const line = (/** @type {string[]} */ cells) => `| ${cells.join(" | ")} |\n`;
  const rule = header.map((_, i) => (i < 2 ? "---" : "--:"));
  return `\n## ${title}\n\n${[header, rule, ...rows].map(line).join("")}`;
}
