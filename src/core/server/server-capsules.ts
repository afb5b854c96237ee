import {
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_ASSOCIATION_OPEN,
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_ASSIGN,
  CAPSULE_COMPRESSION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_DSCP,
  CAPSULE_LATENCY_CLASS,
  CAPSULE_SHUTDOWN,
  CAPSULE_UNREACHABLE,
  decodeWholeAddress,
  encodeAssociationClose,
  encodeCompressionAck,
  encodeCompressionClose,
  fromIpVersionForm,
  ipVersionFormLength,
  isDomain,
  latencyClass,
  MAX_DATAGRAM_BYTES,
  MAX_DSCP,
  readNumbers,
} from "../../wire/capsule.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import { CAPSULE_MEASURE, CAPSULE_PROBE } from "../../wire/probe.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { DropReason, RefusalReason } from "../counters.ts";
import { dropReasonOf } from "../counters.ts";
import { ProtocolError } from "../errors.ts";
import { ReleasedBatch } from "../lanes/receiving/released-batch.ts";
import type { DatagramBatch } from "../session/datagram-batch.ts";
import { ProbeTrain } from "../session/probe-train.ts";
import { CONTEXT_RESOLVING } from "../session/session-model.ts";
import type { CapsuleReceiver } from "../session/tunnel.ts";
import type { BoundIds } from "./bound-tunnels.ts";
import { decodeCompressionAssign } from "./bound-tunnels.ts";
import type { ServerAssociations } from "./server-associations.ts";
import { HIDDEN_ID, isAddress } from "./server-associations.ts";
import type { ServerFlows } from "./server-flows.ts";
import type { ServerLanes } from "./server-lanes.ts";
import type { ServerParts } from "./server-parts.ts";
import type { Connection, Session } from "./sessions/server-session.ts";

const NONE = -1;
/** Known capsules that begin with two numbers. All others begin with one. */
const PAIRS: ReadonlySet<number> = new Set([
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_DSCP,
  CAPSULE_LATENCY_CLASS,
]);

/** Handles the capsules of clients: datagrams go to the batch for targets, registrations to the tables. */
export class ServerCapsules implements CapsuleReceiver<Connection> {
  readonly #parts: ServerParts;
  readonly #table: ServerAssociations;
  readonly #flows: ServerFlows;
  readonly #lanes: ServerLanes;
  readonly #released = new ReleasedBatch();
  readonly #numbers: number[] = [0, 0, 0, 0, 0];
  #dropped: DropReason = "refused_target";

  constructor(parts: ServerParts, flows: ServerFlows, lanes: ServerLanes) {
    this.#parts = parts;
    this.#table = parts.associations;
    this.#flows = flows;
    this.#lanes = lanes;
  }

  handleDatagramCapsule(
    now: number,
    connection: Connection,
    id: number,
    data: Uint8Array,
    payload: number,
    end: number,
  ): void {
    const session = connection.session!;
    const { contexts } = this.#table;
    const { outgoing } = this.#parts;
    // Most datagrams follow one of the same context.
    const last = outgoing.lastContext;
    let slot = last !== NONE && contexts.id[last] === id ? last : session.contextById.get(id);
    let at = payload;
    if (slot === undefined) {
      if (id === 0 && session.kind === "bound") {
        connection.tunnel.fail(new ProtocolError("ERR_CONTEXT_MALFORMED", "context 0 in a bound tunnel"));
        return;
      }
      if (id === 0 || id !== session.bound?.uncompressed) {
        this.#drop(this.#reasonOfEnded(session, id), NONE, undefined, data, payload, end - payload);
        if (session.kind === "native" && id <= this.#parts.maxId && session.unknown.shallAnswer(now, id)) {
          // A CLOSE alone would refuse a context whose registration the client still waits for.
          this.#parts.port.send(connection, encodeCompressionAck(id));
          this.#parts.port.send(connection, encodeCompressionClose(id));
        }
        return;
      }
      const length = ipVersionFormLength(data, payload, end);
      if (length === 0) {
        connection.tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "uncompressed DATAGRAM"));
        return;
      }
      const remote = fromIpVersionForm(data, payload, length);
      slot = this.#hiddenContext(now, session, remote);
      if (slot === NONE) {
        const association = session.associationById.get(0)!;
        this.#drop(this.#dropped, association, remote, data, payload + length, end - payload - length);
        return;
      }
      at += length;
    }
    const length = end - at;
    const association = contexts.association[slot];
    if (length > MAX_DATAGRAM_BYTES) {
      this.#drop("too_long", association, contexts.address[slot], data, at, length);
      return;
    }
    const isResolving = contexts.state[slot] === CONTEXT_RESOLVING;
    if (!connection.tunnel.acceptsDatagram(now, isResolving ? NONE : association, id, at, end)) return;
    if (this.#table.connectionOf[association] !== connection) this.#flows.moveTo(connection, association);
    if (isResolving) this.#holdUnresolved(now, slot, data, at, length);
    else {
      this.#send(now, slot, data, at, length);
      contexts.shortcuts.noteBatch(connection.tunnel, slot, false);
    }
  }

  #reasonOfEnded(session: Session, context: number): DropReason {
    return session.endedContexts.reasonOf(context) ?? "unknown_context";
  }

  #drop(
    reason: DropReason,
    association: number,
    remote: AddressBytes | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { drops, tap } = this.#parts.counters;
    drops[reason]++;
    tap?.record(true, reason, association, this.#table.source[association], remote, data, offset, length);
  }

  handleDatagramRun(
    now: number,
    connection: Connection,
    id: number,
    batch: DatagramBatch,
    first: number,
    end: number,
    bytes: number,
  ): void {
    const { contexts } = this.#table;
    const last = batch.lastContext;
    const { contextById, holder } = connection.session!;
    const slot = last !== NONE && contexts.id[last] === id ? last : contextById.get(id);
    // With a key's rate limit, the limit may be reached within the run.
    if (slot !== undefined && contexts.state[slot] !== CONTEXT_RESOLVING && holder === undefined) {
      const association = contexts.association[slot];
      if (this.#table.connectionOf[association] !== connection) this.#flows.moveTo(connection, association);
      this.noteReceived(now, slot, end - first, bytes);
      batch.addRun(association, slot, first, end);
      contexts.shortcuts.noteBatch(connection.tunnel, slot, false);
      return;
    }
    const { offset, length } = batch;
    for (let i = first; i < end && connection.tunnel.error === undefined; i++) {
      this.handleDatagramCapsule(now, connection, id, batch.data, offset[i], offset[i] + length[i]);
    }
  }

  /** Counts datagrams that have arrived for a context. @param slot  of the context; -1 if it has ended since */
  noteReceived(now: number, slot: number, count: number, bytes: number): void {
    this.#countIn(count, bytes);
    if (slot !== NONE) this.#noteUse(now, slot);
  }

  #noteUse(now: number, slot: number): void {
    const { contexts } = this.#table;
    contexts.idle.refresh(now, slot);
    this.#table.handleSent(now, contexts.association[slot]);
  }

  #send(now: number, slot: number, data: Uint8Array, offset: number, length: number): void {
    this.#noteUse(now, slot);
    if (!this.#admit(now, slot, data, offset, length)) return;
    this.#parts.outgoing.add(this.#table.contexts.association[slot], slot, offset, length);
  }

  /** Holds a datagram whose target is being resolved. */
  #holdUnresolved(now: number, slot: number, data: Uint8Array, offset: number, length: number): void {
    this.#noteUse(now, slot);
    if (this.#parts.names.hold(slot, data, offset, length)) return;
    const { association, address } = this.#table.contexts;
    this.#drop("unresolved", association[slot], address[slot], data, offset, length);
  }

  /** See `TunnelServer.takeReleased`. */
  takeReleased(now: number): boolean {
    const { outgoing } = this.#parts;
    const released = this.#released;
    const session = this.#lanes.sessionWithReleased(now);
    outgoing.count = 0;
    if (session === undefined) return false;
    const { scheduler } = session.lanes!;
    released.begin(outgoing);
    for (let id = scheduler.peekReleased(now); id >= 0; id = scheduler.peekReleased(now)) {
      const length = scheduler.releasedLength;
      if (!released.hasRoom(outgoing, length)) break;
      scheduler.takeReleased(released.bytes, released.end);
      const slot = session.contextById.get(id);
      if (slot === undefined) {
        const reason = this.#reasonOfEnded(session, id);
        this.#drop(reason, NONE, undefined, released.bytes, released.end, length);
      } else if (this.#table.contexts.state[slot] === CONTEXT_RESOLVING) {
        // The peer has used the id of another context again since the datagram arrived.
        this.#holdUnresolved(now, slot, released.bytes, released.end, length);
      } else {
        this.#send(now, slot, released.bytes, released.end, length);
        released.end += length;
      }
    }
    released.finish(outgoing);
    return true;
  }

  /** Counts a datagram. @returns false if it exceeds its key's rate and was dropped */
  #admit(now: number, slot: number, data: Uint8Array, offset: number, length: number): boolean {
    const { contexts, sessionOf } = this.#table;
    const association = contexts.association[slot];
    if (sessionOf[association]?.holder?.admitIn(now, length) === false) {
      this.#drop("rate_limit", association, contexts.address[slot], data, offset, length);
      return false;
    }
    this.#countIn(1, length);
    return true;
  }

  #countIn(count: number, bytes: number): void {
    this.#parts.counters.datagramsIn += count;
    this.#parts.counters.bytesIn += bytes;
  }

  handleControlCapsule(now: number, connection: Connection): boolean {
    const session = connection.session!;
    const { tunnel } = connection;
    const { type, data, valueOffset, valueEnd } = tunnel.reader;
    if (type === CAPSULE_PROBE) {
      tunnel.handleProbe(now);
      return true;
    }
    const numbers = this.#numbers;
    const count = type === CAPSULE_MEASURE ? 5 : PAIRS.has(type) ? 2 : 1;
    const at = readNumbers(data, valueOffset, valueEnd, count, numbers);
    const isWhole = at === valueEnd;
    const [id, second] = numbers;
    let fault: string | undefined;
    switch (type) {
      case CAPSULE_COMPRESSION_ACK:
        // In a bound tunnel the server registers no contexts.
        if (!isWhole || session.kind !== "native") fault = "COMPRESSION_ACK";
        else this.#lanes.handleAck(session, id);
        break;
      case CAPSULE_COMPRESSION_CLOSE: {
        if (!isWhole || id === 0) fault = "COMPRESSION_CLOSE";
        else if (id === session.bound?.uncompressed) session.bound.uncompressed = 0;
        else {
          const slot = session.contextById.get(id);
          if (slot !== undefined) this.#flows.releaseContext(slot);
          if (id % 2 === 0 && id <= this.#parts.maxId) session.lanes?.closedContexts.add(id);
        }
        break;
      }
      case CAPSULE_COMPRESSION_ASSIGN:
        fault =
          at < 0 || session.bound === undefined
            ? "COMPRESSION_ASSIGN"
            : this.#handleCompressionAssign(now, connection, session, session.bound, id, at);
        break;
      case CAPSULE_ASSOCIATION_OPEN: {
        const hasSource = at >= 0 && !(valueEnd === at + 1 && data[at] === 0);
        const source = hasSource ? decodeWholeAddress(data, at, valueEnd) : undefined;
        if (at < 0 || id < 1 || id > this.#parts.maxId || (hasSource && source === undefined))
          fault = "ASSOCIATION_OPEN";
        else this.#handleAssociationOpen(now, connection, session, id, source);
        break;
      }
      case CAPSULE_ASSOCIATION_CLOSE: {
        if (!isWhole) {
          fault = "ASSOCIATION_CLOSE";
          break;
        }
        const association = session.associationById.get(id);
        if (association !== undefined) this.#flows.closeAssociation(association);
        if (id <= this.#parts.maxId) session.lanes?.closedAssociations.add(2 * id);
        // Unknown associations are confirmed too, so that the client can forget them. The client does not answer the echo.
        this.#parts.port.send(connection, encodeAssociationClose(id, "done"));
        break;
      }
      case CAPSULE_CONTEXT_ASSIGN: {
        const address = at < 0 ? undefined : decodeWholeAddress(data, at, valueEnd);
        const isValidId = id > 0 && id % 2 === 0 && id <= this.#parts.maxId;
        if (address === undefined || !isValidId) fault = "CONTEXT_ASSIGN";
        else if (!this.#handleContextAssign(now, connection, session, id, second, address)) {
          fault = "CONTEXT_ASSIGN again for another address";
        }
        break;
      }
      case CAPSULE_LATENCY_CLASS: {
        const association = session.associationById.get(id);
        if (!isWhole) fault = "LATENCY_CLASS";
        // An unknown one has ended here, and the client hears of that.
        else if (association !== undefined) {
          this.#setLatency(association, LATENCY_CLASSES.indexOf(latencyClass(second)));
        }
        break;
      }
      case CAPSULE_DSCP: {
        const association = session.associationById.get(id);
        if (!isWhole) fault = "DSCP";
        else if (association !== undefined) this.#setDscp(association, second > MAX_DSCP ? 0 : second);
        break;
      }
      case CAPSULE_MEASURE: {
        const [periodMs, leadMs, gapMs, probes, bytes] = numbers;
        if (!isWhole) fault = "MEASURE";
        else {
          const pattern = { periodMs, leadMs, gapMs, count: probes, bytes };
          tunnel.probes = probes === 0 ? undefined : new ProbeTrain(now, pattern);
          this.#parts.port.arm(connection);
        }
        break;
      }
      case CAPSULE_SHUTDOWN:
        if (isWhole) this.#parts.port.endSession(now, session, "client");
        else fault = "SHUTDOWN";
        break;
      case CAPSULE_UNREACHABLE:
        fault = "UNREACHABLE is the server's to send";
        break;
    }
    if (fault !== undefined) tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", fault));
    return connection.state === "open";
  }

  #handleCompressionAssign(
    now: number,
    connection: Connection,
    session: Session,
    bound: BoundIds,
    id: number,
    at: number,
  ): string | undefined {
    const { data, valueEnd } = connection.tunnel.reader;
    const address = decodeCompressionAssign(data, at, valueEnd);
    if (address === undefined) return "COMPRESSION_ASSIGN";
    if (!bound.register(id)) return "COMPRESSION_ASSIGN, id";
    if (id > this.#parts.maxId) {
      this.#parts.counters.refused.context_limit++;
      session.endedContexts.note(id, "context_limit");
      this.#parts.port.send(connection, encodeCompressionClose(id));
      return undefined;
    }
    if (address === "uncompressed") {
      if (bound.uncompressed !== 0) return "COMPRESSION_ASSIGN, uncompressed";
      bound.uncompressed = id;
      this.#parts.port.send(connection, encodeCompressionAck(id));
      return undefined;
    }
    const association = session.associationById.get(0)!;
    const known = this.#table.contexts.find(association, address, 0, address.length);
    if (known !== NONE && this.#table.contexts.id[known] !== HIDDEN_ID)
      return "COMPRESSION_ASSIGN, address in use";
    if (known !== NONE) this.#flows.releaseContext(known);
    this.#registerContext(now, connection, session, association, id, address);
    return undefined;
  }

  #handleAssociationOpen(
    now: number,
    connection: Connection,
    session: Session,
    id: number,
    source: AddressBytes | undefined,
  ): void {
    const known = session.associationById.get(id);
    if (known !== undefined) {
      // A repeated OPEN moves the association to this lane, with its queued datagrams.
      this.#flows.moveTo(connection, known);
      return;
    }
    if (session.lanes?.closedAssociations.has(2 * id)) return;
    if (session.holder?.hasRoomForAssociation === false) {
      this.#refuseAssociation(connection, session, id, "key_association_limit");
    } else if (this.#flows.openAssociation(now, session, connection, id, source) === NONE) {
      this.#refuseAssociation(connection, session, id, "association_limit");
    }
  }

  #refuseAssociation(connection: Connection, session: Session, id: number, why: RefusalReason): void {
    this.#parts.counters.refused[why]++;
    session.endedAssociations.note(id, "limit");
    this.#parts.port.send(connection, encodeAssociationClose(id, "limit"));
  }

  #setLatency(association: number, latency: number): void {
    if (this.#table.latency[association] === latency) return;
    this.#table.latency[association] = latency;
    this.#parts.outputs.push({ kind: "latency", association, latency: LATENCY_CLASSES[latency] });
  }

  #setDscp(association: number, dscp: number): void {
    if (this.#table.dscp[association] === dscp) return;
    this.#table.dscp[association] = dscp;
    this.#parts.outputs.push({ kind: "dscp", association, dscp });
  }

  /** @returns false if the id is already in use for another address or association */
  #handleContextAssign(
    now: number,
    connection: Connection,
    session: Session,
    id: number,
    associationId: number,
    address: AddressBytes,
  ): boolean {
    const association = session.associationById.get(associationId);
    const known = session.contextById.get(id);
    if (known !== undefined) {
      const isSame =
        this.#table.contexts.association[known] === association &&
        isAddress(this.#table.contexts.address[known]!, address, 0, address.length);
      if (isSame && this.#table.contexts.state[known] !== CONTEXT_RESOLVING) {
        this.#parts.port.send(connection, encodeCompressionAck(id));
      }
      return isSame;
    }
    if (session.lanes?.closedContexts.has(id)) return true;
    if (association === undefined) {
      // The client believes that it is open, and will open it again or end it.
      const reason = session.endedAssociations.reasonOf(associationId) ?? "idle";
      session.endedContexts.note(id, dropReasonOf(reason));
      this.#parts.port.send(connection, encodeAssociationClose(associationId, reason));
      this.#parts.port.send(connection, encodeCompressionClose(id));
    } else this.#registerContext(now, connection, session, association, id, address);
    return true;
  }

  #registerContext(
    now: number,
    connection: Connection,
    session: Session,
    association: number,
    id: number,
    address: AddressBytes,
  ): void {
    const isName = isDomain(address);
    const isDenied = !isName && !this.#parts.options.permits(address);
    if (isDenied) {
      this.#parts.counters.refused.target_denied++;
      session.unknown.noteRefused(now, id);
      session.endedContexts.note(id, "refused_target");
      this.#parts.port.send(connection, encodeCompressionClose(id));
      return;
    }
    this.#flows.makeRoomForClientContext(session);
    const twin = this.#table.contexts.find(association, address, 0, address.length);
    const isFirst = twin === NONE;
    const slot = this.#table.addClientContext(now, session, association, id, address, isFirst);
    if (twin !== NONE) {
      // Both ends registered the same address at the same time, or the client has forgotten its context. The older one is closed.
      this.#table.contexts.takeIndex(slot, twin);
      this.#parts.port.send(connection, encodeCompressionClose(this.#table.contexts.id[twin]));
      this.#flows.releaseContext(twin);
    }
    if (isName) this.#parts.names.addContext(session.lookups, slot);
    else this.#parts.port.send(connection, encodeCompressionAck(id));
  }

  /** Finds or creates the context for the target of an uncompressed datagram. @returns its slot; -1 if refused, see {@link #dropped} */
  #hiddenContext(now: number, session: Session, address: AddressBytes): number {
    const association = session.associationById.get(0)!;
    const known = this.#table.contexts.find(association, address, 0, address.length);
    if (known !== NONE) return known;
    if (!this.#parts.options.permits(address)) {
      this.#dropped = "refused_target";
      return NONE;
    }
    if (!this.#flows.makeRoomForSenderContext(now, session, false)) {
      this.#dropped = "context_limit";
      return NONE;
    }
    const slot = this.#flows.addSenderContext(now, session, association, HIDDEN_ID, address);
    this.#table.grant(slot);
    return slot;
  }

  /**
   * Handles the answer for the name of a context. The datagrams that waited for it go to the batch.
   *
   * @param addresses  in order of preference; empty if there are none
   */
  handleResolved(now: number, slot: number, addresses: readonly AddressBytes[]): void {
    const { contexts } = this.#table;
    const { counters, names, port, outgoing, options } = this.#parts;
    const target = addresses.find(options.permits);
    const association = contexts.association[slot];
    const connection = this.#lanes.connectionFor(association);
    const held = names.takeHeld(slot);
    if (target === undefined) {
      if (addresses.length > 0) counters.refused.target_denied++;
      const reason = addresses.length > 0 ? "refused_target" : "unresolved";
      for (const datagram of held) {
        this.#drop(reason, association, contexts.address[slot], datagram, 0, datagram.length);
      }
      const session = this.#table.sessionOf[association];
      session?.unknown.noteRefused(now, contexts.id[slot]);
      session?.endedContexts.note(contexts.id[slot], reason);
      if (connection !== undefined) port.send(connection, encodeCompressionClose(contexts.id[slot]));
      this.#flows.releaseContext(slot);
      return;
    }
    contexts.resolve(slot, target);
    this.#table.grant(slot);
    if (connection !== undefined) port.send(connection, encodeCompressionAck(contexts.id[slot]));
    let total = 0;
    for (const datagram of held) total += datagram.length;
    outgoing.data = new Uint8Array(total);
    let at = 0;
    for (const datagram of held) {
      if (!this.#admit(now, slot, datagram, 0, datagram.length)) continue;
      outgoing.data.set(datagram, at);
      outgoing.add(association, slot, at, datagram.length);
      at += datagram.length;
    }
  }
}
