// Runs tunnels side by side, A B A B, on loopback, and prints medians and ratios. See bench/README.md.
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ping, startTarget } from "./load.mjs";
import { describe, machine, packageVersion } from "./machine.mjs";
import { MEASURES } from "./measure.mjs";
import { reportPage } from "./report.mjs";
import { cpuUs, distinct } from "./statistics.mjs";
import { subjects } from "./subjects.mjs";
import { asMarkdown, asText, format, loadName, tables } from "./tables.mjs";

/** @typedef {import("./measure.mjs").BenchRecord} BenchRecord */
/** @typedef {import("./subjects.mjs").Subject} Subject */

const HELP = `npm run bench -- [options]

Runs Underpass and other tunnels in turn on loopback, and prints medians and ratios.

  --quick            a minute or so: one round, few cases, short windows
  --only LIST        of ${Object.keys(MEASURES).join(",")}
  --subjects LIST    of underpass,underpass-plain,udptunnel,shadowsocks, the peers and builds (default: all)
  --peer 'NAME=SERVER COMMAND ;; LOCAL COMMAND'
                     another tunnel, repeatable; spaces separate words. {tcp}: port between its ends; {udp}: port on
                     which the local end receives datagrams; {target}: port to which the server sends them, both on
                     127.0.0.1; {key}: 32 hexadecimal digits
  --variant 'NAME=OPTIONS'
                     underpass-NAME: Underpass with other options at both ends, such as --io plain, repeatable
  --build 'NAME=FOLDER [OPTIONS]'
                     Underpass of another checkout that is built, with options of both ends, repeatable
  --rounds N         default 5
  --seconds S        maximum length of a window, default 1
  --json             prints one JSON record per line instead of text
  --from FILE        reads such lines instead of running anything
  --report FILE      writes a page of plots
  --markdown FILE    writes the tables
`;

const { values: options } = readOptions({
  options: {
    help: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    subjects: { type: "string" },
    peer: { type: "string", multiple: true, default: [] },
    variant: { type: "string", multiple: true, default: [] },
    build: { type: "string", multiple: true, default: [] },
    rounds: { type: "string" },
    seconds: { type: "string" },
    json: { type: "boolean", default: false },
    from: { type: "string" },
    report: { type: "string" },
    markdown: { type: "string" },
  },
});

/** @template {import("node:util").ParseArgsConfig} T @param {T} config */
function readOptions(config) {
  try {
    return parseArgs(config);
  } catch (error) {
    console.error(`bench: ${/** @type {Error} */ (error).message}; see --help`);
    process.exit(2);
  }
}

/** @param {object} record @param {string} text */
function print(record, text) {
  if (options.json) console.log(JSON.stringify(record));
  else if (text !== "") console.log(text);
}

/** The subjects that start here; a peer is two-way if it answers. @param {Subject[]} candidates */
async function thatStart(candidates) {
  const able = [];
  for (const subject of candidates) {
    const target = await startTarget("echo");
    try {
      const tunnel = await subject.start(target.port);
      const { samples } = subject.isTwoWay ? await ping(tunnel.port, 64, 1) : { samples: 0 };
      await tunnel.stop();
      able.push({ ...subject, isTwoWay: samples > 0 });
    } catch (error) {
      console.warn(`${subject.name} is left out: ${/** @type {Error} */ (error).message}`);
    }
    target.stop();
  }
  return able;
}

/** @param {BenchRecord} record */
function describeRecord(record) {
  const { measure, subject, round } = record;
  const head = `${measure.padEnd(10)} ${String(round + 1).padStart(2)}  ${subject.padEnd(16)}`;
  if (measure === "ping")
    return `${head} ${record.size} bytes: p50 ${record.p50} µs, p99 ${record.p99} µs, lost ${record.lost}`;
  if (measure === "memory") {
    const [local, server] = [record.local, record.server].map((bytes) => format(bytes / 1e6, 1));
    return `${head} ${format(record.associations)} associations: local ${local} MB, server ${server} MB`;
  }
  if (measure === "set-up") {
    const [count, perSecond] = [record.associations, record.perSecond].map((value) => format(value));
    const cpu = record.localUs > 0 ? `, CPU ${format(cpuUs(record), 1)} µs` : "";
    return `${head} ${count} associations: ${format(record.answered)} answered, ${perSecond}/s${cpu}, p50 ${format(record.p50)} µs`;
  }
  const wrong = record.corrupt + record.duplicate;
  const sockets = record.sockets > 1 ? `, ${format(record.sockets)} associations` : "";
  const rates = `offered ${format(record.offered)}/s, delivered ${format(record.delivered)}/s`;
  const cpu = record.localUs > 0 ? `, CPU ${format(cpuUs(record), 2)} µs` : "";
  const delay = measure.startsWith("r") ? `, p50 ${format(record.p50)} µs, p99 ${format(record.p99)} µs` : "";
  return `${head} ${loadName(/** @type {any} */ (record))}${sockets}: ${rates}${cpu}${delay}${wrong > 0 ? `, CORRUPT OR TWICE ${wrong}` : ""}`;
}

/** @returns {Promise<{ about: import("./machine.mjs").Machine, records: BenchRecord[] }>} */
async function run() {
  const only = options.only?.split(",") ?? Object.keys(MEASURES);
  for (const name of only) {
    if (!(name in MEASURES)) throw new Error(`--only: there is no ${name}; see --help`);
  }
  const names = options.subjects?.split(",");
  const candidates = subjects(options.variant, options.build, options.peer, packageVersion());
  for (const name of names ?? []) {
    if (!candidates.some((subject) => subject.name === name))
      throw new Error(`--subjects: there is no ${name}`);
  }
  const chosen = await thatStart(candidates.filter(({ name }) => names?.includes(name) ?? true));
  const rounds = Number(options.rounds ?? (options.quick ? 1 : 5));
  const seconds = Number(options.seconds ?? (options.quick ? 0.4 : 1));
  if (!(rounds >= 1) || !(seconds > 0)) throw new Error("--rounds, --seconds: expected a number above 0");
  const about = machine(chosen, rounds, seconds);
  print(
    { about },
    describe(about)
      .map(([name, value]) => `${name}: ${value}`)
      .join("\n"),
  );
  /** @type {BenchRecord[]} */
  const records = [];
  const plan = {
    subjects: chosen,
    rounds,
    seconds,
    isQuick: options.quick,
    record: (/** @type {BenchRecord} */ record) => {
      records.push(record);
      print(record, describeRecord(record));
    },
    note: (/** @type {string} */ text) => console.warn(text),
  };
  const began = Date.now();
  /** @type {Record<string, number>} */
  const took = {};
  for (const name of only) {
    const at = Date.now();
    await MEASURES[/** @type {keyof typeof MEASURES} */ (name)](plan);
    took[name] = Math.round((Date.now() - at) / 1000);
  }
  took.all = Math.round((Date.now() - began) / 1000);
  print(
    { took },
    `\ntook ${Object.entries(took)
      .map(([name, s]) => `${name} ${s} s`)
      .join(", ")}`,
  );
  return { about, records };
}

/** @param {string} file @returns {Awaited<ReturnType<typeof run>>} */
function readRecords(file) {
  const lines = readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line.startsWith("{"));
  const objects = lines.map((line) => JSON.parse(line));
  const first = objects.find(({ about }) => about !== undefined);
  if (first === undefined) throw new Error(`--from ${file}: no lines of --json`);
  return { about: first.about, records: objects.filter(({ measure }) => measure !== undefined) };
}

async function main() {
  if (options.help) return console.log(HELP);
  const { about, records } = options.from === undefined ? await run() : readRecords(options.from);
  const all = tables(records);
  if (!options.json) for (const table of all) console.log(asText(table));
  if (options.markdown !== undefined) {
    const facts = describe(about).map(
      ([name, value]) => `- ${name}: ${name === "command" ? `\`${value}\`` : value}\n`,
    );
    const text = `# Benchmarks\n\nThis page compares Underpass with other tunnels over loopback, in medians of runs on one machine. [bench/README.md](../../bench/README.md)\nexplains what is measured and how to read it.\n\n${facts.join("")}`;
    writeFileSync(options.markdown, text + all.map(asMarkdown).join(""));
  }
  if (options.report !== undefined) writeFileSync(options.report, reportPage(about, records));
  for (const subject of distinct(records, "subject").filter((name) => name.startsWith("underpass"))) {
    const wrong = records.filter(
      (record) => record.subject === subject && record.corrupt + record.duplicate > 0,
    );
    if (wrong.length === 0) continue;
    console.error(`${subject}: corrupt or duplicate datagrams in ${wrong.length} windows`);
    process.exitCode = 1;
  }
}

try {
  await main();
} catch (error) {
  console.error(`bench: ${/** @type {Error} */ (error).message}`);
  process.exit(2);
}
