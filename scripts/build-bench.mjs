// Builds what benchmarks run, where it is missing: the programs and the load generator.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, statSync } from "node:fs";

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync("dist/cli/udp-local.js")) run("node", ["scripts/build.mjs"]);
mkdirSync("build", { recursive: true });
if (!existsSync("build/load") || statSync("build/load").mtimeMs < statSync("bench/load.c").mtimeMs) {
  run("cc", ["-O2", "-Wall", "-Wextra", "-o", "build/load", "bench/load.c"]);
}
