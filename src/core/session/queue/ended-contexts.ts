import type { AddressBytes } from "../../../wire/socket-address.ts";
import type { DropReason } from "../../counters.ts";

/** How many contexts at most may be noted before their datagrams are dropped. */
const MAX_NOTED = 256;

/** Why the datagrams of a context are dropped; undefined if they are not. */
export type ReasonToDrop = (context: number) => DropReason | undefined;

/** Where datagrams wait, in lists by flow. */
export interface WaitingFlows {
  /** Whether any datagram of a flow waits here. */
  holds(flow: number): boolean;
  /** Drops the datagrams of a flow whose contexts have ended. Visits all that wait in the flow. */
  dropContexts(flow: number, reasonOf: ReasonToDrop): void;
}

interface EndedContext {
  readonly flow: number;
  readonly remote: AddressBytes | undefined;
  readonly reason: DropReason;
}

/**
 * Contexts of a session that have ended while datagrams may wait for them. A search for these visits all that wait in the flow, so those of
 * all contexts that end in one turn are dropped together, before anything is written.
 */
export class EndedContexts {
  readonly #byId = new Map<number, EndedContext>();
  readonly #reasonOf: ReasonToDrop = (context) => this.#byId.get(context)?.reason;

  /** A context ends. @param where  its datagrams may wait */
  note(
    where: WaitingFlows,
    flow: number,
    id: number,
    remote: AddressBytes | undefined,
    reason: DropReason,
  ): void {
    if (!where.holds(flow)) return;
    this.#byId.set(id, { flow, remote, reason });
    if (this.#byId.size === MAX_NOTED) this.drop(where);
  }

  /** The remote address of an ended context whose datagrams may still wait. */
  remoteOf(flow: number, id: number): AddressBytes | undefined {
    const ended = this.#byId.get(id);
    return ended?.flow === flow ? ended.remote : undefined;
  }

  /** Drops the waiting datagrams of all contexts that have been noted. To be called before anything is written, and before `where` changes. */
  drop(where: WaitingFlows): void {
    if (this.#byId.size === 0) return;
    for (const flow of new Set(Array.from(this.#byId.values(), (ended) => ended.flow))) {
      where.dropContexts(flow, this.#reasonOf);
    }
    this.#byId.clear();
  }
}
