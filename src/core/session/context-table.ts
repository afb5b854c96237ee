import type { AddressBytes } from "../../wire/socket-address.ts";
import { AddressIndex } from "../address-index.ts";
import { grown } from "../grown.ts";
import { IdleLists } from "../idle-lists.ts";
import { ANY_LANE } from "../lanes/lane-bits.ts";
import { CONTEXT, CONTEXT_FREE } from "./session-model.ts";
import type { ConnectionOfOffer, Shortcut } from "./shortcuts.ts";
import { Shortcuts } from "./shortcuts.ts";

const NONE = -1;

/** Milliseconds within which uses of a context count as one in the order of idleness. */
const IDLE_GRAIN_MS = 1_000;

/**
 * Contexts of all associations of an endpoint, in reusable slots of typed arrays. A slot holds its id on the wire, its
 * association and its remote address. Contexts of one association are linked, and each is in a list of the owner's
 * choice, ordered by idleness.
 */
export class ContextTable {
  id = new Int32Array(64);
  association = new Int32Array(64);
  state = new Uint8Array(64);
  /** In a session with receipts: bits of the lanes that may carry its datagrams; {@link ANY_LANE} once the peer knows the context. */
  lanes = new Int32Array(64);
  /** Changes whenever a slot is reused, so that a host can cache what it derived from the address. */
  generation = new Int32Array(64);
  size = 0;
  readonly idle = new IdleLists(IDLE_GRAIN_MS);
  /** Shortcuts of its contexts. A change of a context ends its shortcuts. */
  readonly shortcuts = new Shortcuts();

  /** Remote address as it was registered. */
  readonly address: (AddressBytes | undefined)[] = [];
  /** Where datagrams are sent: the remote address, or the address that its name was resolved to; undefined until then. */
  readonly target: (AddressBytes | undefined)[] = [];

  readonly #index: AddressIndex;
  /** Slots with a name, by the address that it was resolved to. */
  readonly #resolved: AddressIndex;
  #indexed = new Uint8Array(64);
  #next = new Int32Array(64);
  #previous = new Int32Array(64);
  #first = new Int32Array(0);
  #used = 0;
  readonly #free: number[] = [];

  /** @param seed  a random 32-bit number */
  constructor(seed: number) {
    this.#index = new AddressIndex(seed);
    this.#resolved = new AddressIndex(seed);
    this.shortcuts.reserve(this.id.length);
  }

  /** The slot for an address of an association, or -1. */
  find(association: number, bytes: Uint8Array, offset: number, length: number): number {
    return this.#index.find(association, bytes, offset, length);
  }

  /** A slot whose name was resolved to this address, or -1. */
  findResolved(association: number, bytes: Uint8Array, offset: number, length: number): number {
    return this.#resolved.find(association, bytes, offset, length);
  }

  /** The first context of an association, or -1. {@link next} links the others. */
  first(association: number): number {
    return association >= 0 && association < this.#first.length ? this.#first[association] : NONE;
  }

  next(slot: number): number {
    return this.#next[slot];
  }

  /**
   * @param event    the first event of the context, see {@link CONTEXT}
   * @param indexed  whether {@link find} returns this slot for its address
   * @param list     the list of {@link idle} to add the slot to
   */
  allocate(
    now: number,
    event: "register" | "learn" | "resolve",
    association: number,
    id: number,
    address: AddressBytes,
    indexed: boolean,
    list: number,
  ): number {
    const slot = this.#free.pop() ?? this.#used++;
    if (slot >= this.id.length) this.#grow();
    if (association >= this.#first.length) {
      const size = Math.max(64, 2 ** Math.ceil(Math.log2(association + 1)));
      this.#first = grown(this.#first, new Int32Array(size).fill(NONE));
    }
    this.id[slot] = id;
    this.association[slot] = association;
    this.state[slot] = CONTEXT.after(CONTEXT_FREE, event);
    this.lanes[slot] = ANY_LANE;
    this.idle.touch(now, slot, list);
    this.generation[slot]++;
    this.shortcuts.begin(slot);
    this.address[slot] = address;
    this.target[slot] = event === "resolve" ? undefined : address;
    this.#indexed[slot] = indexed ? 1 : 0;
    if (indexed) this.#index.add(slot, association, address);
    const second = this.#first[association];
    this.#next[slot] = second;
    this.#previous[slot] = NONE;
    if (second !== NONE) this.#previous[second] = slot;
    this.#first[association] = slot;
    this.size++;
    return slot;
  }

  /** Transfers the address of the older slot `from` to `slot`, which {@link find} returns from now on. */
  takeIndex(slot: number, from: number): void {
    this.shortcuts.endOf(from);
    this.#index.remove(from);
    this.#indexed[from] = 0;
    this.#index.add(slot, this.association[slot], this.address[slot]!);
    this.#indexed[slot] = 1;
  }

  /** Handles an event of {@link CONTEXT} that does not release the slot. */
  handle(slot: number, event: "ack" | "close" | "new session"): void {
    this.shortcuts.endOf(slot);
    this.state[slot] = CONTEXT.after(this.state[slot], event);
  }

  /** Records that the name of a slot was resolved to `target`. */
  resolve(slot: number, target: AddressBytes): void {
    this.handle(slot, "ack");
    this.target[slot] = target;
    this.#resolved.add(slot, this.association[slot], target);
  }

  release(slot: number): void {
    this.shortcuts.endOf(slot);
    const target = this.target[slot];
    if (target !== undefined && target !== this.address[slot]) this.#resolved.remove(slot);
    this.state[slot] = CONTEXT_FREE;
    this.idle.remove(slot);
    if (this.#indexed[slot] === 1) this.#index.remove(slot);
    const next = this.#next[slot];
    const previous = this.#previous[slot];
    if (next !== NONE) this.#previous[next] = previous;
    if (previous !== NONE) this.#next[previous] = next;
    else this.#first[this.association[slot]] = next;
    this.address[slot] = undefined;
    this.target[slot] = undefined;
    this.generation[slot]++;
    this.#free.push(slot);
    this.size--;
  }

  /** The next shortcut that was offered and is possible. Impossible ones are declined. */
  pollShortcut(connectionOf: ConnectionOfOffer): Shortcut | undefined {
    for (let offer = this.shortcuts.takeOffer(); offer !== undefined; offer = this.shortcuts.takeOffer()) {
      const { context } = offer;
      const association = this.association[context];
      const connection = connectionOf(offer, association);
      if (connection !== undefined) {
        const [generation, id] = [this.generation[context], this.id[context]];
        return { ...offer, connection, association, generation, id };
      }
      this.shortcuts.decline(offer);
    }
    return undefined;
  }

  #grow(): void {
    const size = this.id.length * 2;
    this.id = grown(this.id, new Int32Array(size));
    this.association = grown(this.association, new Int32Array(size));
    this.state = grown(this.state, new Uint8Array(size));
    this.lanes = grown(this.lanes, new Int32Array(size));
    this.generation = grown(this.generation, new Int32Array(size));
    this.#indexed = grown(this.#indexed, new Uint8Array(size));
    this.#next = grown(this.#next, new Int32Array(size));
    this.#previous = grown(this.#previous, new Int32Array(size));
    this.shortcuts.reserve(size);
  }
}
