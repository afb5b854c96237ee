import type { KeyTable } from "../../keys/key-table.ts";
import type { KeyEntry } from "../../keys/named-key.ts";
import type { ServerParts } from "../server-parts.ts";
import { DEADLINE_KEYS, deadlineOf } from "../server-parts.ts";
import type { SessionLifetimes } from "../sessions/session-lifetimes.ts";

/** Longest wait for a key's expiry, in milliseconds, because the system's clock may be changed meanwhile. */
const MAX_EXPIRY_WAIT_MS = 3_600_000;

/** Ends the sessions of single clients' keys that expire or are withdrawn, and moves those whose keys belong to another worker now. */
export class KeyExpiry {
  readonly #parts: ServerParts;
  readonly #keys: KeyTable;
  readonly #lifetimes: SessionLifetimes;

  constructor(parts: ServerParts, keys: KeyTable, lifetimes: SessionLifetimes) {
    this.#parts = parts;
    this.#keys = keys;
    this.#lifetimes = lifetimes;
  }

  /** See `TunnelServer.handleWallClock`. */
  handleWallClock(now: number, unixMs: number): void {
    this.#keys.handleWallClock(now, unixMs);
    this.endExpired(now);
  }

  /** See `TunnelServer.replaceKeys`. */
  replace(now: number, entries: readonly KeyEntry[]): void {
    const gone = new Set(this.#keys.replace(entries));
    if (gone.size > 0) this.#lifetimes.endHeld(now, (holder) => gone.has(holder));
    this.endExpired(now);
    for (const session of this.#parts.sessions.values()) this.#lifetimes.moveIfMisplaced(session);
  }

  endExpired(now: number): void {
    const keys = this.#keys;
    this.#lifetimes.endHeld(now, (holder) => keys.isExpired(now, holder));
    // With rounding, the expiry may be at `now`. It is then handled a millisecond later.
    const next = Math.max(now + 1, Math.min(keys.nextExpiry(now), now + MAX_EXPIRY_WAIT_MS));
    this.#parts.deadlines.set(deadlineOf(0, DEADLINE_KEYS), next);
  }
}
