import { CONTEXT_ACKED } from "../session/session-model.ts";
import type { ConnectionOfOffer, Shortcut } from "../session/shortcuts.ts";
import { MAX_SHORTCUT_CONTEXTS } from "../session/shortcuts.ts";
import type { ServerAssociations } from "./server-associations.ts";
import type { ServerCapsules } from "./server-capsules.ts";
import type { ServerParts } from "./server-parts.ts";
import type { Connection } from "./sessions/server-session.ts";

const NONE = -1;

/** Decides which flows of a server's sessions native I/O may carry by itself, and counts what it has carried. */
export class ServerShortcuts {
  readonly #parts: ServerParts;
  readonly #table: ServerAssociations;
  readonly #capsules: ServerCapsules;

  constructor(parts: ServerParts, capsules: ServerCapsules) {
    this.#parts = parts;
    this.#table = parts.associations;
    this.#capsules = capsules;
  }

  /** The next flow to carry. */
  poll(): Shortcut | undefined {
    return this.#table.contexts.pollShortcut(this.#connectionOfOffer);
  }

  readonly #connectionOfOffer: ConnectionOfOffer = ({ epoch, context }, association) => {
    const connection = this.#table.connectionOf[association];
    const isGiven = connection?.tunnel === epoch.tunnel && this.#mayCutShort(connection, context);
    return isGiven ? connection.index : undefined;
  };

  #mayCutShort({ session, state, hasEnded, tunnel }: Connection, context: number): boolean {
    const { isDraining, isSuspending, isClosed } = this.#parts.shutdown;
    return (
      !(isDraining || isSuspending || isClosed) &&
      session?.kind === "native" &&
      session.lanes === undefined &&
      session.holder === undefined &&
      session.connections.size === 1 &&
      session.contextById.size <= MAX_SHORTCUT_CONTEXTS &&
      this.#parts.counters.tap === undefined &&
      state === "open" &&
      !hasEnded &&
      tunnel.error === undefined &&
      this.#table.contexts.state[context] === CONTEXT_ACKED
    );
  }

  /** Datagrams were carried: see {@link TunnelClient.handleShortcut}. */
  handleCarried(time: number, shortcut: Shortcut, count: number, bytes: number, length: number): void {
    const { epoch, isOut, context, generation } = shortcut;
    const isKnown = this.#table.contexts.generation[context] === generation;
    if (isOut) {
      epoch.tunnel.handleShortcutSent(count, bytes, length);
      if (isKnown) this.#table.noteReplies(time, context, count);
    } else {
      epoch.tunnel.handleShortcutReceived(time, length);
      this.#capsules.noteReceived(time, isKnown ? context : NONE, count, bytes);
    }
  }
}
