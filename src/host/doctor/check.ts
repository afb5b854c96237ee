import type { Finding } from "./findings.ts";

/** What a check has measured. */
export interface Result {
  /** One line. */
  readonly measured: string;
  /** The same for programs. */
  readonly data?: Readonly<Record<string, unknown>>;
  readonly findings?: readonly Finding[];
  /** Nothing was measured, and `measured` says why. */
  readonly isSkipped?: boolean;
}

/** One step of the walk. */
export interface Check<Bench> {
  readonly name: string;
  /** Names of the checks without whose success it makes no sense. */
  readonly needs: readonly string[];
  run(bench: Bench): Promise<Result>;
}

/** A check that was made. */
export interface Step extends Result {
  readonly name: string;
  readonly ms: number;
}

export function hasFault({ findings = [] }: Result): boolean {
  return findings.some(({ severity }) => severity === "fault");
}

/**
 * Makes checks in turn, up to the first fault. A check whose needs were skipped is left out.
 *
 * @param onStep  called after each
 * @param before  names of the checks that were made before
 * @returns false if there was a fault
 */
export async function walk<Bench>(
  checks: readonly Check<Bench>[],
  bench: Bench,
  now: () => number,
  onStep: (step: Step) => void,
  before: readonly string[] = [],
): Promise<boolean> {
  const made = new Set(before);
  for (const check of checks) {
    if (check.needs.some((name) => !made.has(name))) continue;
    const from = now();
    const result = await check.run(bench);
    onStep({ name: check.name, ms: Math.round(now() - from), ...result });
    if (hasFault(result)) return false;
    if (result.isSkipped !== true) made.add(check.name);
  }
  return true;
}

export function skipped(measured: string): Result {
  return { measured, isSkipped: true };
}
