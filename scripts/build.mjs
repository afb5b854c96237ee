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
