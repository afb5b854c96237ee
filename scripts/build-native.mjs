// Compiles native/ with node-gyp, which comes with npm. It uses the headers beside this Node if they exist, otherwise node-gyp
// fetches them. lwIP comes from third_party/, or from third-party.mjs; without either, the module has no TCP stack, and a message
// says so. `--sanitize` builds with AddressSanitizer and UndefinedBehaviorSanitizer into native/build-sanitized.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findLwip } from "./find-lwip.mjs";

const isSanitized = process.argv.includes("--sanitize");
const native = fileURLToPath(new URL("../native", import.meta.url));
let directory = native;
if (isSanitized) {
  // A copy, so that both builds can exist.
  directory = join(native, "build-sanitized");
  rmSync(directory, { recursive: true, force: true });
  for (const name of ["binding.gyp", "io", "lwip", "napi"]) {
    cpSync(join(native, name), join(directory, name), { recursive: true });
  }
}
const lwip = findLwip();
if (lwip === undefined)
  console.warn("build-native: no TCP stack, as lwIP is missing: git submodule update --init");
const prefix = dirname(dirname(process.execPath));
const headers = existsSync(join(prefix, "include/node/node_api.h")) ? [`--nodedir=${prefix}`] : [];
const defines = [
  ...(isSanitized ? ["-Dsanitize=address,undefined"] : []),
  ...(lwip === undefined ? [] : [`-Dlwip=${lwip}`]),
];
const flags = defines.length > 0 ? ["--", ...defines] : [];
const command = ["node-gyp", "configure", "--loglevel=error", ...headers, ...flags].join(" ");
for (const step of [command, ["node-gyp", "build", "--loglevel=error", ...headers].join(" ")]) {
  const { status } = spawnSync("npm", ["exec", "--offline", "-c", step], {
    cwd: directory,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (status !== 0) process.exit(1);
}
