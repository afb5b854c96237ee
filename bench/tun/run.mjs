// The cost of a TUN device: UDP to the device loop and back, one TCP stream, the whole tunnel by TUN beside the same by SOCKS5,
// and tun2socks programs side by side. Runs in two network namespaces, which disappear with the run.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { flood, open, startTarget } from "../load.mjs";
import { describe, machine, packageVersion } from "../machine.mjs";
import { cpuNs, json, residentBytes, startIn, stop } from "../processes.mjs";
import { median } from "../statistics.mjs";
import { DEVICE, FAR, lineOf, makeHosts, NEAR, NETWORK, startOurs, TARGET } from "./hosts.mjs";
import { proxiedWays, TUNNEL_WAYS } from "./ways.mjs";

/** @typedef {import("./ways.mjs").Way} Way */
/** @typedef {import("./ways.mjs").Running} Running */

const HELP = `npm run bench:tun -- [options]

Measures TUN devices in two network namespaces. Linux, as root, with iproute2, iperf3 and danted (dante-server), and native I/O built.

  --only LIST    of udp,tcp,tunnel,programs
  --peer 'NAME=[SERVER COMMAND ;;] LOCAL COMMAND'
                 another tun2socks for programs, repeatable; spaces separate words. {device}: a TUN device that is
                 set up; {address}, {netmask}: the host's own on it; {gateway}: another address of that network;
                 {socks}: HOST:PORT of a SOCKS5 server. The server's command runs beyond it and listens on {udpgw},
                 HOST:PORT of TCP
  --rounds N     default 3
  --seconds S    length of a window, default 2
  --json         prints one JSON record per line instead of text
`;

const PARTS = { udp: benchUdp, tcp: benchTcp, tunnel: benchTunnel, programs: benchPrograms };
const SIZE = 1200;
/** Datagrams a second offered to the device loop. */
const ECHO_RATES = [100_000, 200_000, 300_000, 400_000];
/** Both ways, far below what ours carries; for programs, what others carry too. */
const TUNNEL_RATE = 20_000;
const PROGRAMS_RATE = 5_000;
/** Where the highest rate is looked for: in so many steps, to 2.5 %. */
const RATES = { least: 1_000, most: 512_000 };
const STEPS = 8;
const MAX_LOSS = 0.01;
/** Datagrams of a segmented send. */
const BURST = 32;
/** Attempts of 0.1 s until a first datagram is answered. */
const FIRST_TRIES = 100;
/** @type {[mtu: number, offload: "on" | "off"][]} */
const TCP_CASES = [
  [1500, "off"],
  [1500, "on"],
  [9000, "off"],
  [9000, "on"],
  [65_000, "off"],
  [65_000, "on"],
];

const { only, ways, isJson, rounds, seconds } = readOptions();
checkMachine();
const removeHosts = makeHosts();

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        help: { type: "boolean", default: false },
        only: { type: "string", default: Object.keys(PARTS).join() },
        peer: { type: "string", multiple: true, default: [] },
        rounds: { type: "string", default: "3" },
        seconds: { type: "string", default: "2" },
        json: { type: "boolean", default: false },
      },
    });
    if (values.help) {
      process.stdout.write(HELP);
      process.exit(0);
    }
    const [only, rounds, seconds] = [values.only.split(","), Number(values.rounds), Number(values.seconds)];
    if (only.some((part) => !(part in PARTS))) throw new Error(`--only is of ${Object.keys(PARTS).join()}`);
    if (!Number.isInteger(rounds) || rounds < 1) throw new Error("--rounds is at least 1");
    if (!Number.isInteger(seconds) || seconds < 1) throw new Error("--seconds is at least 1");
    return { only, ways: proxiedWays(values.peer), isJson: values.json, rounds, seconds };
  } catch (error) {
    console.error(`bench:tun: ${/** @type {Error} */ (error).message}; see --help`);
    process.exit(2);
  }
}

function checkMachine() {
  const lacks = ["ip", "iperf3", ...(only.includes("programs") ? ["danted"] : [])].filter(
    (program) => spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status !== 0,
  );
  if (process.platform !== "linux" || process.getuid?.() !== 0) lacks.push("Linux, root");
  if (!existsSync("/dev/net/tun")) lacks.push("/dev/net/tun");
  if (!existsSync("native/build/Release/underpass.node")) lacks.push("native I/O (npm run build:native)");
  if (lacks.length === 0) return;
  console.error(`bench:tun: this machine lacks: ${lacks.join(", ")}`);
  process.exit(1);
}

/** @param {string} line */
function say(line) {
  if (!isJson) console.log(line);
}

/** @template {object} T @param {string} part @param {T} fields @returns {T} */
function record(part, fields) {
  if (isJson) console.log(JSON.stringify({ part, ...fields }));
  return fields;
}

/** Columns as wide as their widest cell. @param {(string | number)[][]} rows */
function sayTable(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  for (const row of rows)
    say(
      row
        .map((cell, column) => String(cell).padEnd(widths[column]))
        .join("  ")
        .trimEnd(),
    );
}

/** @param {number} value */
function thousands(value) {
  return `${(value / 1000).toFixed(0)}k`;
}

/** @param {number} part */
function percent(part, digits = 1) {
  return `${(100 * part).toFixed(digits)} %`;
}

/** @param {{ corrupt: number, duplicate: number }} taken */
function checkTaken({ corrupt, duplicate }) {
  if (corrupt + duplicate > 0) {
    console.error(`bench:tun: ${corrupt} corrupt, ${duplicate} twice`);
    process.exitCode = 1;
  }
}

async function benchUdp() {
  say(`\nUDP echo of ${SIZE} bytes between an application and the device loop, a second each way`);
  const rows = [["offload", "sends", "offered", "answered", "loss", "p50 µs", "p99 µs"]];
  for (const offload of ["on", "off"]) {
    const { name, own, peer } = DEVICE;
    const echo = startIn(NEAR, [process.execPath, "bench/tun/echo.mjs", name, offload, own, peer, NETWORK]);
    await lineOf(echo.stdout, (line) => line === "ready");
    for (const [sends, burst] of /** @type {const} */ ([
      ["singles", 1],
      ["segments", BURST],
    ])) {
      for (const rate of ECHO_RATES) {
        /** @type {Awaited<ReturnType<typeof open>>[]} */
        const records = [];
        for (let round = 0; round < rounds; round++) {
          const taken = await open(`${TARGET}:9`, { size: SIZE, burst, rate, seconds }, NEAR);
          checkTaken(taken);
          records.push(record("udp", { offload, sends, rate, round, ...taken }));
        }
        /** @param {(record: (typeof records)[0]) => number} of */
        const middle = (of) => median(records.map(of));
        rows.push([
          offload,
          sends,
          thousands(middle((each) => each.sent / each.seconds)),
          thousands(middle((each) => each.count / each.seconds)),
          percent(
            middle((each) => 1 - each.count / each.sent),
            2,
          ),
          middle((each) => each.p50).toFixed(0),
          middle((each) => each.p99).toFixed(0),
        ]);
      }
    }
    await stop([echo]);
  }
  sayTable(rows);
}

async function startIperf() {
  const server = startIn(FAR, ["iperf3", "-s", "--forceflush"]);
  await lineOf(server.stdout, (line) => line.includes("listening"));
  return server;
}

/** One TCP stream to the target. @param {"up" | "down"} direction */
async function stream(direction) {
  const options = direction === "up" ? [] : ["-R"];
  const report = await json(NEAR, ["iperf3", "-J", "-c", TARGET, "-t", seconds, ...options]);
  if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
  const { bits_per_second, bytes } = report.end.sum_received;
  return { gbits: Number(bits_per_second) / 1e9, bytes: Number(bytes) };
}

async function benchTcp() {
  say("\nOne TCP stream, TUN to a connection by the link, Gbit/s");
  const server = await startIperf();
  const rows = [["MTU", "offload", "up", "down"]];
  /** @param {number | undefined} mtu @param {string} offload */
  const row = async (mtu, offload) => {
    const cells = [];
    for (const direction of /** @type {const} */ (["up", "down"])) {
      const rates = [];
      for (let round = 0; round < rounds; round++) {
        const taken = await stream(direction);
        rates.push(record("tcp", { mtu, offload, direction, round, ...taken }).gbits);
      }
      cells.push(median(rates).toFixed(2));
    }
    rows.push([String(mtu ?? "no TUN"), offload, ...cells]);
  };
  await row(undefined, "");
  for (const [mtu, offload] of TCP_CASES) {
    const { child } = await startOurs(NEAR, "tun2socks", [
      ...["--device", `tun:${DEVICE.name}`, "--mtu", `${mtu}`, "--offload", offload],
      ...["--tcp-via", "direct", "--udp-via", "drop", "--out-interface", "veth0", "--route", `${NETWORK}/24`],
    ]);
    await row(mtu, offload);
    await stop([child]);
  }
  await stop([server]);
  sayTable(rows);
}

/** Runs a load; what each process used meanwhile, ns. @template T @param {Running} running @param {() => Promise<T>} load */
async function withCpu({ pids: { local, server, proxy } }, load) {
  const read = () => [local, server, proxy].map((pid) => (pid === undefined ? 0 : cpuNs(pid)));
  const before = read();
  const result = await load();
  const used = read().map((ns, index) => ns - before[index]);
  return { result, used: { local: used[0], server: used[1], proxy: used[2] } };
}

/** Datagrams by a way: the highest rates, and a given one both ways. @param {Running} running @param {number} rate */
async function datagrams(running, rate) {
  const [sink, echo] = [await startTarget("sink", FAR, TARGET), await startTarget("echo", FAR, TARGET)];
  const [sinkTo, echoTo] = [sink, echo].map(({ port }) => running.target(port));
  // The first datagrams may precede the route.
  for (let tries = 0, answered = 0; answered === 0; tries++) {
    if (tries === FIRST_TRIES) throw new Error("no datagram is answered");
    answered = (await open(echoTo, { size: 64, burst: 1, rate: 100, seconds: 0.1 }, NEAR)).count;
  }
  /** Datagrams a second that arrive at the highest rate with acceptable loss. @param {number} burst */
  const most = async (burst) => {
    let best = 0;
    let [low, high] = [RATES.least, RATES.most];
    for (let step = 0; step < STEPS; step++) {
      const rate = Math.round(Math.sqrt(low * high));
      const { sent } = await flood(sinkTo, { size: SIZE, sockets: 1, seconds, rate, burst }, NEAR);
      const taken = await sink.report();
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
  const load = { size: SIZE, burst: 1, rate, seconds };
  const { result: both, used } = await withCpu(running, () => open(echoTo, load, NEAR));
  checkTaken(both);
  sink.stop();
  echo.stop();
  const us = (/** @type {number} */ ns) => ns / 1000 / Math.max(1, both.count);
  return {
    ...{ singles, segments, answered: both.count / both.sent, p50: both.p50, p99: both.p99 },
    ...{ localUs: us(used.local), serverUs: us(used.server), proxyUs: us(used.proxy) },
  };
}

/** Every round starts all programs anew, A B A B. @template T @param {string} part @param {Way[]} of @param {(running: Running) => Promise<T>} measure */
async function inTurn(part, of, measure) {
  /** @type {Map<string, T[]>} */
  const taken = new Map(of.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const { name, start } of of) {
      const running = await start();
      const fields = await measure(running);
      await running.stop();
      taken.get(name)?.push(record(part, { name, round, ...fields }));
    }
  }
  /** The median over the rounds. @param {string} name @param {keyof T} field */
  return (name, field) => median((taken.get(name) ?? []).map((each) => Number(each[field])));
}

const MOST = `most a second, ${percent(MAX_LOSS, 0)} lost`;

async function benchTunnel() {
  say(`\nThe whole tunnel, ${SIZE} bytes: application, our local end, TCP, udp-server, target`);
  const middle = await inTurn("tunnel", TUNNEL_WAYS, (running) => datagrams(running, TUNNEL_RATE));
  say(`singles, segments: ${MOST}; the rest: ${thousands(TUNNEL_RATE)} a second, both ways`);
  sayTable([
    ["by", "singles", "segments", "answered", "local µs", "server µs", "p50 µs", "p99 µs"],
    ...TUNNEL_WAYS.map(({ name }) => [
      name,
      thousands(middle(name, "singles")),
      thousands(middle(name, "segments")),
      percent(middle(name, "answered")),
      middle(name, "localUs").toFixed(2),
      middle(name, "serverUs").toFixed(2),
      middle(name, "p50").toFixed(0),
      middle(name, "p99").toFixed(0),
    ]),
  ]);
  /** @param {"singles" | "segments" | "localUs"} field */
  const ratio = (field) => middle("TUN", field) / middle("SOCKS5", field);
  say(
    `TUN costs ${percent(1 - ratio("singles"), 0)} of the singles, ${percent(1 - ratio("segments"), 0)} of the segments, ` +
      `and ${percent(ratio("localUs") - 1, 0)} more of the local end's time at ${thousands(TUNNEL_RATE)} a second`,
  );
}

async function benchPrograms() {
  say(`\ntun2socks programs behind one SOCKS5 server, which carries their TCP and the tunnel of their UDP`);
  const iperf = await startIperf();
  const middle = await inTurn("programs", ways, async (running) => {
    const ofDatagrams = await datagrams(running, PROGRAMS_RATE);
    const up = await withCpu(running, () => stream("up"));
    const down = await withCpu(running, () => stream("down"));
    return {
      ...ofDatagrams,
      ...{ up: up.result.gbits, down: down.result.gbits },
      ...{ upNs: up.used.local / up.result.bytes, downNs: down.used.local / down.result.bytes },
      ...{ upProxyNs: up.used.proxy / up.result.bytes, downProxyNs: down.used.proxy / down.result.bytes },
      residentMb: residentBytes(running.pids.local) / 1e6,
    };
  });
  await stop([iperf]);
  /** @typedef {Parameters<typeof middle>[1]} Field */
  /** @type {[title: string, field: Field, digits: number][]} */
  const ofStream = [
    ["up Gbit/s", "up", 2],
    ["down", "down", 2],
    ["local ns/byte up", "upNs", 2],
    ["down", "downNs", 2],
    ["proxy ns/byte up", "upProxyNs", 2],
    ["down", "downProxyNs", 2],
    ["local MB", "residentMb", 1],
  ];
  /** @type {typeof ofStream} */
  const ofDatagrams = [
    ["singles/s", "singles", 0],
    ["segments/s", "segments", 0],
    ["answered", "answered", 3],
    ["local µs", "localUs", 1],
    ["server µs", "serverUs", 1],
    ["proxy µs", "proxyUs", 1],
    ["p50 µs", "p50", 0],
    ["p99 µs", "p99", 0],
  ];
  const [own, , ...peers] = ways.map(({ name }) => name);
  /** @param {typeof ofStream} columns */
  const sayPrograms = (columns) =>
    sayTable([
      ["program", ...columns.map(([title]) => title)],
      ...ways.map(({ name }) => [
        name,
        ...columns.map(([, field, digits]) => middle(name, field).toFixed(digits)),
      ]),
      ...peers.map((name) => [
        `${own} : ${name}`,
        ...columns.map(([, field]) => (middle(own, field) / middle(name, field)).toFixed(2)),
      ]),
    ]);
  say("\nOne TCP stream; memory after all");
  sayPrograms(ofStream);
  say(`\nDatagrams of ${SIZE} bytes: ${MOST}; the rest at ${thousands(PROGRAMS_RATE)} a second, both ways`);
  sayPrograms(ofDatagrams);
}

const iperfVersion = spawnSync("iperf3", ["--version"], { encoding: "utf8" }).stdout.split(/\s/)[1];
const about = machine(
  [
    { name: "underpass", version: packageVersion() },
    { name: "iperf3", version: iperfVersion },
  ],
  rounds,
  seconds,
  "bench:tun",
);
if (isJson) console.log(JSON.stringify({ about }));
for (const [name, value] of describe(about)) say(`${name.padEnd(9)} ${value}`);
for (const [name, run] of Object.entries(PARTS)) if (only.includes(name)) await run();
await removeHosts();
