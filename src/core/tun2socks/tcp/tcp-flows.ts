import { readUint16 } from "../../../wire/network-order.ts";
import type { AddressBytes } from "../../../wire/socket-address.ts";
import { ipAddress } from "../../../wire/socket-address.ts";
import { AddressIndex } from "../../address-index.ts";
import { grown } from "../../grown.ts";
import { IdleLists } from "../../idle-lists.ts";

const NONE = -1;

/** States of flows, which are also the numbers of their lists. */
export const FLOW_HALF_OPEN = 0;
export const FLOW_OPEN = 1;
/** Reset, or ended from both sides or by the host; kept for segments still in flight. */
export const FLOW_CLOSING = 2;

/** Bits for segments that a flow has had. */
export const FIN_OF_SOURCE = 1;
export const FIN_OF_LISTENER = 2;
export const SYN_OF_LISTENER = 4;

/** Ports of the peer address that stand for flows. */
const FIRST_PORT = 1024;
const LAST_PORT = 65_535;
/** Most flows of one family. */
export const MAX_FLOWS = LAST_PORT - FIRST_PORT + 1;

/**
 * TCP flows behind a device, in slots. Each has a port of the peer address, by which the kernel's listener knows it. A
 * flow's key is source address, target address, source port and target port, as in a packet without options.
 */
export class TcpFlows {
  /** FIN_OF_… and SYN_OF_… of each flow. */
  seen = new Uint8Array(64);
  /** The sequence number that the application expects: its last acknowledgment. */
  expected = new Uint32Array(64);
  /** 1 once the host has the flow's connection. */
  accepted = new Uint8Array(64);
  port = new Uint16Array(64);
  route = new Uint8Array(64);

  readonly #index: AddressIndex;
  readonly #lists = new IdleLists();
  readonly #keys: (Uint8Array | undefined)[] = [];
  readonly #byPort = [new Int32Array(65_536).fill(NONE), new Int32Array(65_536).fill(NONE)] as const;
  readonly #nextPort: [number, number];
  readonly #free: number[] = [];
  #used = 0;

  /** @param seed  a random 32-bit number */
  constructor(seed: number) {
    this.#index = new AddressIndex(seed);
    const first = FIRST_PORT + ((seed >>> 0) % MAX_FLOWS);
    this.#nextPort = [first, first];
  }

  get size(): number {
    return this.sizeOf(FLOW_HALF_OPEN) + this.sizeOf(FLOW_OPEN) + this.sizeOf(FLOW_CLOSING);
  }

  sizeOf(state: number): number {
    return this.#lists.size(state);
  }

  /** FLOW_…, or -1 for a slot without a flow. */
  state(slot: number): number {
    return slot < 0 ? NONE : this.#lists.listOf(slot);
  }

  key(slot: number): Uint8Array {
    return this.#keys[slot]!;
  }

  addressBytes(slot: number): 4 | 16 {
    return this.#keys[slot]!.length === 12 ? 4 : 16;
  }

  find(bytes: Uint8Array, offset: number, addressBytes: 4 | 16): number {
    return this.#index.find(addressBytes, bytes, offset, 2 * addressBytes + 4);
  }

  findPort(addressBytes: 4 | 16, port: number): number {
    return this.#byPort[addressBytes === 4 ? 0 : 1][port];
  }

  /** Opens a half-open flow; the caller has checked that there is room. */
  open(now: number, bytes: Uint8Array, offset: number, addressBytes: 4 | 16, route: number): number {
    const slot = this.#free.pop() ?? this.#used++;
    if (slot >= this.seen.length) this.#grow();
    const family = addressBytes === 4 ? 0 : 1;
    const byPort = this.#byPort[family];
    let port = this.#nextPort[family];
    while (byPort[port] !== NONE) port = port === LAST_PORT ? FIRST_PORT : port + 1;
    this.#nextPort[family] = port === LAST_PORT ? FIRST_PORT : port + 1;
    byPort[port] = slot;
    // Not slice(), which would share memory if this is a Buffer.
    const key = new Uint8Array(2 * addressBytes + 4);
    for (let i = 0; i < key.length; i++) key[i] = bytes[offset + i];
    this.#keys[slot] = key;
    this.#index.add(slot, addressBytes, key);
    this.seen[slot] = 0;
    this.expected[slot] = 0;
    this.accepted[slot] = 0;
    this.port[slot] = port;
    this.route[slot] = route;
    this.#lists.touch(now, slot, FLOW_HALF_OPEN);
    return slot;
  }

  /** Marks a flow as used. This does not extend the life of a half-open flow. */
  used(now: number, slot: number): void {
    const state = this.#lists.listOf(slot);
    if (state !== FLOW_HALF_OPEN) this.#lists.touch(now, slot, state);
  }

  move(now: number, slot: number, state: number): void {
    this.#lists.touch(now, slot, state);
  }

  /** The least recently used flow in a state, or -1. */
  oldest(state: number): number {
    return this.#lists.oldest(state);
  }

  /** A flow in a state that has been idle for `idleMs`, or -1. */
  idle(now: number, state: number, idleMs: number): number {
    const oldest = this.#lists.oldest(state);
    return oldest !== NONE && now - this.#lists.lastUsed(oldest) >= idleMs ? oldest : NONE;
  }

  /** Removes a flow; its slot stays taken until {@link release}. */
  end(slot: number): void {
    this.#byPort[this.addressBytes(slot) === 4 ? 0 : 1][this.port[slot]] = NONE;
    this.#index.remove(slot);
    this.#lists.remove(slot);
    this.#keys[slot] = undefined;
  }

  release(slot: number): void {
    this.#free.push(slot);
  }

  source(slot: number): AddressBytes {
    return this.#address(slot, 0);
  }

  target(slot: number): AddressBytes {
    return this.#address(slot, 1);
  }

  #address(slot: number, which: 0 | 1): AddressBytes {
    const key = this.#keys[slot]!;
    const addressBytes = this.addressBytes(slot);
    const ip = key.subarray(which * addressBytes, (which + 1) * addressBytes);
    return ipAddress(ip, readUint16(key, 2 * addressBytes + 2 * which));
  }

  #grow(): void {
    const size = this.seen.length * 2;
    this.seen = grown(this.seen, new Uint8Array(size));
    this.accepted = grown(this.accepted, new Uint8Array(size));
    this.route = grown(this.route, new Uint8Array(size));
    const { expected, port } = this;
    this.expected = new Uint32Array(size);
    this.expected.set(expected);
    this.port = new Uint16Array(size);
    this.port.set(port);
  }
}
