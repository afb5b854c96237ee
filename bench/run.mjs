// Runs tunnels side by side, A B A B, on loopback, and prints medians and ratios. See bench/README.md.
import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { SUBJECTS, start } from "./subjects.mjs";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    rounds: { type: "string" },
    seconds: { type: "string" },
  },
});
const rounds = Number(options.rounds ?? (options.quick ? 2 : 5));
const seconds = Number(options.seconds ?? (options.quick ? 1.5 : 3));
const WARM_UP_SECONDS = 1;
const CASES = options.quick
  ? [[1200, 1]]
  : [
      [64, 1],
      [512, 1],
      [1200, 1],
      [1200, 64],
      [1200, 1000],
    ];
const LOAD = "build/load";
/** Datagrams of one socket that leave in one segmented send. */
const BURST = 64;

/** @typedef {{ pps: number, localUs: number, serverUs: number, bad: number, offered: number }} FloodResult */

/** CPU time of all threads of a process in ns. @param {number} pid */
function cpuNs(pid) {
  let total = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    total += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
  }
  return total;
}

/** A sink or echo as its own process. @param {"sink" | "echo"} mode @param {number} lifetime  seconds */
async function startTarget(mode, lifetime) {
  const child = start(LOAD, [mode, String(lifetime)]);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { port } = JSON.parse((await lines.next()).value);
  return {
    port,
    stop: async () => {
      child.kill("SIGTERM");
      const result = JSON.parse((await lines.next()).value);
      if (child.exitCode === null) await once(child, "exit");
      return result;
    },
  };
}

/** @param {number} port @param {number} size @param {number} sockets @param {number} forSeconds @param {number} rate */
async function flood(port, size, sockets, forSeconds, rate) {
  const child = start(LOAD, ["flood", port, size, sockets, forSeconds, rate, BURST].map(String));
  let text = "";
  child.stdout.on("data", (data) => {
    text += data;
  });
  await once(child, "close");
  return JSON.parse(text);
}

/** @param {keyof typeof SUBJECTS} name @param {number} size @param {number} sockets @param {number} rate @returns {Promise<FloodResult>} */
async function measureFlood(name, size, sockets, rate) {
  // The first target warms the path up and is not counted; the second takes its port over.
  const warm = await startTarget("sink", 120);
  const tunnel = await SUBJECTS[name].start(warm.port);
  await flood(tunnel.port, size, sockets, WARM_UP_SECONDS, rate || 50_000);
  await new Promise((done) => setTimeout(done, 300));
  const before = await warm.stop();
  const target = start(LOAD, ["sink", "120", String(warm.port)]);
  const lines = createInterface({ input: target.stdout })[Symbol.asyncIterator]();
  await lines.next();
  const { local, server } = tunnel.pids;
  const [localBefore, serverBefore] = [cpuNs(local), cpuNs(server)];
  const { sent } = await flood(tunnel.port, size, sockets, seconds, rate);
  await new Promise((done) => setTimeout(done, 300));
  const [localNs, serverNs] = [cpuNs(local) - localBefore, cpuNs(server) - serverBefore];
  target.kill("SIGTERM");
  const result = JSON.parse((await lines.next()).value);
  await tunnel.stop();
  return {
    pps: result.count / seconds,
    localUs: localNs / 1000 / result.count,
    serverUs: serverNs / 1000 / result.count,
    bad: result.corrupt + result.duplicate + before.corrupt,
    offered: sent / seconds,
  };
}

/** @param {keyof typeof SUBJECTS} name @param {number} size */
async function measurePing(name, size) {
  const target = await startTarget("echo", 120);
  const tunnel = await SUBJECTS[name].start(target.port);
  await flood(tunnel.port, size, 1, 0.5, 2_000);
  const { stdout } = spawnSync(LOAD, ["ping", String(tunnel.port), String(size), "5000"], {
    encoding: "utf8",
  });
  await tunnel.stop();
  await target.stop();
  return JSON.parse(stdout);
}

/** Without a tunnel: what the generator makes and the sink takes. @param {number} size @param {number} sockets */
async function measureBare(size, sockets) {
  const target = await startTarget("sink", 120);
  await flood(target.port, size, sockets, seconds, 0);
  const { count } = await target.stop();
  return count / seconds;
}

/** @param {number[]} numbers */
function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** @param {string} name */
function packageVersion(name) {
  const { stdout } = spawnSync("dpkg-query", ["-W", "-f", "$" + "{Version}", name], { encoding: "utf8" });
  return stdout || "unknown";
}

/** @param {object} record @param {string} text */
function print(record, text) {
  console.log(options.json ? JSON.stringify(record) : text);
}

const hasPeer = spawnSync("sh", ["-c", "command -v udptunnel"]).status === 0;
const subjects = /** @type {(keyof typeof SUBJECTS)[]} */ (
  hasPeer ? ["underpass", "udptunnel"] : ["underpass"]
);
const commit = spawnSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).stdout.trim();
const machine = {
  cpu: cpus()[0].model,
  cores: cpus().length,
  kernel: release(),
  node: process.version,
  udptunnel: hasPeer ? packageVersion("udptunnel") : "not installed",
  commit,
  rounds,
  seconds,
};
print(
  { machine },
  `machine: ${Object.entries(machine)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ")}`,
);
execFileSync(LOAD, ["sink", "0"]);

const width = (/** @type {string} */ text, /** @type {number} */ size) => text.padStart(size);
for (const [size, sockets] of CASES) {
  const bare = await measureBare(size, sockets);
  print(
    { bare: { size, sockets, pps: bare } },
    `\n${size} bytes, ${sockets} associations; bare loopback, no tunnel: ${bare.toFixed(0)}/s`,
  );
  /** @type {Record<string, FloodResult[]>} */
  const results = {};
  for (let round = 0; round < rounds; round++) {
    for (const name of subjects) {
      const result = await measureFlood(name, size, sockets, 0);
      results[name] = [...(results[name] ?? []), result];
      print(
        { flood: { name, size, sockets, round, ...result } },
        `  ${name.padEnd(10)} ${width(result.pps.toFixed(0), 8)}/s   local ${result.localUs.toFixed(2)} µs, server ${result.serverUs.toFixed(2)} µs a datagram; offered ${result.offered.toFixed(0)}/s, corrupt or twice: ${result.bad}`,
      );
    }
  }
  const medians = Object.fromEntries(
    Object.entries(results).map(([name, runs]) => [
      name,
      {
        pps: median(runs.map(({ pps }) => pps)),
        cpuUs: median(runs.map(({ localUs, serverUs }) => localUs + serverUs)),
      },
    ]),
  );
  if (hasPeer) {
    const [ours, theirs] = [medians.underpass, medians.udptunnel];
    print(
      { ratio: { size, sockets, pps: ours.pps / theirs.pps, cpu: ours.cpuUs / theirs.cpuUs, medians } },
      `  median     ${width(ours.pps.toFixed(0), 8)}/s against ${theirs.pps.toFixed(0)}/s: ${(ours.pps / theirs.pps).toFixed(2)} x; CPU ${ours.cpuUs.toFixed(2)} against ${theirs.cpuUs.toFixed(2)} µs: ${(ours.cpuUs / theirs.cpuUs).toFixed(2)} x`,
    );
  }
}
for (const size of options.quick ? [1200] : [64, 512, 1200]) {
  const ping = await measurePing("underpass", size);
  print(
    { ping: { name: "underpass", size, ...ping } },
    `\nround trip, one outstanding, ${size} bytes: p50 ${ping.p50} µs, p99 ${ping.p99} µs, min ${ping.min} µs, lost ${ping.lost} of ${ping.samples}`,
  );
}
