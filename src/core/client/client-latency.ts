import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import { grown } from "../grown.ts";
import type { LatencyRule } from "../session/latency-rules.ts";
import { isDscpRule, latencyOf } from "../session/latency-rules.ts";

const CLASSES = LATENCY_CLASSES.length;
const BALANCED = LATENCY_CLASSES.indexOf("balanced");
/** The server's class, if the last LATENCY_CLASS may have been lost or forgotten. */
const UNKNOWN = 255;
/** Class of a context that the application has not sent to. */
const UNUSED = 255;

/**
 * The latency classes of a client's associations. Each association has the class of the most sensitive context that its application has
 * sent to. Classes are the numbers on the wire.
 */
export class ClientLatency {
  readonly #rules: readonly LatencyRule[];
  readonly #fallback: number;
  /** Whether all are balanced, so that nothing is kept and nobody is informed. */
  readonly #areBalanced: boolean;
  /** Whether the class of a context depends on the DSCP of its association. */
  readonly dependsOnDscp: boolean;
  /** Class by context slot. */
  #ofContext = new Uint8Array(64).fill(UNUSED);
  /** Number of contexts by association and class. */
  #counts = new Int32Array(64 * CLASSES);
  /** By association: the class that the host knows, ... */
  #shown = new Uint8Array(64);
  /** ... and the one that the server knows. */
  #told = new Uint8Array(64);
  /** 1 if the server has been sent a class other than balanced. */
  #hasTold = new Uint8Array(64);

  /** @param fallback  class of targets that no rule matches, and of associations without a context */
  constructor(rules: readonly LatencyRule[], fallback: number) {
    this.#rules = rules;
    this.#fallback = fallback;
    this.#areBalanced = rules.length === 0 && fallback === BALANCED;
    this.dependsOnDscp = rules.some(isDscpRule);
  }

  handleOpened(association: number): void {
    if (this.#areBalanced) return;
    if (association >= this.#shown.length) {
      const size = 2 * association;
      this.#shown = grown(this.#shown, new Uint8Array(size));
      this.#told = grown(this.#told, new Uint8Array(size));
      this.#hasTold = grown(this.#hasTold, new Uint8Array(size));
      this.#counts = grown(this.#counts, new Int32Array(size * CLASSES));
    }
    this.#shown[association] = this.#fallback;
    this.#told[association] = BALANCED;
    this.#hasTold[association] = 0;
  }

  /**
   * An ASSOCIATION_OPEN was written, or a class may have been lost.
   *
   * @param isNew  false if the server may already know the association and a class of it
   */
  handleRegistered(association: number, isNew: boolean): void {
    if (this.#areBalanced) return;
    if (isNew) this.#hasTold[association] = 0;
    this.#told[association] = this.#hasTold[association] === 1 ? UNKNOWN : BALANCED;
  }

  /** The application sends to a context. @returns true if this is the first time, which can change the class of its association */
  handleUsed(context: number, association: number, address: Uint8Array, dscp: number): boolean {
    if (this.#areBalanced) return false;
    if (context >= this.#ofContext.length) {
      this.#ofContext = grown(this.#ofContext, new Uint8Array(2 * context).fill(UNUSED));
    }
    if (this.#ofContext[context] !== UNUSED) return false;
    const latency = latencyOf(this.#rules, this.#fallback, address, dscp);
    this.#ofContext[context] = latency;
    this.#counts[association * CLASSES + latency]++;
    return true;
  }

  /** The DSCP of a context's association has changed. */
  handleDscp(context: number, association: number, address: Uint8Array, dscp: number): void {
    if (context >= this.#ofContext.length || this.#ofContext[context] === UNUSED) return;
    this.handleReleased(context, association);
    this.handleUsed(context, association, address, dscp);
  }

  handleReleased(context: number, association: number): void {
    if (context >= this.#ofContext.length || this.#ofContext[context] === UNUSED) return;
    this.#counts[association * CLASSES + this.#ofContext[context]]--;
    this.#ofContext[context] = UNUSED;
  }

  of(association: number): number {
    if (this.#areBalanced) return BALANCED;
    for (let latency = 0; latency < CLASSES; latency++) {
      if (this.#counts[association * CLASSES + latency] > 0) return latency;
    }
    return this.#fallback;
  }

  /** Whether the host and the server know the class of an association. */
  isKnown(association: number): boolean {
    if (this.#areBalanced) return true;
    const latency = this.of(association);
    return this.#shown[association] === latency && this.#told[association] === latency;
  }

  /** @returns true if the host knows a different class and must get this one, which then counts as known */
  takeShown(association: number): boolean {
    if (this.#areBalanced) return false;
    const before = this.#shown[association];
    this.#shown[association] = this.of(association);
    return before !== this.#shown[association];
  }

  /** @returns true if the server knows a different class and must get this one, which then counts as sent */
  takeTold(association: number): boolean {
    if (this.#areBalanced) return false;
    const before = this.#told[association];
    const latency = this.of(association);
    this.#told[association] = latency;
    if (latency !== BALANCED) this.#hasTold[association] = 1;
    return before !== latency;
  }
}
