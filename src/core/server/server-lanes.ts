import { encodeContextAssign } from "../../wire/capsule.ts";
import { DatagramStore } from "../lanes/datagram-store.ts";
import { FlowTable } from "../lanes/flow-table.ts";
import { ANY_LANE } from "../lanes/lane-bits.ts";
import type { LanePort } from "../lanes/lane-port.ts";
import { LaneScheduler } from "../lanes/scheduler.ts";
import type { ServerParts } from "./server-parts.ts";
import { DEADLINE_DISPATCH, deadlineOf } from "./server-parts.ts";
import type { Connection, Session } from "./sessions/server-session.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** Bound of unreceipted datagrams on lanes, as a multiple of the bound of waiting ones. */
const IN_FLIGHT_SHARE = 4;

/** Runs the schedulers of sessions with receipts once a turn, and registers the server's contexts on their lanes. */
export class ServerLanes {
  readonly #parts: ServerParts;
  /** Datagrams and flows of all sessions. */
  readonly #store = new DatagramStore();
  readonly #flows = new FlowTable();
  readonly #stirred: Session[] = [];

  constructor(parts: ServerParts) {
    this.#parts = parts;
  }

  get storedBytes(): number {
    return this.#store.bytes;
  }

  /** Whether any session waits for {@link dispatch}. */
  get isStirred(): boolean {
    return this.#stirred.length > 0;
  }

  makeScheduler(): LaneScheduler {
    const { counters, options } = this.#parts;
    this.#store.owner = this.#parts.queueOwner;
    const { queueBytes, ageBudgetMs } = options;
    return new LaneScheduler({
      store: this.#store,
      flows: this.#flows,
      counters,
      queueBytes,
      inFlightBytes: IN_FLIGHT_SHARE * queueBytes,
      ageBudgetMs,
    });
  }

  /** The connection for control capsules about an association; undefined while its session has none. */
  connectionFor(association: number): Connection | undefined {
    const lanes = this.#parts.associations.sessionOf[association]?.lanes;
    if (lanes === undefined) return this.#parts.associations.connectionOf[association];
    return lanes.connections[lanes.scheduler.controlLane()];
  }

  /** Schedules a session for the next {@link dispatch}, if it has receipts. */
  stir(session: Session | undefined): void {
    if (session?.lanes === undefined || session.lanes.isStirred) return;
    session.lanes.isStirred = true;
    this.#stirred.push(session);
  }

  /** A session whose datagrams, held to restore order, are due now. */
  sessionWithReleased(now: number): Session | undefined {
    for (const session of this.#stirred) if (session.lanes!.scheduler.peekReleased(now) >= 0) return session;
    return undefined;
  }

  /** Gives lanes the datagrams that they may send, and marks their connections as dirty. @returns false if no session was stirred */
  dispatch(now: number): boolean {
    if (this.#stirred.length === 0) return false;
    for (const session of this.#stirred) {
      const { scheduler, connections } = session.lanes!;
      session.lanes!.isStirred = false;
      if (session.connections.size === 0) continue;
      for (let left = scheduler.dispatch(now); left !== 0; left &= left - 1) {
        const connection = connections[31 - Math.clz32(left & -left)]!;
        if (!connection.tunnel.isLent) this.#parts.port.markDirty(connection);
      }
      this.#parts.deadlines.set(deadlineOf(session.index, DEADLINE_DISPATCH), scheduler.nextTimeout(now));
    }
    this.#stirred.length = 0;
    return true;
  }

  /** Adds a lane to its session's scheduler. @param firstCount  first value of both ends' frame counts on this connection */
  handleLaneUp(
    now: number,
    session: Session,
    connection: Connection,
    firstCount: number,
  ): LanePort | undefined {
    const { lanes } = session;
    if (lanes === undefined) return undefined;
    lanes.connections[connection.lane] = connection;
    lanes.scheduler.laneUp(now, connection.lane, firstCount);
    this.stir(session);
    return { scheduler: lanes.scheduler, number: connection.lane };
  }

  /** Removes a lane from its session's scheduler. */
  handleLaneDown(now: number, session: Session, connection: Connection): void {
    const { lanes } = session;
    if (lanes === undefined || lanes.connections[connection.lane] !== connection) return;
    lanes.connections[connection.lane] = undefined;
    lanes.scheduler.laneDown(now, connection.lane);
    this.stir(session);
    const { contexts } = this.#parts.associations;
    for (const slot of lanes.unacked) contexts.lanes[slot] &= ~(1 << connection.lane);
    if (session.connections.size === 0) {
      lanes.scheduler.dropQueued();
      this.#parts.deadlines.set(deadlineOf(session.index, DEADLINE_DISPATCH), NEVER);
    }
  }

  /** Registers contexts again if every lane that carried their registration is lost. */
  registerLost(session: Session): void {
    const { lanes } = session;
    if (lanes === undefined) return;
    for (const slot of lanes.unacked)
      if (this.#parts.associations.contexts.lanes[slot] === 0) this.register(slot);
  }

  /** Registers a context of this end. Until the client acknowledges it, its datagrams go only on lanes that carried the registration. */
  register(slot: number): void {
    const { associations, port } = this.#parts;
    const { contexts } = associations;
    const association = contexts.association[slot];
    const id = contexts.id[slot];
    const { lanes } = associations.sessionOf[association]!;
    const capsule = encodeContextAssign(id, associations.wireId[association], contexts.address[slot]!);
    if (lanes === undefined) {
      const connection = associations.connectionOf[association];
      if (connection !== undefined) port.send(connection, capsule);
      return;
    }
    const bits = lanes.scheduler.registrationLanes();
    for (let left = bits; left !== 0; left &= left - 1) {
      port.send(lanes.connections[31 - Math.clz32(left & -left)]!, capsule);
    }
    contexts.lanes[slot] = bits;
    lanes.unacked.add(slot);
    lanes.scheduler.allow(association, id, bits);
  }

  /** The client has acknowledged a context of this end. */
  handleAck(session: Session, id: number): void {
    const slot = session.contextById.get(id);
    if (slot !== undefined) this.allowAnyLane(session, slot);
  }

  /** Lets every lane carry a context of this end, because the client knows it or it is about to be released. */
  allowAnyLane(session: Session, slot: number): void {
    if (session.lanes?.unacked.delete(slot) !== true) return;
    const { contexts } = this.#parts.associations;
    contexts.lanes[slot] = ANY_LANE;
    session.lanes.scheduler.allow(contexts.association[slot], contexts.id[slot], ANY_LANE);
  }
}
