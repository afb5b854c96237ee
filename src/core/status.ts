/** What there is now, for operators: no secrets, and nothing that a datagram pays for. */

/** One connection of a session. */
export interface LaneReport {
  readonly lane: number;
  /** A state of `LANE`; at a server always up. */
  readonly state: string;
  /** Smoothed, in milliseconds. */
  readonly rttMs: number | undefined;
  /** A lost segment holds up what is behind it. */
  readonly isLate: boolean;
  /** Of a client: the way it takes, by its index in the options. */
  readonly way?: number;
  /** Of a server: within another protocol, such as a WebSocket. */
  readonly isNested?: boolean;
}

/** A session at a server. */
export interface SessionReport {
  /** As in the log. */
  readonly session: string;
  /** native: can be resumed; bound and fixed: RFC 9298 without our extension. */
  readonly kind: string;
  readonly state: string;
  readonly associations: number;
  readonly lanes: readonly LaneReport[];
}
