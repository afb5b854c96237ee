// `npm test`: everything that CI runs. Lint, types, build, then unit, sim, interop and e2e tests. First installs dependencies if a
// fresh clone has none and, as root on Debian, the packages whose programs the tests use; elsewhere, tests that need a missing
// package are skipped and name it. Tests of programs mostly wait, so what mostly computes runs beside them, at a lower priority.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { stripVTControlCharacters } from "node:util";
import { childEnd } from "./test/child-end.mjs";

/** @type {{ title: string, seconds: number, isGood: boolean, output: string }[]} */
const ended = [];

/** Enough for the last failed test and the summary, with which a run of tests ends. */
const REPEATED_LINES = 40;

/** How vitest names a failed test before its error. */
const FAILED_TEST = /^ *FAIL /;

/**
 * Runs a command. What runs in the background has a lower priority, and its output is shown once it ends.
 *
 * @param {string} title @param {string} command @param {readonly string[]} args @param {boolean} [isBackground]
 * @returns {Promise<boolean>} whether it succeeded
 */
async function step(title, command, args, isBackground = false) {
  const startedAt = performance.now();
  console.log(`\n== ${title}${isBackground ? ", in the background" : ""}`);
  const env = process.stdout.isTTY ? { FORCE_COLOR: "1", ...process.env } : process.env;
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env });
  if (isBackground && child.pid !== undefined)
    setPriority(child.pid, constants.priority.PRIORITY_BELOW_NORMAL);
  /** @type {Buffer[]} */
  const chunks = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      chunks.push(chunk);
      if (!isBackground) process.stdout.write(chunk);
    });
  }
  const isGood = (await childEnd(child)) === 0;
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  const output = Buffer.concat(chunks).toString();
  ended.push({ title, seconds, isGood, output });
  if (isBackground) {
    console.log(`\n== ${title} (in the background): ${isGood ? "done" : "failed"} after ${seconds} s`);
    process.stdout.write(output);
  }
  return isGood;
}

/**
 * Names of failed tests, and the end of each failed step's output, come last: other steps may have printed thousands of lines after
 * them.
 *
 * @returns {never}
 */
function finish() {
  console.log("\n== seconds");
  for (const { title, seconds, isGood } of ended)
    console.log(`${title}: ${seconds}${isGood ? "" : ", failed"}`);
  const failed = ended.filter(({ isGood }) => !isGood);
  for (const { title, output } of failed) {
    const lines = output.trimEnd().split("\n");
    const last = lines.slice(-REPEATED_LINES);
    const names = lines
      .slice(0, -REPEATED_LINES)
      .filter((line) => FAILED_TEST.test(stripVTControlCharacters(line)));
    console.log(`\n== ${title} failed`);
    console.log([...names, ...last].join("\n"));
  }
  process.exit(failed.length === 0 ? 0 : 1);
}

/** Runs a command that everything else needs. @param {string} title @param {string} command @param {readonly string[]} args */
async function first(title, command, args) {
  if (!(await step(title, command, args))) finish();
}

/** @param {string} title @param {readonly string[]} projects @param {boolean} [isBackground] */
function test(title, projects, isBackground) {
  const chosen = projects.flatMap((project) => ["--project", project]);
  return step(title, "npx", ["vitest", "run", ...chosen, ...process.argv.slice(2)], isBackground);
}

const packages = readFileSync("scripts/debian-packages.txt", "utf8").trim().split("\n");
const isInstalled = spawnSync("dpkg", ["-s", ...packages], { stdio: "ignore" }).status === 0;
const hasApt = spawnSync("apt-get", ["--version"], { stdio: "ignore" }).status === 0;
if (!isInstalled && hasApt && process.getuid?.() === 0) {
  await first("Debian packages: list", "apt-get", ["update", "-qq"]);
  process.env.DEBIAN_FRONTEND = "noninteractive";
  await first("Debian packages", "apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages]);
}
if (!existsSync("node_modules/typescript")) {
  await first("install", "npm", ["ci", "--no-audit", "--no-fund"]);
}
await first("lint", "npx", ["biome", "check", "--error-on-warnings", "."]);
await first("types", "npm", ["run", "--silent", "types"]);
await first("build", "node", ["scripts/build.mjs"]);

const library = step("C library", "node", ["scripts/build-capi.mjs", "--test"], true);
const computed = library.then(async () => {
  await step("native/io", "node", ["scripts/test-native.mjs"], true);
  await test("unit and sim", ["unit", "sim"], true);
});
await test("e2e", ["e2e", "e2e-plain"]);
// Only these use the C library.
const ofLibrary = "interop, and e2e of the C library";
if (await library) await test(ofLibrary, ["interop*", "e2e-c"]);
else console.log(`\n== ${ofLibrary}: left out, because the C library failed`);
await computed;
finish();
