import type { CloseReason, ShutdownReason } from "../../wire/capsule.ts";
import {
  CAPSULE_ASSOCIATION_CLOSE,
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_CLOSE,
  CAPSULE_CONTEXT_ASSIGN,
  CAPSULE_SHUTDOWN,
  CAPSULE_UNREACHABLE,
  closeReason,
  decodeWholeAddress,
  encodeAssociationClose,
  encodeCompressionAck,
  encodeCompressionClose,
  MAX_MTU,
  readNumbers,
  shutdownReason,
  unreachableKind,
} from "../../wire/capsule.ts";
import { CAPSULE_PROBE } from "../../wire/probe.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { dropReasonOf } from "../counters.ts";
import { ProtocolError } from "../errors.ts";
import { ReleasedBatch } from "../lanes/receiving/released-batch.ts";
import type { LaneScheduler } from "../lanes/scheduler.ts";
import type { DatagramBatch } from "../session/datagram-batch.ts";
import {
  ASSOCIATION_CLOSING,
  ASSOCIATION_OPEN,
  CONTEXT_ACKED,
  CONTEXT_REFUSED,
  MAX_ID,
} from "../session/session-model.ts";
import type { CapsuleReceiver, Tunnel } from "../session/tunnel.ts";
import { UnknownContexts } from "../session/unknown-contexts.ts";
import type { ClientFlows } from "./client-flows.ts";
import type { ClientParts, FormerSession } from "./client-parts.ts";
import { isServersId, OWN, PEER } from "./client-parts.ts";
import type { Lane } from "./lanes/lane.ts";

/** What a server means by SHUTDOWN, for the reasons that servers give. */
const SHUTDOWN_TEXTS: { readonly [Reason in ShutdownReason]?: string } = {
  done: "the server is shutting down",
  key: "the server no longer accepts this key, which was removed or replaced there, or has expired",
};

const NONE = -1;
/** Milliseconds before an association that the server refused is opened again. */
const REOPEN_MS = 1_000;

/** Handles the capsules of a server. */
export class ClientCapsules implements CapsuleReceiver<Lane> {
  readonly #parts: ClientParts;
  readonly #flows: ClientFlows;
  readonly #unknown = new UnknownContexts();
  readonly #released = new ReleasedBatch();
  readonly #numbers: number[] = [0, 0, 0];

  constructor(parts: ClientParts, flows: ClientFlows) {
    this.#parts = parts;
    this.#flows = flows;
  }

  handleDatagramCapsule(
    now: number,
    lane: Lane,
    id: number,
    data: Uint8Array,
    payload: number,
    end: number,
  ): void {
    const context = this.#contextOfDatagram(lane, id);
    if (context === undefined) {
      this.#dropUnknown(data, payload, end - payload);
      if (id <= MAX_ID && !this.#isFormer(lane) && this.#unknown.shallAnswer(now, id)) {
        lane.tunnel!.writeControl(encodeCompressionClose(id));
      }
      return;
    }
    const association = this.#parts.contexts.association[context];
    if (!lane.tunnel!.acceptsDatagram(now, association, id, payload, end)) return;
    this.#receive(now, context, payload, end - payload);
    this.#parts.contexts.shortcuts.noteBatch(lane.tunnel!, context, false);
  }

  #dropUnknown(data: Uint8Array, offset: number, length: number): void {
    const { drops, tap } = this.#parts.counters;
    drops.unknown_context++;
    tap?.record(true, "unknown_context", NONE, undefined, undefined, data, offset, length);
  }

  handleDatagramRun(
    now: number,
    lane: Lane,
    id: number,
    batch: DatagramBatch,
    first: number,
    end: number,
    bytes: number,
  ): void {
    const context = this.#contextOfDatagram(lane, id);
    if (context !== undefined) {
      batch.addRun(this.noteReceived(now, context, end - first, bytes), context, first, end);
      this.#parts.contexts.shortcuts.noteBatch(lane.tunnel!, context, false);
      return;
    }
    const { offset, length } = batch;
    for (let i = first; i < end && lane.tunnel!.error === undefined; i++) {
      this.handleDatagramCapsule(now, lane, id, batch.data, offset[i], offset[i] + length[i]);
    }
  }

  #receive(now: number, context: number, offset: number, length: number): void {
    const association = this.noteReceived(now, context, 1, length);
    this.#parts.received.add(association, context, offset, length);
  }

  /** Datagrams of a context have arrived. @param context  -1 if it has ended since @returns its association */
  noteReceived(now: number, context: number, count: number, bytes: number): number {
    const { contexts, associations, counters } = this.#parts;
    counters.datagramsIn += count;
    counters.bytesIn += bytes;
    if (context === NONE) return NONE;
    const association = contexts.association[context];
    contexts.idle.refresh(now, context);
    associations.handleAnswers(now, association, count);
    return association;
  }

  /** See `TunnelClient.takeReleased`. */
  takeReleased(now: number): boolean {
    const { scheduler, former, received } = this.#parts;
    received.count = 0;
    if (scheduler !== undefined) this.#takeReleasedOf(now, scheduler, undefined);
    if (received.count === 0 && former?.scheduler !== undefined)
      this.#takeReleasedOf(now, former.scheduler, former);
    return received.count > 0;
  }

  #takeReleasedOf(now: number, scheduler: LaneScheduler, former: FormerSession | undefined): void {
    const { received } = this.#parts;
    const released = this.#released;
    released.begin(received);
    for (let id = scheduler.peekReleased(now); id >= 0; id = scheduler.peekReleased(now)) {
      const length = scheduler.releasedLength;
      if (!released.hasRoom(received, length)) break;
      scheduler.takeReleased(released.bytes, released.end);
      const context = this.#contextOf(former, id);
      if (context === undefined) this.#dropUnknown(released.bytes, released.end, length);
      else {
        this.#receive(now, context, released.end, length);
        released.end += length;
      }
    }
    released.finish(received);
  }

  #contextOfDatagram(lane: Lane, id: number): number | undefined {
    const { former } = this.#parts;
    return this.#contextOf(former?.lanes.includes(lane) ? former : undefined, id);
  }

  #contextOf(former: FormerSession | undefined, id: number): number | undefined {
    const { contexts, received, contextById } = this.#parts;
    if (former === undefined) {
      // Most datagrams follow one of the same context.
      const last = received.lastContext;
      return last !== NONE && contexts.id[last] === id ? last : contextById.get(id);
    }
    const slot = former.contextById.get(id);
    const isSame = slot !== undefined && former.generation[slot] === contexts.generation[slot];
    return isSame ? slot : undefined;
  }

  #isFormer(lane: Lane): boolean {
    return this.#parts.former?.lanes.includes(lane) ?? false;
  }

  /** @returns false if the lane has ended */
  handleControlCapsule(now: number, lane: Lane): boolean {
    const tunnel = lane.tunnel!;
    const { type, data, valueOffset, valueEnd } = tunnel.reader;
    if (type === CAPSULE_PROBE) {
      tunnel.handleProbe(now);
      return true;
    }
    const numbers = this.#numbers;
    const fields = CONTROL_FIELDS.get(type);
    const at = fields === undefined ? -1 : readNumbers(data, valueOffset, valueEnd, fields, numbers);
    const isWhole = type === CAPSULE_CONTEXT_ASSIGN ? at >= 0 : at === valueEnd;
    if (!isWhole) {
      // Only clients send COMPRESSION_ASSIGN and ASSOCIATION_OPEN.
      malformed(tunnel);
      return true;
    }
    const [first, second, third] = numbers;
    if (type === CAPSULE_SHUTDOWN) {
      const reason = shutdownReason(first);
      if (reason === "moving") {
        if (!this.#isFormer(lane)) this.#parts.moveAway(now);
        return true;
      }
      this.#parts.failLane(
        now,
        lane,
        new ProtocolError("ERR_PEER_SHUTDOWN", SHUTDOWN_TEXTS[reason] ?? reason),
      );
      return false;
    }
    // Capsules of a session that was replaced no longer change anything.
    if (this.#isFormer(lane)) return true;
    switch (type) {
      case CAPSULE_COMPRESSION_ACK:
      case CAPSULE_COMPRESSION_CLOSE: {
        const slot = this.#parts.contextById.get(first);
        if (slot !== undefined) this.#handleContextAnswer(now, slot, type === CAPSULE_COMPRESSION_ACK);
        else if (isServersId(first)) this.#parts.renewIfDue(now, first);
        break;
      }
      case CAPSULE_CONTEXT_ASSIGN: {
        const address = decodeWholeAddress(data, at, valueEnd);
        if (address === undefined || !isServersId(first) || first > this.#parts.maxId) malformed(tunnel);
        else this.#handleContextAssign(now, lane, first, second, address);
        break;
      }
      case CAPSULE_ASSOCIATION_CLOSE:
        this.#handleAssociationClose(now, lane, first, closeReason(second));
        break;
      case CAPSULE_UNREACHABLE: {
        const slot = this.#parts.contextById.get(first);
        const reason = unreachableKind(second);
        const mtu = reason === "too-big" ? Math.min(third, MAX_MTU) : 0;
        if (slot !== undefined) this.#flows.reportUnreachable(now, slot, reason, mtu);
        break;
      }
    }
    return true;
  }

  #handleContextAnswer(now: number, slot: number, isAck: boolean): void {
    const { contexts } = this.#parts;
    const before = contexts.state[slot];
    if (isAck) {
      contexts.handle(slot, "ack");
      this.#flows.confirm(slot);
      if (before === CONTEXT_REFUSED) contexts.idle.touch(now, slot, OWN);
      return;
    }
    if (before === CONTEXT_ACKED) {
      // The server does not know it; the next datagram registers the address again.
      const association = contexts.association[slot];
      // With receipts the server may have ended the association by a lane that was lost.
      const isOurs = !isServersId(contexts.id[slot]);
      if (isOurs || this.#parts.scheduler !== undefined) this.#parts.associations.isDoubtful[association] = 1;
      this.#flows.releaseContext(slot);
      this.#flows.updateTraits(association);
      return;
    }
    this.#flows.refuseContext(now, slot);
  }

  #handleContextAssign(
    now: number,
    lane: Lane,
    id: number,
    associationId: number,
    address: AddressBytes,
  ): void {
    const tunnel = lane.tunnel!;
    const association = this.#parts.associationById.get(associationId);
    if (association === undefined || this.#parts.associations.state[association] !== ASSOCIATION_OPEN) {
      tunnel.writeControl(encodeCompressionClose(id));
      return;
    }
    if (!this.#parts.contextById.has(id)) {
      this.#flows.makeRoomForPeer();
      const twin = this.#parts.contexts.find(association, address, 0, address.length);
      const slot = this.#parts.contexts.allocate(now, "learn", association, id, address, twin === NONE, PEER);
      this.#parts.contextById.set(id, slot);
      this.#flows.armContexts();
    }
    tunnel.writeControl(encodeCompressionAck(id));
    this.#parts.renewIfDue(now, id);
  }

  #handleAssociationClose(now: number, lane: Lane, id: number, reason: CloseReason): void {
    const association = this.#parts.associationById.get(id);
    if (association === undefined) return;
    const associations = this.#parts.associations;
    if (associations.state[association] === ASSOCIATION_CLOSING) {
      this.#flows.forget(association, "closed by server");
      return;
    }
    lane.tunnel!.writeControl(encodeAssociationClose(id, "done"));
    this.#parts.associationById.delete(id);
    this.#parts.removeFlow(association, dropReasonOf(reason));
    this.#flows.releaseContexts(association);
    associations.handle(association, "closed by server");
    associations.isRegistered[association] = 0;
    associations.isConfirmed[association] = 0;
    this.#flows.updateTraits(association);
    associations.reopenAt[association] = reason === "limit" || reason === "failed" ? now + REOPEN_MS : now;
  }
}

/** Numbers at the start of each capsule that a server may send. */
const CONTROL_FIELDS: ReadonlyMap<number, number> = new Map([
  [CAPSULE_COMPRESSION_ACK, 1],
  [CAPSULE_COMPRESSION_CLOSE, 1],
  [CAPSULE_CONTEXT_ASSIGN, 2],
  [CAPSULE_ASSOCIATION_CLOSE, 2],
  [CAPSULE_UNREACHABLE, 3],
  [CAPSULE_SHUTDOWN, 1],
]);

/** Fails a tunnel for a malformed capsule. */
function malformed(tunnel: Tunnel): void {
  tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", `type ${tunnel.reader.type}`));
}
