// Writes into a folder what the C library has from src/: the two scripts (check.js, run.js), and the registry of errors as a public header
// and as a table. Run by capi/CMakeLists.txt.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const folder = process.argv[2];
const source = (/** @type {string} */ path) => fileURLToPath(new URL(`../src/${path}`, import.meta.url));
mkdirSync(folder, { recursive: true });

await build({
  entryPoints: { check: source("capi/options/check.ts"), run: source("capi/index.ts") },
  outdir: folder,
  bundle: true,
  format: "esm",
  platform: "neutral",
  mainFields: ["module", "main"],
  // Private members of older targets are WeakMaps, which are slow.
  target: "es2022",
  minify: true,
  logLevel: "warning",
});

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
