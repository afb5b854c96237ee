// The machine and the versions of a run.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";

/** @typedef {{ date: string, command: string, cpu: string, cores: number, memoryGb: number, kernel: string, node: string, commit: string, versions: Record<string, string>, rounds: number, seconds: number }} Machine */

/** @param {string[]} args */
function git(...args) {
  return spawnSync("git", args, { encoding: "utf8" }).stdout.trim();
}

/** Ours, as package.json has it. */
export function packageVersion() {
  return String(JSON.parse(readFileSync("package.json", "utf8")).version);
}

/**
 * @param {{ name: string, version: string }[]} subjects @param {number} rounds @param {number} seconds
 * @param {string} script  of package.json @returns {Machine}
 */
export function machine(subjects, rounds, seconds, script = "bench") {
  const quoted = process.argv
    .slice(2)
    .map((arg) => (/^[\w./=,:-]+$/.test(arg) ? arg : `'${arg}'`))
    // The build folder of a peer does not matter.
    .map((arg) => arg.replace(/(^|[\s='"])\/(?:[^\s/]+\/)*/g, "$1"));
  return {
    date: new Date().toISOString().slice(0, 10),
    command: [`npm run ${script} --`, ...quoted].join(" "),
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    commit:
      git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain", "-uno") === "" ? "" : ", changed"),
    versions: Object.fromEntries(subjects.map(({ name, version }) => [name, version])),
    rounds,
    seconds,
  };
}

/** @param {Machine} of */
export function describe({
  date,
  command,
  cpu,
  cores,
  memoryGb,
  kernel,
  node,
  commit,
  versions,
  rounds,
  seconds,
}) {
  return [
    ["date", date],
    ["machine", `${cpu}, ${cores} cores, ${memoryGb} GB; Linux ${kernel}; Node ${node}`],
    ["commit", commit],
    [
      "subjects",
      Object.entries(versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(", "),
    ],
    ["windows", `medians of ${rounds} rounds, ${seconds} s each`],
    ["command", command],
  ];
}
