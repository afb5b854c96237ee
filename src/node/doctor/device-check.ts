import { closeSync, existsSync, readFileSync } from "node:fs";
import type { Bench } from "../../host/doctor/bench.ts";
import type { Check, Result } from "../../host/doctor/checks/check.ts";
import { skipped } from "../../host/doctor/checks/check.ts";
import type { LocalProgram } from "../../host/doctor/examined.ts";
import { finding } from "../../host/doctor/findings.ts";
import type { ResolvedTun2SocksOptions } from "../../host/options/tun2socks.ts";
import { systemErrorCode } from "../../host/system-error.ts";
import { linkOf, namesIn, processIds, programOf, textOf } from "./processes.ts";

/** Name of a device that is made to see whether that works, and removed at once; the kernel fills in the number. */
const TRIAL = "up-doctor%d";

/** Programs that run tun2socks. */
const OUR_PROGRAMS: readonly string[] = ["node", "underpass"];

/** Checks whether tun2socks can get its TUN device. */
export function deviceCheck({ device, tunnel }: ResolvedTun2SocksOptions): Check<Bench> {
  return {
    name: "device",
    needs: [],
    async run({ system }): Promise<Result> {
      const { outInterface } = tunnel;
      if (outInterface !== undefined && !isUp(outInterface)) {
        const evidence = existsSync(`/sys/class/net/${outInterface}`)
          ? "it is down"
          : "there is no such interface";
        return {
          measured: outInterface,
          findings: [finding("interface-missing", [`${outInterface}: ${evidence}`])],
        };
      }
      if (typeof device !== "string" || !device.startsWith("tun:")) return skipped("no TUN device");
      const { native } = system.io;
      if (native?.tunOpen === undefined) {
        return {
          measured: "no native I/O",
          findings: [finding("native-missing", [`${device} needs the native module`])],
        };
      }
      const name = device.slice(4);
      const holder = findHolder(name);
      if (holder !== undefined) {
        const who = `${holder.name} (PID ${holder.pid})`;
        // The holder is a running tun2socks of ours, and doctor may run beside it.
        const isOurs =
          OUR_PROGRAMS.includes(holder.name) && holder.arguments.some((word) => /tun2socks/.test(word));
        return {
          measured: `${name} is held by ${who}`,
          findings: isOurs ? [] : [finding("device-busy", [`${name} is held by ${who}`])],
        };
      }
      try {
        const [descriptor] = native.tunOpen(TRIAL, false);
        closeSync(descriptor);
        return {
          measured: existsSync(`/sys/class/net/${name}`)
            ? `${name} exists and is free`
            : `${name} can be made`,
        };
      } catch (error) {
        const { message } = error as Error;
        const isForbidden = ["EPERM", "EACCES"].includes(systemErrorCode(error as Error) ?? "");
        const code = isForbidden ? "device-rights" : "device-missing";
        return {
          measured: "no TUN device can be made",
          findings: [finding(code, [`/dev/net/tun: ${message}`])],
        };
      }
    },
  };
}

function isUp(interfaceName: string): boolean {
  try {
    const flags = Number(readFileSync(`/sys/class/net/${interfaceName}/flags`, "utf8"));
    return (flags & 1) !== 0;
  } catch {
    return false;
  }
}

/** The program of this network namespace that has a TUN device open; undefined if the system does not show it to this user. */
function findHolder(device: string): LocalProgram | undefined {
  const ownNamespace = linkOf("/proc/self/ns/net");
  for (const pid of processIds()) {
    // Each namespace has its own devices, of any name.
    if (linkOf(`/proc/${pid}/ns/net`) !== ownNamespace) continue;
    for (const descriptor of namesIn(`/proc/${pid}/fdinfo`)) {
      const isHolder = textOf(`/proc/${pid}/fdinfo/${descriptor}`).split("\n").includes(`iff:\t${device}`);
      if (isHolder) return programOf(pid);
    }
  }
  return undefined;
}
