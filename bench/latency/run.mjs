// Runs tunnels over an emulated link in turns, A B A B, and prints delay, loss and CPU time. See bench/README.md.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { describe, machine } from "../machine.mjs";
import { median } from "../statistics.mjs";
import { asMarkdown, asText, format } from "../tables.mjs";
import { disturbance, runCase } from "./case.mjs";
import { makeHosts } from "./hosts.mjs";
import { reportPage } from "./report.mjs";
import { lacksFor } from "./rivals.mjs";
import { SCENARIOS } from "./scenarios.mjs";
import { subjects } from "./subjects.mjs";
import { tables } from "./tables.mjs";
import { WAY_NAMES } from "./ways.mjs";

/** @typedef {import("./case.mjs").CaseRecord} CaseRecord */
/** @typedef {import("./ways.mjs").WayName} WayName */
/** @typedef {import("./scenarios.mjs").Scenario} Scenario */

const GROUPS = [...new Set(SCENARIOS.map(({ group }) => group))];
const CURVE_GROUPS = ["main", "load", "loss", "rtt"];

const HELP = `npm run bench:latency -- [options]

Runs Underpass and other tunnels over an emulated link between two network namespaces. Linux, as root, with iproute2;
iperf3, shadowsocks-libev, ngtcp2 and wireguard-go for the scenarios that need them.

  --only LIST        groups of scenarios, of ${GROUPS.slice(0, 8).join()},
                     ${GROUPS.slice(8).join()} (default: ${CURVE_GROUPS.join()})
  --match TEXT       only scenarios whose name contains TEXT
  --list             prints the scenarios that would run
  --ways LIST        of direct,ss,ss-local: over the link itself; through ss-tunnel and ss-server, which serves the
                     tunnel's other TCP as well; the same with other TCP through ss-local (default: direct,ss)
  --subjects LIST    of bare,lanes-1,lanes-4,udptunnel, and those given below (default: all)
  --variant 'NAME=LOCAL OPTIONS [;; SERVER OPTIONS]'
                     Underpass with other options, repeatable
  --build 'NAME=FOLDER [LOCAL OPTIONS [;; SERVER OPTIONS]]'
                     Underpass from another, built checkout, repeatable
  --peer 'NAME=SERVER COMMAND ;; LOCAL COMMAND'
                     another tunnel, repeatable; spaces separate words. {address}, {tcp}: where its server listens
                     and its local end connects to; {far}, {target}: where the server sends datagrams; {udp}: port
                     of 127.0.0.1 on which the local end receives them; {key}: 32 hexadecimal digits
  --rounds N         default 3
  --seconds S        counted seconds of a scenario, default 15; some take longer
  --warm-up S        uncounted seconds before them, default 3
  --seed N           seed of the first round; each further round has the next (default 1)
  --tries N          runs a case up to N times while other programs disturb it; the last try counts (default 1)
  --nice=N           priority of the tunnels, -20 to 19, for a machine that others use (default 0)
  --json             prints one JSON record per line instead of text
  --from FILE        reads such lines instead of running anything, repeatable
  --report FILE      writes a page of curves
  --markdown FILE    writes the tables
`;

/** The wait for answers. */
const DRAIN_S = 4;

const options = readOptions();

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        help: { type: "boolean", default: false },
        only: { type: "string" },
        match: { type: "string", default: "" },
        list: { type: "boolean", default: false },
        ways: { type: "string", default: "direct,ss" },
        subjects: { type: "string" },
        variant: { type: "string", multiple: true, default: [] },
        build: { type: "string", multiple: true, default: [] },
        peer: { type: "string", multiple: true, default: [] },
        rounds: { type: "string", default: "3" },
        seconds: { type: "string", default: "15" },
        "warm-up": { type: "string", default: "3" },
        seed: { type: "string", default: "1" },
        tries: { type: "string", default: "1" },
        nice: { type: "string", default: "0" },
        json: { type: "boolean", default: false },
        from: { type: "string", multiple: true, default: [] },
        report: { type: "string" },
        markdown: { type: "string" },
      },
    });
    return values;
  } catch (error) {
    fail(/** @type {Error} */ (error).message);
  }
}

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(`bench:latency: ${message}; see --help`);
  process.exit(2);
}

/** @param {string} name @param {number} least @param {number} [most] */
function numberOf(name, least, most = Number.POSITIVE_INFINITY) {
  const value = Number(options[/** @type {keyof typeof options} */ (name)]);
  if (!(value >= least && value <= most))
    fail(`--${name}: expected a number of at least ${least}, got ${value}`);
  return value;
}

/** @param {string} option @param {string} list @param {string[]} of */
function listOf(option, list, of) {
  const names = list.split(",");
  for (const name of names) if (!of.includes(name)) fail(`--${option}: there is no ${name}`);
  return names;
}

/** @param {string} program */
function isThere(program) {
  return spawnSync("sh", ["-c", 'command -v "$1"', "sh", program], { stdio: "ignore" }).status === 0;
}

function checkMachine() {
  const lacks = ["ip"].filter((program) => !isThere(program));
  if (process.platform !== "linux" || process.getuid?.() !== 0) lacks.push("Linux, root");
  if (!existsSync("/dev/net/tun")) lacks.push("/dev/net/tun");
  if (lacks.length === 0) return;
  console.error(`bench:latency: this machine lacks: ${lacks.join(", ")}`);
  process.exit(1);
}

/** The requirement of a scenario that this machine lacks. @param {Scenario} scenario @param {WayName} way */
function missing({ rivals, inner, link }, way) {
  const read = (/** @type {string} */ name) =>
    readFileSync(`/proc/sys/net/ipv4/tcp_${name}_congestion_control`, "utf8").trim().split(" ");
  const [available, allowed] = [read("available"), read("allowed")];
  const unavailable = [link.congestion, ...(rivals ?? []).map(({ congestion }) => congestion)].filter(
    (name) => name !== undefined && !available.includes(name),
  );
  return [
    ...unavailable.map((name) => `TCP ${name}`),
    // A namespace may choose only these as its default.
    ...(link.congestion && !allowed.includes(link.congestion)
      ? [`${link.congestion} in net.ipv4.tcp_allowed_congestion_control`]
      : []),
    ...(rivals && !isThere("iperf3") ? ["iperf3"] : []),
    ...(inner ? lacksFor(inner) : []),
    ...(way === "direct" ? [] : ["ss-server", "ss-tunnel"]).filter((program) => !isThere(program)),
    ...(way === "ss-local" && !isThere("ss-local") ? ["ss-local"] : []),
  ];
}

/** @param {Scenario} scenario @param {WayName} way @param {import("./subjects.mjs").Subject} subject */
function canRun({ inner, rivals }, way, { ways, isTwoWay, hasTcp }) {
  const wantsTcp = rivals?.some(({ by }) => by === "tunnel");
  // Without other TCP, ss-local would have nothing to do.
  if (way === "ss-local" && !wantsTcp) return false;
  return ways.includes(way) && (isTwoWay || inner === undefined) && (hasTcp || !wantsTcp);
}

/** @param {CaseRecord} record */
function describeRecord(record) {
  const flows = record.flows.map(({ name, kind, p50, p99, p999, received, sent }) => {
    const loss = format(100 * (1 - received / Math.max(1, sent)), 2);
    return `${name}${kind === "up" ? " one way" : ""} ${format(p50, 1)}/${format(p99, 1)}/${format(p999, 1)} ms, lost ${loss} %`;
  });
  const streams = record.streams.map(({ name, mbits }) => `${name} ${format(mbits, 2)} Mbit/s`);
  const disturbed = disturbance(record);
  return `${String(record.round + 1).padStart(2)} ${record.scenario}, ${record.way}, ${record.subject}: ${[...flows, ...streams].join("; ")}${disturbed && ` [${disturbed}]`}`;
}

/** @param {object} record @param {string} text */
function print(record, text) {
  console.log(options.json ? JSON.stringify(record) : text);
}

/** Datagrams that arrived corrupt, and twice. @param {CaseRecord} record */
function faultsOf({ corrupt, flows }) {
  return { corrupt, twice: flows.reduce((sum, { duplicate }) => sum + duplicate, 0) };
}

/**
 * Repeats a disturbed case. The criterion is the machine's lateness, never the subject's result. Faults are kept, because no other
 * program causes them.
 *
 * @param {Scenario} scenario @param {WayName} way @param {import("./subjects.mjs").Subject} subject @param {number} round
 * @param {number} seed @param {import("./case.mjs").Times} times @param {number} tries  at most
 */
async function runUndisturbed(scenario, way, subject, round, seed, times, tries) {
  for (let attempt = 1; ; attempt++) {
    const record = await runCase(scenario, way, subject, round, seed, times);
    const { corrupt, twice } = faultsOf(record);
    if (attempt >= tries || corrupt + twice > 0 || disturbance(record) === "")
      return { ...record, tries: attempt };
    console.warn(`again, as it was disturbed: ${describeRecord(record)}`);
  }
}

/** @returns {Promise<{ about: import("../machine.mjs").Machine, records: CaseRecord[] }>} */
async function run() {
  checkMachine();
  const groups = listOf("only", options.only ?? CURVE_GROUPS.join(), GROUPS);
  const ways = /** @type {WayName[]} */ (listOf("ways", options.ways, WAY_NAMES));
  const all = subjects(options.variant, options.build, options.peer);
  const names = all.map(({ name }) => name);
  const chosen = listOf("subjects", options.subjects ?? names.join(), names);
  const under = all.filter(({ name }) => chosen.includes(name));
  const [rounds, seconds, seed] = [numberOf("rounds", 1), numberOf("seconds", 1), numberOf("seed", 0)];
  const tries = numberOf("tries", 1);
  const times = { warmUp: numberOf("warm-up", 0.5), seconds, drain: DRAIN_S };
  const scenarios = SCENARIOS.filter(
    ({ group, name }) => groups.includes(group) && name.includes(options.match),
  );
  const cases = scenarios.flatMap((scenario) =>
    ways.flatMap((way) => {
      const lacks = missing(scenario, way);
      if (lacks.length > 0)
        console.warn(`${scenario.name}, ${way}: left out, for lack of ${lacks.join(", ")}`);
      return under
        .filter((subject) => lacks.length === 0 && canRun(scenario, way, subject))
        .map((subject) => ({ scenario, way, subject }));
    }),
  );
  const total = cases.reduce((sum, { scenario }) => sum + Math.max(seconds, scenario.seconds ?? 0), 0);
  const about = machine(under, rounds, seconds, "bench:latency");
  print(
    { about },
    [...describe(about), ["cases", `${cases.length}, seeds ${seed} to ${seed + rounds - 1}`]]
      .map(([name, value]) => `${name}: ${value}`)
      .join("\n"),
  );
  console.warn(`at least ${Math.ceil(((total + cases.length * times.warmUp) * rounds) / 60)} minutes`);
  if (options.list) {
    for (const { scenario, way, subject } of cases)
      console.log(`${scenario.group}: ${scenario.name}, ${way}, ${subject.name}`);
    return { about, records: [] };
  }
  const removeHosts = makeHosts(numberOf("nice", -20, 19));
  /** @type {CaseRecord[]} */
  const records = [];
  for (let round = 0; round < rounds; round++) {
    for (const { scenario, way, subject } of cases) {
      try {
        const record = await runUndisturbed(scenario, way, subject, round, seed + round, times, tries);
        records.push(record);
        print(record, describeRecord(record));
      } catch (error) {
        console.error(
          `bench:latency: ${scenario.name}, ${way}, ${subject.name}: ${/** @type {Error} */ (error).message}`,
        );
        process.exitCode = 1;
      }
    }
  }
  await removeHosts();
  return { about, records };
}

/** Of one run or of several, whose commands are all named. @param {string[]} files @returns {Awaited<ReturnType<typeof run>>} */
function readRecords(files) {
  const objects = files
    .flatMap((file) => readFileSync(file, "utf8").split("\n"))
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
  const runs = objects.filter(({ about }) => about !== undefined).map(({ about }) => about);
  if (runs.length === 0) fail(`--from ${files.join(" ")}: no lines of --json`);
  const about = {
    ...runs[0],
    commit: [...new Set(runs.map(({ commit }) => commit))].join(", "),
    command: runs.map(({ command }) => command).join("; "),
    rounds: [...new Set(runs.map(({ rounds }) => rounds))].join(" or "),
  };
  return { about, records: objects.filter(({ measure }) => measure === "latency") };
}

if (options.help) {
  process.stdout.write(HELP);
} else {
  const { about, records } = options.from.length === 0 ? await run() : readRecords(options.from);
  const all = tables(records, (scenario) => SCENARIOS.find(({ name }) => name === scenario)?.changes?.[0].at);
  if (!options.json) for (const table of all) console.log(asText(table));
  if (options.report !== undefined) writeFileSync(options.report, reportPage(about, records, all));
  if (options.markdown !== undefined) writeFileSync(options.markdown, markdown(about, records, all));
  for (const record of records) {
    const { corrupt, twice } = faultsOf(record);
    if (corrupt + twice === 0) continue;
    console.error(`bench:latency: ${record.scenario}, ${record.subject}: ${corrupt} corrupt, ${twice} twice`);
    process.exitCode = 1;
  }
}

/** @param {import("../machine.mjs").Machine} about @param {CaseRecord[]} records @param {import("../tables.mjs").Table[]} all */
function markdown(about, records, all) {
  const seeds = [...new Set(records.map(({ seed }) => seed))].sort((a, b) => a - b).join(", ");
  const others = format(median(records.map(({ cpu }) => cpu.others)), 1);
  const facts = [
    ...describe(about),
    ["seeds", seeds],
    [
      "other programs",
      `${others} of ${about.cores} cores, the emulated link and the flows included (median)`,
    ],
    [
      "disturbed cases",
      `${records.reduce((sum, { tries = 1 }) => sum + tries - 1, 0)} run again, ${records.filter((record) => disturbance(record) !== "").length} of ${records.length} counted`,
    ],
  ].map(([name, value]) => `- ${name}: ${name === "command" ? `\`${value}\`` : value}\n`);
  const intro =
    "This page shows delay and loss over an emulated link, in medians of runs on one machine. [bench/README.md](../../bench/README.md) explains what\nis measured and how to read it.";
  return `# Latency\n\n${intro}\n\n${facts.join("")}${all.map(asMarkdown).join("")}`;
}
