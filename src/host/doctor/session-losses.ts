import type { Bench } from "./bench.ts";
import type { Check, Result } from "./checks/check.ts";
import { hasFault } from "./checks/check.ts";
import type { Finding } from "./findings.ts";
import { finding } from "./findings.ts";
import type { Loss } from "./session.ts";

/** Faults that silence a session, which may therefore end. */
const SILENCING: readonly string[] = ["heartbeat-lost", "path-mtu"];
/** After this many heartbeats, the other end may have mistaken the silence for a loss. */
const SILENT_HEARTBEATS = 2;

/** Wraps a check so that it also reports connections of the session that have ended since the previous check. */
export function watched(check: Check<Bench>): Check<Bench> {
  return {
    ...check,
    async run(bench): Promise<Result> {
      const from = bench.system.now();
      const result = await check.run(bench);
      const { breaks, lostLanes, isResumable } = bench.session!;
      const [broken] = breaks.splice(0);
      const [lost] = lostLanes.splice(0);
      const { findings = [] } = result;
      if (broken !== undefined) {
        const silentMs = SILENT_HEARTBEATS * bench.options.heartbeatMs;
        const isCourse =
          findings.some(({ code }) => SILENCING.includes(code)) &&
          (codeOf(broken) === "ERR_HEARTBEAT_LOST" || broken.at - from >= silentMs);
        // If each target has connections of its own, a fault of the target ends them.
        if (isCourse || (hasFault(result) && !isResumable)) return result;
        return { ...result, findings: [finding("session-broken", evidenceOf(check, broken, findings))] };
      }
      if (lost === undefined || hasFault(result)) return result;
      return { ...result, findings: [...findings, finding("lane-broken", evidenceOf(check, lost, []))] };
    },
  };
}

function codeOf({ error }: Loss): string | undefined {
  return (error as { readonly code?: string } | undefined)?.code;
}

function evidenceOf(
  { name }: Check<Bench>,
  { error, upMs }: Loss,
  consequences: readonly Finding[],
): readonly string[] {
  return [
    `it ended after ${(upMs / 1_000).toFixed(1)} s, during the step "${name}": ${error?.message ?? "no reason given"}`,
    ...consequences.map(({ code, evidence }) => `${code} may be a consequence: ${evidence.join("; ")}`),
  ];
}
