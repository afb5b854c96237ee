import type { AddressBytes } from "../../src/wire/socket-address.ts";
import {
  ATYP_IPV4,
  addressPort,
  formatAddress,
  makeAddress,
  sameBytes,
} from "../../src/wire/socket-address.ts";
import { check } from "./failure.ts";
import type { Settings } from "./settings.ts";

const HEADER_BYTES = 15;
export const SHORTEST_PAYLOAD = HEADER_BYTES;
export const LONGEST_PAYLOAD = 65_507;
/** Where a datagram goes: to a target, or to an application. */
/** First bytes of payloads, by direction; some are those of QUIC, which is put back in order. */
const UP = 0x60;
const DOWN = 0x70;

const LITERAL = 0;
const NAME = 1;
const DENIED = 2;
const STRANGER = 3;

/**
 * Records what was sent, and therefore what may arrive: each payload names its flow, the address that it goes to or comes from, and its
 * number. A flow is an association as its application sees it.
 */
export class Ledger {
  /** The most recently stamped payload. */
  readonly payload = new Uint8Array(LONGEST_PAYLOAD + 1);
  /** All addresses of the episode: targets first, then strangers. */
  readonly addresses: AddressBytes[] = [];
  readonly #kinds: number[] = [];
  /** By address: every address that a name was ever resolved to. */
  readonly #found: Set<number>[] = [];
  readonly targetCount: number;
  readonly #nameCount: number;
  /** By flow: its client. A restarted client counts as another one. */
  readonly clientOf: number[] = [];
  readonly isLive: boolean[] = [];
  /** Datagrams that were stamped; the next one's number. */
  stamped = 0;
  arrived = 0;
  #hasArrived = new Uint8Array(1024);
  #targets = new Int16Array(1024);

  constructor(settings: Settings) {
    this.#nameCount = settings.names;
    const add = (kind: number, host: string, port: number) => {
      this.addresses.push(makeAddress(host, port)!);
      this.#kinds.push(kind);
      this.#found.push(new Set());
    };
    for (let i = 0; i < settings.addresses; i++) {
      // Some share an IP address, some are IPv6.
      if (i % 4 === 3) add(LITERAL, `2001:db8::${i}`, 443);
      else add(LITERAL, `192.0.2.${1 + (i >> 1)}`, 53 + (i % 2));
    }
    for (let i = 0; i < settings.names; i++) add(NAME, `name${i}.test`, 53 + (i % 2));
    for (let i = 0; i < settings.denied; i++) add(DENIED, `10.0.0.${i}`, 53);
    this.targetCount = this.addresses.length;
    for (let i = 0; i < settings.strangers; i++) {
      // These include other ports of targets.
      if (i % 8 === 0) add(STRANGER, `192.0.2.${1 + (i >> 3)}`, 5_000 + i);
      else add(STRANGER, `198.51.100.${i & 255}`, 1_024 + i);
    }
    for (let i = 0; i < settings.names; i++) add(STRANGER, `203.0.113.${i}`, 53 + (i % 2));
  }

  isName(address: number): boolean {
    return this.#kinds[address] === NAME;
  }

  isDenied(address: number): boolean {
    return this.#kinds[address] === DENIED;
  }

  /** Number of an address, or -1. */
  indexOf(address: AddressBytes): number {
    return this.addresses.findIndex(
      (one) => one.length === address.length && sameBytes(one, 0, address, 0, one.length),
    );
  }

  /** Addresses that a name may be resolved to: one of its own, and targets. */
  answersFor(name: number): number[] {
    const port = addressPort(this.addresses[name]);
    return this.addresses.flatMap((address, index) => {
      const isTarget = this.#kinds[index] === LITERAL && address[0] === ATYP_IPV4;
      const isAnswer = index >= this.addresses.length - this.#nameCount;
      return (isTarget || isAnswer) && addressPort(address) === port ? [index] : [];
    });
  }

  /** A resolver returned this. */
  noteFound(name: number, address: number): void {
    this.#found[name].add(address);
  }

  beginFlow(client: number): number {
    this.isLive.push(true);
    this.clientOf.push(client);
    return this.isLive.length - 1;
  }

  endFlow(flow: number): void {
    this.isLive[flow] = false;
  }

  /** Writes a payload for a target. @returns its number */
  stampUp(flow: number, address: number, length: number): number {
    return this.#stamp(UP, flow, address, length);
  }

  /** Writes a payload that `address` sends to a flow. @returns its number */
  stampDown(flow: number, address: number, length: number): number {
    return this.#stamp(DOWN, flow, address, length);
  }

  /** The address at which a datagram arrived; -1 if it has not arrived. */
  targetOf(number: number): number {
    return number >= 0 && this.hasArrived(number) ? this.#targets[number] : -1;
  }

  hasArrived(number: number): boolean {
    return this.#hasArrived[number] === 1;
  }

  /** A datagram arrives at a target. @returns its flow */
  arriveUp(data: Uint8Array, offset: number, length: number, target: AddressBytes): number {
    const address = readNumber(data, offset + 9, 2);
    const number = this.#arrive(UP, data, offset, length);
    const found = this.indexOf(target);
    const isMeant = found === address || this.#found[address].has(found);
    check(
      isMeant,
      "a datagram goes to another target",
      () => `${formatAddress(target)} instead of ${formatAddress(this.addresses[address])}`,
    );
    check(!this.isDenied(address), "a datagram goes to a denied target");
    this.#targets[number] = found;
    return readNumber(data, offset + 1, 4);
  }

  /** A datagram arrives at the application of a flow. */
  arriveDown(data: Uint8Array, offset: number, length: number, remote: AddressBytes, flow: number): void {
    this.#arrive(DOWN, data, offset, length);
    const address = readNumber(data, offset + 9, 2);
    check(
      isSame(this.addresses[address], remote),
      "a datagram comes to its application with another source",
      () => `${formatAddress(remote)} instead of ${formatAddress(this.addresses[address])}`,
    );
    const meant = readNumber(data, offset + 1, 4);
    check(
      meant === flow,
      "a datagram comes to another application",
      () => `flow ${flow} instead of ${meant}`,
    );
  }

  #stamp(direction: number, flow: number, address: number, length: number): number {
    const number = this.stamped++;
    if (number >= this.#hasArrived.length) {
      const larger = new Uint8Array(2 * this.#hasArrived.length);
      larger.set(this.#hasArrived);
      this.#hasArrived = larger;
      const targets = new Int16Array(larger.length);
      targets.set(this.#targets);
      this.#targets = targets;
    }
    const { payload } = this;
    payload[0] = direction;
    writeNumber(payload, 1, 4, flow);
    writeNumber(payload, 5, 4, number);
    writeNumber(payload, 9, 2, address);
    writeNumber(payload, 11, 3, length);
    payload[HEADER_BYTES - 1] = 0;
    payload[length - 1] = number & 0xff;
    return number;
  }

  #arrive(direction: number, data: Uint8Array, offset: number, length: number): number {
    const number = readNumber(data, offset + 5, 4);
    const isIntact =
      length >= HEADER_BYTES &&
      data[offset] === direction &&
      readNumber(data, offset + 11, 3) === length &&
      data[offset + length - 1] === (number & 0xff) &&
      number < this.stamped;
    check(isIntact, "a payload was changed on its way");
    check(this.#hasArrived[number] === 0, "a datagram arrives twice", () => `number ${number}`);
    this.#hasArrived[number] = 1;
    this.arrived++;
    return number;
  }
}

function isSame(a: AddressBytes, b: AddressBytes): boolean {
  return a.length === b.length && sameBytes(a, 0, b, 0, a.length);
}

function writeNumber(bytes: Uint8Array, offset: number, size: number, value: number): void {
  for (let i = 0; i < size; i++) bytes[offset + i] = value >>> (8 * (size - 1 - i));
}

function readNumber(bytes: Uint8Array, offset: number, size: number): number {
  let value = 0;
  for (let i = 0; i < size; i++) value = value * 256 + bytes[offset + i];
  return value;
}
