// Runs the unit and simulation tests of wire/, core/ and host/ in QuickJS, the engine of the C library. `npm run test:engine --
// NAME` runs those whose path contains NAME, and `-- --long` those that take minutes, which it otherwise leaves out. The list below
// names tests that need Node itself; nothing else is left out.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const RUNNER = join(ROOT, "build/capi/tests/run-script");
const OUTPUT = join(ROOT, "build/engine");
const { values, positionals } = parseArgs({ options: { long: { type: "boolean" } }, allowPositionals: true });
const TIMEOUT_MS = values.long ? 3_600_000 : 300_000;

/** Files that need something that the engine lacks. */
const LEFT_OUT = [
  // Sockets.
  ...[
    "unit/host/carriers/carrier-chain",
    "unit/host/carriers/happy-eyeballs",
    "unit/host/udp-paths/relay-address",
    "unit/host/udp-paths/udp-paths",
    "unit/host/udp-io-native",
  ],
  ...["unit/streams/byte-stream", "unit/streams/shadowsocks-stream", "unit/streams/tcp-relay"],
  ...["unit/streams/web-socket-stream"],
  // Ciphers.
  ...[
    "unit/core/shadowsocks/shadowsocks",
    "unit/core/shadowsocks/shadowsocks-server",
    "unit/core/shadowsocks/shadowsocks-2022-vectors",
  ],
  // Files, processes, and contexts of V8.
  ...[
    "unit/node/doctor",
    "unit/cli/documents",
    "unit/cli/keygen",
    "unit/cli/manual",
    "unit/node/metrics",
    "unit/layers",
    ...["command-line-and-file", "defaults", "listening", "refusals", "secrets"].map(
      (name) => `unit/cli/options/${name}`,
    ),
    "unit/node/masque-option",
    "unit/node/tun2socks-options",
    "unit/native-io",
  ],
  ...["unit/core/session/state-diagrams", "sim/agreement", "sim/session/session-fuzz", "sim/steady-state"],
].map(pathOf);

/** Files that take an interpreter minutes. */
const LONG = [
  "unit/core/fuzz",
  "sim/handshake/handshake",
  "sim/lanes",
  "sim/tun2socks/packet-fuzz",
  "sim/session/hostile-peers",
  "sim/session/receipts",
  "unit/host/socks5/hostile-clients",
].map(pathOf);

/** @param {string} name */
function pathOf(name) {
  return `test/${name}.test.ts`;
}

const STAND_INS = {
  vitest: "vitest.ts",
  "node:crypto": "node-crypto.ts",
  "node:net": "node-net.ts",
  "node:fs": "node-files.ts",
  "node:path": "node-files.ts",
};

/** @type {import("esbuild").Plugin} */
const standIns = {
  name: "stand-ins",
  setup(bundle) {
    bundle.onResolve({ filter: /^(vitest|node:.*)$/ }, ({ path }) => {
      const file = STAND_INS[/** @type {keyof typeof STAND_INS} */ (path)];
      return file === undefined ? { errors: [{ text: path }] } : { path: join(ROOT, "test/engine", file) };
    });
    bundle.onLoad({ filter: /\/test\/.*\.ts$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      return {
        contents: text.replaceAll("import.meta.dirname", JSON.stringify(dirname(path))),
        loader: "ts",
      };
    });
  },
};

/** @param {string} file @returns {Promise<string | undefined>} the bundle; undefined if it needs Node */
async function bundle(file) {
  const outfile = join(OUTPUT, `${file.replaceAll("/", "-")}.js`);
  try {
    await build({
      stdin: {
        contents: `import "./test/engine/globals.ts"; import "./test/property-seed.ts"; import ${JSON.stringify(`./${file}`)};
          import { runTests } from "vitest"; await runTests();`,
        resolveDir: ROOT,
      },
      outfile,
      bundle: true,
      format: "esm",
      platform: "neutral",
      mainFields: ["module", "main"],
      target: "es2022",
      logLevel: "silent",
      plugins: [standIns],
    });
    return outfile;
  } catch (error) {
    const texts = /** @type {{ errors: { text: string }[] }} */ (error).errors.map(({ text }) => text);
    console.log(`${file}: ${[...new Set(texts)].join(", ")}`);
    return undefined;
  }
}

/** @param {string} script @returns {Promise<{ isGood: boolean, output: string }>} */
function run(script) {
  return new Promise((done) => {
    execFile(RUNNER, [script], { timeout: TIMEOUT_MS, maxBuffer: 1e8 }, (error, stdout, stderr) =>
      done({ isGood: error === null, output: `${stdout}${stderr}${error?.killed ? "timed out\n" : ""}` }),
    );
  });
}

if (!existsSync(RUNNER)) {
  console.error("test-engine: there is no build/capi/tests/run-script: npm run build:capi -- --test");
  process.exit(process.env.CI === undefined ? 0 : 1);
}
rmSync(OUTPUT, { recursive: true, force: true });
mkdirSync(OUTPUT, { recursive: true });
const wanted = positionals[0] ?? "";
const files = ["test/unit", "test/sim"].flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => `${folder}/${name}`),
);
const left = [...LEFT_OUT, ...LONG].filter((file) => !files.includes(file));
if (left.length > 0) throw new Error(`test-engine: no such file: ${left.join(", ")}`);
const waiting = files.filter(
  (file) =>
    file.includes(wanted) && !LEFT_OUT.includes(file) && LONG.includes(file) === (values.long === true),
);
const sums = { passed: 0, failed: 0, skipped: 0, files: 0 };
let isGood = true;
const work = async () => {
  for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
    const script = await bundle(file);
    if (script === undefined) {
      isGood = false;
      continue;
    }
    const startedAt = performance.now();
    const result = await run(script);
    const lines = result.output.trimEnd().split("\n");
    const last = lines.pop() ?? "";
    if (last.startsWith('{"passed"')) {
      const counts = JSON.parse(last);
      for (const name of /** @type {const} */ (["passed", "failed", "skipped"])) sums[name] += counts[name];
    } else lines.push(last);
    sums.files++;
    isGood &&= result.isGood;
    console.log(
      `${result.isGood ? "ok  " : "FAIL"} ${file} ${last} ${Math.round(performance.now() - startedAt)} ms`,
    );
    if (!result.isGood) console.log(lines.join("\n"));
  }
};
await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, work));
console.log(JSON.stringify(sums));
process.exit(isGood ? 0 : 1);
