import { encodeShutdown } from "../../../wire/capsule.ts";
import type { ExtensionResponse } from "../../../wire/http/upgrade.ts";
import { sameBytes } from "../../../wire/socket-address.ts";
import type { DropReason } from "../../counters.ts";
import { ProtocolError } from "../../errors.ts";
import type { SendPool } from "../../session/queue/send-pool.ts";
import { SendQueue } from "../../session/queue/send-queue.ts";
import {
  ASSOCIATION_CLOSING,
  ASSOCIATION_FREE,
  CONTEXT_REFUSED,
  LANE_CONNECTING,
  LANE_HANDSHAKE,
  LANE_HELD,
  LANE_WAITING,
} from "../../session/session-model.ts";
import type { ClientClock } from "../client-clock.ts";
import type { ClientFlows } from "../client-flows.ts";
import type { ClientParts } from "../client-parts.ts";
import { deadlineOfLane, deadlineOfQueue, isServersId } from "../client-parts.ts";
import { ClientWays } from "../ways/client-ways.ts";
import type { ClientDispatch } from "./client-dispatch.ts";
import type { RenewalActions } from "./client-renewal.ts";
import { ClientRenewal } from "./client-renewal.ts";
import type { SessionCredentials, Tickets } from "./lane.ts";
import { Lane } from "./lane.ts";
import type { LaneCount } from "./lane-count.ts";
import { ParallelAttempts } from "./parallel-attempts.ts";
import type { UnmeasuredPath } from "./unmeasured-path.ts";

const NONE = -1;

/** Manages the lanes of a client's session: connects them, adds them to the session when they are up, and replaces those that are lost. */
export class ClientLanes implements RenewalActions {
  readonly ways: ClientWays;
  readonly renewal: ClientRenewal;
  readonly attempts: ParallelAttempts;
  /** Credentials with which further lanes join the session; undefined before the first lane is up. */
  session: SessionCredentials | undefined;

  readonly #parts: ClientParts;
  readonly #flows: ClientFlows;
  readonly #dispatch: ClientDispatch;
  readonly #count: LaneCount;
  readonly #unmeasured: UnmeasuredPath;
  readonly #clock: ClientClock;
  readonly #tickets: Tickets = new Map();
  #everUp = false;

  constructor(
    parts: ClientParts,
    flows: ClientFlows,
    dispatch: ClientDispatch,
    count: LaneCount,
    unmeasured: UnmeasuredPath,
    clock: ClientClock,
  ) {
    this.#parts = parts;
    this.#flows = flows;
    this.#dispatch = dispatch;
    this.#count = count;
    this.#unmeasured = unmeasured;
    this.#clock = clock;
    this.ways = new ClientWays(parts, count, this);
    this.renewal = new ClientRenewal(parts, this, this.ways, count);
    this.attempts = new ParallelAttempts(parts, this);
    parts.lanes = this.make(0, parts.pool);
  }

  get upCount(): number {
    return this.#parts.lanes.filter((lane) => lane.isUp).length;
  }

  make(firstIndex: number, pool: SendPool): readonly Lane[] {
    const { queueBytes, ageBudgetMs } = this.#parts.options;
    // In a race each way has a lane of its own.
    const length = Math.max(this.#count.most, this.#parts.options.ways.length);
    return Array.from({ length }, (_, i) => {
      const queue = new SendQueue(pool, this.#parts.counters, queueBytes, ageBudgetMs);
      queue.lane = i;
      const lane = new Lane(
        firstIndex + i,
        i,
        queue,
        this.#parts.counters,
        this.#tickets,
        this.#clock,
        this.#count,
        this.#parts.options,
      );
      this.#parts.laneByIndex[lane.index] = lane;
      return lane;
    });
  }

  /** The session that a lane joins; undefined for a new one. */
  credentialsFor(lane: Lane): SessionCredentials | undefined {
    return this.renewal.hasLane(lane) ? undefined : this.session;
  }

  arm(lane: Lane): void {
    this.#parts.deadlines.set(deadlineOfLane(lane.index), lane.nextTimeout());
  }

  connect(now: number, lane: Lane, way = this.ways.kept): void {
    lane.connect(now, way);
    lane.deadline = Math.min(lane.deadline, now + this.renewal.connectMs(lane, way));
    this.arm(lane);
    this.#parts.outputs.push({ kind: "connect", lane: lane.index, way });
    this.attempts.handleConnect(now);
  }

  /** Holds a lane that is not up, after giving up its attempt to connect. */
  rest(lane: Lane): void {
    if (lane.state === LANE_CONNECTING || lane.state === LANE_HANDSHAKE) {
      this.#parts.outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
      lane.close();
    } else if (lane.state === LANE_WAITING) lane.hold();
    this.arm(lane);
  }

  handleTimeout(now: number, lane: Lane): void {
    if (lane.isUp) {
      this.#handleProven(lane);
      lane.tunnel!.handleTimeout(now);
      this.checkTunnel(now, lane);
      // Lanes that were still in use when fewer were wanted.
      if (this.#parts.scheduler !== undefined) this.endUnwanted(now);
    } else if (lane.state === LANE_WAITING) this.connect(now, lane, this.renewal.wayOfRetry(lane));
    else this.fail(now, lane, new ProtocolError("ERR_HANDSHAKE_TIMEOUT", "no answer came"));
    this.arm(lane);
  }

  #handleProven(lane: Lane): void {
    if (lane.isProven) return;
    lane.isProven = true;
    this.#count.handleProven();
  }

  expireQueue(now: number, lane: Lane): void {
    lane.queue.expire(now);
    this.#parts.deadlines.set(deadlineOfQueue(lane.index), lane.queue.expiresAt);
  }

  /** The server has taken the lane into a session. */
  handleAccepted(now: number, lane: Lane, answer: ExtensionResponse): void {
    if (this.renewal.hasLane(lane)) {
      this.renewal.handleUp(now, lane, answer);
      return;
    }
    const { session, resumed } = answer;
    const isOurs = this.session !== undefined && sameBytes(session, 0, this.session.id, 0, session.length);
    if (!(resumed && isOurs) && this.#parts.isUp) {
      // The server has put this lane into a different session than the other lanes.
      lane.tunnel!.open(now, "extension");
      lane.tunnel!.writeControl(encodeShutdown("done"));
      const error = new ProtocolError("ERR_UPGRADE_REFUSED", "the lane did not join its session");
      this.fail(now, lane, error);
      return;
    }
    const isNew = !(resumed && isOurs);
    if (!isNew && answer.receipts !== this.session!.receipts) {
      const detail = "only one end of the session has receipts";
      this.fail(now, lane, new ProtocolError("ERR_UPGRADE_REFUSED", detail));
      return;
    }
    if (!this.#parts.isUp) this.ways.handleWorked(now, lane);
    // A lane has shortcuts only while it is the only one of its session.
    for (const other of this.#parts.lanes) other.tunnel?.endShortcuts();
    if (isNew) this.#beginSession(now, lane, answer);
    this.#open(now, lane);
    const wasUp = this.#parts.isUp;
    this.#parts.isUp = true;
    if (!wasUp) {
      this.attempts.handleWorked(lane, this.#count.wanted);
      this.#registerAll(now, lane);
      if (this.#everUp && !isNew) this.#parts.counters.resumed++;
      this.#parts.outputs.push(
        isNew ? { kind: "session-up", isAnother: this.#everUp } : { kind: "session-resumed" },
      );
      this.#everUp = true;
      this.connectHeld(now);
    } else if (this.#parts.scheduler === undefined) this.#rebalance(now, lane);
    lane.tunnel!.handleTimeout(now);
    this.arm(lane);
    if (isNew) this.#reconsiderReceipts(now, lane.exchangeMs, answer.receipts);
    this.renewal.renewIfDue(now);
  }

  /** A new session has begun, after a round trip of `exchangeMs`. */
  #reconsiderReceipts(now: number, exchangeMs: number, hasReceipts: boolean): void {
    const count = this.#count;
    const hasChanged = count.sample(exchangeMs);
    const mayAdd = !hasReceipts && count.offersReceipts && count.mayAddReceipts;
    if (hasChanged || mayAdd) this.renewal.handlePath(now);
  }

  #open(now: number, lane: Lane): void {
    const { scheduler } = this.#parts;
    lane.open(now, scheduler && { scheduler, number: lane.number });
    if (scheduler === undefined) this.#unmeasured.begin(now, lane.tunnel!);
  }

  /** Connects held lanes until the wanted number is up or connecting. */
  connectHeld(now: number): void {
    if (this.#parts.isClosed) return;
    let count = this.#parts.lanes.filter((lane) => lane.state !== LANE_HELD).length;
    for (const lane of this.#parts.lanes) {
      if (lane.state !== LANE_HELD || count >= this.#count.wanted) continue;
      this.connect(now, lane);
      count++;
    }
  }

  takeOver(now: number, lane: Lane, answer: ExtensionResponse): void {
    this.session = this.#credentialsOf(lane, answer);
    if (answer.receipts) this.#dispatch.begin();
    this.#count.begin(now, lane.offeredReceipts, answer.receipts);
    this.#flows.giveNewIds();
    this.#open(now, lane);
    this.#registerAll(now, lane);
  }

  /** Starts a session that the server does not know: even contexts keep their ids, odd ones belonged to the old server. */
  #beginSession(now: number, lane: Lane, answer: ExtensionResponse): void {
    this.session = this.#credentialsOf(lane, answer);
    this.renewal.reset();
    this.#count.begin(now, lane.offeredReceipts, answer.receipts);
    this.#parts.associations.isConfirmed.fill(0);
    // In the new session, these ids may stand for other addresses.
    this.#parts.dropEnded();
    for (const { queue } of this.#parts.lanes) {
      queue.dropContexts((id) => (isServersId(id) ? "unknown_context" : undefined));
    }
    for (const [id, slot] of [...this.#parts.contextById]) {
      if (isServersId(id) || this.#parts.contexts.state[slot] === CONTEXT_REFUSED)
        this.#flows.releaseContext(slot);
      else this.#parts.contexts.handle(slot, "new session");
    }
    for (let slot = 0; slot < this.#parts.associations.used; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_CLOSING)
        this.#flows.forget(slot, "new session");
    }
    if (answer.receipts) this.#dispatch.begin();
    else this.#dispatch.end();
  }

  #credentialsOf(lane: Lane, answer: ExtensionResponse): SessionCredentials {
    return { id: answer.session, key: lane.deriveSessionKey(answer), receipts: answer.receipts };
  }

  /** Pins every association to a lane and opens it at the server there. */
  #registerAll(now: number, lane: Lane): void {
    for (let slot = 0; slot < this.#parts.associations.used; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_FREE) continue;
      this.#pin(slot, lane);
      this.#flows.register(now, slot, lane);
    }
    if (this.#parts.scheduler !== undefined) {
      // These datagrams were queued before it was known whether the session has receipts.
      for (const { queue } of this.#parts.lanes) this.#dispatch.take(queue);
    }
    this.#flows.armAssociations();
  }

  controlLaneOf(association: number): Lane {
    const { scheduler, lanes } = this.#parts;
    const number = scheduler === undefined ? NONE : scheduler.controlLane();
    return number === NONE ? this.#parts.laneOf(association) : lanes[number];
  }

  registrationLanes(association: number): number {
    const { scheduler } = this.#parts;
    if (scheduler !== undefined) return scheduler.registrationLanes();
    const lane = this.#parts.laneOf(association);
    return lane.isUp ? 1 << lane.number : 0;
  }

  removeFlow(association: number, reason: DropReason): void {
    const { pool, scheduler, former } = this.#parts;
    pool.removeFlow(association, reason);
    scheduler?.removeFlow(association, reason);
    former?.pool.removeFlow(association, reason);
    former?.scheduler?.removeFlow(association, reason);
  }

  #pin(slot: number, lane: Lane): void {
    const before = this.#parts.laneOf(slot);
    if (before === lane) return;
    before.load--;
    lane.load++;
    this.#parts.associations.lane[slot] = lane.index;
    lane.queue.takeFlow(slot);
  }

  /** Moves a fair share of associations to this lane from the others that are up. */
  #rebalance(now: number, lane: Lane): void {
    const share = Math.floor(this.#parts.associations.count / this.upCount);
    for (let slot = 0; slot < this.#parts.associations.used && lane.load < share; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_FREE || this.#parts.laneOf(slot).load <= share)
        continue;
      this.#pin(slot, lane);
      this.#flows.register(now, slot, lane);
    }
  }

  leastLoaded(): Lane {
    let best = this.#parts.lanes[0];
    for (const lane of this.#parts.lanes) {
      if (!lane.isUp && best.isUp) continue;
      if (lane.load < best.load || (lane.isUp && !best.isUp)) best = lane;
    }
    return best;
  }

  /** Ends the connection of a lane, and reports why. */
  fail(now: number, lane: Lane, error: ProtocolError): void {
    this.#parts.outputs.push({ kind: "disconnect", lane: lane.index, error });
    this.handleLost(now, lane, error);
  }

  handleLost(now: number, lane: Lane, error: Error | undefined): void {
    const wasUp = lane.isUp;
    const isProven = wasUp && lane.isProven;
    const { former } = this.#parts;
    const isFormer = former?.lanes.includes(lane) ?? false;
    lane.handleLost(now, this.#parts.isClosed || isFormer);
    if (!isProven && !isFormer) this.#count.handleFailed(now, this.upCount);
    this.#holdIfNotWanted(lane);
    this.arm(lane);
    const scheduler = isFormer ? former?.scheduler : this.#parts.scheduler;
    if (wasUp) scheduler?.laneDown(now, lane.number);
    this.#dispatch.stir();
    if (!wasUp && !this.#parts.isClosed && !isFormer) {
      this.ways.handleFailed(now, lane);
      this.attempts.handleFailed(now, lane);
    }
    if (isFormer) this.renewal.handleFormerLost(now);
    if (!wasUp || isFormer) return;
    if (this.leastLoaded().isUp) {
      if (scheduler === undefined) this.#moveAssociations(now, lane);
      else this.#flows.registerAgain(lane.number);
      return;
    }
    this.#parts.isUp = false;
    this.renewal.giveUp();
    for (const other of this.#parts.lanes) {
      // One lane finds out whether the session still exists, and the others wait for the result.
      if (other === lane || other.state !== LANE_WAITING) continue;
      other.hold();
      this.arm(other);
    }
    if (!this.#parts.isClosed) this.ways.handleLost(now, this.session !== undefined);
    if (!this.#parts.isClosed) this.#parts.outputs.push({ kind: "session-down", error });
  }

  /** Ends surplus lanes that have nothing in flight. */
  endUnwanted(now: number): void {
    const { lanes, scheduler } = this.#parts;
    for (let i = lanes.length - 1; i >= 0 && this.upCount > this.#count.wanted; i--) {
      if (lanes[i].isUp && scheduler!.isIdle(i)) this.failSilently(now, lanes[i]);
    }
  }

  /** Pins the associations of a lost lane to others that are up. */
  #moveAssociations(now: number, lost: Lane): void {
    for (let slot = 0; slot < this.#parts.associations.used; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_FREE || this.#parts.laneOf(slot) !== lost)
        continue;
      const target = this.leastLoaded();
      this.#pin(slot, target);
      this.#flows.register(now, slot, target);
    }
  }

  /** Holds a lane that waits to connect again if enough others are up or connecting. */
  #holdIfNotWanted(lane: Lane): void {
    if (lane.state !== LANE_WAITING || this.upCount === 0 || !this.#parts.lanes.includes(lane)) return;
    const others = this.#parts.lanes.filter((other) => other !== lane && other.state !== LANE_HELD).length;
    if (others >= this.#count.wanted) lane.hold();
  }

  checkTunnel(now: number, lane: Lane): void {
    const error = lane.tunnel?.error;
    if (error !== undefined) this.fail(now, lane, error);
  }

  failSilently(now: number, lane: Lane): void {
    this.#parts.outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
    this.handleLost(now, lane, undefined);
  }
}
