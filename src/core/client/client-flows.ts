import type { CloseReason, UnreachableKind } from "../../wire/capsule.ts";
import {
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionClose,
  encodeContextAssign,
  encodeDscp,
  encodeLatencyClass,
} from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import { dropReasonOf } from "../counters.ts";
import { ANY_LANE } from "../lanes/lane-bits.ts";
import {
  ASSOCIATION_CLOSING,
  ASSOCIATION_LOCAL,
  ASSOCIATION_OPEN,
  CONTEXT_REFUSED,
  CONTEXT_UNACKED,
} from "../session/session-model.ts";
import { IDLE_ANSWERED, IDLE_CLOSING, IDLE_QUIET } from "./client-associations.ts";
import type { ClientParts } from "./client-parts.ts";
import { DEADLINE_ASSOCIATIONS, DEADLINE_CONTEXTS, isServersId, OWN, PEER, REFUSED } from "./client-parts.ts";
import type { Lane } from "./lanes/lane.ts";
import { UnreachableReports } from "./unreachable-reports.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
/** Idle time after which a context is closed, in milliseconds; more than the two minutes of RFC 4787 REQ-5. */
const CONTEXT_IDLE_MS = 300_000;
/** How long a refusal by the server is remembered. */
const REFUSAL_MS = 30_000;
/** How long an ASSOCIATION_CLOSE waits for its confirmation. */
const CLOSING_MS = 60_000;
/** Most ended associations that wait for the server's confirmation. */
const MAX_CLOSING = 8_192;

/**
 * Opens and ends the associations and contexts of a client: chooses the context of a datagram, decides what is evicted at a bound and what
 * expires, and informs the server and the host.
 */
export class ClientFlows {
  /** Why the last {@link usableContext} returned -1. */
  dropped: DropReason = "context_limit";
  readonly #parts: ClientParts;
  readonly #unreachable: UnreachableReports;

  constructor(parts: ClientParts) {
    this.#parts = parts;
    this.#unreachable = new UnreachableReports(parts.counters, parts.outputs);
  }

  /** The context for datagrams to an address, or -1 if they have to be dropped for the reason {@link dropped}. */
  usableContext(
    now: number,
    association: number,
    address: Uint8Array,
    addressOffset: number,
    addressLength: number,
  ): number {
    const { lastContext } = this.#parts.associations;
    // It could not be opened, or was evicted for another one before the host knew.
    if (!this.#parts.associations.isLive(association)) {
      this.dropped = "association_limit";
      return NONE;
    }
    this.#parts.associations.handleSent(now, association);
    let context = lastContext[association];
    if (context === NONE || !this.#isAddressOf(context, address, addressOffset, addressLength)) {
      context = this.#contextFor(now, association, address, addressOffset, addressLength);
      if (context === NONE) return NONE;
      this.#parts.associations.lastContext[association] = context;
    }
    if (this.#parts.contexts.state[context] === CONTEXT_REFUSED) {
      this.dropped = "refused_target";
      this.reportUnreachable(now, context, "prohibited", 0);
      return NONE;
    }
    this.#parts.contexts.idle.refresh(now, context);
    return context;
  }

  /** The application has sent to a context. */
  noteSent(now: number, context: number): void {
    const { associations, contexts } = this.#parts;
    associations.handleSent(now, contexts.association[context]);
    contexts.idle.refresh(now, context);
  }

  #isAddressOf(slot: number, bytes: Uint8Array, offset: number, length: number): boolean {
    const address = this.#parts.contexts.address[slot]!;
    return address.length === length && this.#parts.pool.datapath.areSame(address, 0, bytes, offset, length);
  }

  #contextFor(now: number, association: number, bytes: Uint8Array, offset: number, length: number): number {
    const known = this.#parts.contexts.find(association, bytes, offset, length);
    if (known !== NONE) {
      this.#handleUsed(known);
      return known;
    }
    if (now < this.#parts.associations.reopenAt[association]) {
      this.dropped = "association_limit";
      return NONE;
    }
    const isOutOfIds =
      this.#parts.nextContextId > this.#parts.maxId || this.#parts.nextAssociationId > this.#parts.maxId;
    if (isOutOfIds) {
      this.dropped = "context_limit";
      return NONE;
    }
    this.#makeRoomForOwn();
    const lanes = this.#parts.registrationLanes(association);
    this.#openAtServer(association, lanes);
    const address = copyAddress(bytes, offset, length);
    const slot = this.#parts.contexts.allocate(
      now,
      "register",
      association,
      this.#parts.nextContextId,
      address,
      true,
      OWN,
    );
    this.#numberContext(slot);
    this.armContexts();
    this.#handleUsed(slot, lanes);
    this.#assign(slot, lanes);
    this.#parts.renewIfDue(now);
    return slot;
  }

  /** Registers a context on these lanes, which may then carry its datagrams. */
  #assign(slot: number, lanes: number): void {
    const { contexts, associations, scheduler } = this.#parts;
    const association = contexts.association[slot];
    const capsule = encodeContextAssign(
      contexts.id[slot],
      associations.wireId[association],
      contexts.address[slot]!,
    );
    this.#writeOn(lanes, capsule);
    if (scheduler === undefined) return;
    contexts.lanes[slot] = lanes;
    scheduler.allow(association, contexts.id[slot], lanes);
  }

  #writeOn(lanes: number, capsule: Uint8Array): void {
    for (let left = lanes; left !== 0; left &= left - 1) {
      this.#parts.lanes[31 - Math.clz32(left & -left)].tunnel!.writeControl(capsule);
    }
  }

  /** The server has acknowledged a context, so any lane may carry its datagrams from now on. */
  confirm(slot: number): void {
    const { contexts, associations } = this.#parts;
    const association = contexts.association[slot];
    this.#allowAnyLane(slot);
    if (associations.isConfirmed[association] === 1) return;
    associations.isConfirmed[association] = 1;
    this.updateTraits(association);
  }

  #allowAnyLane(slot: number): void {
    const { contexts, scheduler } = this.#parts;
    if (contexts.lanes[slot] === ANY_LANE) return;
    contexts.lanes[slot] = ANY_LANE;
    scheduler?.allow(contexts.association[slot], contexts.id[slot], ANY_LANE);
  }

  /**
   * A lane of a session with receipts has ended, perhaps with unread capsules. Registers again what was registered on no other lane, and
   * closes again everything that is closing.
   */
  registerAgain(lostNumber: number): void {
    const { associations, contexts } = this.#parts;
    for (let slot = 0; slot < associations.used; slot++) {
      if (associations.state[slot] === ASSOCIATION_CLOSING) {
        const { tunnel } = this.#parts.controlLaneOf(slot);
        tunnel!.writeControl(encodeAssociationClose(associations.wireId[slot], "done"));
      }
      if (associations.state[slot] !== ASSOCIATION_OPEN) continue;
      for (let context = contexts.first(slot); context !== NONE; context = contexts.next(context)) {
        const isHere =
          contexts.state[context] === CONTEXT_UNACKED && (contexts.lanes[context] & (1 << lostNumber)) !== 0;
        if (!isHere) continue;
        contexts.lanes[context] &= ~(1 << lostNumber);
        if (contexts.lanes[context] !== 0) continue;
        const lanes = this.#parts.registrationLanes(slot);
        this.#writeOn(lanes, encodeAssociationOpen(associations.wireId[slot], associations.source[slot]));
        this.#noteRegistered(slot, false);
        this.updateTraits(slot, lanes);
        this.#assign(context, lanes);
      }
      if (associations.isConfirmed[slot] === 0) continue;
      // The last class and DSCP may have been lost with the lane.
      this.#noteRegistered(slot, false);
      this.updateTraits(slot);
    }
  }

  /** Opens an association at the server, unless the server certainly knows it. @param lanes  where to register it */
  #openAtServer(association: number, lanes: number): void {
    const associations = this.#parts.associations;
    const isNew = associations.state[association] === ASSOCIATION_LOCAL;
    if (isNew) {
      associations.handle(association, "register");
      associations.wireId[association] = this.#parts.nextAssociationId++;
      this.#parts.associationById.set(associations.wireId[association], association);
    }
    // On another lane a context may arrive before the first one, and before its association.
    const isUnsure = this.#parts.scheduler !== undefined && associations.isConfirmed[association] === 0;
    if ((isNew || isUnsure || associations.isDoubtful[association] === 1) && lanes !== 0) {
      const { wireId, source, isRegistered } = associations;
      isRegistered[association] = 1;
      this.#writeOn(lanes, encodeAssociationOpen(wireId[association], source[association]));
      this.#noteRegistered(association, isNew);
    }
    if (associations.isDoubtful[association] === 1) associations.isConfirmed[association] = 0;
    associations.isDoubtful[association] = 0;
  }

  #noteRegistered(association: number, isNew: boolean): void {
    this.#parts.latency.handleRegistered(association, isNew);
    this.#parts.dscp.handleRegistered(association, isNew);
  }

  /** See `TunnelClient.handleDscp`. */
  handleDscp(now: number, association: number, value: number): void {
    const { associations, contexts, latency, dscp } = this.#parts;
    if (!dscp.handleSent(now, association, value) || !associations.isLive(association)) return;
    for (let slot = contexts.first(association); slot !== NONE; slot = contexts.next(slot)) {
      // They are for packets with the former DSCP.
      contexts.shortcuts.endOf(slot);
      if (latency.dependsOnDscp) latency.handleDscp(slot, association, contexts.address[slot]!, value);
    }
    this.updateTraits(association);
  }

  /** The application sends to a context: that can change the class of its association, and a new one may have a DSCP. */
  #handleUsed(context: number, lanes?: number): void {
    const association = this.#parts.contexts.association[context];
    const { latency, dscp, contexts } = this.#parts;
    const address = contexts.address[context]!;
    const isFirst = latency.handleUsed(context, association, address, dscp.of(association));
    if (isFirst || !dscp.isKnown(association)) this.updateTraits(association, lanes);
  }

  /**
   * Informs the host and the server about an association's class and DSCP, if these have changed.
   *
   * @param lanes  where the association has just been registered; by default, lanes on which the server certainly knows it
   */
  updateTraits(association: number, lanes?: number): void {
    const { latency, dscp } = this.#parts;
    // Most associations keep what they begin with.
    if (latency.isKnown(association) && dscp.isKnown(association)) return;
    this.#tellTraits(association, lanes ?? this.#lanesOfKnown(association));
  }

  #tellTraits(association: number, lanes: number): void {
    const { associations, latency, dscp, outputs } = this.#parts;
    if (latency.takeShown(association)) outputs.push({ kind: "latency", association });
    // A server that does not have it is informed by register().
    const isKnown =
      associations.state[association] === ASSOCIATION_OPEN && associations.isRegistered[association] === 1;
    if (lanes === 0 || !isKnown) return;
    const id = associations.wireId[association];
    if (latency.takeTold(association)) this.#writeOn(lanes, encodeLatencyClass(id, latency.of(association)));
    if (dscp.takeTold(association)) this.#writeOn(lanes, encodeDscp(id, dscp.of(association)));
  }

  #lanesOfKnown(association: number): number {
    const { associations, scheduler, registrationLanes } = this.#parts;
    // On another lane it might overtake the registration, and be ignored; confirm() makes up for it.
    const isUnsure = scheduler !== undefined && associations.isConfirmed[association] === 0;
    return isUnsure ? 0 : registrationLanes(association);
  }

  #numberContext(slot: number): void {
    this.#parts.contexts.id[slot] = this.#parts.nextContextId;
    this.#parts.contextById.set(this.#parts.nextContextId, slot);
    this.#parts.nextContextId += 2;
  }

  /** Makes room for a context of the client: evicts the idlest of the server's contexts while those are more than a quarter, else of its own. */
  #makeRoomForOwn(): void {
    const { idle, size } = this.#parts.contexts;
    const { maxContexts } = this.#parts.options;
    if (size < maxContexts) return;
    let victim = idle.oldest(REFUSED);
    if (victim === NONE && idle.size(PEER) > maxContexts / 4) victim = idle.oldest(PEER);
    if (victim === NONE) victim = idle.oldest(OWN);
    this.closeContext(victim === NONE ? idle.oldest(PEER) : victim, "context_limit");
  }

  /** Makes room for a context that the server creates. The server's contexts may be a quarter of all, or up to a half if there is room. */
  makeRoomForPeer(): void {
    const { idle, size } = this.#parts.contexts;
    const { maxContexts } = this.#parts.options;
    const peers = idle.size(PEER);
    if (size < maxContexts && peers < maxContexts / 2) return;
    let victim = size < maxContexts ? NONE : idle.oldest(REFUSED);
    if (victim === NONE && peers < maxContexts / 4) victim = idle.oldest(OWN);
    this.closeContext(victim === NONE ? idle.oldest(PEER) : victim, "context_limit");
  }

  /** Releases a context, and closes it at the server if the server knows it. @param reason  see {@link releaseContext} */
  closeContext(slot: number, reason?: DropReason): void {
    const lane = this.#parts.controlLaneOf(this.#parts.contexts.association[slot]);
    if (this.#parts.contexts.state[slot] !== CONTEXT_REFUSED && lane.isUp) {
      lane.tunnel!.writeControl(encodeCompressionClose(this.#parts.contexts.id[slot]));
    }
    const association = this.#parts.contexts.association[slot];
    this.releaseContext(slot, reason);
    this.updateTraits(association);
  }

  /** The server has refused a context. */
  refuseContext(now: number, slot: number): void {
    const { contexts } = this.#parts;
    const isNew = contexts.state[slot] === CONTEXT_UNACKED;
    contexts.handle(slot, "close");
    contexts.idle.touch(now, slot, REFUSED);
    this.armContexts();
    if (!isNew) return;
    this.#noteEnded(slot, "refused_target");
    this.reportUnreachable(now, slot, "prohibited", 0);
  }

  #noteEnded(slot: number, reason: DropReason): void {
    const { contexts, ended, scheduler, pool } = this.#parts;
    ended.note(
      scheduler ?? pool,
      contexts.association[slot],
      contexts.id[slot],
      contexts.address[slot],
      reason,
    );
  }

  /** @param reason  for which the datagrams that wait for the context are dropped */
  releaseContext(slot: number, reason: DropReason = "unknown_context"): void {
    const { lastContext } = this.#parts.associations;
    const association = this.#parts.contexts.association[slot];
    if (lastContext[association] === slot) lastContext[association] = NONE;
    this.#noteEnded(slot, reason);
    this.#parts.contextById.delete(this.#parts.contexts.id[slot]);
    this.#parts.latency.handleReleased(slot, association);
    this.#parts.contexts.release(slot);
  }

  releaseContexts(association: number): void {
    const { contexts } = this.#parts;
    for (let slot = contexts.first(association); slot !== NONE; slot = contexts.first(association)) {
      this.releaseContext(slot);
    }
  }

  armContexts(): void {
    const { idle } = this.#parts.contexts;
    const idleAt = Math.min(idle.expiresAt(OWN, CONTEXT_IDLE_MS), idle.expiresAt(PEER, CONTEXT_IDLE_MS));
    this.#parts.deadlines.setEarlier(
      DEADLINE_CONTEXTS,
      Math.min(idleAt, idle.expiresAt(REFUSED, REFUSAL_MS)),
    );
  }

  expireContexts(now: number): void {
    for (const list of [OWN, PEER, REFUSED]) {
      const limit = list === REFUSED ? REFUSAL_MS : CONTEXT_IDLE_MS;
      for (;;) {
        const slot = this.#parts.contexts.idle.expired(now, list, limit);
        if (slot === NONE) break;
        this.closeContext(slot);
      }
    }
    this.armContexts();
  }

  endAssociation(now: number, association: number, reason: CloseReason): void {
    const associations = this.#parts.associations;
    if (!associations.isLive(association)) return;
    const wireId = associations.openId(association);
    this.#parts.removeFlow(association, dropReasonOf(reason));
    this.releaseContexts(association);
    this.#unreachable.withdraw(association);
    associations.handleEnded(now, association);
    if (associations.state[association] !== ASSOCIATION_CLOSING) {
      this.#parts.associationById.delete(wireId);
      return;
    }
    const { idle } = associations;
    if (idle.size(IDLE_CLOSING) > MAX_CLOSING) this.forget(idle.oldest(IDLE_CLOSING), "expire");
    this.armAssociations();
    const lane = this.#parts.controlLaneOf(association);
    if (lane.isUp) lane.tunnel!.writeControl(encodeAssociationClose(wireId, reason));
  }

  forget(association: number, event: "forget" | "closed by server" | "new session" | "expire"): void {
    const associations = this.#parts.associations;
    if (associations.state[association] === ASSOCIATION_CLOSING) {
      this.#parts.associationById.delete(associations.wireId[association]);
    }
    this.#parts.laneOf(association).load--;
    associations.handle(association, event);
    associations.release(association);
  }

  /** Ends the idlest association that may expire. */
  evictAssociation(now: number): boolean {
    const { idlest } = this.#parts.associations;
    if (idlest === NONE) return false;
    this.#parts.counters.refused.association_evicted++;
    this.endAssociation(now, idlest, "evicted");
    this.#parts.outputs.push({ kind: "association-closed", association: idlest, reason: "evicted" });
    return true;
  }

  armAssociations(): void {
    const { idle } = this.#parts.associations;
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#parts.options;
    const quietAt = idle.expiresAt(IDLE_QUIET, idleTimeoutMs);
    const answeredAt = idle.expiresAt(IDLE_ANSWERED, activeIdleTimeoutMs);
    const closingAt = this.#parts.isUp ? idle.expiresAt(IDLE_CLOSING, CLOSING_MS) : NEVER;
    this.#parts.deadlines.setEarlier(DEADLINE_ASSOCIATIONS, Math.min(quietAt, answeredAt, closingAt));
  }

  expireAssociations(now: number): void {
    const { idle } = this.#parts.associations;
    const { idleTimeoutMs, activeIdleTimeoutMs } = this.#parts.options;
    for (const list of [IDLE_QUIET, IDLE_ANSWERED]) {
      const limit = list === IDLE_QUIET ? idleTimeoutMs : activeIdleTimeoutMs;
      for (let slot = idle.expired(now, list, limit); slot !== NONE; slot = idle.expired(now, list, limit)) {
        this.endAssociation(now, slot, "idle");
        this.#parts.outputs.push({ kind: "association-closed", association: slot, reason: "idle" });
      }
    }
    // Without a lane, the server cannot confirm them, and they would keep their slots for a long time.
    while (this.#parts.isUp) {
      const slot = idle.expired(now, IDLE_CLOSING, CLOSING_MS);
      if (slot === NONE) break;
      this.forget(slot, "expire");
    }
    this.armAssociations();
  }

  /** The host polls an output about an unreachable remote address. @returns false if it has been withdrawn */
  takeReport(remote: AddressBytes): boolean {
    return this.#unreachable.take(remote);
  }

  /** Reports a context's remote address as unreachable, at most once until the host has polled that. */
  reportUnreachable(now: number, context: number, reason: UnreachableKind, mtu: number): void {
    const association = this.#parts.contexts.association[context];
    const remote = this.#parts.contexts.address[context]!;
    this.#unreachable.report(now, association, remote, reason, mtu);
  }

  register(now: number, slot: number, lane: Lane): void {
    const { state, wireId, source, idle, isRegistered } = this.#parts.associations;
    const tunnel = lane.tunnel!;
    if (state[slot] === ASSOCIATION_CLOSING) {
      tunnel.writeControl(encodeAssociationClose(wireId[slot], "done"));
      idle.touch(now, slot, IDLE_CLOSING);
    }
    if (state[slot] !== ASSOCIATION_OPEN) return;
    tunnel.writeControl(encodeAssociationOpen(wireId[slot], source[slot]));
    isRegistered[slot] = 1;
    this.#noteRegistered(slot, false);
    this.updateTraits(slot, 1 << lane.number);
    for (
      let context = this.#parts.contexts.first(slot);
      context !== NONE;
      context = this.#parts.contexts.next(context)
    ) {
      if (this.#parts.contexts.state[context] === CONTEXT_UNACKED) this.#assign(context, 1 << lane.number);
    }
  }

  giveNewIds(): void {
    const associations = this.#parts.associations;
    const before = this.#parts.contextById;
    // An association that is not continued may still send under its old id, which may be the new id of another.
    for (let slot = 0; slot < associations.used; slot++) {
      if (associations.state[slot] === ASSOCIATION_CLOSING) this.forget(slot, "new session");
    }
    for (const [id, slot] of [...before]) {
      if (isServersId(id) || this.#parts.contexts.state[slot] === CONTEXT_REFUSED) this.releaseContext(slot);
    }
    this.#parts.contextById = new Map();
    this.#parts.associationById = new Map();
    this.#parts.nextAssociationId = 1;
    this.#parts.nextContextId = 2;
    for (let slot = 0; slot < associations.used; slot++) {
      if (associations.state[slot] !== ASSOCIATION_OPEN) continue;
      associations.wireId[slot] = this.#parts.nextAssociationId++;
      this.#parts.associationById.set(associations.wireId[slot], slot);
      associations.isConfirmed[slot] = 0;
    }
    for (const slot of before.values()) {
      this.#parts.contexts.handle(slot, "new session");
      this.#numberContext(slot);
    }
  }
}
