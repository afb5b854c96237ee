// Builds what benchmarks need if it is missing: the programs and the load generator.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, statSync } from "node:fs";

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync("dist/cli/udp-local.js")) run("node", ["scripts/build.mjs"]);
mkdirSync("build", { recursive: true });
/** Each program, its source file, and the files that it includes. */
const PROGRAMS = [
  ["load", "bench/load.c", "bench/load-payload.h"],
  ["link", "bench/latency/programs/link.c", "bench/latency/programs/link-model.h"],
  ["traffic", "bench/latency/programs/traffic.c", "bench/latency/programs/address.h"],
  ["streams", "bench/latency/programs/streams.c", "bench/latency/programs/address.h"],
];
for (const [name, ...sources] of PROGRAMS) {
  const program = `build/${name}`;
  const isBuilt =
    existsSync(program) && sources.every((source) => statSync(program).mtimeMs >= statSync(source).mtimeMs);
  if (!isBuilt) run("cc", ["-O2", "-Wall", "-Wextra", "-o", program, sources[0]]);
}
