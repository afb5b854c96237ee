import { hexKey } from "../../handshakes/credentials.ts";

/** The verdict on a request's nonce. `full`: no more can be remembered, so none may be accepted. */
export type Novelty = "new" | "replayed" | "full";

/**
 * Remembers nonces for at least as long as their requests are valid, so that no request is accepted twice. Two
 * generations, each as long as that.
 */
export class ReplayGuard {
  #current = new Set<string>();
  #previous = new Set<string>();
  #rotateAt = Number.NEGATIVE_INFINITY;
  readonly #validMs: number;
  readonly #capacity: number;

  /**
   * @param validMs   how long a request may be valid
   * @param capacity  most nonces of a generation
   */
  constructor(validMs: number, capacity: number) {
    this.#validMs = validMs;
    this.#capacity = capacity;
  }

  /** Remembers the nonce of a request that is valid otherwise. */
  admit(now: number, nonce: Uint8Array): Novelty {
    if (now >= this.#rotateAt) {
      this.#previous = now >= this.#rotateAt + this.#validMs ? new Set() : this.#current;
      this.#current = new Set();
      this.#rotateAt = now + this.#validMs;
    }
    const key = hexKey(nonce);
    if (this.#current.has(key) || this.#previous.has(key)) return "replayed";
    if (this.#current.size >= this.#capacity) return "full";
    this.#current.add(key);
    return "new";
  }
}
