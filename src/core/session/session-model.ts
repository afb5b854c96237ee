import { StateTable } from "./state-table.ts";

/**
 * State machines for the parts of a session: lanes, sessions, associations and contexts. Both ends use these tables, and the
 * diagrams of PROTOCOL.md §3.4 are drawn from them.
 */

/** Largest id of an association or a context, which fits the tables of both ends. */
export const MAX_ID = 0x3fff_ffff;

/** A client's lane, which is one TCP connection after another. */
export const LANE = new StateTable({
  /** Waits until another lane knows whether the session still exists. */
  held: { connect: "connecting" },
  /** Backs off before the next attempt. */
  waiting: { connect: "connecting", hold: "held" },
  connecting: { connected: "handshake", lost: "waiting", close: "held" },
  handshake: { accepted: "up", lost: "waiting", close: "held" },
  up: { lost: "waiting" },
});

export const LANE_HELD = LANE.number("held");
export const LANE_WAITING = LANE.number("waiting");
export const LANE_CONNECTING = LANE.number("connecting");
export const LANE_HANDSHAKE = LANE.number("handshake");
export const LANE_UP = LANE.number("up");

/** A session, as the server sees it. */
export const SESSION = new StateTable({
  none: { create: "up" },
  up: { join: "up", "last lane lost": "lingering", end: "none" },
  lingering: { join: "up", end: "none" },
});

/** An association, as the client sees it. */
export const ASSOCIATION = new StateTable({
  free: { open: "local" },
  /** Unknown to the server, because nothing was sent yet or the server has closed it. */
  local: { register: "open", end: "ended" },
  open: { "closed by server": "local", end: "closing", "end unregistered": "ended" },
  /** Ended at the client; the server has not confirmed it yet. */
  closing: { "closed by server": "free", "new session": "free", expire: "free" },
  /** Ended; free once the host has been informed. */
  ended: { forget: "free" },
});
export const ASSOCIATION_FREE = ASSOCIATION.number("free");
export const ASSOCIATION_LOCAL = ASSOCIATION.number("local");
export const ASSOCIATION_OPEN = ASSOCIATION.number("open");
export const ASSOCIATION_CLOSING = ASSOCIATION.number("closing");
export const ASSOCIATION_ENDED = ASSOCIATION.number("ended");

/** A context, as either end sees it. An end's own contexts begin unacknowledged, and the peer's begin acknowledged. */
export const CONTEXT = new StateTable({
  free: { register: "unacked", learn: "acked", resolve: "resolving" },
  /** Registered; the peer has not answered. */
  unacked: { ack: "acked", close: "refused", "new session": "unacked", release: "free" },
  acked: { ack: "acked", close: "free", "new session": "unacked", release: "free" },
  /** The peer refused it; kept for a while, so that not every datagram registers it again. */
  refused: { ack: "acked", close: "refused", "new session": "free", release: "free" },
  /** Its domain name is being resolved. */
  resolving: { ack: "acked", close: "free", release: "free" },
});
export const CONTEXT_FREE = CONTEXT.number("free");
export const CONTEXT_UNACKED = CONTEXT.number("unacked");
export const CONTEXT_ACKED = CONTEXT.number("acked");
export const CONTEXT_REFUSED = CONTEXT.number("refused");
export const CONTEXT_RESOLVING = CONTEXT.number("resolving");
