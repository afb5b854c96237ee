import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressDomain, addressPort, copyOf } from "../../wire/socket-address.ts";
import type { ContextTable } from "./context-table.ts";

/** Most concurrent lookups of a session; further names wait for their turn. */
const LOOKUPS_PER_SESSION = 64;
/** Most datagrams that wait for a name to be resolved: for one context, and in total. */
const HELD_DATAGRAMS = 8;
const HELD_BYTES = 1_048_576;

/** Clients without our extension, which share what one client gets. */
const PLAIN_CLIENTS = "plain";

/** One session's share of the lookups. */
export class LookupTurns {
  /** Names the client among all others, so that a host can share its resolver between them: the holder of a key, or a session. */
  readonly client: string;
  running = 0;
  /** Context slots whose names wait for their turn. */
  readonly waiting = new Set<number>();

  constructor(client: string) {
    this.client = client;
  }
}

/** The purpose of a lookup: a context, or the target of a request without our extension. */
export type Lookup<Connection> =
  | {
      readonly kind: "context";
      readonly slot: number;
      readonly generation: number;
      readonly turns: LookupTurns;
    }
  | { readonly kind: "target"; readonly connection: Connection };

/**
 * Manages the lookups of names: queries by number, the queue of each session, and the datagrams that wait for an answer. All of these are
 * bounded.
 */
export class NameLookups<Connection> {
  readonly #contexts: ContextTable;
  readonly #ask: (client: string, query: number, name: string, port: number) => void;
  readonly #lookups = new Map<number, Lookup<Connection>>();
  #nextQuery = 1;
  readonly #held = new Map<number, Uint8Array[]>();
  #heldBytes = 0;

  /** @param ask  starts a query; its number is later passed to {@link finish} */
  constructor(
    contexts: ContextTable,
    ask: (client: string, query: number, name: string, port: number) => void,
  ) {
    this.#contexts = contexts;
    this.#ask = ask;
  }

  /** Looks up the name of a context, at its turn. */
  addContext(turns: LookupTurns, slot: number): void {
    turns.waiting.add(slot);
    this.#startNext(turns);
  }

  /** Looks up the name of a request's target. */
  addTarget(connection: Connection, name: AddressBytes): void {
    this.#start(name, { kind: "target", connection });
  }

  /** A query was answered. @returns its purpose; undefined if that no longer exists */
  finish(query: number): Lookup<Connection> | undefined {
    const lookup = this.#lookups.get(query);
    if (lookup === undefined) return undefined;
    this.#lookups.delete(query);
    if (lookup.kind === "target") return lookup;
    lookup.turns.running--;
    this.#startNext(lookup.turns);
    return this.#contexts.generation[lookup.slot] === lookup.generation ? lookup : undefined;
  }

  /** The context is released. @returns the datagrams that waited for its name, which are lost */
  forget(turns: LookupTurns | undefined, slot: number): readonly Uint8Array[] {
    turns?.waiting.delete(slot);
    return this.takeHeld(slot);
  }

  /** Keeps a copy of a datagram until the context's name is resolved. @returns false if there is no room */
  hold(slot: number, data: Uint8Array, offset: number, length: number): boolean {
    const held = this.#held.get(slot) ?? [];
    if (held.length >= HELD_DATAGRAMS || this.#heldBytes + length > HELD_BYTES) return false;
    held.push(copyOf(data, offset, length));
    this.#heldBytes += length;
    this.#held.set(slot, held);
    return true;
  }

  /** Takes the datagrams that waited for a context's name, oldest first. */
  takeHeld(slot: number): readonly Uint8Array[] {
    const held = this.#held.get(slot) ?? [];
    this.#held.delete(slot);
    for (const datagram of held) this.#heldBytes -= datagram.length;
    return held;
  }

  #startNext(turns: LookupTurns): void {
    const [slot] = turns.waiting;
    if (slot === undefined || turns.running >= LOOKUPS_PER_SESSION) return;
    turns.waiting.delete(slot);
    turns.running++;
    const generation = this.#contexts.generation[slot];
    this.#start(this.#contexts.address[slot]!, { kind: "context", slot, generation, turns });
  }

  #start(name: AddressBytes, lookup: Lookup<Connection>): void {
    const query = this.#nextQuery++;
    this.#lookups.set(query, lookup);
    const client = lookup.kind === "context" ? lookup.turns.client : PLAIN_CLIENTS;
    this.#ask(client, query, addressDomain(name), addressPort(name));
  }
}
