// Two network namespaces with a link, which disappear with the run, and programs in them.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { makeNamespaces } from "../namespaces.mjs";
import { startIn } from "../processes.mjs";

export const LINK = { near: "10.79.0.1", far: "10.79.0.2" };
/** The device's network: the near host's own address, and one that no host has. */
export const DEVICE = {
  name: "bench0",
  own: "198.18.0.1",
  peer: "198.18.0.2",
  prefix: 30,
  mask: "255.255.255.252",
};
/** Routed to the device if one exists, otherwise to the far host, which has the target. */
export const NETWORK = "203.0.113.0";
export const TARGET = "203.0.113.5";

export const [NEAR, FAR] = [`upbench${process.pid}a`, `upbench${process.pid}b`];
/** For files of the run; exists as long as the hosts. */
export let folder = "";

/** Makes both hosts; they disappear with this process, however it ends. @returns a function that removes them earlier */
export function makeHosts() {
  const made = makeNamespaces([NEAR, FAR]);
  folder = made.folder;
  const script = `
    ip link add veth0 netns ${NEAR} type veth peer name veth0 netns ${FAR}
    ip -n ${NEAR} addr add ${LINK.near}/24 dev veth0; ip -n ${FAR} addr add ${LINK.far}/24 dev veth0
    ip -n ${NEAR} link set veth0 up; ip -n ${FAR} link set veth0 up
    ip -n ${FAR} addr add ${TARGET}/32 dev lo
    ip -n ${NEAR} route add ${NETWORK}/24 via ${LINK.far} metric 1000`;
  execFileSync("sh", ["-ec", script]);
  writeFileSync(join(folder, "psk"), randomBytes(32).toString("base64url"), { mode: 0o600 });
  return made.remove;
}

/** Creates the device for a program that makes none itself. @param {number} mtu @returns a function that removes it */
export function makeDevice(mtu) {
  const { name, own, prefix } = DEVICE;
  const script = `
    ip tuntap add dev ${name} mode tun; ip addr add ${own}/${prefix} dev ${name}
    ip link set ${name} mtu ${mtu} up; ip route add ${NETWORK}/24 dev ${name}`;
  execFileSync("ip", ["netns", "exec", NEAR, "sh", "-ec", script]);
  return () => execFileSync("ip", ["-n", NEAR, "link", "del", name]);
}

/** The first line for which `wanted` holds. @param {NodeJS.ReadableStream | null} stream @param {(line: string) => boolean} wanted */
export async function lineOf(stream, wanted) {
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

/** Starts one of ours; its ready line. @param {string} host @param {string} name @param {string[]} options */
export async function startOurs(host, name, options) {
  const common = ["--psk-file", join(folder, "psk"), "--log-format", "json", "--log-level", "warn"];
  const child = startIn(host, [process.execPath, `dist/cli/${name}.js`, ...common, ...options]);
  const ready = JSON.parse(await lineOf(child.stderr, (line) => line.includes('"ready"')));
  return { child, ready };
}
