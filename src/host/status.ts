import type { LaneReport, SessionReport } from "../core/status.ts";

/** A lane, with the carrier that it takes. */
export interface LaneStatus extends Omit<LaneReport, "way" | "isNested"> {
  readonly carrier: string;
}

export interface SessionStatus extends Omit<SessionReport, "lanes"> {
  readonly lanes: readonly LaneStatus[];
}

/** The sessions of an endpoint now, the first of them if there are many. */
export interface EndpointStatus {
  readonly sessions: readonly SessionStatus[];
  /** How many more there are. */
  readonly sessionsLeftOut: number;
}

/** Most sessions that one thread lists. */
export const MAX_LISTED_SESSIONS = 1_000;

/** Of several threads. */
export function joinStatus(all: readonly EndpointStatus[]): EndpointStatus {
  return {
    sessions: all.flatMap(({ sessions }) => sessions),
    sessionsLeftOut: all.reduce((total, { sessionsLeftOut }) => total + sessionsLeftOut, 0),
  };
}
