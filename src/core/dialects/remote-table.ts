import type { AddressBytes } from "../../wire/socket-address.ts";
import { AddressIndex } from "../address-index.ts";
import { IdleLists } from "../idle-lists.ts";

/** Milliseconds within which uses count as one in the order of idleness. */
const IDLE_GRAIN_MS = 1_000;

/**
 * Remote addresses of flows, in reusable slots: the address that the other end uses, and the target of datagrams, which differ for names.
 * Each slot is in a list of its owner's choice, ordered by idleness.
 */
export class RemoteTable {
  size = 0;
  /** Changes whenever a slot is reused, so that a host can cache what it derived from the address. */
  readonly generation: number[] = [];
  readonly flow: number[] = [];
  /** The address that the connection uses. */
  readonly address: (AddressBytes | undefined)[] = [];
  /** Where datagrams are sent; undefined while a name is not resolved, or if it cannot be. */
  readonly target: (AddressBytes | undefined)[] = [];
  readonly idle = new IdleLists(IDLE_GRAIN_MS);

  readonly #byAddress: AddressIndex;
  readonly #byTarget: AddressIndex;
  readonly #free: number[] = [];
  /** Slots by flow. */
  readonly #slots: (Set<number> | undefined)[] = [];

  /** @param seed  a random 32-bit number */
  constructor(seed: number) {
    this.#byAddress = new AddressIndex(seed);
    this.#byTarget = new AddressIndex(seed);
  }

  /** The slot for an address of a flow, or -1. */
  find(flow: number, bytes: Uint8Array, offset: number, length: number): number {
    return this.#byAddress.find(flow, bytes, offset, length);
  }

  /** A slot of a flow whose datagrams are sent to `target`, or -1. */
  findTarget(flow: number, target: AddressBytes): number {
    return this.#byTarget.find(flow, target, 0, target.length);
  }

  /** The slots of a flow. */
  of(flow: number): ReadonlySet<number> {
    return this.#slots[flow] ?? NONE;
  }

  /** The only slot of a flow; -1 if it has none or several. */
  onlySlotOf(flow: number): number {
    const slots = this.of(flow);
    for (const slot of slots) if (slots.size === 1) return slot;
    return -1;
  }

  /** @param list  see {@link IdleLists} */
  add(now: number, flow: number, address: AddressBytes, list: number): number {
    const slot = this.#free.pop() ?? this.generation.length;
    this.generation[slot] = (this.generation[slot] ?? 0) + 1;
    this.flow[slot] = flow;
    this.address[slot] = address;
    this.#byAddress.add(slot, flow, address);
    const slots = this.#slots[flow];
    if (slots === undefined) this.#slots[flow] = new Set([slot]);
    else slots.add(slot);
    this.idle.touch(now, slot, list);
    this.size++;
    return slot;
  }

  /** Sets where datagrams of a slot are sent. */
  setTarget(slot: number, target: AddressBytes): void {
    if (this.target[slot] !== undefined) this.#byTarget.remove(slot);
    this.target[slot] = target;
    this.#byTarget.add(slot, this.flow[slot], target);
  }

  remove(slot: number): void {
    this.#byAddress.remove(slot);
    if (this.target[slot] !== undefined) this.#byTarget.remove(slot);
    const slots = this.#slots[this.flow[slot]]!;
    slots.delete(slot);
    if (slots.size === 0) this.#slots[this.flow[slot]] = undefined;
    this.idle.remove(slot);
    this.address[slot] = undefined;
    this.target[slot] = undefined;
    this.size--;
    this.#free.push(slot);
  }
}

const NONE: ReadonlySet<number> = new Set();

/** A flow's number for a tap, which differs from all associations of the process's tunnels. */
export function tapNumber(flow: number): number {
  return -2 - flow;
}
