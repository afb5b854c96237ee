// `npm test`: everything that CI runs. Lint, types, build, then unit, sim, interop and e2e tests. First installs dependencies if a
// fresh clone has none and, as root on Debian, the packages whose programs the tests use; elsewhere, tests that need a missing
// package are skipped and name it.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";

/** @param {string} title @param {string} command @param {string[]} args */
function step(title, command, args) {
  console.log(`\n== ${title}`);
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

const packages = readFileSync("scripts/debian-packages.txt", "utf8").trim().split("\n");
const isInstalled = spawnSync("dpkg", ["-s", ...packages], { stdio: "ignore" }).status === 0;
const hasApt = spawnSync("apt-get", ["--version"], { stdio: "ignore" }).status === 0;
if (!isInstalled && hasApt && process.getuid?.() === 0) {
  step("Debian packages", "apt-get", ["update", "-qq"]);
  process.env.DEBIAN_FRONTEND = "noninteractive";
  step("Debian packages", "apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages]);
}
if (!existsSync("node_modules/typescript")) {
  step("install", "npm", ["ci", "--no-audit", "--no-fund"]);
}
step("lint", "npx", ["biome", "check", "--error-on-warnings", "."]);
step("types", "npm", ["run", "--silent", "types"]);
step("build", "node", ["scripts/build.mjs"]);
step("native/io", "node", ["scripts/test-native.mjs"]);
step("C library", "node", ["scripts/build-capi.mjs", "--test"]);
step("tests", "npx", ["vitest", "run", ...process.argv.slice(2)]);
