import { decodeWholeAddress } from "../../../wire/capsule.ts";
import type { AddressBytes } from "../../../wire/socket-address.ts";
import { HostError } from "../../errors.ts";

const MAX_ADDRESS_BYTES = 259;

/** The error for an invalid state. @param what  is wrong with it */
export function broken(what: string): HostError {
  return new HostError("ERR_KEPT_SESSIONS", what);
}

/** Writes the state into memory that grows. */
export class StateWriter {
  #bytes = new Uint8Array(4_096);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #reserve(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  uint8(value: number): void {
    const at = this.#reserve(1);
    this.#view.setUint8(at, value);
  }

  uint16(value: number): void {
    const at = this.#reserve(2);
    this.#view.setUint16(at, value);
  }

  uint32(value: number): void {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value);
  }

  float64(value: number): void {
    const at = this.#reserve(8);
    this.#view.setFloat64(at, value);
  }

  bytes(value: Uint8Array): void {
    const at = this.#reserve(value.length);
    this.#bytes.set(value, at);
  }

  /** Writes the length of up to 65,535 bytes, then the bytes. Undefined counts as none. */
  sized(value: Uint8Array | undefined): void {
    this.uint16(value?.length ?? 0);
    if (value !== undefined) this.bytes(value);
  }
}

/** Reads what {@link StateWriter} wrote. All methods throw HostError ERR_KEPT_SESSIONS past the end, and for invalid values. */
export class StateReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  #take(count: number): number {
    const at = this.#at;
    if (count > this.#bytes.length - at) throw broken("it ends too early");
    this.#at += count;
    return at;
  }

  end(): void {
    if (this.#at < this.#bytes.length) throw broken("bytes follow its end");
  }

  uint8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  uint16(): number {
    return this.#view.getUint16(this.#take(2));
  }

  uint32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  integer(least: number, most: number): number {
    const value = this.uint32();
    if (value < least || value > most) throw broken(`${value} instead of a number from ${least} to ${most}`);
    return value;
  }

  boolean(): boolean {
    const value = this.uint8();
    if (value > 1) throw broken(`${value} instead of 0 or 1`);
    return value === 1;
  }

  /** Reads a duration or a time, in milliseconds. */
  float64(): number {
    const value = this.#view.getFloat64(this.#take(8));
    if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) throw broken(`${value} milliseconds`);
    return value;
  }

  bytes(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.slice(at, at + count);
  }

  sized(most: number): Uint8Array {
    const length = this.uint16();
    if (length > most) throw broken(`${length} bytes where at most ${most} may be`);
    return this.bytes(length);
  }

  address(): AddressBytes | undefined {
    const bytes = this.sized(MAX_ADDRESS_BYTES);
    if (bytes.length === 0) return undefined;
    const address = decodeWholeAddress(bytes, 0, bytes.length);
    if (address === undefined) throw broken("an address is malformed");
    return address;
  }

  /** Reads `count` items. Fails before it allocates if there are fewer bytes than items. */
  list<Item>(count: number, read: () => Item): Item[] {
    if (count > this.#bytes.length - this.#at) throw broken("it ends too early");
    const items: Item[] = [];
    for (let i = 0; i < count; i++) items.push(read());
    return items;
  }
}
