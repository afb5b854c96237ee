// `npm run demo:tun`: two hosts as network namespaces on this machine, with a link between them that loses all UDP; a TUN device in
// one of them, and programs that know no proxy. Needs root on Linux, iproute2, nftables, curl and dig; leaves nothing behind.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const NEAR = `demo${process.pid}a`;
const FAR = `demo${process.pid}b`;
const TARGET = "203.0.113.5";
const PAGE_BYTES = 10 * 1024 * 1024;

/** @param {string} type */
const say = (type, text = "") => console.log(`${type.padEnd(8)} ${text}`);

if (process.platform !== "linux" || process.getuid?.() !== 0) {
  console.log("this demo makes network namespaces and a TUN device in one of them: run it as root on Linux");
  process.exit(1);
}
const missing = ["ip", "nft", "curl", "dig", "ping", "python3"].filter(
  (program) => spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status !== 0,
);
if (missing.length > 0 || !existsSync("/dev/net/tun")) {
  console.log(`missing: ${[...missing, ...(existsSync("/dev/net/tun") ? [] : ["/dev/net/tun"])].join(", ")}`);
  process.exit(1);
}
if (!existsSync("dist/cli/tun2socks.js")) {
  const { status } = spawnSync("node", ["scripts/build.mjs"], { stdio: "inherit" });
  if (status !== 0) process.exit(1);
}

const folder = mkdtempSync(join(tmpdir(), "underpass-demo-"));
/** @type {import("node:child_process").ChildProcess[]} */
const programs = [];
process.once("exit", () => {
  for (const program of programs) program.kill("SIGKILL");
  for (const name of [NEAR, FAR]) spawnSync("ip", ["netns", "del", name], { stdio: "ignore" });
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** @param {string} command */
const run = (command) =>
  execFileSync(command.split(" ")[0], command.split(" ").slice(1), { encoding: "utf8" });

/** Starts a program in a host. @param {string} host @param {string[]} argv */
function start(host, argv) {
  const program = spawn("ip", ["netns", "exec", host, ...argv], { stdio: ["ignore", "ignore", "pipe"] });
  programs.push(program);
  return program;
}

/**
 * Starts one of our programs and waits for its ready line.
 *
 * @param {string} host
 * @param {string} name
 * @param {string[]} options
 */
async function startOurs(host, name, options) {
  const program = start(host, [process.execPath, `dist/cli/${name}.js`, "--log-format", "json", ...options]);
  for await (const line of createInterface({ input: /** @type {any} */ (program.stderr) })) {
    const message = JSON.parse(line);
    if (message.ready !== undefined) break;
    if (message.level >= 40) say(name, message.msg);
  }
  if (program.exitCode !== null) throw new Error(`${name} did not start`);
  program.stderr?.resume();
  return program;
}

/**
 * Runs a program on the near host.
 *
 * @param {string} title
 * @param {string} command
 * @param {RegExp} wanted
 */
function show(title, command, wanted) {
  const { stdout, status } = spawnSync("ip", ["netns", "exec", NEAR, ...command.split(" ")], {
    encoding: "utf8",
    timeout: 30_000,
  });
  const line = stdout.split("\n").find((text) => wanted.test(text));
  say(title, `${command.slice(0, 70)}  ->  ${line ?? `FAILED (${status})`}`);
  return line !== undefined;
}

for (const name of [NEAR, FAR]) run(`ip netns add ${name}`);
run(`ip link add veth0 netns ${NEAR} type veth peer name veth0 netns ${FAR}`);
for (const [name, address] of [
  [NEAR, "10.99.0.1/24"],
  [FAR, "10.99.0.2/24"],
]) {
  run(`ip -n ${name} link set lo up`);
  run(`ip -n ${name} addr add ${address} dev veth0`);
  run(`ip -n ${name} link set veth0 up`);
}
run(`ip -n ${FAR} addr add ${TARGET}/32 dev lo`);
const fence = `table inet fence {
  chain arriving {
    type filter hook prerouting priority raw
    iifname veth0 meta l4proto udp drop
  }
}`;
execFileSync("ip", ["netns", "exec", FAR, "nft", fence]);
say("hosts", "two network namespaces; on the link between them all UDP is dropped");

const keyFile = join(folder, "psk");
writeFileSync(keyFile, randomBytes(24).toString("base64"), { mode: 0o600 });
writeFileSync(join(folder, "page"), Buffer.alloc(PAGE_BYTES, "page"));
const dns = [
  "dnsmasq",
  "--no-daemon",
  "--conf-file=/dev/null",
  "--pid-file",
  "--user=root",
  "--no-hosts",
  "--no-resolv",
];
const hasDns = spawnSync("sh", ["-c", "command -v dnsmasq"]).status === 0;
if (hasDns)
  start(FAR, [
    ...dns,
    "--bind-interfaces",
    `--listen-address=${TARGET}`,
    "--address=/example.test/192.0.2.7",
  ]);
start(FAR, ["python3", "-m", "http.server", "--bind", TARGET, "--directory", folder, "80"]);
await startOurs(FAR, "udp-server", [
  "--listen",
  "10.99.0.2:3456",
  "--psk-file",
  keyFile,
  "--allow",
  `${TARGET}/32`,
]);
// Any SOCKS5 server works for TCP; here it is a udp-local on the far host, which connects directly.
await startOurs(FAR, "udp-local", [
  "--listen",
  "10.99.0.2:1080",
  "--server",
  "10.99.0.2:3456",
  "--psk-file",
  keyFile,
]);
say("far", `udp-server, a SOCKS5 server, and on ${TARGET} a web server${hasDns ? " and a DNS server" : ""}`);

const options = ["--server", "10.99.0.2:3456", "--psk-file", keyFile, "--tcp-via", "socks5://10.99.0.2:1080"];
const tunnel = await startOurs(NEAR, "tun2socks", [...options, "--route", "203.0.113.0/24"]);
say("near", `tun2socks --server 10.99.0.2:3456 --tcp-via socks5://10.99.0.2:1080 --route 203.0.113.0/24`);

const results = [
  show("ping", `ping -n -c 1 -W 2 ${TARGET}`, /bytes from/),
  show(
    "tcp",
    `curl -sS -o /dev/null -w got:%{size_download}:at:%{speed_download} http://${TARGET}/page`,
    /got:10485760/,
  ),
  ...(hasDns ? [show("udp", `dig +short +tries=2 +time=3 @${TARGET} example.test`, /^192\.0\.2\.7$/)] : []),
];
tunnel.kill("SIGKILL");
await once(tunnel, "exit");
const isGone = spawnSync("ip", ["-n", NEAR, "link", "show", "underpass0"], { stdio: "ignore" }).status !== 0;
say("killed", `tun2socks (kill -9); its device is ${isGone ? "gone" : "STILL THERE"}`);
const isGood = isGone && results.every(Boolean);
say("result", isGood ? "programs without a proxy used UDP and TCP through the TUN device" : "FAILED");
process.exit(isGood ? 0 : 1);
