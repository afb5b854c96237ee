import { hexKey } from "../handshakes/credentials.ts";

/**
 * Remembers the salts of authenticated clients, so that no recorded connection is accepted again. SIP004 has no time in it:
 * what is forgotten is what came longest ago. Two generations.
 */
export class SaltHistory {
  #current = new Set<string>();
  #previous = new Set<string>();
  readonly #capacity: number;

  /** @param capacity  salts of a generation; between one and two of them are remembered */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Remembers a salt. @returns false if it was there already */
  admit(salt: Uint8Array): boolean {
    const key = hexKey(salt);
    if (this.#current.has(key) || this.#previous.has(key)) return false;
    if (this.#current.size >= this.#capacity) {
      this.#previous = this.#current;
      this.#current = new Set();
    }
    this.#current.add(key);
    return true;
  }
}
