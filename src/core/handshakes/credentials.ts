import { asciiBytes } from "../../wire/http/http-head.ts";
import type { ExtensionResponse, KeyRefusalCause, ShownTicket } from "../../wire/http/upgrade.ts";
import { BIND_PATH, KEY_ID_BYTES } from "../../wire/http/upgrade.ts";

/** Functions that the host provides, because core has neither hashes nor randomness of its own. */
export interface Cryptography {
  /** HMAC-SHA-256, RFC 2104. @returns 32 bytes */
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** Unguessable bytes. */
  random(length: number): Uint8Array;
}

/** A random 32-bit number for a hash table, so that nobody can choose colliding keys. */
export function randomSeed(crypto: Cryptography): number {
  const [a, b, c, d] = crypto.random(4);
  return (a << 24) | (b << 16) | (c << 8) | d;
}

/** Sizes in bytes. */
export const NONCE_BYTES = 16;
export const SESSION_ID_BYTES = 16;

/** The values that every MAC of one handshake is bound to. */
export interface Transcript {
  readonly nonce: Uint8Array;
  readonly lane: number;
  readonly ticket: ShownTicket | undefined;
  readonly session: Uint8Array | undefined;
}

/** The fields in order, each preceded by its length in two bytes, so that no two inputs are equal. PROTOCOL.md §3.1. */
function macInput(label: string, ...fields: readonly (Uint8Array | undefined)[]): Uint8Array {
  const all = [asciiBytes(label), ...fields];
  let length = 0;
  for (const field of all) length += 2 + (field?.length ?? 0);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const field of all) {
    const size = field?.length ?? 0;
    bytes[at++] = size >> 8;
    bytes[at++] = size & 0xff;
    if (field !== undefined) bytes.set(field, at);
    at += size;
  }
  return bytes;
}

function transcriptInput(label: string, { nonce, lane, ticket, session }: Transcript): Uint8Array {
  return macInput(
    label,
    // The path as the client meant it, regardless of how a proxy has rewritten it.
    asciiBytes(BIND_PATH),
    nonce,
    asciiBytes(String(lane)),
    ticket?.bytes,
    ticket === undefined ? undefined : asciiBytes(String(ticket.age)),
    session,
  );
}

/** The client's proof that it has the pre-shared key. */
export function requestMac(crypto: Cryptography, psk: Uint8Array, transcript: Transcript): Uint8Array {
  return crypto.hmac(psk, transcriptInput("underpass/1 request", transcript));
}

/** The client's proof that the session it resumes is its own. */
export function resumeMac(crypto: Cryptography, sessionKey: Uint8Array, transcript: Transcript): Uint8Array {
  return crypto.hmac(sessionKey, transcriptInput("underpass/1 resume", transcript));
}

/**
 * The server's proof in a challenge, so that nobody else can make a client sign again. If the server sends its clock, that is a further
 * field, so a proof without it equals that of a server that never sends it.
 */
export function challengeMac(
  crypto: Cryptography,
  psk: Uint8Array,
  clientNonce: Uint8Array,
  ticket: Uint8Array,
  unixS?: number,
): Uint8Array {
  const fields = [clientNonce, ticket];
  if (unixS !== undefined) fields.push(asciiBytes(String(unixS)));
  return crypto.hmac(psk, macInput("underpass/1 challenge", ...fields));
}

/** The server's proof in the refusal of a key, bound to the client's whole request by that request's MAC. */
export function keyRefusalMac(
  crypto: Cryptography,
  key: Uint8Array,
  clientMac: Uint8Array,
  cause: KeyRefusalCause,
): Uint8Array {
  return crypto.hmac(key, macInput("underpass/1 refusal", clientMac, asciiBytes(cause)));
}

/** Milliseconds for which the id of a key is the same. */
const KEY_EPOCH_MS = 3_600_000;

/** The number of the hour, which determines the ids of keys. */
export function keyEpoch(unixMs: number): number {
  return Math.floor(unixMs / KEY_EPOCH_MS);
}

/**
 * The id by which the server finds a named key. It reveals the name to nobody who lacks the key, and changes every hour.
 *
 * @returns {@link KEY_ID_BYTES} bytes
 */
export function keyId(crypto: Cryptography, key: Uint8Array, name: string, epoch: number): Uint8Array {
  const input = macInput("underpass/1 key", asciiBytes(name), asciiBytes(String(epoch)));
  return crypto.hmac(key, input).slice(0, KEY_ID_BYTES);
}

/**
 * The server's proof in its 101, bound to the client's whole request by that request's MAC. If receipts were agreed on, that is a further
 * field, so a proof without it equals that of a server without receipts.
 */
export function responseMac(
  crypto: Cryptography,
  psk: Uint8Array,
  clientMac: Uint8Array,
  { nonce, session, resumed, receipts }: Omit<ExtensionResponse, "mac">,
): Uint8Array {
  const fields = [clientMac, nonce, session, asciiBytes(resumed ? "1" : "0")];
  if (receipts) fields.push(asciiBytes("q"));
  return crypto.hmac(psk, macInput("underpass/1 response", ...fields));
}

/** Derives the key of a new session, which is never on the wire and cannot be derived without the pre-shared key. */
export function deriveSessionKey(
  crypto: Cryptography,
  psk: Uint8Array,
  clientNonce: Uint8Array,
  serverNonce: Uint8Array,
  session: Uint8Array,
): Uint8Array {
  return crypto.hmac(psk, macInput("underpass/1 session", clientNonce, serverNonce, session));
}

/** Compares in time that does not depend on the position of a difference. */
export function constantTimeEqual(a: Uint8Array | undefined, b: Uint8Array): boolean {
  if (a === undefined || a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
  return difference === 0;
}

/** Map key for a nonce or a session id; for cold paths only. */
export function hexKey(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += (byte < 16 ? "0" : "") + byte.toString(16);
  return text;
}
