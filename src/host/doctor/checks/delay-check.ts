import type { Measurement, ProbeSample } from "../../../core/session/probe-train.ts";
import { GROUP } from "../../../core/session/probe-train.ts";
import type { ProbePattern } from "../../../wire/probe.ts";
import type { Bench } from "../bench.ts";
import type { Delays } from "../delays.ts";
import { delaysOf, heldUntil, isHeld, summarizeDelays } from "../delays.ts";
import type { Finding } from "../findings.ts";
import { finding } from "../findings.ts";
import type { Session } from "../session.ts";
import { waitingHop } from "../waiting-hop.ts";
import type { Check, Result } from "./check.ts";
import { skipped } from "./check.ts";

/** The rate of a call, 50 a second. */
const PERIOD_MS = 20;
const PROBE_BYTES = 200;
/** The other direction while one is measured for delayed ACKs: slow enough that its packets carry no ACKs for it. */
const REPORT_MS = 250;
const ANSWER_MS = 1_000;
const FULL_PROBES = 5;
const FULL_BYTES = 1_400;
const MAX_ATTEMPTS = 3;
/** The number of groups of three that reveal a relay waiting for ACKs, and the gaps between the last two probes of each. */
const GROUPS = 8;
const GAPS_MS = [5, 17];
/** From the answer to the first probe of a group to the second probe, and from the last probe to the next group. */
const LEAD_MS = 15;
const REST_MS = 60;
/** How many may exceed the age budget without a warning. */
const LATE_SHARE = 0.01;
const LATE_LEAST = 5;

type Direction = "up" | "down";

const QUIET: ProbePattern = { periodMs: REPORT_MS, leadMs: 0, gapMs: 0, count: 1, bytes: 0 };

/** Sends packets as large as an Ethernet path carries, in both directions. */
export const FULL_PACKETS_CHECK: Check<Bench> = {
  name: "full packets",
  needs: ["round trip"],
  async run({ session, settings }): Promise<Result> {
    const isMeasured = await onOneLane(session!, async () => {
      const small = start(session!, { ...QUIET, count: 4 }, { ...QUIET, count: 4 });
      return session!.until(() => small !== undefined && small.down.length > 0, settings.testTimeoutMs);
    });
    if (!isMeasured) {
      const evidence = `heartbeats are answered, but no PROBE arrives within ${settings.testTimeoutMs} ms`;
      return { ...skipped("the server does not measure"), findings: [finding("no-measure", [evidence])] };
    }
    const pattern = { periodMs: PERIOD_MS, leadMs: 0, gapMs: 0, count: FULL_PROBES, bytes: FULL_BYTES };
    const has = (samples: readonly ProbeSample[]) => samples.length >= FULL_PROBES;
    let full: Measurement | undefined;
    const isThrough = await onOneLane(session!, async () => {
      full = start(session!, pattern, { ...pattern, count: 3 * FULL_PROBES });
      return session!.until(
        () => full !== undefined && has(full.down) && has(full.up),
        settings.testTimeoutMs,
      );
    });
    if (isThrough) return { measured: `packets of ${FULL_BYTES} bytes pass both ways` };
    const missing = [...(has(full?.up ?? []) ? [] : ["to"]), ...(has(full?.down ?? []) ? [] : ["from"])];
    const evidence = [
      `small packets pass; ${FULL_PROBES} of ${FULL_BYTES} bytes ${missing.join(" and ")} the server did not within ${settings.testTimeoutMs} ms`,
      session!.errors.at(-1)?.message,
    ];
    return { measured: "full packets are lost", findings: [finding("path-mtu", evidence)] };
  },
};

/** Repeats a measurement that failed while a lane was lost, because its packets may have been on that lane. */
async function onOneLane(session: Session, measure: () => Promise<boolean>): Promise<boolean> {
  for (let attempt = 1; ; attempt++) {
    const { length } = session.lostLanes;
    if (await measure()) return true;
    if (session.lostLanes.length === length || attempt === MAX_ATTEMPTS) return false;
  }
}

/** Measures the delay of each direction, at 50 probes a second, and checks whether a relay on the way waits for ACKs. */
export const DELAY_CHECK: Check<Bench> = {
  name: "delay",
  needs: ["full packets"],
  async run(bench): Promise<Result> {
    const { session, settings, options } = bench;
    if (settings.testSeconds === 0) return skipped("left out: --test-seconds 0");
    const count = Math.round(settings.testSeconds * (1_000 / PERIOD_MS));
    const pattern = { periodMs: PERIOD_MS, leadMs: 0, gapMs: 0, count, bytes: PROBE_BYTES };
    const measurement = start(session!, pattern, pattern);
    const isDone = () =>
      measurement === undefined || (measurement.up.length >= count && measurement.down.length >= count);
    await session!.until(isDone, count * PERIOD_MS + ANSWER_MS);
    const delays = {
      up: summarizeDelays([...delaysOf(measurement?.up ?? []).values()], options.ageBudgetMs),
      down: summarizeDelays([...delaysOf(measurement?.down ?? []).values()], options.ageBudgetMs),
    };
    const measured = (["up", "down"] as const)
      .map((direction) => describe(direction, delays[direction]))
      .join("; ");
    const found: Finding[] = [];
    for (const direction of ["up", "down"] as const) {
      const acks = await findDelayedAcks(bench, direction);
      if (acks !== undefined) found.push(acks);
    }
    const late = (["up", "down"] as const).filter((direction) => {
      const { count, late: number } = delays[direction];
      return number >= Math.max(LATE_LEAST, LATE_SHARE * count);
    });
    if (late.length > 0 && found.length === 0) {
      const evidence = late.map((direction) => {
        const { count, late: number } = delays[direction];
        return `${number} of ${count} probes ${direction} took more than ${options.ageBudgetMs} ms longer than the fastest`;
      });
      found.push(finding("delay-steps", evidence));
    }
    return { measured, data: delays, findings: found.slice(0, 1) };
  },
};

function describe(direction: Direction, { count, p50, p99, max }: Delays): string {
  const ms = (value: number) => value.toFixed(1);
  return `${direction} p50 ${ms(p50)}, p99 ${ms(p99)}, max ${ms(max)} ms above the fastest, ${count} probes`;
}

/**
 * Sends groups of three probes in one direction. The first is answered at once, so the receiver of the TCP connection expects to answer
 * further data too, and delays its ACKs. The second is not answered, and the third then waits in a relay for the ACK of the second.
 */
async function findDelayedAcks(bench: Bench, direction: Direction): Promise<Finding | undefined> {
  const waits = new Map<number, readonly number[]>();
  const rttMs = bench.session!.host.core.rttMs ?? 0;
  for (const gapMs of GAPS_MS) {
    const leadMs = LEAD_MS + Math.ceil(rttMs);
    const periodMs = leadMs + gapMs + REST_MS + Math.ceil(rttMs);
    const pattern = { periodMs, leadMs, gapMs, count: GROUP * GROUPS, bytes: PROBE_BYTES };
    const delays = delaysOf(await train(bench.session!, direction, pattern));
    const own: number[] = [];
    for (let group = 0; group < GROUPS; group++) {
      const [second, third] = [delays.get(GROUP * group + 1), delays.get(GROUP * group + 2)];
      if (second !== undefined && third !== undefined) own.push(third - second);
    }
    waits.set(gapMs, own);
    if (!isHeld(own)) return undefined;
  }
  const release = heldUntil(waits, rttMs);
  if (release === undefined) return undefined;
  const { hop, cure } = waitingHop(bench);
  const held = [...waits].map(([gap, own]) => {
    const sorted = own.toSorted((one, other) => one - other);
    return `${sorted[sorted.length >> 1].toFixed(0)} ms if sent ${gap} ms later`;
  });
  const evidence = [
    `${direction === "up" ? "to" : "from"} the server, the second of two packets waits until ${release.toFixed(0)} ms after the first: ${held.join(", ")}`,
    hop,
  ];
  return finding("delayed-acks", evidence, { cure });
}

/** Sends or requests a train. @returns what arrived of it */
async function train(
  session: Session,
  direction: Direction,
  pattern: ProbePattern,
): Promise<readonly ProbeSample[]> {
  const { periodMs, gapMs, count } = pattern;
  const durationMs = periodMs * (gapMs > 0 ? Math.ceil(count / GROUP) : count);
  // The last samples are reported later.
  const quiet = { ...QUIET, count: Math.ceil(durationMs / REPORT_MS) + 3 };
  const measurement = direction === "up" ? start(session, pattern, quiet) : start(session, quiet, pattern);
  if (measurement === undefined) return [];
  const samples = direction === "up" ? measurement.up : measurement.down;
  await session.until(() => samples.length >= count, durationMs + 4 * REPORT_MS);
  return samples;
}

function start({ host }: Session, own: ProbePattern, peers: ProbePattern): Measurement | undefined {
  const measurement = host.core.measure?.(host.turn.now(), own, peers);
  host.turn.schedule();
  return measurement;
}
