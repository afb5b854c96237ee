// Compiles src/ to dist/. Installs dependencies first when a fresh clone has none.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, rmSync } from "node:fs";

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync("node_modules/typescript")) run("npm", ["ci", "--no-audit", "--no-fund"]);
rmSync("dist", { recursive: true, force: true });
run("npx", ["tsc", "-p", "tsconfig.build.json"]);
for (const program of ["udp-local", "udp-server"]) {
  const file = `dist/cli/${program}.js`;
  if (existsSync(file)) chmodSync(file, 0o755);
}

// Without a compiler the programs run on plain I/O, and say so.
const native = spawnSync("node", ["scripts/build-native.mjs"], { stdio: "inherit" });
if (native.status !== 0) console.warn("build: no native module; programs will use plain I/O, slower");
