/** Sets of a session's lanes, as bit masks. */

/** Most lanes of a session with receipts; their numbers are below it. */
export const MAX_LANES = 32;
/** All lanes. */
export const ANY_LANE = -1;
/** No lane: the datagram has to wait until its context is registered. */
export const NO_LANE = 0;
