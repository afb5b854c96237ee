import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressDomain, addressPort, copyOf } from "../../wire/socket-address.ts";
import type { Counters, DropReason } from "../counters.ts";
import type { Fifo } from "../fifo.ts";
import type { DialectConnection } from "./dialect-connection.ts";
import type { DialectServerOutput } from "./dialect-server-output.ts";
import type { RemoteTable } from "./remote-table.ts";
import { tapNumber } from "./remote-table.ts";

/** Bounds: concurrent lookups of a connection, datagrams that wait for one name, and bytes that wait in total. */
const MAX_LOOKUPS = 64;
const MAX_HELD_DATAGRAMS = 8;
const MAX_HELD_BYTES = 1_048_576;

interface Lookup {
  readonly slot: number;
  readonly generation: number;
  readonly owner: DialectConnection;
}

/** Lookups of the names of remotes, and the datagrams that wait for the answers. */
export class RemoteLookups {
  readonly #remotes: RemoteTable;
  readonly #counters: Counters;
  readonly #outputs: Fifo<DialectServerOutput>;
  readonly #byQuery = new Map<number, Lookup>();
  #nextQuery = 1;
  /** By slot of the remote: the datagrams that wait for its name. */
  readonly #held = new Map<number, Uint8Array[]>();
  #heldBytes = 0;

  constructor(remotes: RemoteTable, counters: Counters, outputs: Fifo<DialectServerOutput>) {
    this.#remotes = remotes;
    this.#counters = counters;
    this.#outputs = outputs;
  }

  isFullFor({ lookups }: DialectConnection): boolean {
    return lookups >= MAX_LOOKUPS;
  }

  /** Looks up the name of a remote. */
  begin(owner: DialectConnection, slot: number, address: AddressBytes): void {
    owner.lookups++;
    const query = this.#nextQuery++;
    this.#byQuery.set(query, { slot, generation: this.#remotes.generation[slot], owner });
    const client = `dialect ${owner.index}`;
    const [name, port] = [addressDomain(address), addressPort(address)];
    this.#outputs.push({ kind: "resolve", client, query, name, port });
  }

  /** Ends a lookup. @returns its remote and connection; undefined if the remote is gone */
  finish(query: number): { readonly slot: number; readonly owner: DialectConnection } | undefined {
    const lookup = this.#byQuery.get(query);
    if (lookup === undefined) return undefined;
    this.#byQuery.delete(query);
    const { slot, generation, owner } = lookup;
    owner.lookups--;
    const { address, generation: current } = this.#remotes;
    return address[slot] === undefined || current[slot] !== generation ? undefined : lookup;
  }

  /** Keeps a copy of a datagram until its name is resolved, or drops it at a bound. */
  hold(slot: number, data: Uint8Array, offset: number, length: number): void {
    const held = this.#held.get(slot) ?? [];
    if (held.length >= MAX_HELD_DATAGRAMS || this.#heldBytes + length > MAX_HELD_BYTES) {
      this.#drop("unresolved", slot, [copyOf(data, offset, length)]);
      return;
    }
    held.push(copyOf(data, offset, length));
    this.#heldBytes += length;
    this.#held.set(slot, held);
  }

  takeHeld(slot: number): readonly Uint8Array[] {
    const held = this.#held.get(slot) ?? [];
    this.#held.delete(slot);
    for (const { length } of held) this.#heldBytes -= length;
    return held;
  }

  dropHeld(reason: DropReason, slot: number): void {
    this.#drop(reason, slot, this.takeHeld(slot));
  }

  #drop(reason: DropReason, slot: number, held: readonly Uint8Array[]): void {
    const { drops, tap } = this.#counters;
    drops[reason] += held.length;
    if (tap === undefined) return;
    const association = tapNumber(this.#remotes.flow[slot]);
    const remote = this.#remotes.address[slot];
    for (const data of held) {
      tap.record(true, reason, association, undefined, remote, data, 0, data.length);
    }
  }
}
