import { ASSOCIATION_OPEN, CONTEXT_ACKED } from "../session/session-model.ts";
import type { ConnectionOfOffer, Shortcut } from "../session/shortcuts.ts";
import { MAX_SHORTCUT_CONTEXTS } from "../session/shortcuts.ts";
import type { ClientCapsules } from "./client-capsules.ts";
import type { ClientFlows } from "./client-flows.ts";
import type { ClientParts } from "./client-parts.ts";
import type { ClientLanes } from "./lanes/client-lanes.ts";
import type { Lane } from "./lanes/lane.ts";

const NONE = -1;

/** Decides which flows of a client's session native I/O may carry by itself, and counts what it has carried. */
export class ClientShortcuts {
  readonly #parts: ClientParts;
  readonly #flows: ClientFlows;
  readonly #capsules: ClientCapsules;
  readonly #lanes: ClientLanes;

  constructor(parts: ClientParts, flows: ClientFlows, capsules: ClientCapsules, lanes: ClientLanes) {
    this.#parts = parts;
    this.#flows = flows;
    this.#capsules = capsules;
    this.#lanes = lanes;
  }

  /** The next flow to carry. */
  poll(): Shortcut | undefined {
    return this.#parts.contexts.pollShortcut(this.#connectionOfOffer);
  }

  readonly #connectionOfOffer: ConnectionOfOffer = ({ epoch, context }, association) => {
    const lane = this.#parts.laneOf(association);
    const isGiven = lane.tunnel === epoch.tunnel && this.#mayCutShort(lane, association, context);
    return isGiven ? lane.index : undefined;
  };

  #mayCutShort(lane: Lane, association: number, context: number): boolean {
    const { scheduler, former, isClosed, associations, contexts, counters } = this.#parts;
    return (
      !isClosed &&
      scheduler === undefined &&
      former === undefined &&
      counters.tap === undefined &&
      lane.isUp &&
      lane.tunnel!.error === undefined &&
      !lane.tunnel!.isMetered &&
      this.#lanes.upCount === 1 &&
      contexts.size <= MAX_SHORTCUT_CONTEXTS &&
      contexts.state[context] === CONTEXT_ACKED &&
      associations.state[association] === ASSOCIATION_OPEN &&
      associations.isDoubtful[association] === 0
    );
  }

  /** Datagrams were carried: see {@link TunnelClient.handleShortcut}. */
  handleCarried(time: number, shortcut: Shortcut, count: number, bytes: number, length: number): void {
    const { epoch, isOut, context, generation } = shortcut;
    const isKnown = this.#parts.contexts.generation[context] === generation;
    if (isOut) {
      epoch.tunnel.handleShortcutSent(count, bytes, length);
      if (isKnown) this.#flows.noteSent(time, context);
    } else {
      epoch.tunnel.handleShortcutReceived(time, length);
      this.#capsules.noteReceived(time, isKnown ? context : NONE, count, bytes);
    }
  }

  /** Ends those of an association. */
  endOf(association: number): void {
    const { contexts } = this.#parts;
    for (let slot = contexts.first(association); slot !== NONE; slot = contexts.next(slot)) {
      contexts.shortcuts.endOf(slot);
    }
  }
}
