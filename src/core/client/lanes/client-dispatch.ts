import { DatagramStore } from "../../lanes/datagram-store.ts";
import { FlowTable } from "../../lanes/flow-table.ts";
import { NO_LANE } from "../../lanes/lane-bits.ts";
import { LaneScheduler } from "../../lanes/scheduler.ts";
import type { SendQueue } from "../../session/queue/send-queue.ts";
import { recordQueued } from "../../tap.ts";
import type { ClientParts } from "../client-parts.ts";
import { DEADLINE_DISPATCH, isServersId } from "../client-parts.ts";
import type { Lane } from "./lane.ts";
import type { LaneCount } from "./lane-count.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
/** Milliseconds between searches for datagrams past the age budget while no lane is up. */
const EXPIRY_MS = 1_000;
/** Bound of the bytes on lanes without a receipt, as a multiple of the bound of those that wait. */
const IN_FLIGHT_SHARE = 4;

/** Runs the scheduler of a client's session with receipts, and that of the former session, once a turn. */
export class ClientDispatch {
  readonly #parts: ClientParts;
  readonly #count: LaneCount;
  /** Whether anything has happened since the last dispatch. */
  #isStirred = false;
  /** Lanes with datagrams to write, by index. */
  readonly #ready: number[] = [];

  constructor(parts: ClientParts, count: LaneCount) {
    this.#parts = parts;
    this.#count = count;
  }

  /**
   * Begins with a new scheduler, because sequence numbers start again in a new session. Waiting datagrams move to it, except those with
   * ids of the server.
   */
  begin(): void {
    const { counters, options, contextById } = this.#parts;
    const before = this.#parts.scheduler;
    const store = new DatagramStore();
    store.owner = this.#parts.queueOwner;
    const scheduler = new LaneScheduler({
      store,
      flows: new FlowTable(),
      counters,
      queueBytes: options.queueBytes,
      inFlightBytes: IN_FLIGHT_SHARE * options.queueBytes,
      ageBudgetMs: options.ageBudgetMs,
    });
    this.#parts.scheduler = scheduler;
    before?.drainTo((time, flow, id, data, length) => {
      if (isServersId(id) || !contextById.has(id)) this.#drop(flow, id, data, length);
      else scheduler.push(time, flow, id, NO_LANE, data, 0, length);
    });
    before?.close();
  }

  /** Drops the scheduler and its waiting datagrams, because the session has ended. */
  end(): void {
    this.#parts.scheduler?.dropQueued();
    this.#parts.scheduler?.close();
    this.#parts.scheduler = undefined;
  }

  /** Moves a lane's waiting datagrams to the scheduler. */
  take(queue: SendQueue): void {
    const { contexts, contextById } = this.#parts;
    const scheduler = this.#parts.scheduler!;
    queue.drainTo((time, flow, id, data, length) => {
      const slot = contextById.get(id);
      if (slot === undefined) this.#drop(flow, id, data, length);
      else scheduler.push(time, flow, id, contexts.lanes[slot], data, 0, length);
    });
  }

  #drop(flow: number, id: number, data: Uint8Array, length: number): void {
    const { counters, queueOwner } = this.#parts;
    counters.drops.unknown_context++;
    if (counters.tap !== undefined) {
      recordQueued(counters.tap, queueOwner, "unknown_context", flow, id, data, 0, length);
    }
  }

  stir(): void {
    this.#isStirred = this.#parts.scheduler !== undefined || this.#parts.former?.scheduler !== undefined;
  }

  /** Assigns datagrams to lanes, if anything has happened since the last call. To be called before a lane writes. */
  dispatch(now: number): void {
    this.#parts.dropEnded();
    if (!this.#isStirred) return;
    this.#isStirred = false;
    const { scheduler, former } = this.#parts;
    this.#ready.length = 0;
    let next = NEVER;
    if (scheduler !== undefined) next = this.#run(now, scheduler, this.#parts.lanes);
    if (former?.scheduler !== undefined)
      next = Math.min(next, this.#run(now, former.scheduler, former.lanes));
    this.#parts.deadlines.set(DEADLINE_DISPATCH, next);
    if (scheduler === undefined) return;
    if (this.#count.grow(now, scheduler.timesLate)) this.#parts.connectHeld(now);
    else if (this.#count.shrink(now, scheduler.lastLateAt)) this.#parts.endUnwantedLanes(now);
  }

  /** @returns when the scheduler has to be called again */
  #run(now: number, scheduler: LaneScheduler, lanes: readonly Lane[]): number {
    for (let left = scheduler.dispatch(now); left !== 0; left &= left - 1) {
      const lane = lanes[31 - Math.clz32(left & -left)];
      if (!lane.tunnel!.isLent) this.#ready.push(lane.index);
    }
    const next = scheduler.nextTimeout(now);
    return next === NEVER && !scheduler.isDrained ? now + EXPIRY_MS : next;
  }

  /** The next lane that has output since the last dispatch, or -1. */
  takeReady(): number {
    return this.#ready.pop() ?? NONE;
  }

  handleTimeout(now: number): void {
    if (!this.#parts.isUp) this.#parts.scheduler?.expire(now);
    this.stir();
  }
}
