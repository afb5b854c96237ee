// Builds the C library's program for other platforms whose compilers are installed, and runs a tunnel on loopback with it: with the
// program at both ends, and with Node's programs at either end. Windows runs under wine, aarch64 under qemu-user. `node
// scripts/check-platforms.mjs [musl,aarch64-linux-gnu,mingw-w64]` names what is missing. docs/reference/platforms.md has the
// results.
import { spawn, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** The compilers and runners are Debian packages. */
const PLATFORMS = [
  { name: "musl", compiler: "musl-gcc", runner: [], program: "underpass" },
  {
    name: "aarch64-linux-gnu",
    compiler: "aarch64-linux-gnu-gcc",
    runner: ["qemu-aarch64-static"],
    program: "underpass",
  },
  { name: "mingw-w64", compiler: "x86_64-w64-mingw32-gcc", runner: ["wine"], program: "underpass.exe" },
];
const SIZES = [0, 1, 37, 400, 1200, 1472, 9000, 30_000, 60_000];
const ANSWER_MS = 10_000;

/** @param {string} command */
const has = (command) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;

/** @param {string} command @param {readonly string[]} args */
function run(command, args) {
  const { status } = spawnSync(command, args, { stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) process.exit(1);
}

/**
 * @param {string} name
 * @returns the folder of the build
 */
function build(name) {
  const folder = `build/capi-${name}`;
  run("cmake", [
    ...["-S", "capi", "-B", folder, "-G", "Ninja", "--log-level=WARNING", "-Wno-dev"],
    `-DCMAKE_TOOLCHAIN_FILE=${resolve("capi/cmake/toolchains", `${name}.cmake`)}`,
    `-DUNDERPASS_COMPILE_SCRIPT=${resolve("build/capi/compile-script")}`,
  ]);
  run("cmake", ["--build", folder, "--target", "underpass_program", "--", "--quiet"]);
  return folder;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  await new Promise((done) => server.close(done));
  return port;
}

/** @param {number} port */
async function untilAccepted(port) {
  for (let tries = 0; tries < 300; tries++) {
    const socket = connect(port, "127.0.0.1");
    const isUp = await Promise.race([
      once(socket, "connect").then(() => true),
      once(socket, "close").then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (isUp) return;
    await sleep(100);
  }
  throw new Error(`nothing listens on port ${port}`);
}

/**
 * Runs a tunnel between two programs and sends datagrams through it.
 *
 * @param {readonly string[]} server @param {readonly string[]} local  commands, up to their options
 */
async function tunnel(server, local) {
  const folder = mkdtempSync(join(tmpdir(), "underpass-platforms-"));
  const key = join(folder, "psk");
  writeFileSync(key, "a key of these tests, 0123456789 0123456789\n", { mode: 0o600 });
  const echo = createSocket("udp4", (data, { port }) => echo.send(data, port, "127.0.0.1")).bind(
    0,
    "127.0.0.1",
  );
  const client = createSocket("udp4").bind(0, "127.0.0.1");
  await Promise.all([once(echo, "listening"), once(client, "listening")]);
  const [tcp, udp] = [await freePort(), await freePort()];
  /** @param {readonly string[]} command @param {readonly string[]} options */
  const start = ([command, ...args], options) =>
    spawn(command, [...args, "--psk-file", key, "--log-level", "warn", ...options], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { WINEDEBUG: "-all", WINEPREFIX: resolve("build/wine"), ...process.env },
    });
  const children = [start(server, ["--listen", `127.0.0.1:${tcp}`, "--allow", "127.0.0.0/8"])];
  try {
    await untilAccepted(tcp);
    const forward = `127.0.0.1:${udp}=127.0.0.1:${echo.address().port}`;
    children.push(
      start(local, ["--server", `127.0.0.1:${tcp}`, "--listen", "127.0.0.1:0", "--forward", forward]),
    );
    for (const [i, size] of SIZES.entries()) {
      const data = Buffer.alloc(size, 1 + i);
      const answered = once(client, "message", { signal: AbortSignal.timeout(ANSWER_MS) });
      // Until the local end is up, nothing receives datagrams.
      const again = setInterval(() => client.send(data, udp, "127.0.0.1"), i === 0 ? 200 : ANSWER_MS);
      client.send(data, udp, "127.0.0.1");
      const [answer] = await answered.finally(() => clearInterval(again));
      if (i > 0 && !data.equals(answer)) throw new Error(`${size} bytes came back as ${answer.length}`);
      // Ignores repetitions of the first datagram later.
      if (i === 0) await sleep(500).then(() => client.removeAllListeners("message"));
    }
  } finally {
    for (const child of children) child.kill();
    await Promise.all(children.map((child) => child.exitCode ?? child.signalCode ?? once(child, "exit")));
    echo.close();
    client.close();
    rmSync(folder, { recursive: true });
  }
}

const wanted = process.argv[2]?.split(",") ?? PLATFORMS.map(({ name }) => name);
const NODE = { server: ["node", "dist/cli/udp-server.js"], local: ["node", "dist/cli/udp-local.js"] };
run("node", ["scripts/build-capi.mjs"]);
if (!existsSync("dist/cli/udp-local.js")) run("node", ["scripts/build.mjs"]);
for (const { name, compiler, runner, program } of PLATFORMS.filter((each) => wanted.includes(each.name))) {
  const missing = [compiler, ...runner].filter((command) => !has(command));
  if (missing.length > 0) {
    console.log(`${name}: skipped, as ${missing.join(" and ")} is missing`);
    continue;
  }
  const underpass = [...runner, join(build(name), "bin", program)];
  const own = { server: [...underpass, "server"], local: [...underpass, "local"] };
  await tunnel(own.server, own.local);
  await tunnel(own.server, NODE.local);
  await tunnel(NODE.server, own.local);
  console.log(`${name}: tunnels with itself and with Node's programs as either end`);
}
