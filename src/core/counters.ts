import { UNREACHABLE_KINDS } from "../wire/capsule.ts";

/** Why datagrams were dropped. Every drop is counted under one of these. */
export const DROP_REASONS = [
  "age",
  "queue_full",
  "no_lane",
  "unknown_context",
  "refused_target",
  "filtered",
  "unresolved",
  "context_limit",
  "association_limit",
  "too_long",
  "fragment",
  "malformed",
  "wrong_source",
  "foreign_source",
  "send_error",
] as const;
export type DropReason = (typeof DROP_REASONS)[number];

/** Why a peer or a request was refused, or something was evicted for it. */
export const REFUSAL_REASONS = [
  "half_open_limit",
  "tunnel_limit",
  "session_limit",
  "session_evicted",
  "association_limit",
  "association_evicted",
  "context_limit",
  "target_denied",
  "bad_credentials",
  "replay",
  "nonce_limit",
  "challenged",
  "not_upgrade",
  "handshake_timeout",
  "protocol_error",
  "socks_refused",
  "http2_flood",
] as const;
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

/**
 * Reports of datagrams that did not get through: a server counts those to its clients, a client those to its applications.
 * `limited` counts those that the rate limit suppressed.
 */
export const UNREACHABLE_COUNTS = [...UNREACHABLE_KINDS, "limited"] as const;
export type UnreachableCount = (typeof UNREACHABLE_COUNTS)[number];

/**
 * What sessions with receipts do besides sending each datagram once: lanes that became late, second copies of sparse flows and of
 * stuck datagrams that were sent, and copies that came and were dropped, by which nothing is lost.
 */
export const SPREAD_COUNTS = ["late", "copies", "hedges", "duplicates"] as const;
export type SpreadCount = (typeof SPREAD_COUNTS)[number];

/** Counts since the start. `in`: out of a tunnel; `out`: into a tunnel. Bytes are UDP payload. */
export class Counters {
  datagramsIn = 0;
  datagramsOut = 0;
  bytesIn = 0;
  bytesOut = 0;
  resumed = 0;
  readonly drops: Record<DropReason, number> = zeroes(DROP_REASONS);
  readonly refused: Record<RefusalReason, number> = zeroes(REFUSAL_REASONS);
  readonly unreachable: Record<UnreachableCount, number> = zeroes(UNREACHABLE_COUNTS);
  readonly spread: Record<SpreadCount, number> = zeroes(SPREAD_COUNTS);
}

function zeroes<Name extends string>(names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
}
