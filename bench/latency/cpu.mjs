// CPU time of the programs of a case and of everything else meanwhile.
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { cpuNs } from "../processes.mjs";

/** @typedef {{ local: number[], server: number[], relays: number[] }} Pids */
/** Shares of one core. @typedef {{ local: number, server: number, relays: number, others: number }} CpuShares */

const USER_HZ = 100;

/** Busy CPU time of the whole machine, s. */
function busySeconds() {
  const [, ...fields] = readFileSync("/proc/stat", "utf8").split("\n")[0].trim().split(/\s+/).map(Number);
  const [user, nice, system, , , irq, softirq, steal] = fields;
  return (user + nice + system + irq + softirq + steal) / USER_HZ;
}

/** Starts to measure. @param {Pids} pids @returns {() => CpuShares}  since the start */
export function meterCpu(pids) {
  const read = () => {
    const of = (/** @type {number[]} */ some) => some.reduce((sum, pid) => sum + cpuNs(pid), 0) / 1e9;
    return {
      at: performance.now() / 1000,
      ...{ local: of(pids.local), server: of(pids.server), relays: of(pids.relays), busy: busySeconds() },
    };
  };
  const before = read();
  return () => {
    const now = read();
    const share = (/** @type {"local" | "server" | "relays" | "busy"} */ name) =>
      (now[name] - before[name]) / (now.at - before.at);
    const [local, server, relays] = [share("local"), share("server"), share("relays")];
    return { local, server, relays, others: Math.max(0, share("busy") - local - server - relays) };
  };
}
