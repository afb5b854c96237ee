import type { Bench } from "./bench.ts";
import { CARRIER_CHECK } from "./checks/carrier-check.ts";
import type { Check, Step } from "./checks/check.ts";
import { hasFault, walk } from "./checks/check.ts";
import { DELAY_CHECK, FULL_PACKETS_CHECK } from "./checks/delay-check.ts";
import { DNS_CHECK } from "./checks/dns-check.ts";
import { ECHO_CHECK } from "./checks/echo-check.ts";
import { NAME_CHECK } from "./checks/name-check.ts";
import { STUN_CHECK } from "./checks/stun-check.ts";
import { TCP_CHECK } from "./checks/tcp-check.ts";
import { LANES_CHECK, ROUND_TRIP_CHECK } from "./checks/tunnel-check.ts";
import { UPGRADE_CHECK } from "./checks/upgrade-check.ts";
import { chainOf } from "./examined.ts";
import type { Finding } from "./findings.ts";
import { finding } from "./findings.ts";
import { watched } from "./session-losses.ts";

/** Checks of each way, up to a session. */
const WAY_CHECKS: readonly Check<Bench>[] = [NAME_CHECK, TCP_CHECK, CARRIER_CHECK, UPGRADE_CHECK];
/** Checks in the session of the first way that works. */
const SESSION_CHECKS: readonly Check<Bench>[] = [
  ...[LANES_CHECK, ROUND_TRIP_CHECK, DNS_CHECK, STUN_CHECK, ECHO_CHECK],
  ...[FULL_PACKETS_CHECK, DELAY_CHECK],
].map(watched);

/**
 * Checks the way to the server and through the tunnel, up to the first fault. One of several ways has to work; faults of the others are
 * warnings.
 *
 * @param before  checks of this machine, which come first
 * @param onStep  called after each check
 */
export async function diagnose(
  before: readonly Check<Bench>[],
  bench: Bench,
  onStep: (step: Step) => void,
): Promise<void> {
  const now = () => bench.system.now();
  if (!(await walk(before, bench, now, onStep))) return;
  const { ways } = bench.options;
  /** Steps of failed ways, which are reported only once it is known whether another way works. */
  const failed: Step[] = [];
  for (const way of ways.keys()) {
    bench.way = way;
    const prefix = ways.length === 1 ? "" : `way ${way + 1}: `;
    const tell = (step: Step) => {
      const named = { ...step, name: `${prefix}${step.name}` };
      if (hasFault(step) && ways.length > 1) failed.push(named);
      else onStep(named);
    };
    const isFine = await walk(WAY_CHECKS, bench, now, tell);
    if (isFine && bench.session !== undefined) break;
  }
  try {
    if (bench.session === undefined) {
      if (failed.length > 0) onStep(failed[0]);
      return;
    }
    for (const step of failed) onStep(asWarning(step));
    const made = bench.options.dialect === undefined && bench.options.masque === undefined;
    await walk(SESSION_CHECKS, bench, now, onStep, made ? ["upgrade"] : []);
  } finally {
    await bench.session?.close();
  }
}

/** Turns the fault of a way into a warning, because another way works. */
function asWarning(step: Step): Step {
  const findings = step.findings!.map(
    ({ code, evidence, mend }): Finding => ({
      ...finding("way-dead", [`${step.name}: ${code}`, ...evidence]),
      mend,
    }),
  );
  return { ...step, findings };
}

/** Describes what is examined, for the head of a report. */
export function describeWays(bench: Bench): string {
  return bench.options.masque !== undefined
    ? "MASQUE proxy"
    : bench.options.ways.map((_, way) => chainOf({ ...bench, way }).description).join(", or ");
}
