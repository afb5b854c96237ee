import { encodeHeartbeat } from "../../wire/capsule.ts";

const MISSED_HEARTBEATS = 3;
const NEVER = Number.POSITIVE_INFINITY;

/** The heartbeats of one end of a tunnel: when the next one is due, when the peer counts as gone, and round trips. */
export class Heartbeats {
  /** Smoothed round-trip time in milliseconds, once a heartbeat has been answered. */
  rttMs: number | undefined;
  /** When bytes arrived last. */
  receivedAt = 0;

  readonly #intervalMs: number;
  #sequence = 0;
  #roundTrip: number | undefined;
  #dueAt = NEVER;
  /** When the oldest unanswered one was sent. */
  #unansweredSince = NEVER;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** The tunnel has been opened. @param sends  whether this end sends heartbeats */
  start(now: number, sends: boolean): void {
    this.receivedAt = now;
    if (sends) this.#dueAt = now;
  }

  isDue(now: number): boolean {
    return now >= this.#dueAt;
  }

  /** The capsule of the next heartbeat, which is sent now. */
  next(now: number): Uint8Array {
    this.#dueAt = now + this.#intervalMs;
    this.#unansweredSince = Math.min(this.#unansweredSince, now);
    return encodeHeartbeat(this.#sequence++, Math.floor(now));
  }

  /** Handles the echo of a heartbeat. @returns its round trip in milliseconds; undefined if no such heartbeat was sent */
  handleEcho(now: number, sequence: number, clock: number): number | undefined {
    if (sequence >= this.#sequence || clock > now) return undefined;
    this.#unansweredSince = NEVER;
    const sample = now - clock;
    this.#roundTrip = sample;
    this.rttMs = this.rttMs === undefined ? sample : this.rttMs + (sample - this.rttMs) / 8;
    return sample;
  }

  /** The last round trip in milliseconds; undefined if it was taken already. */
  takeRoundTrip(): number | undefined {
    const roundTrip = this.#roundTrip;
    this.#roundTrip = undefined;
    return roundTrip;
  }

  /** How long the peer has been silent, in milliseconds, if it counts as gone by now. */
  silenceAt(now: number): number | undefined {
    return now >= this.#goneAt ? now - this.#silentSince : undefined;
  }

  /** When the next heartbeat is due or the peer counts as gone; Infinity for never. Received bytes only postpone it. */
  nextTimeout(): number {
    return Math.min(this.#dueAt, this.#goneAt);
  }

  get #silentSince(): number {
    return Math.min(this.receivedAt, this.#unansweredSince);
  }

  get #goneAt(): number {
    return this.#silentSince + MISSED_HEARTBEATS * this.#intervalMs;
  }
}
