/** Where a session's datagrams are: what the scheduler of another process needs to go on with the same numbers. */
export interface LaneProgress {
  /** Of the next datagram that is sent. */
  readonly nextSequence: number;
  /** What receipts tell as the time, in milliseconds. It has to go on, as the peer takes a leap for delay. */
  readonly clock: number;
  /** Which datagrams have arrived; undefined before the first. */
  readonly arrived: Arrived | undefined;
}

export interface Arrived {
  /** The highest number. */
  readonly highest: number;
  /** Those before it that have not arrived; what is not listed counts as arrived. */
  readonly holes: readonly Hole[];
}

export interface Hole {
  /** How far its lowest number is behind the highest that has arrived. */
  readonly distance: number;
  /** How many numbers it has. */
  readonly length: number;
}
