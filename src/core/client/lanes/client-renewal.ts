import { encodeShutdown } from "../../../wire/capsule.ts";
import type { ExtensionResponse } from "../../../wire/http/upgrade.ts";
import { SendPool } from "../../session/queue/send-pool.ts";
import type { ClientParts } from "../client-parts.ts";
import { DEADLINE_FORMER } from "../client-parts.ts";
import type { ClientWays, LaneActions } from "../ways/client-ways.ts";
import type { Lane, SessionCredentials } from "./lane.ts";
import type { LaneCount } from "./lane-count.ts";

/** Share of used ids at which a new session replaces the current one. */
const RENEW_SHARE = 7 / 8;
/** Milliseconds for which the former session waits for answers, those to probes among them, and then for its connections to end. */
const FORMER_MS = 2_000;
const FORMER_END_MS = 1_000;
/** Milliseconds for which a client that moves and knows other servers waits for a connection to its own, which may be going away. */
const OWN_SERVER_MS = 2_000;

/** What {@link ClientRenewal} needs for lanes. */
export interface RenewalActions extends LaneActions {
  /** The session in use. */
  readonly session: Pick<SessionCredentials, "receipts"> | undefined;
  /** Creates held lanes that share `pool`, with indices from `firstIndex` on. */
  make(firstIndex: number, pool: SendPool): readonly Lane[];
  /** Replaces the session in use by that of a lane that is up. */
  takeOver(now: number, lane: Lane, answer: ExtensionResponse): void;
  /** Ends the connection of a lane. */
  failSilently(now: number, lane: Lane): void;
  /** Updates the timer of a lane, whose deadline may have changed. */
  arm(lane: Lane): void;
}

/**
 * Replaces a session whose ids are running out, whose server asks its client to move, or which should have receipts and has none, or the
 * reverse. The next session connects while the current one stays in use.
 */
export class ClientRenewal {
  readonly #parts: ClientParts;
  readonly #lanes: RenewalActions;
  readonly #ways: ClientWays;
  readonly #count: LaneCount;
  /** Lanes of the session that will replace this one. */
  #next: { readonly lanes: readonly Lane[]; readonly pool: SendPool } | undefined;
  /** Whether the session should have receipts and has none, or the reverse. */
  #isUnsuited = false;
  /** Whether the server has asked for another session elsewhere. */
  #isMoving = false;

  constructor(parts: ClientParts, lanes: RenewalActions, ways: ClientWays, count: LaneCount) {
    this.#parts = parts;
    this.#lanes = lanes;
    this.#ways = ways;
    this.#count = count;
  }

  /** Whether a lane belongs to the session that will replace the current one. */
  hasLane(lane: Lane): boolean {
    return this.#next?.lanes.includes(lane) ?? false;
  }

  /** Whether the server has been asked to end the session of a lane, including the lane's connection. */
  hasEnded(lane: Lane): boolean {
    const { former } = this.#parts;
    return former?.isEnding === true && former.lanes.includes(lane);
  }

  /**
   * The server asks for another session elsewhere: it is shutting down, or another of its threads should have the session. The request does
   * not tell which, so the client tries the same server first; one that shuts down refuses.
   */
  moveAway(now: number): void {
    this.#isMoving = true;
    this.renewIfDue(now);
  }

  /** The path has been measured, which decides whether the session should have receipts. */
  handlePath(now: number): void {
    this.#isUnsuited = this.#lanes.session?.receipts !== this.#count.offersReceipts;
    if (this.#isUnsuited && this.#isWorthSwitching) this.renewIfDue(now);
    else this.#isUnsuited = false;
  }

  /** Another session has begun, so the reasons to replace the one before no longer apply. */
  reset(): void {
    this.#isUnsuited = false;
    this.#isMoving = false;
  }

  /** Connects the first lane of the next session, if there is a reason to. @param serversId  an id that the server has assigned */
  renewIfDue(now: number, serversId = 0): void {
    const highest = Math.max(this.#parts.nextAssociationId, this.#parts.nextContextId, serversId);
    if (this.#isMoving || this.#isUnsuited || highest >= this.#parts.maxId * RENEW_SHARE) this.#renew(now);
  }

  /**
   * Whether the change is worth new source ports. A session without receipts is only cheaper, which is not enough while this one is in use,
   * unless it has just begun with a wrong guess.
   */
  get #isWorthSwitching(): boolean {
    return this.#count.offersReceipts || this.#count.wasGuess || this.#parts.associations.count === 0;
  }

  #renew(now: number): void {
    if (!this.#parts.isUp || this.#parts.isClosed) return;
    if (this.#next !== undefined || this.#parts.former !== undefined) return;
    const pool = new SendPool(this.#parts.options.datapath);
    pool.owner = this.#parts.queueOwner;
    const firstIndex = this.#parts.lanes[0].index === 0 ? this.#parts.lanes.length : 0;
    const lanes = this.#lanes.make(firstIndex, pool);
    this.#next = { lanes, pool };
    this.#lanes.connect(now, lanes[0], this.#ways.kept);
  }

  /** How long a lane may take to connect by `way`; Infinity for as long as any. */
  connectMs(lane: Lane, way: number): number {
    const isOwnServer = this.#isMoving && this.hasLane(lane) && way === this.#ways.kept;
    return isOwnServer && this.#wayAfter(way) !== way ? OWN_SERVER_MS : Number.POSITIVE_INFINITY;
  }

  /**
   * The way for the next session after an attempt by `last`. If its server asks the client to move, that is the next way to another server
   * or, after all of these, the way of this session again.
   */
  #wayAfter(last: number): number {
    const { kept } = this.#ways;
    const { ways } = this.#parts.options;
    if (!this.#isMoving) return kept;
    let way = last;
    do way = (way + 1) % ways.length;
    while (way !== kept && ways[way].server === ways[kept].server);
    return way;
  }

  /** The way by which a lane tries again. */
  wayOfRetry(lane: Lane): number {
    if (!this.hasLane(lane)) return this.#ways.ofRetry(lane);
    return lane.answersChallenge ? lane.way : this.#wayAfter(lane.way);
  }

  /** Gives up the next session, because the session in use is down. */
  giveUp(): void {
    for (const lane of this.#next?.lanes ?? []) this.#lanes.rest(lane);
    this.#next = undefined;
  }

  /**
   * The new session is up, and associations and contexts get new ids in it. The former session sends what is queued, delivers what still
   * arrives, and ends soon. Contexts with ids of its server are not carried over.
   */
  handleUp(now: number, lane: Lane, answer: ExtensionResponse): void {
    const { lanes, pool } = this.#next!;
    this.#next = undefined;
    if (!this.#isMoving && this.#isUnsuited && !this.#isWorthSwitching) {
      this.#isUnsuited = false;
      this.#endUnused(now, lane, lanes, pool);
      return;
    }
    this.#parts.dropEnded();
    this.#parts.former = {
      lanes: this.#parts.lanes,
      pool: this.#parts.pool,
      scheduler: this.#parts.scheduler,
      contextById: this.#parts.contextById,
      generation: this.#parts.contexts.generation.slice(),
      isEnding: false,
    };
    this.#parts.pool.owner = this.#parts.formerOwner;
    this.#parts.scheduler?.setOwner(this.#parts.formerOwner);
    for (const other of this.#parts.lanes) if (!other.isUp) this.#lanes.rest(other);
    this.#parts.deadlines.set(DEADLINE_FORMER, now + FORMER_MS);
    this.#parts.lanes = lanes;
    this.#parts.pool = pool;
    this.#parts.scheduler = undefined;
    const reason = this.#isMoving ? "moved" : this.#isUnsuited ? "receipts" : "ids";
    this.reset();
    if (lane.way !== this.#ways.kept) this.#ways.handleWorked(now, lane);
    this.#lanes.takeOver(now, lane, answer);
    this.#parts.outputs.push({ kind: "session-renewed", reason });
    this.#parts.connectHeld(now);
    lane.tunnel!.handleTimeout(now);
    this.#lanes.arm(lane);
  }

  /** Ends a session that is up but no longer needed, like a former one. */
  #endUnused(now: number, lane: Lane, lanes: readonly Lane[], pool: SendPool): void {
    const generation = this.#parts.contexts.generation.slice();
    const contextById = new Map<number, number>();
    this.#parts.former = { lanes, pool, scheduler: undefined, contextById, generation, isEnding: true };
    this.#parts.deadlines.set(DEADLINE_FORMER, now + FORMER_END_MS);
    lane.open(now, undefined);
    lane.tunnel!.writeControl(encodeShutdown("done"));
    this.#lanes.arm(lane);
  }

  /**
   * A connection of the former session has ended. After the last one, the host takes the datagrams that were held to restore order, and
   * nothing more arrives.
   */
  handleFormerLost(now: number): void {
    if (this.#parts.former?.lanes.some(({ isUp }) => isUp) === false) {
      // Not at once, because the host still has to take the datagrams that the end of the last connection has released.
      this.#parts.deadlines.set(DEADLINE_FORMER, now + 1);
    }
  }

  /** Asks the server to end the former session, or ends its connections if the server has not done so in time. */
  handleTimeout(now: number): void {
    const former = this.#parts.former!;
    if (!former.isEnding && former.lanes.some(({ isUp }) => isUp)) {
      former.isEnding = true;
      for (const lane of former.lanes) if (lane.isUp) lane.tunnel!.writeControl(encodeShutdown("done"));
      this.#parts.deadlines.set(DEADLINE_FORMER, now + FORMER_END_MS);
      return;
    }
    for (const lane of former.lanes) if (lane.isUp) this.#lanes.failSilently(now, lane);
    for (const { queue } of former.lanes) queue.clear();
    former.scheduler?.dropQueued();
    former.scheduler?.close();
    this.#parts.former = undefined;
    this.#parts.deadlines.clear(DEADLINE_FORMER);
    this.renewIfDue(now);
  }
}
