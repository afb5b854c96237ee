import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";

const NONE = -1;

/**
 * The class of a socket or a device that associations share: that of the most sensitive association, or the given one if there is
 * none.
 */
export class SharedLatency {
  readonly #fallback: LatencyClass;
  readonly #apply: (latency: LatencyClass) => void;
  /** By association, -1 for none. */
  readonly #of: number[] = [];
  /** Associations by class. */
  readonly #counts = LATENCY_CLASSES.map(() => 0);
  #current: LatencyClass;

  /** @param apply  gets the class whenever it changes */
  constructor(fallback: LatencyClass, apply: (latency: LatencyClass) => void) {
    this.#fallback = fallback;
    this.#current = fallback;
    this.#apply = apply;
  }

  set(association: number, latency: LatencyClass): void {
    this.#replace(association, LATENCY_CLASSES.indexOf(latency));
  }

  remove(association: number): void {
    this.#replace(association, NONE);
  }

  #replace(association: number, latency: number): void {
    const before = this.#of[association] ?? NONE;
    this.#of[association] = latency;
    if (before !== NONE) this.#counts[before]--;
    if (latency !== NONE) this.#counts[latency]++;
    const found = this.#counts.findIndex((count) => count > 0);
    const now = found === NONE ? this.#fallback : LATENCY_CLASSES[found];
    if (now === this.#current) return;
    this.#current = now;
    this.#apply(now);
  }
}
