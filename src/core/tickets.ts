import { asciiBytes } from "../wire/http-head.ts";
import type { Cryptography } from "./credentials.ts";
import { constantTimeEqual } from "./credentials.ts";

/** Sizes in bytes: the time of issue in milliseconds, and its MAC, truncated as RFC 2104 §5 allows. */
const TIME_BYTES = 8;
const MAC_BYTES = 16;
const SECRET_BYTES = 32;
const LABEL = asciiBytes("underpass/1 ticket");

/**
 * Issues tickets that carry the time of issue on this process's own clock, and recognises them later without storing
 * them. The secret never leaves the process, so no ticket outlives it.
 */
export class Tickets {
  readonly #crypto: Cryptography;
  readonly #secret: Uint8Array;

  constructor(crypto: Cryptography) {
    this.#crypto = crypto;
    this.#secret = crypto.random(SECRET_BYTES);
  }

  /** @returns 24 bytes */
  issue(now: number): Uint8Array {
    const ticket = new Uint8Array(TIME_BYTES + MAC_BYTES);
    new DataView(ticket.buffer).setFloat64(0, now);
    ticket.set(this.#mac(ticket), TIME_BYTES);
    return ticket;
  }

  /** When a ticket was issued, on the clock of `now`; undefined for one that this process did not issue. */
  issuedAt(ticket: Uint8Array): number | undefined {
    if (ticket.length !== TIME_BYTES + MAC_BYTES) return undefined;
    if (!constantTimeEqual(ticket.subarray(TIME_BYTES), this.#mac(ticket))) return undefined;
    return new DataView(ticket.buffer, ticket.byteOffset).getFloat64(0);
  }

  #mac(ticket: Uint8Array): Uint8Array {
    const input = new Uint8Array(LABEL.length + TIME_BYTES);
    input.set(LABEL);
    input.set(ticket.subarray(0, TIME_BYTES), LABEL.length);
    return this.#crypto.hmac(this.#secret, input).slice(0, MAC_BYTES);
  }
}
