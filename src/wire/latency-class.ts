/** Classes of traffic by tolerance of delay, the most sensitive first. The index of each is its number on the wire. */
export const LATENCY_CLASSES = ["interactive", "balanced", "bulk"] as const;

export type LatencyClass = (typeof LATENCY_CLASSES)[number];
