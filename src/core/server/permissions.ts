import type { AddressBytes } from "../../wire/socket-address.ts";
import { AddressIndex } from "../address-index.ts";

/**
 * The IP addresses that each association has sent to, for address-dependent filtering (RFC 4787 §5). Ports are ignored.
 * A permission ends with the last of the contexts that granted it.
 */
export class Permissions {
  readonly #index: AddressIndex;
  readonly #grants: number[] = [];
  readonly #free: number[] = [];

  /** @param seed  a random 32-bit number */
  constructor(seed: number) {
    this.#index = new AddressIndex(seed);
  }

  /** Grants a permission. @param target  IPv4 or IPv6 @returns its number, for {@link revoke} */
  grant(association: number, target: AddressBytes): number {
    const known = this.#index.find(association, target, 0, target.length - 2);
    if (known >= 0) {
      this.#grants[known]++;
      return known;
    }
    const slot = this.#free.pop() ?? this.#grants.length;
    this.#grants[slot] = 1;
    this.#index.add(slot, association, target.slice(0, -2));
    return slot;
  }

  revoke(slot: number): void {
    if (--this.#grants[slot] > 0) return;
    this.#index.remove(slot);
    this.#free.push(slot);
  }

  has(association: number, remote: AddressBytes): boolean {
    return this.#index.find(association, remote, 0, remote.length - 2) >= 0;
  }
}
