// Writes the C library's parts of src/ into a folder: the scripts, listed in scripts.txt, and the registry of errors as a public
// header and as a table. capi/CMakeLists.txt runs this.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const folder = process.argv[2];
const scripts = join(folder, "scripts");
const source = (/** @type {string} */ path) => fileURLToPath(new URL(`../../src/${path}`, import.meta.url));
rmSync(scripts, { recursive: true, force: true });
mkdirSync(scripts, { recursive: true });

/** The programs. */
const ROLES = ["local", "server", "tun2socks"];

/**
 * Modules that most instances never call. Each is a script of its own, which is loaded when one of its functions is first called;
 * it must export only functions.
 */
const PARTS = [
  "capi/associations.ts",
  "capi/blake3.ts",
  "capi/carrier.ts",
  "capi/egress.ts",
  "capi/inner-tun2socks.ts",
  "capi/stats/stats-log.ts",
  "capi/tls.ts",
  "host/carriers/shadowsocks.ts",
  "host/dialects/dialect-listen.ts",
  "host/dialects/local-dialects.ts",
  "host/dialects/server-dialects.ts",
  "host/masque/open-masque-client.ts",
  "host/options/shadowsocks-listen.ts",
  "host/shadowsocks/shadowsocks-listener.ts",
  "host/socks5/make-socks5.ts",
  "host/tap/open-tap.ts",
  "host/udp-paths/egress.ts",
  "host/web-socket/open.ts",
];
const PART_FILES = PARTS.map(source);

/** The name of a part's script. @param {string} path  in src/ */
const partName = (path) => path.replace(".ts", "").replaceAll("/", "-");

/** Replaces a part, wherever it is imported, by functions that load it. @type {import("esbuild").Plugin} */
const parts = {
  name: "parts",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /\.ts$/ }, ({ path, resolveDir, kind }) => {
      const file = resolve(resolveDir, path);
      return kind === "import-statement" && PART_FILES.includes(file)
        ? { path: file, namespace: "part", sideEffects: false }
        : undefined;
    });
    onLoad({ filter: /./, namespace: "part" }, async ({ path }) => {
      const { metafile } = await build({
        entryPoints: [path],
        metafile: true,
        write: false,
        format: "esm",
        outdir: ".",
      });
      const [{ exports }] = Object.values(metafile.outputs);
      const load = `globalThis.underpassPart("${partName(PARTS[PART_FILES.indexOf(path)])}.js")`;
      const functions = exports.map(
        (name) => `export const ${name} = (...values) => part().${name}(...values);`,
      );
      return {
        contents: [`let loaded;`, `const part = () => (loaded ??= ${load});`, ...functions].join("\n"),
      };
    });
  },
};

/** @satisfies {import("esbuild").BuildOptions} */
const OPTIONS = {
  outdir: scripts,
  bundle: true,
  splitting: true,
  chunkNames: "[hash]",
  format: "esm",
  platform: "neutral",
  mainFields: ["module", "main"],
  // Private members of older targets are WeakMaps, which are slow.
  target: "es2022",
  minify: true,
  logLevel: "warning",
  metafile: true,
};
const results = await Promise.all([
  build({ ...OPTIONS, entryPoints: { check: source("capi/options/check.ts") } }),
  build({
    ...OPTIONS,
    entryPoints: [
      ...ROLES.map((role) => ({ in: source(`capi/${role}.ts`), out: role })),
      ...PARTS.map((path) => ({ in: source(path), out: partName(path) })),
    ],
    plugins: [parts],
  }),
]);
const outputs = results.flatMap(({ metafile }) => Object.entries(metafile.outputs));
writeFileSync(join(folder, "scripts.txt"), outputs.map(([path]) => `${basename(path)}\n`).join(""));
// The contents of each script, for tests.
const contents = outputs.map(([path, { imports, inputs }]) => ({
  name: basename(path),
  imports: imports.map((imported) => basename(imported.path)),
  sources: Object.keys(inputs),
}));
writeFileSync(join(folder, "scripts.json"), JSON.stringify({ parts: PARTS, scripts: contents }));

const errors = join(folder, "errors.mjs");
await build({ entryPoints: [source("core/errors.ts")], outfile: errors, format: "esm", bundle: true });
/** @type {{ ERROR_CODES: Record<string, { number: number, text: string }> }} */
const { ERROR_CODES } = await import(pathToFileURL(errors).href);
const codes = Object.entries(ERROR_CODES).toSorted(([, a], [, b]) => a.number - b.number);
writeFileSync(
  join(folder, "underpass-errors.h"),
  `/* Errors of Underpass. A number is never given another meaning. Generated from src/core/errors.ts. */
#ifndef UNDERPASS_ERRORS_H
#define UNDERPASS_ERRORS_H

${codes.map(([name, { number, text }]) => `/* ${text} */\n#define UNDERPASS_${name} (-${number})`).join("\n")}

#endif
`,
);
writeFileSync(
  join(folder, "error-names.h"),
  `// Generated from src/core/errors.ts.
#include "underpass-errors.h"

static const struct {
  int status;
  const char *name;
} ERROR_NAMES[] = {
${codes.map(([name]) => `    {UNDERPASS_${name}, "${name}"},`).join("\n")}
};
`,
);
