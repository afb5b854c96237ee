import { readdirSync, readFileSync } from "node:fs";
import type { Bench } from "../../host/doctor/bench.ts";
import type { Check, Result } from "../../host/doctor/checks/check.ts";
import type { Finding } from "../../host/doctor/findings.ts";
import { finding } from "../../host/doctor/findings.ts";
import { UDP_BUFFER_BYTES } from "../../host/io/udp-io.ts";

/** Descriptors that a process has open from the start, and those that one connection with its helpers needs. */
const SPARE = 24;
/** Enough for lanes, a SOCKS5 server and a few applications' forwards. */
const FEW = 256;

/** Checks the system's limits for this process. */
export const LIMITS_CHECK: Check<Bench> = {
  name: "limits",
  needs: [],
  async run({ system, options }): Promise<Result> {
    const limit = system.descriptorLimit();
    const open = openDescriptors();
    const buffer = sysctl("net/core/rmem_max");
    const findings: Finding[] = [];
    const measured = [
      `descriptors ${open === undefined ? "" : `${open} of `}${limit === Number.POSITIVE_INFINITY ? "unlimited" : limit}`,
      ...(buffer === undefined ? [] : [`net.core.rmem_max ${buffer}`]),
    ].join(", ");
    const free = limit - (open ?? 0);
    if (free < SPARE) findings.push(finding("descriptors-full", [`${open} of ${limit} are open`]));
    else if (free < FEW) {
      const evidence = `${free} are free; --max-associations is ${options.maxAssociations}`;
      findings.push(finding("descriptors-few", [evidence]));
    }
    if (buffer !== undefined && buffer < UDP_BUFFER_BYTES) {
      findings.push(finding("udp-buffer-small", [`net.core.rmem_max is ${buffer}`]));
    }
    return {
      measured,
      data: { limit: Number.isFinite(limit) ? limit : null, open, rmemMax: buffer },
      findings,
    };
  },
};

function openDescriptors(): number | undefined {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}

function sysctl(name: string): number | undefined {
  try {
    return Number(readFileSync(`/proc/sys/${name}`, "utf8"));
  } catch {
    return undefined;
  }
}
