import { isDomain } from "../../../wire/capsule.ts";
import { asciiBytes } from "../../../wire/http/http-head.ts";
import { constantTimeEqual } from "../../handshakes/credentials.ts";
import type { KeyTable } from "../../keys/key-table.ts";
import type { NamedKey } from "../../keys/named-key.ts";
import { CONTEXT_RESOLVING, SESSION } from "../../session/session-model.ts";
import type { ServerFlows } from "../server-flows.ts";
import type { ServerLanes } from "../server-lanes.ts";
import type { ServerParts } from "../server-parts.ts";
import { DEADLINE_LINGER, deadlineOf } from "../server-parts.ts";
import type { Session } from "../sessions/server-session.ts";
import type { KeptAssociation, KeptContext, KeptReceipts, KeptSession } from "./kept-sessions.ts";
import { PROOF_BYTES } from "./kept-sessions.ts";

const LABEL = asciiBytes("underpass/1 kept session");

/** Ports of an association's sockets for IPv4 and IPv6; 0 if it has none. */
export type Ports = readonly [number, number];

/** A restored association, and the ports of the sockets that it had. */
export interface RestoredAssociation {
  readonly association: number;
  readonly ports: Ports;
}

/** Saves the sessions that can be resumed, and restores them in another process. */
export class SessionKeeper {
  readonly #parts: ServerParts;
  readonly #lanes: ServerLanes;
  readonly #flows: ServerFlows;
  readonly #keys: KeyTable | undefined;

  constructor(parts: ServerParts, lanes: ServerLanes, flows: ServerFlows, keys: KeyTable | undefined) {
    this.#parts = parts;
    this.#lanes = lanes;
    this.#flows = flows;
    this.#keys = keys;
  }

  /** See `TunnelServer.saveSessions`. */
  save(now: number, portsOf: (association: number) => Ports): KeptSession[] {
    const kept: KeptSession[] = [];
    for (const session of this.#parts.sessions.values()) {
      if (session.kind === "native" && session.associationById.size > 0) {
        kept.push(this.#saveSession(now, session, portsOf));
      }
    }
    return kept;
  }

  #saveSession(now: number, session: Session, portsOf: (association: number) => Ports): KeptSession {
    const { id, key, holder, number, nextContextId, lanes } = session;
    const isLingering = session.connections.size === 0;
    const associations = this.#parts.associations;
    return {
      ...{ id, key, number, nextContextId },
      proof: this.#proof(id, holder),
      holder: holder?.name,
      lingerMs: isLingering ? Math.max(0, session.lingersUntil - now) : this.#parts.options.lingerMs,
      receipts: lanes && {
        progress: lanes.scheduler.progress(now),
        closedAssociations: lanes.closedAssociations.ranges,
        closedContexts: lanes.closedContexts.ranges,
      },
      associations: Array.from(session.associationById, ([associationId, slot]) => ({
        id: associationId,
        source: associations.source[slot],
        latency: associations.latency[slot],
        dscp: associations.dscp[slot],
        answers: associations.answersOf(slot),
        idleMs: Math.max(0, now - associations.idle.lastUsed(slot)),
        ports: portsOf(slot),
      })),
      contexts: Array.from(session.contextById).flatMap(([contextId, slot]) =>
        this.#saveContext(now, session, contextId, slot),
      ),
    };
  }

  /** Leaves out a context whose name is being resolved: the client has had no answer and will register it again. */
  #saveContext(now: number, session: Session, id: number, slot: number): KeptContext | [] {
    const { contexts, wireId } = this.#parts.associations;
    if (contexts.state[slot] === CONTEXT_RESOLVING) return [];
    return {
      id,
      association: wireId[contexts.association[slot]],
      address: contexts.address[slot]!,
      target: contexts.target[slot]!,
      isAcked: session.lanes?.unacked.has(slot) !== true,
      idleMs: Math.max(0, now - contexts.idle.lastUsed(slot)),
    };
  }

  /** See `TunnelServer.restoreSessions`. */
  restore(now: number, kept: readonly KeptSession[], elapsedMs: number): RestoredAssociation[] {
    // The set of lingering sessions is in the order in which they end.
    const inOrder = [...kept].sort((a, b) => a.lingerMs - b.lingerMs);
    return inOrder.flatMap((each) => this.#restoreSession(now, each, elapsedMs));
  }

  #restoreSession(now: number, kept: KeptSession, elapsedMs: number): RestoredAssociation[] {
    const { lingerMs, maxSessions } = this.#parts.options;
    const { id, key, receipts, number } = kept;
    const endsAt = now + Math.min(kept.lingerMs, lingerMs) - elapsedMs;
    if (endsAt <= now || this.#parts.sessions.size >= maxSessions) return [];
    if (this.#parts.sessions.find(id) !== undefined) return [];
    if (receipts !== undefined && this.#parts.options.hasReceipts === false) return [];
    const holder = kept.holder === undefined ? undefined : this.#keys?.byName(kept.holder);
    if (kept.holder !== undefined && (holder === undefined || this.#keys!.isExpired(now, holder))) return [];
    if (!constantTimeEqual(kept.proof, this.#proof(id, holder))) return [];

    const scheduler = receipts && this.#lanes.makeScheduler();
    const session = this.#parts.sessions.begin("native", id, key, scheduler, holder, number);
    session.state = SESSION.after(session.state, "last lane lost");
    session.nextContextId = kept.nextContextId;
    if (receipts !== undefined) this.#restoreReceipts(now, session, receipts, elapsedMs);
    const restored = byIdleness(kept.associations).flatMap((each) =>
      this.#restoreAssociation(now, session, each, elapsedMs),
    );
    for (const each of byIdleness(kept.contexts)) this.#restoreContext(now, session, each, elapsedMs);
    this.#flows.armAssociations(session);
    session.lingersUntil = endsAt;
    this.#parts.deadlines.set(deadlineOf(session.index, DEADLINE_LINGER), endsAt);
    this.#parts.sessions.lingering.add(session);
    this.#parts.counters.restored++;
    return restored;
  }

  #restoreReceipts(now: number, { lanes }: Session, kept: KeptReceipts, elapsedMs: number): void {
    lanes!.scheduler.resume(now, kept.progress, elapsedMs);
    lanes!.closedAssociations.restore(kept.closedAssociations);
    lanes!.closedContexts.restore(kept.closedContexts);
  }

  /** Leaves out an association for which the limits have no room. The client opens it again. */
  #restoreAssociation(
    now: number,
    session: Session,
    kept: KeptAssociation,
    elapsedMs: number,
  ): RestoredAssociation | [] {
    const { maxAssociations, maxAssociationsPerSession } = this.#parts.options;
    const { associations } = this.#parts;
    const { holder } = session;
    if (associations.count >= maxAssociations) return [];
    if (session.associationById.size >= maxAssociationsPerSession) return [];
    if (holder?.hasRoomForAssociation === false) return [];
    const usedAt = now - kept.idleMs - elapsedMs;
    const slot = associations.open(usedAt, session, undefined, kept.id, kept.source);
    associations.restoreAnswers(slot, kept.answers);
    associations.latency[slot] = kept.latency;
    associations.dscp[slot] = kept.dscp;
    if (holder !== undefined) holder.associations++;
    return { association: slot, ports: kept.ports };
  }

  /** Leaves out a context that the policy no longer permits or that has no room. The client learns that it is unknown and asks again. */
  #restoreContext(now: number, session: Session, kept: KeptContext, elapsedMs: number): void {
    const { maxContextsPerSession } = this.#parts.options;
    const { associations, options } = this.#parts;
    const { contexts } = associations;
    const { id, address, target, isAcked } = kept;
    const association = session.associationById.get(kept.association);
    if (association === undefined || !options.permits(target)) return;
    if (session.contextById.size >= maxContextsPerSession) return;
    const usedAt = now - kept.idleMs - elapsedMs;
    if (id % 2 === 1) {
      const slot = this.#flows.addSenderContext(usedAt, session, association, id, address);
      if (isAcked || session.lanes === undefined) return;
      contexts.lanes[slot] = 0;
      session.lanes.unacked.add(slot);
      return;
    }
    const slot = associations.addClientContext(usedAt, session, association, id, address, true);
    if (!isDomain(address)) return;
    contexts.resolve(slot, target);
    associations.grant(slot);
  }

  #proof(id: Uint8Array, holder: NamedKey | undefined): Uint8Array {
    const { crypto, psk } = this.#parts.options;
    const input = new Uint8Array(LABEL.length + id.length);
    input.set(LABEL);
    input.set(id, LABEL.length);
    return crypto.hmac(holder?.key ?? psk ?? new Uint8Array(0), input).slice(0, PROOF_BYTES);
  }
}

/** Sorts by idleness, the idlest first, because {@link IdleLists} must be filled in that order. */
function byIdleness<Item extends { readonly idleMs: number }>(items: readonly Item[]): Item[] {
  return [...items].sort((a, b) => b.idleMs - a.idleMs);
}
