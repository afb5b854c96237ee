import { closeSync, existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Bench } from "../../host/doctor/bench.ts";
import type { Check, Result } from "../../host/doctor/check.ts";
import { skipped } from "../../host/doctor/check.ts";
import type { LocalProgram } from "../../host/doctor/examined.ts";
import { finding } from "../../host/doctor/findings.ts";
import type { ResolvedTun2SocksOptions } from "../../host/options/tun2socks.ts";
import { systemErrorCode } from "../../host/system-error.ts";

/** A device that is made to see whether one can be, and is gone at once; the kernel fills the number in. */
const TRIAL = "up-doctor%d";

/** What runs tun2socks. */
const OUR_PROGRAMS: readonly string[] = ["node", "underpass"];

/** Whether the TUN device can be had. */
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
        // Of a running one of ours, beside which doctor may be asked.
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

/** Which program of this network namespace has a TUN device open; undefined where the system does not show it to this user. */
function findHolder(device: string): LocalProgram | undefined {
  const ownNamespace = link("/proc/self/ns/net");
  for (const pid of list("/proc")) {
    // Each namespace has its own devices, of any name.
    if (!/^\d+$/.test(pid) || link(`/proc/${pid}/ns/net`) !== ownNamespace) continue;
    for (const descriptor of list(`/proc/${pid}/fdinfo`)) {
      if (!text(`/proc/${pid}/fdinfo/${descriptor}`).split("\n").includes(`iff:\t${device}`)) continue;
      const words = text(`/proc/${pid}/cmdline`)
        .split("\0")
        .filter((word) => word !== "");
      return { name: text(`/proc/${pid}/comm`).trim(), pid: Number(pid), arguments: words.slice(1) };
    }
  }
  return undefined;
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
