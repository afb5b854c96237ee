/** What there is now, for operators: no secrets, and nothing that a datagram pays for. */
import { formatAddress } from "../wire/socket-address.ts";
import type { ClientAssociations } from "./client-associations.ts";
import type { ContextTable } from "./context-table.ts";
import type { IdleLists } from "./idle-lists.ts";

/** One connection of a session. */
export interface LaneReport {
  readonly lane: number;
  /** A state of `LANE`; at a server always up. */
  readonly state: string;
  /** Smoothed, in milliseconds. */
  readonly rttMs: number | undefined;
  /** A lost segment holds up what is behind it. */
  readonly isLate: boolean;
  /** Of a client: the way it takes, by its index in the options. */
  readonly way?: number;
  /** Of a server: the number of its connection. */
  readonly connection?: number;
}

/** A session at a server. */
export interface SessionReport {
  /** As in the log. */
  readonly session: string;
  /** native: can be resumed; bound and fixed: RFC 9298 without our extension. */
  readonly kind: string;
  readonly state: string;
  /** Whose key it has; absent where that is the key of everybody, or there is none. */
  readonly key?: string;
  readonly associations: number;
  readonly lanes: readonly LaneReport[];
}

/** An association, as it is now. */
export interface AssociationReport {
  /** As in the log; at a client empty. */
  readonly session: string;
  readonly association: number;
  /** The application's own address, if it is known. */
  readonly local: string | undefined;
  /** One of its targets, which may be a name; undefined when it has none. */
  readonly remote: string | undefined;
  /** How many it has; {@link MAX_COUNTED_TARGETS} stands for that many or more. */
  readonly targets: number;
  /** Whole seconds since it was used last; undefined for one that does not expire. */
  readonly idleS: number | undefined;
}

export const MAX_COUNTED_TARGETS = 100;

/** Reports on a part of a machine's associations. */
export interface AssociationReports {
  readonly reports: readonly AssociationReport[];
  /** Where the next part begins; undefined behind the last. */
  readonly next: number | undefined;
}

/** What is known of an association's targets. */
export function targetsOf(
  contexts: ContextTable,
  association: number,
): Pick<AssociationReport, "remote" | "targets"> {
  const first = contexts.first(association);
  let targets = 0;
  for (let slot = first; slot >= 0 && targets < MAX_COUNTED_TARGETS; slot = contexts.next(slot)) targets++;
  return { remote: first < 0 ? undefined : formatAddress(contexts.address[first]!), targets };
}

/** Whole seconds since a slot of these lists was used. */
export function idleSecondsOf(now: number, idle: IdleLists, slot: number): number | undefined {
  return idle.listOf(slot) < 0 ? undefined : Math.max(0, Math.round((now - idle.lastUsed(slot)) / 1000));
}

/** Of a client: those of `slots` slots from `first` on. */
export function clientAssociations(
  now: number,
  associations: ClientAssociations,
  contexts: ContextTable,
  first: number,
  slots: number,
): AssociationReports {
  const end = Math.min(associations.used, first + slots);
  const reports: AssociationReport[] = [];
  for (let association = first; association < end; association++) {
    if (!associations.isLive(association)) continue;
    const source = associations.source[association];
    reports.push({
      ...{ session: "", association, local: source && formatAddress(source) },
      ...targetsOf(contexts, association),
      idleS: idleSecondsOf(now, associations.idle, association),
    });
  }
  return { reports, next: end < associations.used ? end : undefined };
}
