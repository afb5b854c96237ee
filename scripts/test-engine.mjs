// Runs the unit and simulation tests of wire/, core/ and host/ in QuickJS, the engine of the C library. `npm run test:engine --
// NAME` runs those whose path contains NAME, and `-- --long` those that take minutes, which it otherwise leaves out. Tests that need
// Node itself are left out (scripts/test/engine-files.mjs).
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bundleForEngine } from "./test/engine-bundle.mjs";
import { LEFT_OUT, LONG, testFiles } from "./test/engine-files.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const RUNNER = join(ROOT, "build/capi/tests/run-script");
const OUTPUT = join(ROOT, "build/engine");
const { values, positionals } = parseArgs({ options: { long: { type: "boolean" } }, allowPositionals: true });
const TIMEOUT_MS = values.long ? 3_600_000 : 300_000;

/** @param {string} script @returns {Promise<{ isGood: boolean, output: string }>} */
function run(script) {
  return new Promise((done) => {
    execFile(RUNNER, [script], { timeout: TIMEOUT_MS, maxBuffer: 1e8 }, (error, stdout, stderr) =>
      done({ isGood: error === null, output: `${stdout}${stderr}${error?.killed ? "timed out\n" : ""}` }),
    );
  });
}

if (!existsSync(RUNNER)) {
  console.error("test-engine: there is no build/capi/tests/run-script: npm run build:capi -- --test");
  process.exit(process.env.CI === undefined ? 0 : 1);
}
rmSync(OUTPUT, { recursive: true, force: true });
mkdirSync(OUTPUT, { recursive: true });
const wanted = positionals[0] ?? "";
const waiting = testFiles().filter(
  (file) =>
    file.includes(wanted) && !LEFT_OUT.includes(file) && LONG.includes(file) === (values.long === true),
);
const sums = { passed: 0, failed: 0, skipped: 0, files: 0 };
let isGood = true;
const work = async () => {
  for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
    const script = join(OUTPUT, `${file.replaceAll("/", "-")}.js`);
    const faults = await bundleForEngine([file], script);
    if (faults.length > 0) {
      console.log(`FAIL ${file} does not bundle: ${faults.join(", ")}`);
      isGood = false;
      continue;
    }
    const startedAt = performance.now();
    const result = await run(script);
    const lines = result.output.trimEnd().split("\n");
    const last = lines.pop() ?? "";
    if (last.startsWith('{"passed"')) {
      const counts = JSON.parse(last);
      for (const name of /** @type {const} */ (["passed", "failed", "skipped"])) sums[name] += counts[name];
    } else lines.push(last);
    sums.files++;
    isGood &&= result.isGood;
    console.log(
      `${result.isGood ? "ok  " : "FAIL"} ${file} ${last} ${Math.round(performance.now() - startedAt)} ms`,
    );
    if (!result.isGood) console.log(lines.join("\n"));
  }
};
await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, work));
console.log(JSON.stringify(sums));
process.exit(isGood ? 0 : 1);
