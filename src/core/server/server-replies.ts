import type { UnreachableKind } from "../../wire/capsule.ts";
import { encodeCompressionClose, encodeUnreachable, MAX_PAYLOAD_BYTES } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { recordDroppedRows } from "../tap.ts";
import type { BoundIds } from "./bound-tunnels.ts";
import { UncompressedPayload } from "./bound-tunnels.ts";
import type { ServerAssociations } from "./server-associations.ts";
import { HIDDEN_ID } from "./server-associations.ts";
import type { ServerFlows } from "./server-flows.ts";
import type { ServerLanes } from "./server-lanes.ts";
import type { ServerParts } from "./server-parts.ts";
import type { Connection } from "./sessions/server-session.ts";

const NONE = -1;
/** In place of a context slot: the source has no context, but the bound tunnel's uncompressed one can carry it. */
const UNCOMPRESSED = -2;

/** Sends the answers of targets, datagrams and errors, to the clients. */
export class ServerReplies {
  readonly #parts: ServerParts;
  readonly #table: ServerAssociations;
  readonly #flows: ServerFlows;
  readonly #lanes: ServerLanes;
  readonly #uncompressed = new UncompressedPayload();
  /** Why {@link #contextOfReply} has returned -1. */
  #dropped: DropReason = "filtered";

  constructor(parts: ServerParts, flows: ServerFlows, lanes: ServerLanes) {
    this.#parts = parts;
    this.#table = parts.associations;
    this.#flows = flows;
    this.#lanes = lanes;
  }

  /** See `TunnelServer.handleDatagram`. */
  handleDatagram(
    now: number,
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: AddressBytes,
  ): void {
    const context = this.#contextOfReply(now, association, remote, 0, remote.length, 1);
    if (context === NONE) {
      this.#drop(this.#dropped, association, remote, data, offset, length);
      return;
    }
    const id = context === UNCOMPRESSED ? HIDDEN_ID : this.#table.contexts.id[context];
    const session = this.#table.sessionOf[association]!;
    if (session.holder?.admitOut(now, length) === false) {
      this.#drop("rate_limit", association, remote, data, offset, length);
      return;
    }
    if (session.lanes !== undefined) {
      const allowed = this.#table.contexts.lanes[context];
      session.lanes.scheduler.push(now, association, id, allowed, data, offset, length);
      this.#lanes.stir(session);
      return;
    }
    const connection = this.#table.connectionOf[association]!;
    if (id !== HIDDEN_ID) connection.tunnel.writeDatagram(now, association, id, data, offset, length);
    else this.#sendUncompressed(now, association, connection, data, offset, length, remote);
    this.#parts.port.markDirty(connection);
  }

  /** See `TunnelServer.handleDatagrams`. */
  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    const { data, addresses } = received;
    for (let row = first; row < end; ) {
      const runEnd = received.endOfRun(row, end);
      const at = received.addressOffset(row);
      const length = received.addressLength(row);
      const context = this.#contextOfReply(now, association, addresses, at, length, runEnd - row);
      if (context === NONE) {
        const remote = copyAddress(addresses, at, length);
        this.#dropRows(this.#dropped, association, remote, received, row, runEnd);
        row = runEnd;
        continue;
      }
      const id = context === UNCOMPRESSED ? HIDDEN_ID : this.#table.contexts.id[context];
      const session = this.#table.sessionOf[association]!;
      const { holder } = session;
      const admittedEnd = holder === undefined ? runEnd : holder.admitRun(now, received, row, runEnd);
      if (admittedEnd < runEnd) {
        const remote = copyAddress(addresses, at, length);
        this.#dropRows("rate_limit", association, remote, received, admittedEnd, runEnd);
        if (admittedEnd === row) {
          row = runEnd;
          continue;
        }
      }
      if (session.lanes !== undefined) {
        const allowed = this.#table.contexts.lanes[context];
        session.lanes.scheduler.pushAll(now, association, id, allowed, received, row, admittedEnd);
        this.#lanes.stir(session);
        row = runEnd;
        continue;
      }
      const connection = this.#table.connectionOf[association]!;
      if (id !== HIDDEN_ID) {
        connection.tunnel.writeDatagrams(now, association, id, received, row, admittedEnd);
        this.#table.contexts.shortcuts.noteBatch(connection.tunnel, context, true);
      } else {
        const remote = copyAddress(addresses, at, length);
        for (let one = row; one < runEnd; one++) {
          const offset = received.offset(one);
          this.#sendUncompressed(now, association, connection, data, offset, received.length(one), remote);
        }
      }
      row = runEnd;
      this.#parts.port.markDirty(connection);
    }
  }

  #drop(
    reason: DropReason,
    association: number,
    remote: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { drops, tap } = this.#parts.counters;
    drops[reason]++;
    tap?.record(false, reason, association, this.#table.source[association], remote, data, offset, length);
  }

  #dropRows(
    reason: DropReason,
    association: number,
    remote: AddressBytes,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    const { drops, tap } = this.#parts.counters;
    drops[reason] += end - first;
    const local = this.#table.source[association];
    recordDroppedRows(tap, reason, association, local, remote, received, first, end);
  }

  /** See `TunnelServer.handleUnreachable`. */
  handleUnreachable(
    now: number,
    association: number,
    remote: AddressBytes,
    kind: UnreachableKind,
    mtu: number,
  ): void {
    const session = this.#table.sessionOf[association];
    const connection = this.#lanes.connectionFor(association);
    if (session?.kind !== "native" || connection === undefined) return;
    if (!session.unreachable.take(now)) {
      this.#parts.counters.unreachable.limited++;
      return;
    }
    const slot = this.#table.contextFor(association, remote);
    if (slot === NONE) return;
    this.#parts.counters.unreachable[kind]++;
    this.#parts.port.send(connection, encodeUnreachable(this.#table.contexts.id[slot], kind, mtu));
  }

  /**
   * Finds or creates the context for `count` datagrams of a source.
   *
   * @returns its slot; {@link UNCOMPRESSED}; or -1 if the datagrams are to be dropped with the reason {@link #dropped}
   */
  #contextOfReply(
    now: number,
    association: number,
    addresses: Uint8Array,
    offset: number,
    length: number,
    count: number,
  ): number {
    const associations = this.#table;
    const session = associations.sessionOf[association];
    const connection = associations.connectionOf[association];
    if (session === undefined || connection === undefined) {
      return this.#none("no_lane");
    }
    const known = associations.contextOfReply(now, association, addresses, offset, length, count);
    if (known !== NONE) return known;
    if (session.bound !== undefined) {
      return this.#strangerOf(now, association, session.bound, copyAddress(addresses, offset, length));
    }
    const sender =
      session.kind === "fixed" ? undefined : associations.hears(association, addresses, offset, length);
    if (sender === undefined) {
      return this.#none("filtered");
    }
    const id = session.nextContextId;
    if (id > this.#parts.maxId) {
      // The client may not have received the ids before this one. A CLOSE of this one makes it replace the session.
      if (session.unknown.shallAnswer(now, id)) this.#parts.port.send(connection, encodeCompressionClose(id));
      return this.#none("context_limit");
    }
    const isAnswer = this.#table.contexts.findResolved(association, addresses, offset, length) !== NONE;
    if (!this.#flows.makeRoomForSenderContext(now, session, isAnswer)) {
      return this.#none("context_limit");
    }
    session.nextContextId += 2;
    this.#lanes.register(this.#flows.addSenderContext(now, session, association, id, sender));
    return associations.contextOfReply(now, association, addresses, offset, length, count);
  }

  #none(reason: DropReason): typeof NONE {
    this.#dropped = reason;
    return NONE;
  }

  /** As {@link #contextOfReply}, in a bound tunnel, whose client accepts either all senders that it has not registered or none. */
  #strangerOf(now: number, association: number, bound: BoundIds, remote: AddressBytes): number {
    // The client may answer a sender, so a forged source must not bypass the policy.
    if (bound.uncompressed === 0 || !this.#parts.options.permits(remote)) {
      return this.#none("filtered");
    }
    this.#table.idle.refresh(now, association);
    return UNCOMPRESSED;
  }

  #sendUncompressed(
    now: number,
    association: number,
    connection: Connection,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: AddressBytes,
  ): void {
    const { uncompressed } = this.#table.sessionOf[association]!.bound!;
    if (uncompressed === 0) {
      this.#drop("filtered", association, remote, data, offset, length);
      return;
    }
    // The longest over IPv6 have no room for their address, and a longer capsule would end the tunnel (RFC 9298 §5).
    if (remote.length + length > MAX_PAYLOAD_BYTES) {
      this.#drop("too_long", association, remote, data, offset, length);
      return;
    }
    const size = this.#uncompressed.write(remote, data, offset, length);
    connection.tunnel.writeDatagram(now, association, uncompressed, this.#uncompressed.bytes, 0, size);
  }
}
