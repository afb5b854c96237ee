import { hexKey } from "../../handshakes/credentials.ts";

/** The verdict on a request's nonce. "full": there is no memory for more nonces, so the request must be refused. */
export type Novelty = "new" | "replayed" | "full";

/**
 * Remembers nonces for at least as long as their requests are valid, so that no request is accepted twice. Keeps two
 * generations, each of which covers that time.
 */
export class ReplayGuard {
  #current = new Set<string>();
  #previous = new Set<string>();
  #rotateAt = Number.NEGATIVE_INFINITY;
  readonly #validMs: number;
  readonly #capacity: number;

  /**
   * @param validMs   longest validity of a request, in milliseconds
   * @param capacity  most nonces in a generation
   */
  constructor(validMs: number, capacity: number) {
    this.#validMs = validMs;
    this.#capacity = capacity;
  }

  /** Remembers the nonce of a request that is otherwise valid. */
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
