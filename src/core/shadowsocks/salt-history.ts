import { hexKey } from "../handshakes/credentials.ts";

/**
 * Remembers the salts of authenticated clients, so that a recorded connection is not accepted again. SIP004 has no timestamps, so the oldest
 * salts are forgotten first, in two generations.
 */
export class SaltHistory {
  #current = new Set<string>();
  #previous = new Set<string>();
  readonly #capacity: number;

  /** @param capacity  salts of a generation; between one and two generations are remembered */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Remembers a salt. @returns false if it was known already */
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
