// What a TUN device costs: UDP to the device loop and back, one TCP stream, and the whole tunnel by TUN beside the same
// by SOCKS5. In two network namespaces, which go with the run.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { describe, machine, packageVersion } from "./machine.mjs";
import { cpuNs, LOAD, start, stop } from "./processes.mjs";
import { median } from "./statistics.mjs";

const HELP = `npm run bench:tun -- [options]

Linux, as root, with iproute2 and iperf3, and native I/O built.

  --only LIST    of udp,tcp,tunnel
  --rounds N     default 3
  --seconds S    of a window, default 2
`;

/** @typedef {import("node:child_process").ChildProcess} ChildProcess */

const PARTS = ["udp", "tcp", "tunnel"];
const SIZE = 1200;
/** Datagrams offered in a second to the device loop. */
const ECHO_RATES = [100_000, 200_000, 300_000, 400_000];
/** For the whole tunnel both ways, far below what it carries. */
const TUNNEL_RATE = 20_000;
const TUNNEL_MAX_RATE = 500_000;
const HALVINGS = 6;
const MAX_LOSS = 0.01;
/** Datagrams of a segmented send. */
const BURST = 32;
/** @type {[mtu: number, offload: "on" | "off"][]} */
const TCP_CASES = [
  [1500, "off"],
  [1500, "on"],
  [9000, "off"],
  [9000, "on"],
  [65_000, "off"],
  [65_000, "on"],
];
const LINK = { near: "10.79.0.1", far: "10.79.0.2" };
const DEVICE = { name: "bench0", own: "198.18.0.1", peer: "198.18.0.2" };
const NETWORK = "203.0.113.0";
const TARGET = "203.0.113.5";

const { only, rounds, seconds } = readOptions();
checkMachine();
const [NEAR, FAR] = [`upbench${process.pid}a`, `upbench${process.pid}b`];
const folder = mkdtempSync(join(tmpdir(), "underpass-bench-"));
const removeHosts = makeHosts();
const keyFile = join(folder, "psk");
writeFileSync(keyFile, randomBytes(32).toString("base64url"), { mode: 0o600 });

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        help: { type: "boolean", default: false },
        only: { type: "string", default: PARTS.join() },
        rounds: { type: "string", default: "3" },
        seconds: { type: "string", default: "2" },
      },
    });
    if (values.help) {
      process.stdout.write(HELP);
      process.exit(0);
    }
    const [only, rounds, seconds] = [values.only.split(","), Number(values.rounds), Number(values.seconds)];
    if (only.some((part) => !PARTS.includes(part))) throw new Error(`--only is of ${PARTS.join()}`);
    if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds is at least 1");
    if (!Number.isInteger(seconds) || seconds < 1) throw new Error("--seconds is at least 1");
    return { only, rounds, seconds };
  } catch (error) {
    console.error(`bench:tun: ${/** @type {Error} */ (error).message}; see --help`);
    process.exit(2);
  }
}

function checkMachine() {
  const lacks = ["ip", "iperf3"].filter(
    (program) => spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status !== 0,
  );
  if (process.platform !== "linux" || process.getuid?.() !== 0) lacks.push("Linux, root");
  if (!existsSync("/dev/net/tun")) lacks.push("/dev/net/tun");
  if (!existsSync("native/build/Release/underpass.node")) lacks.push("native I/O (npm run build:native)");
  if (lacks.length === 0) return;
  console.error(`bench:tun: this machine lacks: ${lacks.join(", ")}`);
  process.exit(1);
}

/** Two namespaces with a link; they go with this process, in whatever way it ends. @returns what removes them before */
function makeHosts() {
  const undertaker = `
    cat >/dev/null
    rm -rf "$1"; shift
    for host in "$@"; do
      while pids=$(ip netns pids "$host") && [ -n "$pids" ]; do kill -9 $pids; done 2>/dev/null
      ip netns del "$host"
    done 2>/dev/null`;
  const child = spawn("sh", ["-c", undertaker, "sh", folder, NEAR, FAR], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  child.unref();
  /** @type {import("node:net").Socket} */ (child.stdin).unref();
  const script = `
    ip netns add ${NEAR}; ip netns add ${FAR}
    ip link add veth0 netns ${NEAR} type veth peer name veth0 netns ${FAR}
    ip -n ${NEAR} link set lo up; ip -n ${FAR} link set lo up
    ip -n ${NEAR} addr add ${LINK.near}/24 dev veth0; ip -n ${FAR} addr add ${LINK.far}/24 dev veth0
    ip -n ${NEAR} link set veth0 up; ip -n ${FAR} link set veth0 up
    ip -n ${FAR} addr add ${TARGET}/32 dev lo
    ip -n ${NEAR} route add ${NETWORK}/24 via ${LINK.far} metric 1000`;
  execFileSync("sh", ["-ec", script]);
  return async () => {
    const gone = once(child, "exit");
    child.stdin?.end();
    await gone;
  };
}

/** @param {string} host @param {(string | number)[]} argv */
function startIn(host, argv) {
  return start("ip", ["netns", "exec", host, ...argv.map(String)]);
}

/** The first line for which `wanted` holds. @param {NodeJS.ReadableStream | null} stream @param {(line: string) => boolean} wanted */
async function lineOf(stream, wanted) {
  let last = "";
  const lines = createInterface({ input: /** @type {NodeJS.ReadableStream} */ (stream) });
  for await (const line of lines) {
    last = line;
    if (!wanted(line)) continue;
    stream?.resume();
    return line;
  }
  throw new Error(last || "ended before it was ready");
}

/** Runs to its end; what it printed, which is JSON. @param {string} host @param {(string | number)[]} argv @returns {Promise<any>} */
async function json(host, argv) {
  const child = startIn(host, argv);
  let text = "";
  child.stdout?.on("data", (data) => {
    text += data;
  });
  await once(child, "close");
  if (text === "") throw new Error(`${argv.join(" ")} said nothing`);
  return JSON.parse(text);
}

/** Starts one of ours; its ready line. @param {string} host @param {string} name @param {string[]} options */
async function startOurs(host, name, options) {
  const child = startIn(host, [process.execPath, `dist/cli/${name}.js`, "--log-format", "json", ...options]);
  const ready = JSON.parse(await lineOf(child.stderr, (line) => line.includes('"ready"')));
  return { child, ready };
}

/** @param {number} value */
function thousands(value) {
  return `${(value / 1000).toFixed(0)}k`;
}

/** @param {{ corrupt: number, duplicate: number }} taken */
function checkTaken({ corrupt, duplicate }) {
  if (corrupt + duplicate > 0) {
    console.error(`bench:tun: ${corrupt} corrupt, ${duplicate} twice`);
    process.exitCode = 1;
  }
}

async function benchUdp() {
  console.log(`\nUDP echo of ${SIZE} bytes between an application and the device loop, a second each way`);
  console.log("offload  sends     offered  answered   loss    p50 µs  p99 µs");
  for (const offload of ["on", "off"]) {
    const { name, own, peer } = DEVICE;
    const echo = startIn(NEAR, [process.execPath, "bench/tun-echo.mjs", name, offload, own, peer, NETWORK]);
    await lineOf(echo.stdout, (line) => line === "ready");
    for (const [sends, burst] of /** @type {const} */ ([
      ["singles", 1],
      ["segments", BURST],
    ])) {
      for (const rate of ECHO_RATES) {
        const records = [];
        for (let round = 0; round < rounds; round++) {
          const taken = await json(NEAR, [LOAD, "open", `${TARGET}:9`, SIZE, seconds, rate, burst]);
          checkTaken(taken);
          records.push(taken);
        }
        /** @param {(record: any) => number} of */
        const middle = (of) => median(records.map(of));
        const loss = (100 * middle((each) => 1 - each.count / each.sent)).toFixed(2);
        console.log(
          [
            offload.padEnd(8),
            sends.padEnd(9),
            thousands(middle((each) => each.sent / each.seconds)).padEnd(8),
            thousands(middle((each) => each.count / each.seconds)).padEnd(10),
            `${loss} %`.padEnd(7),
            middle((each) => each.p50)
              .toFixed(0)
              .padEnd(7),
            middle((each) => each.p99).toFixed(0),
          ].join(" "),
        );
      }
    }
    await stop([echo]);
  }
}

/** @param {string[]} options  of iperf3. @returns {Promise<number>}  Gbit/s, the median */
async function oneStream(options) {
  const rates = [];
  for (let round = 0; round < rounds; round++) {
    const report = await json(NEAR, ["iperf3", "-J", "-c", TARGET, "-t", seconds, ...options]);
    if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
    rates.push(report.end.sum_received.bits_per_second / 1e9);
  }
  return median(rates);
}

async function benchTcp() {
  console.log("\nOne TCP stream, TUN to a connection by the link, Gbit/s");
  console.log("MTU     offload  up      down");
  const server = startIn(FAR, ["iperf3", "-s", "--forceflush"]);
  await lineOf(server.stdout, (line) => line.includes("listening"));
  /** @param {string} label */
  const row = async (label) => {
    const [up, down] = [await oneStream([]), await oneStream(["-R"])];
    console.log(`${label} ${up.toFixed(2).padEnd(7)} ${down.toFixed(2)}`);
  };
  await row("no TUN".padEnd(16));
  for (const [mtu, offload] of TCP_CASES) {
    const { child } = await startOurs(NEAR, "tun2socks", [
      ...["--device", `tun:${DEVICE.name}`, "--mtu", `${mtu}`, "--offload", offload],
      ...["--tcp-via", "direct", "--udp-via", "drop", "--out-interface", "veth0", "--route", `${NETWORK}/24`],
    ]);
    await row(`${String(mtu).padEnd(7)} ${offload.padEnd(8)}`);
    await stop([child]);
  }
  await stop([server]);
}

/** @typedef {{ name: string, options: (server: string) => string[], program: string, target: (port: number, ready: any) => string }} Way */

/** @type {Way[]} */
const WAYS = [
  {
    name: "SOCKS5",
    program: "udp-local",
    options: (server) => ["--server", server, "--listen", "127.0.0.1:0"],
    target: (port, ready) => `${TARGET}:${port}@${String(ready.socks5).split(":").at(-1)}`,
  },
  {
    name: "TUN",
    program: "tun2socks",
    options: (server) => [
      ...["--server", server, "--device", `tun:${DEVICE.name}`, "--route", `${NETWORK}/24`],
    ],
    target: (port) => `${TARGET}:${port}`,
  },
];

/** @typedef {{ singles: number, segments: number, answered: number, localUs: number, p50: number, p99: number }} TunnelRecord */

async function benchTunnel() {
  console.log(`\nThe whole tunnel, ${SIZE} bytes: application, our local end, TCP, udp-server, target`);
  /** @type {Record<string, TunnelRecord[]>} */
  const records = Object.fromEntries(WAYS.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++)
    for (const way of WAYS) records[way.name].push(await tunnel(way));
  console.log(
    `         most a second, ${100 * MAX_LOSS} % lost   ${thousands(TUNNEL_RATE)} a second, both ways`,
  );
  console.log("by       singles   segments        answered  local µs  p50 µs  p99 µs");
  /** @param {string} name @param {keyof TunnelRecord} field */
  const middle = (name, field) => median(records[name].map((record) => record[field]));
  for (const { name } of WAYS) {
    console.log(
      [
        name.padEnd(8),
        thousands(middle(name, "singles")).padEnd(9),
        thousands(middle(name, "segments")).padEnd(15),
        `${(100 * middle(name, "answered")).toFixed(1)} %`.padEnd(9),
        middle(name, "localUs").toFixed(2).padEnd(9),
        middle(name, "p50").toFixed(0).padEnd(7),
        middle(name, "p99").toFixed(0),
      ].join(" "),
    );
  }
  /** How much less the TUN device is. @param {"singles" | "segments"} field */
  const cost = (field) => (100 * (1 - middle("TUN", field) / middle("SOCKS5", field))).toFixed(0);
  const time = 100 * (middle("TUN", "localUs") / middle("SOCKS5", "localUs") - 1);
  console.log(
    `TUN costs ${cost("singles")} % of the singles, ${cost("segments")} % of the segments, ` +
      `and ${time.toFixed(0)} % more of the local end's time at ${thousands(TUNNEL_RATE)} a second`,
  );
}

/** @param {Way} way @returns {Promise<TunnelRecord>} */
async function tunnel({ program, options, target }) {
  const key = ["--psk-file", keyFile, "--log-level", "warn"];
  const server = await startOurs(FAR, "udp-server", [
    ...["--listen", `${LINK.far}:0`, "--allow", `${NETWORK}/24`],
    ...key,
  ]);
  const local = await startOurs(NEAR, program, [...options(server.ready.listen[0]), ...key]);
  const [sink, echo] = ["sink", "echo"].map((mode) => startIn(FAR, [LOAD, mode, 3600, TARGET]));
  const [sinkLines, echoLines] = [sink, echo].map((child) => {
    return createInterface({ input: /** @type {any} */ (child.stdout) })[Symbol.asyncIterator]();
  });
  const port = async (/** @type {AsyncIterator<string>} */ lines) =>
    JSON.parse((await lines.next()).value).port;
  const [sinkTo, echoTo] = [await port(sinkLines), await port(echoLines)].map((to) =>
    target(to, local.ready),
  );
  // The first datagrams may come before the session is up.
  for (let answered = 0; answered === 0; ) {
    answered = (await json(NEAR, [LOAD, "open", echoTo, 64, 0.1, 100, 1])).count;
  }
  /** What arrives a second at the highest rate of which enough arrives, by halving. @param {number} burst */
  const most = async (burst) => {
    let best = 0;
    let [low, high] = [TUNNEL_RATE, TUNNEL_MAX_RATE];
    for (let step = 0; step < HALVINGS; step++) {
      const rate = Math.round((low + high) / 2);
      const { sent } = await json(NEAR, [LOAD, "flood", sinkTo, SIZE, 1, seconds, rate, burst]);
      sink.kill("SIGUSR1");
      const taken = JSON.parse((await sinkLines.next()).value);
      checkTaken(taken);
      if (taken.count < sent * (1 - MAX_LOSS)) high = rate;
      else {
        low = rate;
        best = Math.max(best, taken.count / taken.seconds);
      }
    }
    return best;
  };
  const [singles, segments] = [await most(1), await most(BURST)];
  const pid = Number(local.child.pid);
  const before = cpuNs(pid);
  const both = await json(NEAR, [LOAD, "open", echoTo, SIZE, seconds, TUNNEL_RATE, 1]);
  checkTaken(both);
  const localUs = (cpuNs(pid) - before) / 1000 / both.count;
  await stop([sink, echo, local.child, server.child]);
  return { singles, segments, answered: both.count / both.sent, localUs, p50: both.p50, p99: both.p99 };
}

const iperfVersion = spawnSync("iperf3", ["--version"], { encoding: "utf8" }).stdout.split(/\s/)[1];
const version = packageVersion();
const subjects = [
  { name: "underpass", version },
  { name: "iperf3", version: iperfVersion },
];
const of = machine(/** @type {any} */ (subjects), rounds, seconds);
const command = ["npm run bench:tun --", ...process.argv.slice(2)].join(" ");
for (const [name, value] of describe({ ...of, command })) {
  console.log(`${name.padEnd(9)} ${value}`);
}
if (only.includes("udp")) await benchUdp();
if (only.includes("tcp")) await benchTcp();
if (only.includes("tunnel")) await benchTunnel();
await removeHosts();
