// Compiles src/ to dist/. Installs dependencies first when a fresh clone has none.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync("node_modules/typescript")) run("npm", ["ci", "--no-audit", "--no-fund"]);
const { build } = await import("esbuild");
rmSync("dist", { recursive: true, force: true });
run("npx", ["tsc", "-p", "tsconfig.build.json"]);
// Programs, and the threads that they start, are bundled with what they import: they start sooner and take less memory.
const programs = readdirSync("dist/cli").filter((name) => /^(udp-|tun2socks).*\.js$/.test(name));
const { metafile } = await build({
  entryPoints: [...programs.map((name) => `dist/cli/${name}`), "dist/node/worker-thread.js"],
  outdir: "dist/cli",
  entryNames: "[name]",
  chunkNames: "chunk-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  // Modules are preferred: esbuild cannot follow the imports of a UMD file, as jsonc-parser's is.
  mainFields: ["module", "main"],
  target: "node20",
  sourcemap: true,
  metafile: true,
  allowOverwrite: true,
  logLevel: "warning",
  // For dependencies in CommonJS.
  banner: {
    js: 'import { createRequire as bundleRequire } from "node:module"; const require = bundleRequire(import.meta.url);',
  },
});
run("node", ["scripts/build-dashboard.mjs"]);
// For whoever distributes them: the packages whose terms apply.
const names = Object.keys(metafile.inputs).flatMap((path) => {
  const name = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
  return name ?? [];
});
writeFileSync("dist/cli/bundled-packages.json", `${JSON.stringify([...new Set(names)].sort())}\n`);
for (const program of programs) chmodSync(`dist/cli/${program}`, 0o755);

// Without a compiler the programs run on plain I/O, and say so.
const native = spawnSync("node", ["scripts/build-native.mjs"], { stdio: "inherit" });
if (native.status !== 0) console.warn("build: no native module; programs will use plain I/O, slower");
