// Measures the ways to a server, A B C, in the next round B C A, and prints what they cost. See bench/README.md.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { flood, open, startTarget } from "../load.mjs";
import { describe, machine, packageVersion } from "../machine.mjs";
import { cpuNs, sleep } from "../processes.mjs";
import { distinct, median, select } from "../statistics.mjs";
import { debianVersion } from "../subjects.mjs";
import { asMarkdown, asText, format } from "../tables.mjs";
import { compareEchoes, PATIENT, startEcho } from "./integrity.mjs";
import { INTEGRITY_WAYS, METHOD_WAYS, WAYS } from "./subjects.mjs";

/** @typedef {import("./subjects.mjs").Way} Way */
/** @typedef {import("../measure.mjs").BenchRecord} BenchRecord */
/** @typedef {import("../tables.mjs").Table} Table */

const HELP = `npm run bench:ways -- [options]

Measures round trips, throughput and CPU time of the ways from udp-local to udp-server on loopback: direct, through shadowsocks
and simple-obfs (built in and stock programs), WebSocket and standard MASQUE. Leaves out programs that are not installed.

  --rounds N         default 3
  --seconds S        length of each window of round trips, default 8
  --only LIST        of latency,throughput (default: both), integrity: bytes through each way, compared, once
  --megabytes N      for integrity, default 1000
  --match TEXT       only ways whose name contains TEXT
  --json             prints one JSON record per line instead of text
  --markdown FILE    writes the tables
`;

const SIZE = 1200;
/** Round trips: at fixed rates, and ten at once. */
const LOADS = [
  { name: "50/s", rate: 50, burst: 1 },
  { name: "300/s", rate: 300, burst: 1 },
  { name: "10 at once, 200/s", rate: 200, burst: 10 },
];
const CPU_RATE = 20_000;
const FLOOD_SECONDS = 3;
/**
 * Until a session is up, has measured its path, and is of the kind that suits it; and code is compiled: the last functions are after
 * some thousand datagrams, each for 3 to 7 ms in which datagrams wait.
 */
const WARM_UP = { size: SIZE, burst: 1, rate: 1_000, seconds: 8 };
const DRAIN_MS = 200;

const { values: options } = parseArgs({
  options: {
    help: { type: "boolean", default: false },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "8" },
    only: { type: "string", default: "latency,throughput" },
    megabytes: { type: "string", default: "1000" },
    match: { type: "string", default: "" },
    json: { type: "boolean", default: false },
    markdown: { type: "string" },
  },
});

/** @param {Way} way */
function isInstalled({ needs }) {
  return needs.every((program) => spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status === 0);
}

/** @param {number[]} pids */
function cpuOf(pids) {
  return pids.reduce((sum, pid) => sum + cpuNs(pid), 0);
}

/** @param {Way} way @param {number} round @param {(record: BenchRecord) => void} record */
async function measureLatency(way, round, record) {
  const target = await startTarget("echo");
  const running = await way.start(target.port);
  try {
    await open(running.port, WARM_UP);
    for (const { name, rate, burst } of LOADS) {
      const result = await open(running.port, { size: SIZE, rate, burst, seconds: Number(options.seconds) });
      record({ measure: "latency", subject: way.name, method: way.method, round, load: name, ...result });
    }
  } finally {
    await running.stop();
    target.stop();
  }
}

/** One way; CPU in µs of a datagram that arrived. @param {Way} way @param {number} round @param {(record: BenchRecord) => void} record */
async function measureThroughput(way, round, record) {
  const target = await startTarget("sink");
  const running = await way.start(target.port);
  const { local, server, relays } = running;
  try {
    await flood(running.port, { ...WARM_UP, sockets: 1 });
    await flood(running.port, { size: SIZE, sockets: 1, burst: 1, rate: 0, seconds: 1 });
    await sleep(DRAIN_MS);
    for (const rate of [0, CPU_RATE]) {
      await target.report();
      const before = [local, server, relays].map(cpuOf);
      const load = { size: SIZE, sockets: 1, burst: 1, rate, seconds: FLOOD_SECONDS };
      const { sent, seconds } = await flood(running.port, load);
      await sleep(DRAIN_MS);
      const after = [local, server, relays].map(cpuOf);
      const taken = await target.report();
      const [localUs, serverUs, relaysUs] = after.map(
        (ns, end) => (ns - before[end]) / 1000 / Math.max(1, taken.count),
      );
      const delivered = taken.count / Math.max(taken.seconds, seconds);
      const costs = { localUs, serverUs, relaysUs };
      const measure = rate === 0 ? "flood" : "cpu";
      record({ measure, subject: way.name, method: way.method, round, sent, delivered, ...costs, ...taken });
    }
  } finally {
    await running.stop();
    target.stop();
  }
}

/** One way, once. @param {Way} way @param {number} round @param {(record: BenchRecord) => void} record */
async function measureIntegrity(way, round, record) {
  if (round > 0) return;
  const echo = await startEcho();
  const running = await way.start(echo.port, PATIENT);
  try {
    const result = await compareEchoes(running.port, Number(options.megabytes) * 1e6);
    record({ measure: "integrity", subject: way.name, method: way.method, round, ...result });
    const { sent, lost, twice, wrong } = result;
    if (lost + twice + wrong > 0)
      throw new Error(`${way.name} ${way.method}: of ${sent} ${lost} lost, ${twice} twice, ${wrong} wrong`);
  } finally {
    await running.stop();
    echo.stop();
  }
}

/** @param {BenchRecord[]} records @returns {[subject: string, method: string][]} */
function waysIn(records) {
  return distinct(
    records.map((record) => /** @type {any} */ ({ way: JSON.stringify([record.subject, record.method]) })),
    "way",
  ).map((text) => JSON.parse(String(text)));
}

/** @param {BenchRecord[]} records @returns {Table[]} */
function tables(records) {
  const latency = select(records, { measure: "latency" });
  const ms = (/** @type {number} */ us) => format(us / 1000, 2);
  /** @param {BenchRecord[]} some @param {string} field */
  const of = (some, field) => median(some.map((record) => record[field]));
  const latencyRows = waysIn(latency).map(([subject, method]) => {
    const cells = LOADS.flatMap(({ name }) => {
      const runs = select(latency, { subject, method, load: name });
      const lost = runs.reduce((sum, { sent, count }) => sum + sent - count, 0);
      return [`${ms(of(runs, "p50"))} / ${ms(of(runs, "p99"))}${lost > 0 ? ` (${lost} lost)` : ""}`];
    });
    return [subject, method, ...cells];
  });
  const bulk = records.filter(({ measure }) => measure === "flood" || measure === "cpu");
  const throughputRows = waysIn(bulk).map(([subject, method]) => {
    const floods = select(bulk, { subject, method, measure: "flood" });
    const fixed = select(bulk, { subject, method, measure: "cpu" });
    const us = (/** @type {string} */ field) => format(of(fixed, field), 1);
    return [
      subject,
      method,
      format(of(floods, "delivered")),
      ...["localUs", "serverUs", "relaysUs"].map(us),
      `${format(of(fixed, "delivered"))}/s`,
    ];
  });
  const integrityRows = select(records, { measure: "integrity" }).map((record) => [
    String(record.subject),
    String(record.method),
    ...["sent", "lost", "twice", "wrong"].map((field) => format(Number(record[field]))),
    format(Number(record.seconds), 1),
  ]);
  return [
    {
      title: `${options.megabytes} MB of datagrams of 4 to 60,000 bytes, echoed and compared`,
      header: ["way", "method", "datagrams", "lost", "twice", "wrong", "s"],
      rows: integrityRows,
    },
    {
      title: "Round trips of 1,200 bytes, ms: p50 / p99",
      header: ["way", "method", ...LOADS.map(({ name }) => name)],
      rows: latencyRows,
    },
    {
      title: `Throughput of 1,200 bytes one way, and CPU time of a datagram at ${format(CPU_RATE)}/s, µs`,
      header: ["way", "method", "datagrams/s", "udp-local", "udp-server", "between", "at"],
      rows: throughputRows,
    },
  ].filter(({ rows }) => rows.length > 0);
}

async function main() {
  if (options.help) return console.log(HELP);
  const rounds = Number(options.rounds);
  const only = options.only.split(",");
  /** @type {BenchRecord[]} */
  const records = [];
  /** @param {BenchRecord} record */
  const record = (record) => {
    records.push(record);
    if (options.json) console.log(JSON.stringify(record));
  };
  const plans = [
    { name: "latency", ways: WAYS, measure: measureLatency },
    { name: "throughput", ways: METHOD_WAYS, measure: measureThroughput },
    { name: "integrity", ways: INTEGRITY_WAYS, measure: measureIntegrity },
  ].filter(({ name }) => only.includes(name));
  for (const { ways, measure } of plans) {
    const present = ways.filter((way) => way.name.includes(options.match) && isInstalled(way));
    for (let round = 0; round < rounds; round++) {
      const first = round % Math.max(1, present.length);
      for (const way of [...present.slice(first), ...present.slice(0, first)])
        await measure(way, round, record);
    }
  }
  const versions = ["shadowsocks-libev", "simple-obfs", "nginx"].flatMap((name) => {
    const version = debianVersion(name);
    return version === undefined ? [] : [{ name, version }];
  });
  const of = [{ name: "underpass", version: packageVersion() }, ...versions];
  const about = machine(of, rounds, Number(options.seconds), "bench:ways");
  const all = tables(records);
  if (options.json) console.log(JSON.stringify({ about }));
  else for (const table of all) console.log(asText(table));
  if (options.markdown === undefined) return;
  const facts = describe(about).map(
    ([name, value]) => `- ${name}: ${name === "command" ? `\`${value}\`` : value}\n`,
  );
  writeFileSync(options.markdown, `${facts.join("")}${all.map(asMarkdown).join("")}`);
}

try {
  await main();
} catch (error) {
  console.error(`bench:ways: ${/** @type {Error} */ (error).message}`);
  process.exit(2);
}
process.exit();
