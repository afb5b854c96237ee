// Builds and runs the tests of native/io alone (test/native), with cmocka and libuv and without Node, under AddressSanitizer and
// UBSan: `node scripts/test-native.mjs [sanitizers]`, such as thread, or none. Skips with a reason if a compiler or one of the
// libraries is missing; under `CI` it fails instead.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { lwipFlags } from "./find-lwip.mjs";

const HEADERS =
  "#include <setjmp.h>\n#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <cmocka.h>\n#include <uv.h>\n";

const sanitizers = process.argv[2] ?? "address,undefined";
const has = spawnSync("cc", ["-D_GNU_SOURCE", "-fsyntax-only", "-x", "c", "-"], {
  input: HEADERS,
  encoding: "utf8",
});
if (has.error !== undefined || has.status !== 0) {
  console.log("native: skipped, as cc, cmocka or libuv is missing (Debian: gcc, libcmocka-dev, libuv1-dev)");
  process.exit(process.env.CI === undefined ? 0 : 1);
}

const sources = readdirSync("native/io", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".c"))
  .map((name) => join("native/io", name));
const tests = readdirSync("test/native", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".c") && !name.startsWith("fuzz"))
  .map((name) => join("test/native", name));
const program = "build/native-test";
const lwip = lwipFlags();
if (lwip.length === 0) {
  console.log("native: no TCP stack, as lwIP is missing");
  if (process.env.CI !== undefined) process.exit(1);
}
mkdirSync("build", { recursive: true });
const sanitized =
  sanitizers === "none"
    ? []
    : [`-fsanitize=${sanitizers}`, "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"];
const built = spawnSync(
  "cc",
  [
    ...["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", ...sanitized],
    ...[...lwip, "-DUNDERPASS_LWIP_ASSERTS"],
    ...["-o", program, ...sources, ...tests, "-lcmocka", "-luv", "-pthread"],
  ],
  { stdio: "inherit" },
);
if (built.status !== 0) process.exit(1);
const { status } = spawnSync(program, {
  stdio: "inherit",
  env: { TSAN_OPTIONS: "suppressions=test/native/thread.supp", ...process.env },
});
process.exit(status ?? 1);
