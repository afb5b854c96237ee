// UDP through a TUN device and a tunnel over TCP, side by side: ours on Node and in C (tun2socks and udp-server), and hev-socks5-tunnel with
// hev-socks5-server, which carry UDP over TCP. Each has one process at either end, in two network namespaces with a link. Prints a JSON record
// for each round, in which the subjects take turns, and then the medians. As root, after `npm run build`, `npm run build:capi` and
// `node scripts/build-bench.mjs`:
//
//     node bench/tun/beside-hev.mjs --hev-tunnel PROGRAM --hev-server PROGRAM [--rounds 3] [--only node,c,hev] [--lanes N]
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { flood, open, startTarget } from "../load.mjs";
import { bound, cpuNs, json, LOAD, residentBytes, sleep, startIn, stop } from "../processes.mjs";
import { median } from "../statistics.mjs";
import { DEVICE, FAR, folder, LINK, makeHosts, NEAR, NETWORK, TARGET } from "./hosts.mjs";

/** @typedef {import("../processes.mjs").ChildProcess} ChildProcess */

const SIZE = 1200;
const PINGS = 3000;
/** Until a session that was replaced, because a LAN needs no receipts, has ended. */
const SETTLE_MS = 4000;
const { values } = parseArgs({
  options: {
    "hev-tunnel": { type: "string", default: "hev-socks5-tunnel" },
    "hev-server": { type: "string", default: "hev-socks5-server" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "node,c,hev" },
    lanes: { type: "string", default: "auto" },
  },
});
let port = 21_000;
const removeHosts = makeHosts();

/** The two ends of one of ours. @param {(name: "udp-server" | "tun2socks") => string[]} command */
async function startOurs(command) {
  const server = `${LINK.far}:${port}`;
  const common = ["--psk-file", join(folder, "psk"), "--log-level", "warn"];
  const far = startIn(FAR, [
    ...command("udp-server"),
    ...common,
    ...["--listen", server, "--allow", `${NETWORK}/24`],
  ]);
  await bound(port, far);
  const near = startIn(NEAR, [
    ...command("tun2socks"),
    ...common,
    ...["--server", server, "--tcp-via", "direct", "--lanes", values.lanes, "--mtu", "1500"],
    ...["--device", `tun:${DEVICE.name}`, "--route", `${NETWORK}/24`],
  ]);
  return [near, far];
}

async function startHev() {
  const [server, tunnel] = ["server.yml", "tunnel.yml"].map((name) => join(folder, name));
  const misc = "misc:\n  log-level: error\n  log-file: stderr\n";
  const main = `  workers: 1\n  port: ${port}\n  listen-address: '${LINK.far}'\n  listen-ipv6-only: false\n`;
  writeFileSync(server, `main:\n${main}${misc}`);
  const device = `  name: ${DEVICE.name}\n  mtu: 1500\n  multi-queue: false\n  ipv4: ${DEVICE.own}\n`;
  const socks = `  port: ${port}\n  address: ${LINK.far}\n  udp: 'tcp'\n`;
  writeFileSync(tunnel, `tunnel:\n${device}socks5:\n${socks}${misc}`);
  const far = startIn(FAR, [values["hev-server"], server]);
  await bound(port, far);
  return [startIn(NEAR, [values["hev-tunnel"], tunnel]), far];
}

/** @type {Record<string, () => Promise<ChildProcess[]>>} */
const SUBJECTS = {
  node: () => startOurs((name) => [process.execPath, `dist/cli/${name}.js`]),
  c: () => startOurs((name) => ["build/capi/bin/underpass", name === "udp-server" ? "server" : name]),
  hev: startHev,
};

/** Leads the target's network to the device, as soon as there is one. */
async function route() {
  for (let tries = 0; ; tries++) {
    try {
      const argv = ["-n", NEAR, "route", "replace", `${NETWORK}/24`, "dev", DEVICE.name];
      execFileSync("ip", argv, { stdio: "ignore" });
      return;
    } catch (error) {
      if (tries === 100) throw error;
      await sleep(50);
    }
  }
}

/** @param {string} name @returns {Promise<Record<string, number>>} */
async function measure(name) {
  port++;
  const [echo, sink] = [await startTarget("echo", FAR, TARGET), await startTarget("sink", FAR, TARGET)];
  const children = await SUBJECTS[name]();
  for (const child of children) child.stdout?.resume();
  const pids = children.map(({ pid }) => Number(pid));
  const cpu = () => pids.reduce((sum, pid) => sum + cpuNs(pid), 0) / 1000;
  await route();
  await sleep(SETTLE_MS);
  const [nearMb, farMb] = pids.map((pid) => residentBytes(pid) / 1e6);
  /** @type {Record<string, number>} */
  const taken = { nearMb, farMb };
  const [toEcho, toSink] = [echo, sink].map((target) => `${TARGET}:${target.port}`);
  await open(toEcho, { size: SIZE, burst: 1, rate: 200, seconds: 1 }, NEAR);
  let before = cpu();
  const ping = await json(NEAR, [LOAD, "ping", toEcho, SIZE, PINGS]);
  Object.assign(taken, { pingP50: ping.p50, pingP99: ping.p99, pingCpu: (cpu() - before) / PINGS });
  for (const rate of [1000, 10_000]) {
    before = cpu();
    const { count, sent, p50, p99 } = await open(toEcho, { size: SIZE, burst: 1, rate, seconds: 1 }, NEAR);
    const [cpuUs, lost] = [(cpu() - before) / count, 1 - count / sent];
    Object.assign(taken, { [`p50at${rate}`]: p50, [`p99at${rate}`]: p99 });
    Object.assign(taken, { [`cpuAt${rate}`]: cpuUs, [`lostAt${rate}`]: lost });
  }
  const singles = { size: SIZE, sockets: 1, burst: 1 };
  await flood(toSink, { ...singles, rate: 20_000, seconds: 0.3 }, NEAR);
  await sink.report();
  for (const [kind, rate] of /** @type {const} */ ([
    ["60k", 60_000],
    ["flood", 0],
  ])) {
    before = cpu();
    const { sent } = await flood(toSink, { ...singles, rate, seconds: 1 }, NEAR);
    await sleep(400);
    const { count, seconds } = await sink.report();
    taken[`${kind}Rate`] = count / seconds;
    taken[`${kind}Lost`] = 1 - count / sent;
    taken[`${kind}Cpu`] = (cpu() - before) / count;
  }
  await stop(children);
  echo.stop();
  sink.stop();
  return taken;
}

/** @type {Map<string, Record<string, number>[]>} */
const records = new Map(values.only.split(",").map((name) => [name, []]));
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [name, of] of records) {
    const taken = await measure(name);
    of.push(taken);
    console.log(JSON.stringify({ name, round, ...taken }));
  }
}
for (const [name, of] of records) {
  const middle = Object.keys(of[0]).map((key) => [
    key,
    Number(median(of.map((each) => each[key])).toFixed(3)),
  ]);
  console.log(name, Object.fromEntries(middle));
}
await removeHosts();
