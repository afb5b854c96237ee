// Child processes that end with this one, however it ends, and their resource usage.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";

/** @typedef {import("node:child_process").ChildProcess} ChildProcess */

export const LOAD = "build/load";
/** USER_HZ is 100 wherever Node runs. */
const NS_PER_TICK = 10_000_000;

/** @type {Set<ChildProcess>} */
const children = new Set();
process.once("exit", () => {
  for (const child of children) kill(child);
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(130));

/** Kills a child with what it has forked. @param {ChildProcess} child */
function kill(child) {
  for (const id of [-Number(child.pid), Number(child.pid)]) {
    try {
      process.kill(id, "SIGKILL");
    } catch {
      // It has already ended.
    }
  }
}

/** @param {string} command @param {string[]} args @param {"ignore" | "pipe"} [input] */
export function start(command, args, input = "ignore") {
  const child =
    /** @type {import("node:child_process").ChildProcessByStdio<import("node:stream").Writable | null, import("node:stream").Readable, import("node:stream").Readable>} */ (
      spawn(LOAD, ["with-parent", command, ...args], { stdio: [input, "pipe", "pipe"] })
    );
  children.add(child);
  child.once("exit", () => children.delete(child));
  child.stderr.resume();
  return child;
}

/** Starts a child, in a network namespace if one is named. @param {string | undefined} host @param {(string | number)[]} argv @param {"ignore" | "pipe"} [input] */
export function startIn(host, argv, input = "ignore") {
  const [command, ...args] = [...(host === undefined ? [] : ["ip", "netns", "exec", host]), ...argv].map(
    String,
  );
  return start(command, args, input);
}

/** Runs a program to its end and parses its output as JSON. @param {string | undefined} host @param {(string | number)[]} argv @returns {Promise<any>} */
export async function json(host, argv) {
  const child = startIn(host, argv);
  let text = "";
  child.stdout.on("data", (data) => {
    text += data;
  });
  await once(child, "close");
  if (text === "") throw new Error(`${argv.join(" ")} said nothing`);
  return JSON.parse(text);
}

/** @param {ChildProcess[]} processes */
export async function stop(processes) {
  for (const child of processes) {
    const hasEnded = child.exitCode !== null || child.signalCode !== null;
    const ended = hasEnded ? undefined : once(child, "exit");
    kill(child);
    await ended;
  }
}

/** @param {number} pid @returns {number[]}  the process and all that it has started */
function tree(pid) {
  const children = tasks(pid).flatMap((task) => read(`/proc/${pid}/task/${task}/children`).split(" "));
  return [pid, ...children.filter(Boolean).flatMap((child) => tree(Number(child)))];
}

/** @param {number} pid */
function tasks(pid) {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** Text of a file of /proc, empty when its process has ended. @param {string} path */
function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** CPU time of all threads of a process and of its children, in ns; to 10 ms where threads have ended. @param {number} pid */
export function cpuNs(pid) {
  let total = 0;
  for (const member of tree(pid)) {
    let ofThreads = 0;
    for (const task of tasks(member)) {
      ofThreads += Number(read(`/proc/${member}/task/${task}/schedstat`).split(" ")[0]);
    }
    const [user, system] = read(`/proc/${member}/stat`).split(") ").at(-1)?.split(" ").slice(11, 13) ?? [];
    total += Math.max(ofThreads, (Number(user ?? 0) + Number(system ?? 0)) * NS_PER_TICK);
  }
  return total;
}

/** @param {number} pid @returns {number}  bytes, of the process and of its children */
export function residentBytes(pid) {
  return tree(pid).reduce(
    (total, member) => total + 1024 * Number(/VmRSS:\s*(\d+)/.exec(read(`/proc/${member}/status`))?.[1] ?? 0),
    0,
  );
}

/** How many descriptors a child may have open. */
export function descriptorLimit() {
  return Number(/Max open files\s+(\d+)/.exec(read("/proc/self/limits"))?.[1] ?? 0);
}

/**
 * Waits until a TCP port has a listener or a UDP port is bound. Sends nothing, because some tunnels accept only one client in
 * their lifetime.
 *
 * @param {number} port @param {ChildProcess} child  the expected owner, in its own network namespace
 */
export async function bound(port, child) {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (let tries = 0; tries < 250; tries++) {
    if (child.exitCode !== null || child.signalCode !== null) break;
    for (const [table, state] of [
      ["tcp", "0A"],
      ["tcp6", "0A"],
      ["udp", undefined],
      ["udp6", undefined],
    ]) {
      for (const line of read(`/proc/${child.pid}/net/${table}`).split("\n")) {
        const fields = line.trim().split(/\s+/);
        if (fields[1]?.endsWith(suffix) && (state === undefined || fields[3] === state)) return;
      }
    }
    await sleep(20);
  }
  throw new Error(`${child.spawnargs.slice(2).join(" ")}: does not listen on ${port}`);
}

/** @param {number} ms */
export function sleep(ms) {
  return new Promise((done) => setTimeout(done, ms));
}
