/** Sets of a session's lanes, as the bits of a number. */

/** A session with receipts has at most this many lanes; their numbers are below it. */
export const MAX_LANES = 32;
/** All of them. */
export const ANY_LANE = -1;
/** None: what waits for one until it is given some. */
export const NO_LANE = 0;
