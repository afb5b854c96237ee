/** The sequence numbers and the clock of a session, from which the scheduler of another process continues. */
export interface LaneProgress {
  /** Sequence number of the next datagram to send. */
  readonly nextSequence: number;
  /** The clock of receipts, in milliseconds. It must continue without a jump, which the peer would take for delay. */
  readonly clock: number;
  /** Which datagrams have arrived; undefined before the first. */
  readonly arrived: Arrived | undefined;
}

export interface Arrived {
  /** The highest sequence number that has arrived. */
  readonly highest: number;
  /** Ranges of lower numbers that have not arrived. All others have, or count as arrived. */
  readonly holes: readonly Hole[];
}

export interface Hole {
  /** Distance of its lowest number from {@link Arrived.highest}. */
  readonly distance: number;
  /** How many numbers it spans. */
  readonly length: number;
}
