import type { CloseReason } from "../../wire/capsule.ts";
import { encodeAssociationClose, encodeCompressionAck, encodeCompressionClose } from "../../wire/capsule.ts";
import { encodeRefusal } from "../../wire/http/upgrade.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import { dropReasonOf } from "../counters.ts";
import { CONTEXT_RESOLVING } from "../session/session-model.ts";
import type { ServerAssociations } from "./server-associations.ts";
import { associationLists, HIDDEN_ID, senderContexts } from "./server-associations.ts";
import type { ServerLanes } from "./server-lanes.ts";
import type { ServerParts } from "./server-parts.ts";
import { DEADLINE_ASSOCIATIONS, DEADLINE_CONTEXTS, deadlineOf } from "./server-parts.ts";
import type { Connection, Session } from "./sessions/server-session.ts";

const NONE = -1;
const CONTEXT_IDLE_MS = 300_000;

/**
 * Opens and ends the associations and contexts of a server, makes room for them at a bound, expires idle ones, and informs the
 * clients.
 */
export class ServerFlows {
  readonly #parts: ServerParts;
  readonly #table: ServerAssociations;
  readonly #lanes: ServerLanes;

  constructor(parts: ServerParts, lanes: ServerLanes) {
    this.#parts = parts;
    this.#table = parts.associations;
    this.#lanes = lanes;
  }

  /** Opens an association. @returns its slot, or -1 if there is no room */
  openAssociation(
    now: number,
    session: Session,
    connection: Connection,
    id: number,
    source: AddressBytes | undefined,
  ): number {
    const victim = this.#table.victimFor(session, this.#parts.sessions.values());
    if (victim === "refused") return NONE;
    if (victim !== NONE) this.evict(now, victim);
    const slot = this.#table.open(now, session, connection, id, source);
    if (session.holder !== undefined) session.holder.associations++;
    this.armAssociations(session);
    return slot;
  }

  evict(now: number, association: number): void {
    this.#parts.counters.refused.association_evicted++;
    this.dismiss(now, association, "evicted");
  }

  /** Moves the answers of an association, including queued ones, to `connection`, unless its session has receipts. */
  moveTo(connection: Connection, association: number): void {
    if (connection.session!.lanes !== undefined) return;
    this.#table.connectionOf[association] = connection;
    connection.tunnel.queue.takeFlow(association);
  }

  /** @param waiting  the reason for which waiting answers are dropped, unless the server has ended the association for another */
  closeAssociation(slot: number, waiting: DropReason = "unknown_context"): void {
    const session = this.#table.sessionOf[slot]!;
    const { contexts } = this.#table;
    const dropped = this.#table.droppedAs[slot];
    for (let context = contexts.first(slot); context !== NONE; context = contexts.next(context)) {
      if (dropped !== "unknown_context") session.endedContexts.note(contexts.id[context], dropped);
      this.#forgetName(session, context, dropped === "unknown_context" ? "unresolved" : dropped);
    }
    const reason = dropped === "unknown_context" ? waiting : dropped;
    this.#parts.pool.removeFlow(slot, reason);
    session.lanes?.scheduler.removeFlow(slot, reason);
    if (session.holder !== undefined) session.holder.associations--;
    this.#table.close(slot);
    this.#parts.outputs.push({ kind: "release", association: slot });
  }

  /** See `TunnelServer.makeRoomForSocket`. */
  makeRoomForSocket(now: number, association: number): boolean {
    const session = this.#table.sessionOf[association];
    if (session === undefined) return false;
    const victim = this.#table.victimForSocket(association, this.#parts.sessions.values());
    if (victim === "refused" || victim === association) {
      this.#refuse(now, association);
      return false;
    }
    this.evict(now, victim);
    return true;
  }

  #refuse(now: number, association: number): void {
    this.#parts.counters.refused.association_limit++;
    this.dismiss(now, association, "limit");
  }

  /** See `TunnelServer.handleSocketFailed`. */
  handleSocketFailed(now: number, association: number, isLimit: boolean): void {
    if (this.#table.sessionOf[association] === undefined) return;
    if (isLimit) this.#refuse(now, association);
    else this.dismiss(now, association, "failed");
  }

  /** Ends an association that the client has not ended, and sends the client the reason. */
  dismiss(now: number, association: number, reason: CloseReason): void {
    const connection = this.#lanes.connectionFor(association);
    const session = this.#table.sessionOf[association]!;
    this.#table.droppedAs[association] = dropReasonOf(reason);
    if (session.kind !== "native") {
      if (connection?.state === "binding") this.#parts.port.send(connection, encodeRefusal(503, undefined));
      this.#parts.port.endSession(now, session, reason);
      return;
    }
    if (connection !== undefined) {
      this.#parts.port.send(connection, encodeAssociationClose(this.#table.wireId[association], reason));
    }
    session.endedAssociations.note(this.#table.wireId[association], reason);
    this.closeAssociation(association);
  }

  armAssociations(session: Session): void {
    const { idle } = this.#table;
    const { idleTimeoutMs } = this.#parts.options;
    const [fresh, quiet, answered] = associationLists(session);
    const at = Math.min(
      idle.expiresAt(fresh, idleTimeoutMs),
      idle.expiresAt(quiet, idleTimeoutMs),
      idle.expiresAt(answered, idleTimeoutMs),
    );
    this.#parts.deadlines.setEarlier(deadlineOf(session.index, DEADLINE_ASSOCIATIONS), at);
  }

  expireAssociations(now: number, session: Session): void {
    const { idle } = this.#table;
    const { idleTimeoutMs } = this.#parts.options;
    for (const list of associationLists(session)) {
      for (;;) {
        const slot = idle.expired(now, list, idleTimeoutMs);
        if (slot === NONE) break;
        this.dismiss(now, slot, "idle");
      }
    }
    if (session.isLive) this.armAssociations(session);
  }

  /** Expires idle contexts that the server created. The client expires its own. */
  expireContexts(now: number, session: Session): void {
    const { idle } = this.#table.contexts;
    const list = senderContexts(session);
    for (;;) {
      const slot = idle.expired(now, list, CONTEXT_IDLE_MS);
      if (slot === NONE) break;
      this.closeContext(slot);
    }
    const key = deadlineOf(session.index, DEADLINE_CONTEXTS);
    this.#parts.deadlines.setEarlier(key, idle.expiresAt(list, CONTEXT_IDLE_MS));
  }

  makeRoomForClientContext(session: Session): void {
    const victim = this.#table.victimForClient(session);
    if (victim !== NONE) this.#evictContext(session, victim);
  }

  makeRoomForSenderContext(now: number, session: Session, isAnswer: boolean): boolean {
    const victim = this.#table.victimForSender(now, session, isAnswer);
    if (victim === "refused") return false;
    if (victim !== NONE) this.#evictContext(session, victim);
    return true;
  }

  #evictContext(session: Session, slot: number): void {
    session.endedContexts.note(this.#table.contexts.id[slot], "context_limit");
    this.closeContext(slot);
  }

  /** Releases a context, and closes it at the client unless it is hidden. */
  closeContext(slot: number): void {
    const id = this.#table.contexts.id[slot];
    const connection = this.#lanes.connectionFor(this.#table.contexts.association[slot]);
    if (id !== HIDDEN_ID && connection !== undefined) {
      // Without an acknowledgment the client would count the context as refused.
      if (this.#table.contexts.state[slot] === CONTEXT_RESOLVING)
        this.#parts.port.send(connection, encodeCompressionAck(id));
      this.#parts.port.send(connection, encodeCompressionClose(id));
    }
    this.releaseContext(slot);
  }

  addSenderContext(
    now: number,
    session: Session,
    association: number,
    id: number,
    address: AddressBytes,
  ): number {
    const slot = this.#table.addSenderContext(now, session, association, id, address);
    const expiresAt = this.#table.contexts.idle.expiresAt(senderContexts(session), CONTEXT_IDLE_MS);
    this.#parts.deadlines.setEarlier(deadlineOf(session.index, DEADLINE_CONTEXTS), expiresAt);
    return slot;
  }

  /** Drops the datagrams that wait for the name of a context that ends. */
  #forgetName(session: Session | undefined, slot: number, reason: DropReason = "unresolved"): void {
    const { counters, names } = this.#parts;
    const { contexts, source } = this.#table;
    const association = contexts.association[slot];
    const local = source[association];
    const remote = contexts.address[slot];
    for (const held of names.forget(session?.lookups, slot)) {
      counters.drops[reason]++;
      counters.tap?.record(true, reason, association, local, remote, held, 0, held.length);
    }
  }

  releaseContext(slot: number): void {
    const session = this.#table.sessionOf[this.#table.contexts.association[slot]];
    this.#forgetName(session, slot);
    if (session !== undefined) this.#lanes.allowAnyLane(session, slot);
    this.#table.releaseContext(slot);
  }
}
