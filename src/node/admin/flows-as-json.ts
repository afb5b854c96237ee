import { setImmediate } from "node:timers/promises";
import type { FlowStatus } from "../../host/stats/status.ts";

/** Rows written in one turn of the loop. */
const ROWS_A_TURN = 512;

/** The members of a row in {@link FlowsAnswer}, in order. */
export const FLOW_COLUMNS = ["session", "association", "local", "remote", "targets", "idleS"] as const;

/** The contents of /flows; a row has null for a value that is unknown or hidden. */
export interface FlowsAnswer {
  readonly columns: typeof FLOW_COLUMNS;
  readonly rows: readonly (readonly (string | number | null)[])[];
  /** True if there are more flows. */
  readonly isCut: boolean;
  /** Whether the client may see addresses. */
  readonly hasAddresses: boolean;
}

/** Writes flows as a compact table, one part at a time, so that no datagram waits for it. */
export async function flowsAsJson({ flows, isCut }: FlowStatus, hasAddresses: boolean): Promise<string> {
  const parts: string[] = [];
  for (let first = 0; first < flows.length; first += ROWS_A_TURN) {
    if (first > 0) await setImmediate();
    const rows = flows
      .slice(first, first + ROWS_A_TURN)
      .map(({ session, association, local, remote, targets, idleS }) =>
        hasAddresses
          ? [session, association, local ?? null, remote ?? null, targets, idleS ?? null]
          : [session, association, null, null, targets, idleS ?? null],
      );
    parts.push(JSON.stringify(rows).slice(1, -1));
  }
  const head = JSON.stringify({ columns: FLOW_COLUMNS, isCut, hasAddresses }).slice(0, -1);
  return `${head},"rows":[${parts.join(",")}]}`;
}
