import { LANE_HELD } from "../../session/session-model.ts";
import type { ClientParts } from "../client-parts.ts";
import { DEADLINE_RACE } from "../client-parts.ts";
import type { Lane } from "../lanes/lane.ts";
import type { LaneCount } from "../lanes/lane-count.ts";
import { WayRace } from "./way-race.ts";

const NONE = -1;

/** What {@link ClientWays} needs for lanes. */
export interface LaneActions {
  connect(now: number, lane: Lane, way: number): void;
  /** Holds a lane that is not up, and gives up its attempt to connect. */
  rest(lane: Lane): void;
}

/**
 * Races the ways of a client, each with a lane of its own, while no lane is up. While a lane is up, all others take its way. With a single
 * way, lanes try again by themselves, and nothing here has an effect after the start.
 */
export class ClientWays {
  readonly #parts: ClientParts;
  readonly #count: LaneCount;
  readonly #actions: LaneActions;
  readonly #race: WayRace;

  constructor(parts: ClientParts, count: LaneCount, actions: LaneActions) {
    const { ways, crypto } = parts.options;
    this.#parts = parts;
    this.#count = count;
    this.#actions = actions;
    this.#race = new WayRace(ways, () => crypto.random(1)[0]);
  }

  /** The way that has worked last. */
  get kept(): number {
    return this.#race.kept;
  }

  /** The way of a lane that tries again. */
  ofRetry(lane: Lane): number {
    return this.#parts.isUp ? this.kept : lane.way;
  }

  start(now: number): void {
    this.#race.begin(now, false, false);
    this.handleTimeout(now);
  }

  /** Tries the next way. */
  handleTimeout(now: number): void {
    let underWay = 0;
    for (const { state, way } of this.#parts.lanes) if (state !== LANE_HELD) underWay |= 1 << way;
    const way = this.#race.next(now, underWay);
    const lane = this.#parts.lanes.find(({ state }) => state === LANE_HELD);
    if (way !== NONE && lane !== undefined) this.#actions.connect(now, lane, way);
    this.#arm();
  }

  /** Makes waiting attempts at once. */
  retry(now: number): void {
    this.#race.retry(now);
    this.#arm();
  }

  /** The last lane that was up is lost. */
  handleLost(now: number, hasSession: boolean): void {
    if (!this.#race.isRace) return;
    for (const lane of this.#parts.lanes) this.#actions.rest(lane);
    this.#race.begin(now, hasSession, true);
    this.#arm();
  }

  /** A lane that was not up has failed. */
  handleFailed(now: number, lane: Lane): void {
    if (!this.#race.isRace || this.#parts.isUp || !this.#parts.lanes.includes(lane)) return;
    // The lane connects again at once, to answer a challenge.
    if (lane.deadline <= now) return;
    this.#actions.rest(lane);
    this.#race.handleFailed(now, lane.way);
    if (this.#race.dueAt <= now) this.handleTimeout(now);
  }

  /** The server has accepted the first lane. */
  handleWorked(now: number, winner: Lane): void {
    if (this.#race.handleWorked(now, winner.way)) this.#count.handleOtherWay();
    this.#arm();
    for (const lane of this.#parts.lanes) if (lane.way !== winner.way) this.#actions.rest(lane);
  }

  #arm(): void {
    if (this.#race.isRace) this.#parts.deadlines.set(DEADLINE_RACE, this.#race.dueAt);
  }
}
