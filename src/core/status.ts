/** Reports of the current state for operators, without secrets and at no cost per datagram. */
import type { AddressBytes } from "../wire/socket-address.ts";
import { formatAddress } from "../wire/socket-address.ts";
import type { ClientAssociations } from "./client/client-associations.ts";
import type { IdleLists } from "./idle-lists.ts";
import type { ServerAssociations } from "./server/server-associations.ts";
import type { ContextTable } from "./session/context-table.ts";

/** One connection of a session. */
export interface LaneReport {
  readonly lane: number;
  /** A state of `LANE`; at a server always up. */
  readonly state: string;
  /** Smoothed round trip, in milliseconds. */
  readonly rttMs: number | undefined;
  /** Whether the lane is stalled by a lost segment. */
  readonly isLate: boolean;
  /** At a client: the index in the options of the way it takes. */
  readonly way?: number;
  /** At a server: the number of its connection. */
  readonly connection?: number;
}

/** A session at a server. */
export interface SessionReport {
  /** As in the log. */
  readonly session: string;
  /** native: can be resumed; bound and fixed: RFC 9298 without our extension. */
  readonly kind: string;
  readonly state: string;
  /** The name of its key; absent for the shared key, or without a key. */
  readonly key?: string;
  readonly associations: number;
  readonly lanes: readonly LaneReport[];
}

/** The current state of an association. */
export interface AssociationReport {
  /** As in the log; empty at a client. */
  readonly session: string;
  readonly association: number;
  /** The application's own address, if known. */
  readonly local: string | undefined;
  /** One of its targets, which may be a name; undefined if it has none. */
  readonly remote: string | undefined;
  /** How many targets it has; {@link MAX_COUNTED_TARGETS} stands for that many or more. */
  readonly targets: number;
  /** Whole seconds since its last use; undefined if it does not expire. */
  readonly idleS: number | undefined;
}

export const MAX_COUNTED_TARGETS = 100;

/** Reports on a part of a machine's associations. */
export interface AssociationReports {
  readonly reports: readonly AssociationReport[];
  /** First slot of the next part; undefined after the last part. */
  readonly next: number | undefined;
}

/** Reports on the associations of a client in `slots` slots from `first` on. */
export function clientAssociations(
  now: number,
  associations: ClientAssociations,
  contexts: ContextTable,
  first: number,
  slots: number,
): AssociationReports {
  const { used, source, idle } = associations;
  const sessionName = (slot: number) => (associations.isLive(slot) ? "" : undefined);
  return reportsOf(now, { used, source, idle, contexts, sessionName }, first, slots);
}

/** Reports on the associations of a server in `slots` slots from `first` on. */
export function serverAssociations(
  now: number,
  { sessionOf, source, idle, contexts }: ServerAssociations,
  first: number,
  slots: number,
): AssociationReports {
  const sessionName = (slot: number) => sessionOf[slot]?.name;
  return reportsOf(now, { used: sessionOf.length, source, idle, contexts, sessionName }, first, slots);
}

/** What {@link reportsOf} reads of either end's associations. */
interface ReportedAssociations {
  /** Slots from here on are free. */
  readonly used: number;
  /** The session of the association in a slot; undefined if the slot is free. */
  readonly sessionName: (slot: number) => string | undefined;
  readonly source: readonly (AddressBytes | undefined)[];
  readonly contexts: ContextTable;
  readonly idle: IdleLists;
}

function reportsOf(
  now: number,
  associations: ReportedAssociations,
  first: number,
  slots: number,
): AssociationReports {
  const end = Math.min(associations.used, first + slots);
  const reports: AssociationReport[] = [];
  for (let slot = first; slot < end; slot++) {
    const session = associations.sessionName(slot);
    if (session !== undefined) reports.push(reportOf(now, associations, slot, session));
  }
  return { reports, next: end < associations.used ? end : undefined };
}

function reportOf(
  now: number,
  { source, contexts, idle }: ReportedAssociations,
  association: number,
  session: string,
): AssociationReport {
  const first = contexts.first(association);
  let targets = 0;
  for (let slot = first; slot >= 0 && targets < MAX_COUNTED_TARGETS; slot = contexts.next(slot)) targets++;
  const hasIdle = idle.listOf(association) >= 0;
  const local = source[association];
  return {
    session,
    association,
    local: local && formatAddress(local),
    remote: first < 0 ? undefined : formatAddress(contexts.address[first]!),
    targets,
    idleS: hasIdle ? Math.max(0, Math.round((now - idle.lastUsed(association)) / 1000)) : undefined,
  };
}
