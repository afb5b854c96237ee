// Compiles src/ to dist/. First installs dependencies if a fresh clone has none.
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

/**
 * Puts everything that a program loads when it starts into one chunk. By default, esbuild makes one chunk for each set of modules
 * that the same entries and dynamic imports share: so many that V8 compiles the resolver of modules, whose compiler takes 3 MB.
 * Here, everything that is loaded later imports the whole program, which is loaded by then, so there is only one set. A program
 * that awaited something at its top level would then wait for itself.
 *
 * @param {string} entry
 * @returns {import("esbuild").Plugin}
 */
function oneChunkAtStart(entry) {
  const name = "one-chunk-at-start";
  return {
    name,
    setup(building) {
      building.onResolve({ filter: /./ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
        if (kind !== "dynamic-import" || pluginData === name) return undefined;
        const found = await building.resolve(path, { kind, importer, resolveDir, pluginData: name });
        // A program's own start imports it so late because signals must have handlers by then.
        if (found.path === entry) return { path: entry };
        return found.external || found.errors.length > 0 ? found : { path: found.path, namespace: name };
      });
      building.onLoad({ filter: /./, namespace: name }, ({ path }) => {
        const from = JSON.stringify(path);
        const isPackage = relative(process.cwd(), path).includes("node_modules");
        return {
          contents: `import ${JSON.stringify(entry)}; export ${isPackage ? "{ default }" : "*"} from ${from};`,
          resolveDir: dirname(path),
        };
      });
    },
  };
}

if (!existsSync("node_modules/typescript")) run("npm", ["ci", "--no-audit", "--no-fund"]);
const { build } = await import("esbuild");
rmSync("dist", { recursive: true, force: true });
run("npx", ["tsc", "-p", "tsconfig.build.json"]);
// Programs, and the threads that they start, are bundled with their imports: they start sooner and take less memory.
const programs = readdirSync("dist/cli").filter((name) => /^(udp-|tun2socks).*\.js$/.test(name));
/** @type {Set<string>} */
const inputs = new Set();
const starts = programs.map((name) => ({ start: `dist/cli/bin/${name}`, entry: `dist/cli/${name}` }));
const thread = "dist/node/worker-thread.js";
for (const { start, entry } of [...starts, { start: thread, entry: thread }]) {
  const { metafile } = await build({
    entryPoints: [start],
    outdir: "dist/cli",
    entryNames: "[name]",
    chunkNames: "chunk-[hash]",
    plugins: [oneChunkAtStart(resolve(entry))],
    bundle: true,
    // Beyond 1,031,912 bytes, Node keeps a module's text with two bytes per character. Line breaks are kept for stack traces.
    minifyWhitespace: true,
    lineLimit: 160,
    splitting: true,
    format: "esm",
    platform: "node",
    // Prefers modules, because esbuild cannot follow the imports of a UMD file such as jsonc-parser's.
    mainFields: ["module", "main"],
    target: "node20",
    supported: { "top-level-await": false },
    sourcemap: true,
    metafile: true,
    allowOverwrite: true,
    logLevel: "warning",
    // For dependencies in CommonJS.
    banner: {
      js: 'import { createRequire as bundleRequire } from "node:module"; const require = bundleRequire(import.meta.url);',
    },
  });
  for (const path of Object.keys(metafile.inputs)) inputs.add(path);
}
run("node", ["scripts/bundle/dashboard.mjs"]);
// Lists the packages whose terms apply to the bundles, for distributors.
const names = [...inputs].flatMap((path) => {
  const name = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
  return name ?? [];
});
writeFileSync("dist/cli/bundled-packages.json", `${JSON.stringify([...new Set(names)].sort())}\n`);
for (const program of programs) chmodSync(`dist/cli/${program}`, 0o755);

// Without a compiler, the programs use plain I/O, and report that.
const native = spawnSync("node", ["scripts/build-native.mjs"], { stdio: "inherit" });
if (native.status !== 0) console.warn("build: no native module; programs will use plain I/O, slower");
