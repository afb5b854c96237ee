// Writes native/prebuilds/ under the names that node-gyp-build looks for: the module that was built for this machine, and one for
// each other target whose compiler is installed. It calls Node-API and libuv of the Node that loads it, so headers are all it needs.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const FOLDER = "native/prebuilds";
const BUILT = "native/build/Release/underpass.node";

/** @type {{ header: { glibcVersionRuntime?: string } }} */
const report = /** @type {any} */ (process.report.getReport());
export const HOST_PREBUILD = `${process.platform}-${process.arch}/underpass.napi.${libc()}.node`;

function libc() {
  return report.header.glibcVersionRuntime === undefined ? "musl" : "glibc";
}

/** By Debian's packages gcc-aarch64-linux-gnu with libc6-dev-arm64-cross, and musl-tools. */
const OTHERS = [
  {
    name: "linux-arm64/underpass.napi.glibc.node",
    compiler: "aarch64-linux-gnu-gcc",
    strip: "aarch64-linux-gnu-strip",
  },
  { name: "linux-x64/underpass.napi.musl.node", compiler: "musl-gcc", strip: "strip", architecture: "x64" },
];

/** @returns the files that were written */
export function makePrebuilds() {
  rmSync(FOLDER, { recursive: true, force: true });
  const written = [];
  if (existsSync(BUILT)) {
    const path = join(FOLDER, HOST_PREBUILD);
    mkdirSync(dirname(path), { recursive: true });
    copyFileSync(BUILT, path);
    run("strip", ["--strip-unneeded", path]);
    written.push(path);
  } else console.warn("package: no native module was built for this machine");
  for (const { name, compiler, strip, architecture } of OTHERS) {
    if (name === HOST_PREBUILD || !exists(compiler)) continue;
    if (architecture !== undefined && architecture !== process.arch) continue;
    const path = join(FOLDER, name);
    mkdirSync(dirname(path), { recursive: true });
    compile(compiler, path);
    run(strip, ["--strip-unneeded", path]);
    written.push(path);
  }
  return written;
}

/** @param {string} compiler @param {string} path */
function compile(compiler, path) {
  const [target] = JSON.parse(readFileSync("native/binding.gyp", "utf8")).targets;
  const headers = join(dirname(dirname(process.execPath)), "include/node");
  if (!existsSync(headers)) throw new Error(`${headers}: Node's headers are missing`);
  const kernel = mkdtempSync(join(tmpdir(), "underpass-kernel-headers-"));
  try {
    // musl has no headers of the kernel, and those of glibc must not come with them.
    const multiarch = `/usr/include/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`;
    symlinkSync("/usr/include/linux", join(kernel, "linux"));
    symlinkSync("/usr/include/asm-generic", join(kernel, "asm-generic"));
    symlinkSync(join(multiarch, "asm"), join(kernel, "asm"));
    run(compiler, [
      ...["-shared", "-fPIC", "-o", path, "-Wl,-soname,underpass.node", `-I${headers}`],
      ...(compiler === "musl-gcc" ? ["-idirafter", kernel] : []),
      ...target.cflags,
      ...target.defines.map((/** @type {string} */ define) => `-D${define}`),
      ...target.sources.map((/** @type {string} */ source) => join("native", source)),
    ]);
  } finally {
    rmSync(kernel, { recursive: true, force: true });
  }
}

/** @param {string} program */
function exists(program) {
  return spawnSync("sh", ["-c", 'command -v "$1"', "sh", program], { stdio: "ignore" }).status === 0;
}

/** @param {string} command @param {string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) throw new Error(`${command} ended with status ${status}`);
}
