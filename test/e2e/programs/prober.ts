import { fileURLToPath } from "node:url";
import type { Line, Program } from "../network/two-hosts.ts";

/** The script that queries a port repeatedly and prints an {@link Echo} for each answer. */
export const PROBER = fileURLToPath(new URL("../peers/prober.mjs", import.meta.url));

export interface Echo {
  readonly sentAtMs: number;
  readonly receivedAtMs: number;
  /** The source that the target saw. */
  readonly source: string;
}

/** The first answer to a probe that was sent after `sinceMs`. */
export function echoSince(prober: Program, sinceMs: number, timeoutMs: number): Promise<Echo> {
  const wanted = ({ text }: Line): Echo | undefined => {
    const echo = JSON.parse(text) as Echo;
    return echo.sentAtMs >= sinceMs ? echo : undefined;
  };
  return prober.waitFor(wanted, timeoutMs, "answer to a probe");
}
