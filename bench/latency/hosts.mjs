// Two hosts in network namespaces with an emulated link between them, and programs on them.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { makeNamespaces } from "../namespaces.mjs";
import { startIn, stop } from "../processes.mjs";

/**
 * A link, the same in both directions unless `up` or `down` says otherwise: Mbit/s (0: no limit), ms one way, shares,
 * ms of queue at that rate. Bursts are mean lengths in packets. `congestion` is what the kernels of both hosts use. The
 * emulator wakes at most once in `moderation` µs.
 *
 * @typedef {object} Direction
 * @property {number} [rate]
 * @property {number} [delay]
 * @property {number} [jitter]
 * @property {number} [loss]
 * @property {number} [burst]
 * @property {number} [queue]
 * @property {number} [reorder]
 * @property {number} [hold]
 *
 * @typedef {Direction & { congestion?: string, moderation?: number, up?: Direction, down?: Direction }} LinkSpec
 */
/**
 * @typedef {object} DirectionCounts
 * @property {number} packets
 * @property {number} bytes
 * @property {number} dropped
 * @property {number} lost
 * @property {number} delivered
 * @property {number} deliveredBytes
 * @property {number} longestWaitMs
 *
 * @typedef {{ up: DirectionCounts, down: DirectionCounts, late: number, latestMs: number }} LinkCounts
 */
/** @typedef {{ command: (line: string) => void, counts: () => Promise<LinkCounts>, stop: () => Promise<void> }} Link */

export const LINK = "build/link";
export const TRAFFIC = "build/traffic";
export const STREAMS = "build/streams";
export const ADDRESS = { near: "10.79.1.1", far: "10.79.1.2" };
const PREFIX = 30;
const DEVICE = "link0";
/** Room for a burst of the kernel between two turns of the emulator. */
const DEVICE_QUEUE = 10_000;

export const [NEAR, FAR] = [`uplat${process.pid}a`, `uplat${process.pid}b`];
/** For files of the run; exists as long as the hosts. */
export let folder = "";
/** nice(1) of the measured programs. */
let priority = 0;

/** Makes both; they go with this process. @param {number} niceness  of what `startProgram` starts @returns what removes them before */
export function makeHosts(niceness) {
  priority = niceness;
  const made = makeNamespaces([NEAR, FAR]);
  folder = made.folder;
  writeFileSync(join(folder, "psk"), randomBytes(32).toString("base64url"), { mode: 0o600 });
  for (const host of [NEAR, FAR]) {
    // The link could lose the kernel's own packets instead of a datagram, and the kernel would remember routes' metrics in the
    // next case.
    setKernel(host, "net/ipv6/conf/all/disable_ipv6", "1");
    setKernel(host, "net/ipv6/conf/default/disable_ipv6", "1");
    setKernel(host, "net/ipv4/tcp_no_metrics_save", "1");
  }
  return made.remove;
}

/** Starts a measured program. @param {string} host @param {(string | number)[]} argv */
export function startProgram(host, argv) {
  return startIn(host, priority === 0 ? argv : ["nice", "-n", priority, ...argv]);
}

/** @param {string} host @param {string} path @param {string} value */
function setKernel(host, path, value) {
  execFileSync("ip", ["netns", "exec", host, "sh", "-ec", `echo ${value} >/proc/sys/${path}`]);
}

/** @param {"up" | "down" | "both"} way @param {Direction} direction */
export function words(way, direction) {
  const NAMES = /** @type {const} */ ([
    "rate",
    "delay",
    "jitter",
    "loss",
    "burst",
    "queue",
    "reorder",
    "hold",
  ]);
  return NAMES.filter((name) => direction[name] !== undefined).map(
    (name) => `${way}.${name}=${direction[name]}`,
  );
}

/** Lays the link; it goes with `stop`. @param {LinkSpec} spec @param {number} seed @returns {Promise<Link>} */
export async function layLink(spec, seed) {
  const settings = [words("both", spec), words("up", spec.up ?? {}), words("down", spec.down ?? {})].flat();
  const own = [`seed=${seed}`, `moderation=${spec.moderation ?? 0}`];
  const child = startIn(undefined, [LINK, "run", NEAR, FAR, DEVICE, ...own, ...settings], "pipe");
  let said = "";
  child.stderr.on("data", (data) => {
    said += data;
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  try {
    const first = await lines.next();
    if (first.done) throw new Error(`the link: ${said.trim()}`);
    for (const [host, address] of /** @type {const} */ ([
      [NEAR, ADDRESS.near],
      [FAR, ADDRESS.far],
    ])) {
      if (spec.congestion) setKernel(host, "net/ipv4/tcp_congestion_control", spec.congestion);
      execFileSync("ip", ["-n", host, "addr", "add", `${address}/${PREFIX}`, "dev", DEVICE]);
      execFileSync("ip", ["-n", host, "link", "set", DEVICE, "txqueuelen", String(DEVICE_QUEUE), "up"]);
    }
  } catch (error) {
    await stop([child]);
    throw error;
  }
  const input = /** @type {import("node:stream").Writable} */ (child.stdin);
  input.on("error", () => {}); // A failed case may still write to its link.
  return {
    command: (line) => input.write(`${line}\n`),
    counts: async () => {
      input.write("report\n");
      return JSON.parse((await lines.next()).value);
    },
    stop: async () => {
      const ended = once(child, "exit");
      input.end();
      await ended;
    },
  };
}

/** @param {NodeJS.ReadableStream} stream @returns {AsyncIterator<string>} */
export function linesOf(stream) {
  return createInterface({ input: stream })[Symbol.asyncIterator]();
}

/** `report`: what came since the last one. @typedef {{ port: number, report: () => Promise<any>, stop: () => Promise<void> }} Target */

/** The target of the flows on the far host. @returns {Promise<Target>} */
export async function startTarget() {
  const child = startIn(FAR, [TRAFFIC, "answer", ADDRESS.far]);
  const lines = linesOf(child.stdout);
  const { port } = JSON.parse((await lines.next()).value);
  return {
    port: Number(port),
    report: async () => {
      child.kill("SIGUSR1");
      return JSON.parse((await lines.next()).value);
    },
    stop: () => stop([child]),
  };
}
