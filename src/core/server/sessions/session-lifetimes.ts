import { encodeShutdown } from "../../../wire/capsule.ts";
import type { NamedKey } from "../../keys/named-key.ts";
import { SESSION } from "../../session/session-model.ts";
import { isMisplaced } from "../admission/key-worker.ts";
import type { ServerFlows } from "../server-flows.ts";
import type { ServerLanes } from "../server-lanes.ts";
import type { ServerParts } from "../server-parts.ts";
import {
  DEADLINE_ASSOCIATIONS,
  DEADLINE_CONTEXTS,
  DEADLINE_DISPATCH,
  DEADLINE_LINGER,
  deadlineOf,
} from "../server-parts.ts";
import type { Connection, Session } from "./server-session.ts";

/** Begins and ends the sessions of a server, adds and removes their connections, and lets them linger. */
export class SessionLifetimes {
  readonly #parts: ServerParts;
  readonly #lanes: ServerLanes;
  readonly #flows: ServerFlows;

  constructor(parts: ServerParts, lanes: ServerLanes, flows: ServerFlows) {
    this.#parts = parts;
    this.#lanes = lanes;
    this.#flows = flows;
  }

  /** Ends the longest lingering session if there are too many sessions. @returns false if there is still no room for another */
  makeRoom(now: number): boolean {
    const { sessions, options } = this.#parts;
    return sessions.size < options.maxSessions || this.#evictLingering(now);
  }

  #evictLingering(now: number): boolean {
    const [oldest] = this.#parts.sessions.lingering;
    if (oldest === undefined) return false;
    this.#parts.counters.refused.session_evicted++;
    this.end(now, oldest, "evicted");
    return true;
  }

  begin(
    kind: Session["kind"],
    id: Uint8Array,
    key: Uint8Array,
    receipts: boolean,
    holder: NamedKey | undefined,
  ): Session {
    const scheduler = receipts ? this.#lanes.makeScheduler() : undefined;
    return this.#parts.sessions.begin(kind, id, key, scheduler, holder);
  }

  /**
   * Adds a lane to a session.
   *
   * @param predecessor  the earlier connection of that lane, which is closed
   * @param isReturn     whether the session is resumed and had no lane
   */
  join(
    now: number,
    session: Session,
    connection: Connection,
    predecessor: Connection | undefined,
    isReturn: boolean,
  ): void {
    const { sessions, deadlines, counters, outputs, associations } = this.#parts;
    connection.session = session;
    // Shortcuts exist only while a session has a single lane.
    for (const other of session.connections) other.tunnel.endShortcuts();
    session.connections.add(connection);
    if (predecessor !== undefined) this.#parts.port.close(now, predecessor);
    session.state = SESSION.after(session.state, "join");
    sessions.lingering.delete(session);
    deadlines.clear(deadlineOf(session.index, DEADLINE_LINGER));
    if (isReturn) counters.resumed++;
    outputs.push({
      kind: isReturn ? "session-resumed" : "session-up",
      session: session.name,
      lane: connection.lane,
    });
    for (const association of session.associationById.values()) {
      associations.connectionOf[association] ??= connection;
    }
  }

  /** Removes a connection from a session. Another one takes over its associations, or the session lingers or ends. */
  leave(now: number, session: Session, connection: Connection): void {
    const { associations, pool, port } = this.#parts;
    if (!session.connections.delete(connection)) return;
    if (session.kind !== "native") {
      this.end(now, session, "closed");
      return;
    }
    this.#lanes.handleLaneDown(now, session, connection);
    const [heir] = session.connections;
    for (const association of session.associationById.values()) {
      if (associations.connectionOf[association] !== connection) continue;
      associations.connectionOf[association] = heir;
      if (heir === undefined) pool.removeFlow(association, "no_lane");
      else heir.tunnel.queue.takeFlow(association);
    }
    if (heir !== undefined) {
      this.#lanes.registerLost(session);
      port.markDirty(heir);
    } else if (session.isLive) this.#linger(now, session);
  }

  #linger(now: number, session: Session): void {
    const { sessions, options, outputs, shutdown, deadlines } = this.#parts;
    outputs.push({ kind: "session-down", session: session.name });
    session.state = SESSION.after(session.state, "last lane lost");
    if (session.associationById.size === 0) {
      this.end(now, session, "empty");
      return;
    }
    if (!shutdown.isSuspending && sessions.lingering.size >= options.maxLingering) this.#evictLingering(now);
    session.lingersUntil = now + options.lingerMs;
    deadlines.set(deadlineOf(session.index, DEADLINE_LINGER), session.lingersUntil);
    sessions.lingering.add(session);
  }

  end(now: number, session: Session, reason: string): void {
    const { sessions, deadlines, outputs, port } = this.#parts;
    if (!sessions.end(session)) return;
    for (const kind of [DEADLINE_LINGER, DEADLINE_ASSOCIATIONS, DEADLINE_CONTEXTS, DEADLINE_DISPATCH]) {
      deadlines.clear(deadlineOf(session.index, kind));
    }
    for (const association of [...session.associationById.values()])
      this.#flows.closeAssociation(association, "no_lane");
    for (const connection of [...session.connections]) {
      session.connections.delete(connection);
      connection.session = undefined;
      port.close(now, connection);
    }
    session.lanes?.scheduler.close();
    outputs.push({ kind: "session-ended", session: session.name, reason });
  }

  /** Ends the sessions of keys that have expired or were withdrawn. */
  endHeld(now: number, isGone: (holder: NamedKey) => boolean): void {
    const { sessions, counters, port } = this.#parts;
    for (const session of [...sessions.values()]) {
      if (session.holder === undefined || !isGone(session.holder)) continue;
      for (const connection of session.connections) port.send(connection, encodeShutdown("key"));
      counters.refused.key_session_ended++;
      this.end(now, session, "key");
    }
  }

  /**
   * Asks the client of a session to begin another one if its key's limits are counted in another worker. Only once, because a client that
   * does not know the request reconnects.
   */
  moveIfMisplaced(session: Session): void {
    const { options, port } = this.#parts;
    if (session.isAskedToMove || session.connections.size === 0) return;
    if (!isMisplaced(options, session.holder)) return;
    session.isAskedToMove = true;
    for (const connection of session.connections) port.send(connection, encodeShutdown("moving"));
  }
}
