import { Script } from "node:vm";
import { FuzzFailure } from "./failure.ts";

const script = new Script("globalThis.underpassGuarded()");
const scope = globalThis as { underpassGuarded?: () => void };

/** Runs a function that may hang. @throws FuzzFailure when it takes longer than `ms` */
export function withinMs(ms: number, run: () => void): void {
  scope.underpassGuarded = run;
  try {
    // Only another thread can interrupt an endless loop.
    script.runInThisContext({ timeout: ms });
  } catch (error) {
    if ((error as { code?: string }).code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
    throw new FuzzFailure("it hangs", `longer than ${ms} ms`);
  } finally {
    scope.underpassGuarded = undefined;
  }
}
