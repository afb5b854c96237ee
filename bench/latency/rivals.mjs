// TCP beside the tunnel, and transfers inside it: iperf3, ngtcp2, and WireGuard in user space.
import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bound, json, startIn, stop } from "../processes.mjs";
import { freeTcpPort } from "../subjects.mjs";
import { ADDRESS, FAR, folder, linesOf, NEAR, STREAMS } from "./hosts.mjs";

/** @typedef {import("./scenarios.mjs").Rival} Rival */
/** @typedef {import("./subjects.mjs").Running} Running */

const MBIT = 1e6;
/** Congestion control of TCP inside WireGuard. */
const INNER_CONGESTION = "cubic";
/** Start of an inner transfer that does not count, s. */
const INNER_WARM_UP = 2;
const QUIC_FILE_BYTES = 12_000_000;
const QUIC_DEADLINE_S = 90;
const WIREGUARD = { near: "10.79.2.1", far: "10.79.2.2", prefix: 30, mtu: 1280 };

/** @param {string} address @param {number} port */
async function startIperf(address, port) {
  const server = startIn(FAR, ["iperf3", "-s", "-1", "-B", address, "-p", port]);
  server.stdout.resume();
  await bound(port, server);
  return server;
}

/** @param {any} report  of iperf3 */
function received(report) {
  if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
  return Number(report.end.sum_received.bits_per_second) / MBIT;
}

/** @param {Rival} rival @param {Running} tunnel @param {number} warmUp @param {number} seconds */
async function downloadBy({ congestion, count = 1 }, { socks }, warmUp, seconds) {
  const source = startIn(FAR, [STREAMS, "pour", ADDRESS.far, congestion]);
  const { port } = JSON.parse((await linesOf(source.stdout).next()).value);
  const { mbits } = await json(NEAR, [
    ...[STREAMS, "drink", `${ADDRESS.far}:${port}@${socks}`],
    ...[count, warmUp, seconds],
  ]);
  await stop([source]);
  return Number(mbits);
}

/** The near host's kernel chooses the congestion control. @param {Rival} rival @param {Running} tunnel @param {number} warmUp @param {number} seconds */
async function uploadBy({ count = 1 }, { socks }, warmUp, seconds) {
  const sink = startIn(FAR, [STREAMS, "drain", ADDRESS.far, warmUp, seconds]);
  const lines = linesOf(sink.stdout);
  const { port } = JSON.parse((await lines.next()).value);
  const source = startIn(NEAR, [STREAMS, "fill", `${ADDRESS.far}:${port}@${socks}`, count]);
  source.stdout.resume();
  const { value } = await lines.next();
  // Without its connections, the sink would report 0 Mbit/s, or those of fewer streams.
  const hasEnded = value === undefined || source.exitCode !== null;
  await stop([source, sink]);
  if (hasEnded) throw new Error("an upload has ended");
  return Number(JSON.parse(value).mbits);
}

/** Mbit/s that arrive after the warm-up. @param {Rival} rival @param {Running} tunnel @param {number} warmUp @param {number} seconds */
export async function runRival(rival, tunnel, warmUp, seconds) {
  const { congestion, direction, by } = rival;
  if (by === "tunnel") return (direction === "up" ? uploadBy : downloadBy)(rival, tunnel, warmUp, seconds);
  const port = await freeTcpPort();
  const server = await startIperf(ADDRESS.far, port);
  const report = await json(NEAR, [
    ...["iperf3", "-J", "-c", ADDRESS.far, "-p", port, "-t", seconds, "-O", warmUp],
    ...["-C", congestion, ...(direction === "down" ? ["-R"] : [])],
  ]);
  await stop([server]);
  return received(report);
}

/** The missing requirement of an inner transfer, or nothing. @param {"quic" | "wireguard"} inner */
export function lacksFor(inner) {
  const programs = {
    quic: ["gtlsclient", "gtlsserver", "openssl"],
    wireguard: ["wireguard-go", "wg", "iperf3"],
  };
  return programs[inner].filter(
    (name) => spawnSync("sh", ["-c", 'command -v "$1"', "sh", name], { stdio: "ignore" }).status !== 0,
  );
}

/** A file over QUIC, from the request to its last byte. @param {number} port  of the far host @param {Running} tunnel @returns {Promise<Record<string, number>>} */
async function quic(port, { to }) {
  const [key, certificate] = [join(folder, "quic-key"), join(folder, "quic-certificate")];
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const names = ["-keyout", key, "-out", certificate, "-subj", "/CN=bench", "-days", "1"];
  execFileSync("openssl", [...request, ...names], { stdio: "ignore" });
  const [site, got] = [join(folder, "site"), join(folder, "got")];
  for (const path of [site, got]) mkdirSync(path, { recursive: true });
  writeFileSync(join(site, "file"), Buffer.alloc(QUIC_FILE_BYTES, 1));
  const server = startIn(FAR, ["gtlsserver", "-q", "-d", site, ADDRESS.far, port, key, certificate]);
  server.stdout.resume();
  await bound(port, server);
  const [host, ofTunnel] = to.split(":");
  const began = performance.now();
  const client = startIn(NEAR, [
    ...["timeout", QUIC_DEADLINE_S, "gtlsclient", "-q", "--exit-on-all-streams-close"],
    ...["--download", got, host, ofTunnel, "https://bench/file"],
  ]);
  client.stdout.resume();
  const [code] = await once(client, "exit");
  const seconds = (performance.now() - began) / 1000;
  await stop([server]);
  return { down: code === 0 ? (QUIC_FILE_BYTES * 8) / seconds / MBIT : 0 };
}

/** @param {string} host @param {string} name @param {string} address @param {string[]} settings  of wg */
async function startWireguard(host, name, address, settings) {
  const child = startIn(host, ["env", "WG_PROCESS_FOREGROUND=1", "wireguard-go", "-f", name]);
  child.stdout.resume();
  const wait = 'until ip link show "$1" >/dev/null 2>&1 && wg show "$1" >/dev/null 2>&1; do sleep 0.05; done';
  const run = (/** @type {string[]} */ ...argv) =>
    execFileSync("ip", ["netns", "exec", host, ...argv], { timeout: 10_000 });
  run("sh", "-c", wait, "sh", name);
  run("wg", "set", name, ...settings);
  run("ip", "addr", "add", `${address}/${WIREGUARD.prefix}`, "dev", name);
  run("ip", "link", "set", name, "mtu", String(WIREGUARD.mtu), "up");
  return child;
}

/** A TCP stream in WireGuard, each direction by itself. @param {number} port @param {Running} tunnel @param {number} seconds @returns {Promise<Record<string, number>>} */
async function wireguard(port, { to }, seconds) {
  const keys = ["near", "far"].map((name) => {
    const file = join(folder, `wireguard-${name}`);
    const secret = execFileSync("wg", ["genkey"], { encoding: "utf8" }).trim();
    writeFileSync(file, secret, { mode: 0o600 });
    return { file, public: execFileSync("wg", ["pubkey"], { input: secret, encoding: "utf8" }).trim() };
  });
  const suffix = process.pid.toString(36);
  const far = await startWireguard(FAR, `wgf${suffix}`, WIREGUARD.far, [
    ...["listen-port", String(port), "private-key", keys[1].file],
    ...["peer", keys[0].public, "allowed-ips", `${WIREGUARD.near}/32`],
  ]);
  const near = await startWireguard(NEAR, `wgn${suffix}`, WIREGUARD.near, [
    ...["private-key", keys[0].file],
    ...["peer", keys[1].public, "endpoint", to, "allowed-ips", `${WIREGUARD.far}/32`],
  ]);
  /** @type {Record<string, number>} */
  const results = {};
  for (const direction of ["up", "down"]) {
    const iperf = await startIperf(WIREGUARD.far, await freeTcpPort());
    const own = iperf.spawnargs.at(-1);
    const report = await json(NEAR, [
      ...["iperf3", "-J", "-c", WIREGUARD.far, "-p", String(own), "-t", seconds, "-O", INNER_WARM_UP],
      ...["-C", INNER_CONGESTION],
      ...(direction === "down" ? ["-R"] : []),
    ]);
    await stop([iperf]);
    results[direction] = received(report);
  }
  await stop([near, far]);
  return results;
}

/** Mbit/s of goodput by direction. @param {"quic" | "wireguard"} inner @param {number} port  of the far host, which is free @param {Running} tunnel @param {number} seconds */
export function runInner(inner, port, tunnel, seconds) {
  return inner === "quic" ? quic(port, tunnel) : wireguard(port, tunnel, seconds);
}
