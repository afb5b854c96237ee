import { readUint32, writeUint32 } from "../../../wire/network-order.ts";
import type { Bench } from "../bench.ts";
import { summarizeDelays } from "../delays.ts";
import type { Finding } from "../findings.ts";
import { finding } from "../findings.ts";
import type { Target } from "../queries.ts";
import { targetOf } from "../queries.ts";
import type { Association } from "../session.ts";
import type { Check, Result } from "./check.ts";
import { skipped } from "./check.ts";
import { refusalOf, unreachable } from "./dns-check.ts";

/** Payload sizes: one packet with an MTU of 1,280 or 1,500, two fragments, and the largest of UDP. */
const SIZES = [32, 1_200, 1_232, 1_452, 1_472, 2_000, 9_000, 65_507];
/** A datagram of this size fits into one packet nearly everywhere. */
const ONE_PACKET = 1_200;
const ATTEMPTS = 3;
/** For the smallest size, while the path's loss is still unknown. */
const FIRST_ATTEMPTS = 8;
/** The largest of {@link SIZES} that fits into two fragments. */
const TWO_FRAGMENTS = 2_000;
/** The accepted probability that random loss takes all attempts. */
const CHANCE = 1e-6;
const MAX_ATTEMPTS = 30;
const LOSS_DATAGRAMS = 50;
const PERIOD_MS = 20;

/** Queries a UDP echo service: which sizes return, what ICMP reports, and how many datagrams are lost. */
export const ECHO_CHECK: Check<Bench> = {
  name: "echo",
  needs: [],
  async run(bench): Promise<Result> {
    const { session, settings, options } = bench;
    if (settings.testEcho === undefined) return skipped("no UDP echo service: --test-echo HOST:PORT");
    const target = targetOf(settings.testEcho);
    const association = session!.associate();
    try {
      const passed: number[] = [];
      let number = 0;
      for (const size of SIZES) {
        const attempts = size === SIZES[0] ? FIRST_ATTEMPTS : ATTEMPTS;
        const isBack = await attempt(bench, association, target, size, attempts, () => number++);
        const refusal = refusalOf(association.heard);
        if (refusal !== undefined)
          return { measured: `${target.text} refused`, findings: [unreachable(refusal, target)] };
        if (!isBack && passed.length === 0) {
          const evidence = `none of ${FIRST_ATTEMPTS} datagrams of ${size} bytes to ${target.text} came back`;
          return {
            measured: `no answer from ${target.text}`,
            findings: [finding("echo-silent", [evidence], { target: target.text })],
          };
        }
        if (!isBack) break;
        passed.push(size);
      }
      const told = association.heard.filter((heard) => heard.kind === "unreachable").at(-1);
      const mtu = told?.kind === "unreachable" ? told.mtu : 0;
      const { back, p50, p99 } = await measureLoss(bench, association, target);
      let tried = ATTEMPTS;
      // A size that did not come back may have been lost like any other datagram.
      for (const size of SIZES.slice(passed.length)) {
        if (back === LOSS_DATAGRAMS || size > TWO_FRAGMENTS) break;
        tried = attemptsAgainst(1 - back / LOSS_DATAGRAMS);
        if (!(await attempt(bench, association, target, size, tried, () => number++))) break;
        passed.push(size);
      }
      const largest = passed.at(-1)!;
      const data = { largest, mtu, sent: LOSS_DATAGRAMS, back, p50, p99 };
      const icmp = mtu > 0 ? `, ICMP reports an MTU of ${mtu}` : "";
      const measured = `${back} of ${LOSS_DATAGRAMS} back, p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)} ms; ${largest} bytes pass${icmp}`;
      const findings: Finding[] = [];
      if (largest < SIZES.at(-1)! && largest < TWO_FRAGMENTS) {
        const next = SIZES[SIZES.indexOf(largest) + 1];
        const evidence = [
          `datagrams of ${largest} bytes come back, those of ${next} do not in ${tried} attempts`,
          icmp === "" ? "no ICMP error explains it" : icmp.slice(2),
        ];
        findings.push(finding("fragments-lost", evidence, { size: String(Math.max(largest, ONE_PACKET)) }));
      }
      if (back < LOSS_DATAGRAMS * 0.98) {
        const evidence = [
          `${back} of ${LOSS_DATAGRAMS} came back in time`,
          `the age budget is ${options.ageBudgetMs} ms`,
        ];
        findings.push(finding("datagrams-lost", evidence));
      }
      return { measured, data, findings };
    } finally {
      association.close();
    }
  },
};

/** How many datagrams of two packets to send so that one arrives in spite of random loss. */
function attemptsAgainst(loss: number): number {
  const lost = 1 - (1 - loss) ** 2;
  return Math.min(MAX_ATTEMPTS, Math.max(ATTEMPTS, Math.ceil(Math.log(CHANCE) / Math.log(lost))));
}

async function attempt(
  { session, settings }: Bench,
  association: Association,
  { address }: Target,
  size: number,
  attempts: number,
  next: () => number,
): Promise<boolean> {
  const isBack = () =>
    association.heard.some((heard) => heard.kind === "datagram" && heard.bytes.length === size);
  for (let i = 0; i < attempts && !isBack() && refusalOf(association.heard) === undefined; i++) {
    const bytes = new Uint8Array(size);
    writeUint32(bytes, 0, next());
    association.send(address, bytes);
    await session!.until(
      () => isBack() || refusalOf(association.heard) !== undefined,
      Math.min(1_000, settings.testTimeoutMs / attempts),
    );
  }
  return isBack();
}

async function measureLoss(
  { session, system, settings }: Bench,
  association: Association,
  { address }: Target,
): Promise<{ readonly back: number; readonly p50: number; readonly p99: number }> {
  const FIRST = 1_000_000;
  const sentAt: number[] = [];
  association.heard.length = 0;
  for (let i = 0; i < LOSS_DATAGRAMS; i++) {
    const bytes = new Uint8Array(200);
    writeUint32(bytes, 0, FIRST + i);
    sentAt.push(system.now());
    association.send(address, bytes);
    await session!.sleep(PERIOD_MS);
  }
  await session!.until(
    () => association.heard.length >= LOSS_DATAGRAMS,
    Math.min(1_000, settings.testTimeoutMs),
  );
  const delays = new Map<number, number>();
  for (const heard of association.heard) {
    if (heard.kind !== "datagram" || heard.bytes.length < 4) continue;
    const index = readUint32(heard.bytes, 0) - FIRST;
    if (index >= 0 && index < LOSS_DATAGRAMS) delays.set(index, heard.at - sentAt[index]);
  }
  const { p50, p99 } = summarizeDelays([...delays.values()], Number.POSITIVE_INFINITY);
  return { back: delays.size, p50, p99 };
}
