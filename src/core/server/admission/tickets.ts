import { asciiBytes } from "../../../wire/http/http-head.ts";
import type { Cryptography } from "../../handshakes/credentials.ts";
import { constantTimeEqual } from "../../handshakes/credentials.ts";

/** Encodes a server's number, 0 to 2^24 - 1, in 3 bytes. */
export function serverIdBytes(id: number): Uint8Array {
  return Uint8Array.of(id >> 16, (id >> 8) & 0xff, id & 0xff);
}

/** Sizes in bytes of the time of issue, in milliseconds, and of its MAC, truncated as RFC 2104 §5 allows. */
const TIME_BYTES = 8;
const MAC_BYTES = 16;
const SECRET_BYTES = 32;
const LABEL = asciiBytes("underpass/1 ticket");

/**
 * Issues tickets that contain the time of issue by this process's clock, and recognises them later without having stored
 * them. The secret never leaves the process, so no ticket outlives the process.
 */
export class Tickets {
  readonly #crypto: Cryptography;
  readonly #secret: Uint8Array;
  /** The first bytes of each ticket. */
  readonly #prefix: Uint8Array;

  /** @param serverId  number of this server among several. A load balancer can read it from the ticket */
  constructor(crypto: Cryptography, serverId?: number) {
    this.#crypto = crypto;
    this.#secret = crypto.random(SECRET_BYTES);
    this.#prefix = serverId === undefined ? new Uint8Array(0) : serverIdBytes(serverId);
  }

  /** Issues a ticket. @returns 24 bytes, or 27 if the server has a number */
  issue(now: number): Uint8Array {
    const { length } = this.#prefix;
    const ticket = new Uint8Array(length + TIME_BYTES + MAC_BYTES);
    ticket.set(this.#prefix);
    new DataView(ticket.buffer).setFloat64(length, now);
    ticket.set(this.#mac(ticket), length + TIME_BYTES);
    return ticket;
  }

  /** When a ticket was issued, by the clock of `now`; undefined if this process did not issue it. */
  issuedAt(ticket: Uint8Array): number | undefined {
    const timed = this.#prefix.length + TIME_BYTES;
    if (ticket.length !== timed + MAC_BYTES) return undefined;
    if (!constantTimeEqual(ticket.subarray(timed), this.#mac(ticket))) return undefined;
    return new DataView(ticket.buffer, ticket.byteOffset).getFloat64(this.#prefix.length);
  }

  #mac(ticket: Uint8Array): Uint8Array {
    const timed = this.#prefix.length + TIME_BYTES;
    const input = new Uint8Array(LABEL.length + timed);
    input.set(LABEL);
    input.set(ticket.subarray(0, timed), LABEL.length);
    return this.#crypto.hmac(this.#secret, input).slice(0, MAC_BYTES);
  }
}
