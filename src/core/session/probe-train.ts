import type { Arrival, Probe, ProbePattern } from "../../wire/probe.ts";
import { boundedPattern, CLOCK_MODULUS, encodeProbe, MAX_ARRIVALS, MAX_PROBES } from "../../wire/probe.ts";

/** One PROBE that has arrived. The clocks of the two ends run at the same rate, but have different origins. */
export interface ProbeSample {
  readonly sequence: number;
  /** By the clock of its sender, in milliseconds. */
  readonly sentMs: number;
  /** By that of its receiver. */
  readonly arrivedMs: number;
}

/** PROBEs per period in a pattern with a gap. */
export const GROUP = 3;
/** Sequence of an answer, which is not part of a train. */
const ANSWER = MAX_PROBES;
const NEVER = Number.POSITIVE_INFINITY;

/** One end of a measurement on a connection: sends a train of PROBEs, which report the arrivals of the other end's. */
export class ProbeTrain {
  readonly #pattern: ProbePattern;
  readonly #startAt: number;
  #sent = 0;
  /** Arrivals to report in the next PROBE; bounded, and the oldest is dropped. */
  readonly #arrivals: Arrival[] = [];

  constructor(now: number, pattern: ProbePattern) {
    this.#pattern = boundedPattern(pattern);
    this.#startAt = now;
  }

  get sent(): number {
    return this.#sent;
  }

  /** When the next PROBE is due; Infinity once all are sent. */
  get nextAt(): number {
    const { periodMs, leadMs, gapMs, count } = this.#pattern;
    if (this.#sent >= count) return NEVER;
    const size = gapMs > 0 ? GROUP : 1;
    const place = this.#sent % size;
    const offset = place === 0 ? 0 : place === 1 ? leadMs : leadMs + gapMs;
    return this.#startAt + Math.floor(this.#sent / size) * periodMs + offset;
  }

  /** @returns the capsule that is due, or undefined. An overdue PROBE delays those after it, so they are not sent in a burst */
  take(now: number): Uint8Array | undefined {
    if (now < this.nextAt) return undefined;
    const { gapMs, bytes } = this.#pattern;
    const sequence = this.#sent++;
    return this.#encode(now, sequence, gapMs > 0 && sequence % GROUP === 0, bytes);
  }

  /** @returns the answer, if the PROBE asks for one; it is not part of the train */
  handleProbe(now: number, { sequence, wantsAnswer }: Probe): Uint8Array | undefined {
    if (sequence !== ANSWER) {
      if (this.#arrivals.length === MAX_ARRIVALS) this.#arrivals.shift();
      this.#arrivals.push({ sequence, clock: clockOf(now) });
    }
    return wantsAnswer ? this.#encode(now, ANSWER, false, 0) : undefined;
  }

  #encode(now: number, sequence: number, wantsAnswer: boolean, bytes: number): Uint8Array {
    const arrivals = this.#arrivals.splice(0);
    return encodeProbe({ clock: clockOf(now), wantsAnswer, sequence, arrivals }, bytes);
  }
}

/** The client's end of a measurement, which collects the samples of both directions. */
export class Measurement extends ProbeTrain {
  /** PROBEs to the server, as far as it has reported them. */
  readonly up: ProbeSample[] = [];
  /** PROBEs from the server. */
  readonly down: ProbeSample[] = [];
  /** When each PROBE was sent, by sequence. */
  readonly #sentClocks: number[] = [];

  override take(now: number): Uint8Array | undefined {
    const capsule = super.take(now);
    if (capsule !== undefined) this.#sentClocks.push(clockOf(now));
    return capsule;
  }

  override handleProbe(now: number, probe: Probe): Uint8Array | undefined {
    const answer = super.handleProbe(now, probe);
    const { sequence, clock, arrivals } = probe;
    if (sequence !== ANSWER) {
      this.down.push({ sequence, sentMs: clock / 1_000, arrivedMs: clockOf(now) / 1_000 });
    }
    for (const arrival of arrivals) {
      const sent = this.#sentClocks[arrival.sequence];
      if (sent === undefined) continue;
      this.up.push({ sequence: arrival.sequence, sentMs: sent / 1_000, arrivedMs: arrival.clock / 1_000 });
    }
    return answer;
  }
}

function clockOf(now: number): number {
  return Math.floor(now * 1_000) % CLOCK_MODULUS;
}
