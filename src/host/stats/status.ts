import type { AssociationReport, AssociationReports, LaneReport, SessionReport } from "../../core/status.ts";
import type { Loop } from "../loop.ts";
import { nextTurn } from "../loop.ts";

/** A lane, with its carrier. */
export interface LaneStatus extends Omit<LaneReport, "way" | "connection"> {
  readonly carrier: string;
}

export interface SessionStatus extends Omit<SessionReport, "lanes"> {
  readonly lanes: readonly LaneStatus[];
}

/** The current sessions of an endpoint, or the first of them if there are many. */
export interface EndpointStatus {
  readonly sessions: readonly SessionStatus[];
  /** How many more there are. */
  readonly sessionsLeftOut: number;
}

/** Limit of sessions that one thread lists. */
export const MAX_LISTED_SESSIONS = 1_000;

/** The current associations of an endpoint, or the first of them if there are many. */
export interface FlowStatus {
  readonly flows: readonly AssociationReport[];
  /** True if there are more. */
  readonly isCut: boolean;
}

/** Limit of associations that one thread lists, and of slots that it checks in one turn of the loop. */
const MAX_LISTED_FLOWS = 16_384;
const SLOTS_A_TURN = 256;

/** Lists associations a few at a time, so that no datagram waits for the list. */
export async function listFlows(
  loop: Loop,
  report: (now: number, first: number, slots: number) => AssociationReports,
): Promise<FlowStatus> {
  const flows: AssociationReport[] = [];
  for (let first: number | undefined = 0; first !== undefined; ) {
    if (flows.length >= MAX_LISTED_FLOWS) return { flows, isCut: true };
    const { reports, next } = report(loop.now(), first, SLOTS_A_TURN);
    flows.push(...reports);
    first = next;
    if (first !== undefined) await nextTurn(loop);
  }
  return { flows, isCut: false };
}

/** Joins the flows of several threads. */
export function joinFlows(all: readonly FlowStatus[]): FlowStatus {
  return { flows: all.flatMap(({ flows }) => flows), isCut: all.some(({ isCut }) => isCut) };
}

/** Joins the status of several threads. */
export function joinStatus(all: readonly EndpointStatus[]): EndpointStatus {
  return {
    sessions: all.flatMap(({ sessions }) => sessions),
    sessionsLeftOut: all.reduce((total, { sessionsLeftOut }) => total + sessionsLeftOut, 0),
  };
}
