import type { Finding } from "../findings.ts";

/** What a check measured. */
export interface Result {
  /** One line. */
  readonly measured: string;
  /** The same for programs. */
  readonly data?: Readonly<Record<string, unknown>>;
  readonly findings?: readonly Finding[];
  /** True if nothing was measured; `measured` then gives the reason. */
  readonly isSkipped?: boolean;
}

/** One step of the examination. */
export interface Check<Bench> {
  readonly name: string;
  /** Names of the checks that must have succeeded before. */
  readonly needs: readonly string[];
  run(bench: Bench): Promise<Result>;
}

/** A completed check. */
export interface Step extends Result {
  readonly name: string;
  readonly ms: number;
}

export function hasFault({ findings = [] }: Result): boolean {
  return findings.some(({ severity }) => severity === "fault");
}

/**
 * Runs checks in turn, up to the first fault. A check is left out if one that it needs was skipped.
 *
 * @param onStep  called after each
 * @param before  names of the checks that ran before
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
