import { LANE_CONNECTING, LANE_HANDSHAKE, LANE_HELD, LANE_WAITING } from "../../session/session-model.ts";
import type { ClientParts } from "../client-parts.ts";
import { DEADLINE_PARALLEL } from "../client-parts.ts";
import type { LaneActions } from "../ways/client-ways.ts";
import type { Lane } from "./lane.ts";

/**
 * Connects further lanes while the first one gets no answer, so that one lost SYN does not keep a session down.
 *
 * TCP repeats a SYN after 1, 3 and 7 seconds (RFC 6298 §5.7), and a relay's own SYN is out of the client's reach. A burst of losses can
 * take all of them. Further lanes send others, each after a Connection Attempt Delay (RFC 8305 §5). The first lane that the server accepts
 * has the session, and those that are still connecting join it, as further lanes do in any case. A client with several ways races them
 * instead ({@link ClientWays}), and one with a single lane has none to spare.
 */

/** The round trips of a connection, a challenge and an answer on most paths, and half of what TCP waits. */
const DELAY_MS = 500;
const MOST_ATTEMPTS = 4;

export class ParallelAttempts {
  readonly #parts: ClientParts;
  readonly #actions: LaneActions;

  constructor(parts: ClientParts, actions: LaneActions) {
    this.#parts = parts;
    this.#actions = actions;
  }

  /** A lane connects. */
  handleConnect(now: number): void {
    const attempts = this.#parts.lanes.filter(isAttempt).length;
    if (!this.#isNeeded || attempts >= MOST_ATTEMPTS) this.#parts.deadlines.clear(DEADLINE_PARALLEL);
    else this.#parts.deadlines.set(DEADLINE_PARALLEL, now + DELAY_MS);
  }

  /** The attempts so far have had no answer in time. */
  handleTimeout(now: number): void {
    const { lanes } = this.#parts;
    const held = lanes.find(({ state }) => state === LANE_HELD);
    const attempt = lanes.find(isAttempt);
    if (this.#isNeeded && held !== undefined && attempt !== undefined) {
      this.#actions.connect(now, held, attempt.way);
    }
  }

  /** A lane that was not up has failed. While others are trying, it does not try again. */
  handleFailed(now: number, lane: Lane): void {
    const { lanes } = this.#parts;
    // The lane connects again at once, to answer a challenge.
    if (!this.#isNeeded || lane.state !== LANE_WAITING || lane.deadline <= now) return;
    if (lanes.includes(lane) && lanes.some((other) => other !== lane && other.state !== LANE_HELD)) {
      this.#actions.rest(lane);
    }
  }

  /** The server has accepted the first lane. @param wanted  how many lanes the session should have */
  handleWorked(winner: Lane, wanted: number): void {
    this.#parts.deadlines.clear(DEADLINE_PARALLEL);
    let kept = 1;
    for (const lane of this.#parts.lanes) {
      if (lane === winner || lane.state === LANE_HELD) continue;
      // Its request asks for a session of its own.
      if (lane.state === LANE_HANDSHAKE || kept >= wanted) this.#actions.rest(lane);
      else kept++;
    }
  }

  get #isNeeded(): boolean {
    const { isUp, isClosed, options } = this.#parts;
    return !isUp && !isClosed && options.ways.length === 1;
  }
}

function isAttempt({ state }: Lane): boolean {
  return state === LANE_CONNECTING || state === LANE_HANDSHAKE;
}
