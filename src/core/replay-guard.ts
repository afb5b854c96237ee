import { hexKey } from "./credentials.ts";

/** What a request's time and nonce say. */
export type Freshness = "fresh" | "replayed" | "unsure";

/** How far a client's clock may be from the server's, in milliseconds. */
export const CLOCK_WINDOW_MS = 30_000;

/**
 * Remembers the nonces of the clock window, so that no request counts twice. Two generations, each as long as the
 * window on both sides; where it cannot be sure (clock off, made before this process, memory full) the client is to be
 * challenged.
 */
export class ReplayGuard {
  #current = new Set<string>();
  #previous = new Set<string>();
  #rotateAt: number;
  readonly #startedAt: number;
  readonly #capacity: number;

  /**
   * @param unixMs    the time at the start: earlier requests may have been seen by a process before
   * @param capacity  most nonces of a generation
   */
  constructor(unixMs: number, capacity: number) {
    this.#startedAt = unixMs;
    this.#rotateAt = unixMs + 2 * CLOCK_WINDOW_MS;
    this.#capacity = capacity;
  }

  /**
   * @param unixMs  the server's time
   * @param time    the client's time, in its request
   */
  check(unixMs: number, time: number, nonce: Uint8Array): Freshness {
    const key = hexKey(nonce);
    if (unixMs >= this.#rotateAt) {
      this.#previous = unixMs >= this.#rotateAt + 2 * CLOCK_WINDOW_MS ? new Set() : this.#current;
      this.#current = new Set();
      this.#rotateAt = unixMs + 2 * CLOCK_WINDOW_MS;
    }
    if (this.#current.has(key) || this.#previous.has(key)) return "replayed";
    if (Math.abs(unixMs - time) > CLOCK_WINDOW_MS || time < this.#startedAt) return "unsure";
    if (this.#current.size >= this.#capacity) return "unsure";
    this.#current.add(key);
    return "fresh";
  }
}
