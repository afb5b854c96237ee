// Builds the C library and its program into build/capi/, with CMake and Ninja. `--test` also runs its tests, as they are and
// with AddressSanitizer and UndefinedBehaviorSanitizer (build/capi-sanitized/). `--test thread` and `--test valgrind` run them under
// ThreadSanitizer (build/capi-thread/) and under valgrind (build/capi-valgrind/) instead, which takes minutes. It fails without the
// tools; with `--test` alone, only under CI.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const isTest = process.argv.includes("--test");
const checker = isTest ? process.argv[process.argv.indexOf("--test") + 1] : undefined;
if (checker !== undefined && checker !== "thread" && checker !== "valgrind") {
  console.error(`build-capi: --test takes "thread", "valgrind" or nothing, not ${JSON.stringify(checker)}`);
  process.exit(2);
}

/** @param {string} command @param {readonly string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { cwd: ROOT, stdio: "inherit" });
  if (status !== 0) process.exit(1);
}

/** @param {string} folder @param {readonly string[]} options */
function build(folder, options) {
  run("cmake", ["-S", "capi", "-B", folder, "-G", "Ninja", "--log-level=WARNING", "-Wno-dev", ...options]);
  run("cmake", ["--build", folder, "--", "--quiet"]);
}

const tools = ["cmake", "ninja", "cc", ...(checker === "valgrind" ? ["valgrind"] : [])];
const missing = tools.filter((tool) => spawnSync("sh", ["-c", `command -v ${tool}`]).status !== 0);
if (missing.length > 0) {
  console.warn(`build-capi: no C library, as this machine lacks ${missing.join(", ")}`);
  process.exit(isTest && checker === undefined && process.env.CI === undefined ? 0 : 1);
}
run("node", ["scripts/third-party.mjs"]);
if (checker !== undefined) {
  const folder = `build/capi-${checker}`;
  const flags = checker === "valgrind" ? " -DUNDERPASS_TEST_INSTANCES=20 -DUNDERPASS_TEST_STARTS=20" : "";
  build(folder, [
    "-DUNDERPASS_TESTS=ON",
    `-DUNDERPASS_SANITIZE=${checker === "thread" ? "thread" : ""}`,
    "-DCMAKE_BUILD_TYPE=Debug",
    `-DCMAKE_C_FLAGS=-O1${flags}`,
  ]);
  if (checker === "thread") run("ctest", ["--test-dir", folder, "--output-on-failure", "--timeout", "600"]);
  else {
    for (const name of readdirSync(`${ROOT}${folder}/tests`).filter((name) =>
      /^test-[a-z0-9]+$/.test(name),
    )) {
      const kinds = [
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect",
        "--errors-for-leak-kinds=definite,indirect",
      ];
      run("valgrind", ["--quiet", "--error-exitcode=1", ...kinds, `${folder}/tests/${name}`]);
    }
  }
  process.exit(0);
}
build("build/capi", isTest ? ["-DUNDERPASS_TESTS=ON"] : []);
if (isTest) {
  build("build/capi-sanitized", [
    "-DUNDERPASS_TESTS=ON",
    "-DUNDERPASS_SANITIZE=address,undefined",
    "-DCMAKE_BUILD_TYPE=Debug",
    "-DCMAKE_C_FLAGS=-O1",
  ]);
  for (const folder of ["build/capi", "build/capi-sanitized"]) {
    run("ctest", ["--test-dir", folder, "--output-on-failure", "--timeout", "300"]);
    run("node", ["scripts/fuzz/datapath.mjs", "--rows", "300000", "--runner", `${folder}/tests/run-script`]);
  }
  // With the system's libuv, callers may lend their loop.
  build("build/capi-system", [
    "-DUNDERPASS_TESTS=ON",
    "-DUNDERPASS_SYSTEM_LIBUV=ON",
    "-DCMAKE_BUILD_TYPE=Debug",
    "-DCMAKE_C_FLAGS=-O0",
  ]);
  const tests = ["--tests-regex", "^(loop|associations)$"];
  run("ctest", ["--test-dir", "build/capi-system", ...tests, "--output-on-failure", "--timeout", "300"]);
}
