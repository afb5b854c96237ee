// `npm test`: all that CI runs. Lint, types, build, then unit, sim, interop and e2e tests. Installs dependencies first
// when a fresh clone has none; tests that want Debian packages or root say which when these are missing.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

/** @param {string} title @param {string} command @param {string[]} args */
function step(title, command, args) {
  console.log(`\n== ${title}`);
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync("node_modules/typescript")) {
  step("install", "npm", ["ci", "--no-audit", "--no-fund"]);
}
step("lint", "npx", ["biome", "check", "--error-on-warnings", "."]);
step("types", "npx", ["tsc", "-p", "tsconfig.core.json", "--noEmit"]);
step("types", "npx", ["tsc", "-p", "tsconfig.json", "--noEmit"]);
step("build", "node", ["scripts/build.mjs"]);
step("tests", "npx", ["vitest", "run", ...process.argv.slice(2)]);
