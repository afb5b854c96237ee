// Compares the compiled loops of the C library (capi/src/datapath/loops.c) with those of TypeScript, in the engine of the library,
// on random rows and bytes: `npm run fuzz:datapath`, ten million rows; `-- --rows N --seed N --runner build/capi/tests/run-script`.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { positiveInteger } from "./numbers.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const { values: options } = parseArgs({
  options: {
    rows: { type: "string", default: "10000000" },
    seed: { type: "string", default: "1" },
    runner: { type: "string", default: "build/capi/tests/run-script" },
  },
});
const [rows, seed] = [positiveInteger(options.rows), positiveInteger(options.seed)];
if (rows === undefined || seed === undefined) {
  console.error("fuzz-datapath: --rows and --seed expect positive integers");
  process.exit(2);
}
const runner = join(ROOT, options.runner);
if (!existsSync(runner)) {
  console.error(`fuzz-datapath: there is no ${options.runner}: npm run build:capi -- --test`);
  process.exit(process.env.CI === undefined ? 0 : 1);
}
const outfile = join(ROOT, "build/engine/fuzz-datapath.js");
mkdirSync(join(ROOT, "build/engine"), { recursive: true });
await build({
  stdin: {
    contents: `import { Fuzz } from "./test/datapath/fuzz.ts";
      const fuzz = new Fuzz(globalThis.datapath, ${seed});
      fuzz.run(${rows});
      print("datapath: " + fuzz.rows + " rows in " + fuzz.cases + " cases, seed ${seed}: no difference");`,
    resolveDir: ROOT,
  },
  outfile,
  bundle: true,
  format: "esm",
  platform: "neutral",
  target: "es2022",
  logLevel: "warning",
});
const { status } = spawnSync(runner, [outfile], { stdio: "inherit" });
process.exit(status === 0 ? 0 : 1);
