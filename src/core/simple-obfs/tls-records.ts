import { asciiBytes } from "../../wire/http/http-head.ts";
import { readUint16, writeUint16, writeUint32 } from "../../wire/network-order.ts";
import { copyBytes } from "../copy-bytes.ts";

/** The TLS 1.2 records that simple-obfs imitates (RFC 5246 §6.2.1, §7.4.1). */
export const CHANGE_CIPHER_SPEC = 20;
export const HANDSHAKE = 22;
export const APPLICATION_DATA = 23;
/** `type 1 | version 2 | length 2`. */
export const RECORD_HEAD_BYTES = 5;
/** Most bytes in a record (RFC 5246 §6.2.1). */
export const MAX_RECORD_BYTES = 16_384;
/** Longest session ticket of our ClientHello, which then fits into one segment. */
export const MAX_TICKET_BYTES = 1_024;

const CLIENT_HELLO = 1;
const SERVER_HELLO = 2;
const SESSION_TICKET = 35;
const SERVER_NAME = 0;
const CIPHER_SUITES = hex(
  "c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035002f00ff",
);
/** ec_point_formats, supported_groups, signature_algorithms, encrypt_then_mac, extended_master_secret. */
const OTHER_EXTENSIONS = hex(
  "000b000403000102000a000a0008001d001700190018" +
    "000d0020001e060106020603050105020503040104020403030103020303020102020203" +
    "0016000000170000",
);

function writeRecordHead(to: Uint8Array, at: number, type: number, length: number): void {
  to[at] = type;
  to[at + 1] = 3;
  to[at + 2] = 3;
  writeUint16(to, at + 3, length);
}

/** Makes output of a hello and of records, in memory that it uses again. */
export class RecordWriter {
  #buffer = new Uint8Array(0);

  /**
   * @param hello      goes first; may be empty
   * @param firstType  of the first record; all others are APPLICATION_DATA
   * @param from       offset in `bytes` of what goes into records
   * @returns valid until the next call
   */
  write(hello: Uint8Array, firstType: number, bytes: Uint8Array, from: number): Uint8Array {
    const left = bytes.length - from;
    const length = hello.length + left + Math.ceil(left / MAX_RECORD_BYTES) * RECORD_HEAD_BYTES;
    if (length > this.#buffer.length) this.#buffer = new Uint8Array(2 ** Math.ceil(Math.log2(length)));
    this.#buffer.set(hello);
    let to = hello.length;
    let type = firstType;
    for (let at = from; at < bytes.length; ) {
      const count = Math.min(bytes.length - at, MAX_RECORD_BYTES);
      writeRecordHead(this.#buffer, to, type, count);
      copyBytes(bytes, at, count, this.#buffer, to + RECORD_HEAD_BYTES);
      to += RECORD_HEAD_BYTES + count;
      at += count;
      type = APPLICATION_DATA;
    }
    return this.#buffer.subarray(0, to);
  }
}

/** A record with a ClientHello. @param ticket  at most MAX_TICKET_BYTES */
export function clientHello(
  serverName: string,
  ticket: Uint8Array,
  random: (length: number) => Uint8Array,
  unixSeconds: number,
): Uint8Array {
  const name = asciiBytes(serverName);
  const time = new Uint8Array(4);
  writeUint32(time, 0, unixSeconds % 2 ** 32);
  const extensions = joined(
    uint16(SESSION_TICKET),
    withLength(ticket),
    uint16(SERVER_NAME),
    withLength(withLength(joined(Uint8Array.of(0), withLength(name)))),
    OTHER_EXTENSIONS,
  );
  const hello = joined(
    Uint8Array.of(3, 3),
    time,
    random(28),
    Uint8Array.of(32),
    random(32),
    withLength(CIPHER_SUITES),
    Uint8Array.of(1, 0),
    withLength(extensions),
  );
  const message = joined(Uint8Array.of(CLIENT_HELLO, 0), withLength(hello));
  return joined(Uint8Array.of(HANDSHAKE, 3, 1), withLength(message));
}

/** The parts of a ClientHello that a simple-obfs server uses. */
export interface ReadHello {
  readonly sessionId: Uint8Array;
  readonly ticket: Uint8Array;
}

/** Reads a ClientHello without the head of its record. @returns undefined for anything but a ClientHello with a session ticket */
export function readClientHello(bytes: Uint8Array): ReadHello | undefined {
  // `type 1 | length 3 | version 2 | random 32 | session id 1 + n | ciphers 2 + n | compression 1 + n | extensions 2 + n`
  if (bytes.length < 39 || bytes[0] !== CLIENT_HELLO) return undefined;
  const sessionEnd = 39 + bytes[38];
  const ciphersEnd = sessionEnd + 2 + lengthAt(bytes, sessionEnd);
  const compressionEnd = ciphersEnd + 1 + (bytes[ciphersEnd] ?? 0);
  const end = compressionEnd + 2 + lengthAt(bytes, compressionEnd);
  if (end > bytes.length) return undefined;
  for (let at = compressionEnd + 2; at + 4 <= end; at += 4 + readUint16(bytes, at + 2)) {
    if (readUint16(bytes, at) !== SESSION_TICKET) continue;
    const ticketEnd = at + 4 + readUint16(bytes, at + 2);
    if (ticketEnd > end) return undefined;
    return { sessionId: bytes.slice(39, sessionEnd), ticket: bytes.slice(at + 4, ticketEnd) };
  }
  return undefined;
}

/** A ServerHello and a ChangeCipherSpec. @param sessionId  the client's */
export function serverHello(
  sessionId: Uint8Array,
  random: (length: number) => Uint8Array,
  unixSeconds: number,
): Uint8Array {
  const time = new Uint8Array(4);
  writeUint32(time, 0, unixSeconds % 2 ** 32);
  const hello = joined(
    Uint8Array.of(3, 3),
    time,
    random(28),
    Uint8Array.of(sessionId.length),
    sessionId,
    // The length of the extensions is 0, as in the original.
    hex("cca8000000ff0100010000170000000b00020100"),
  );
  const message = joined(Uint8Array.of(SERVER_HELLO, 0), withLength(hello));
  return joined(Uint8Array.of(HANDSHAKE, 3, 1), withLength(message), hex("140303000101"));
}

/** Reads an integer, which may lie beyond the end; the caller checks that. */
function lengthAt(bytes: Uint8Array, offset: number): number {
  return offset + 2 <= bytes.length ? readUint16(bytes, offset) : bytes.length;
}

/** Prepends the length of the bytes, in 2 bytes. */
function withLength(bytes: Uint8Array): Uint8Array {
  return joined(uint16(bytes.length), bytes);
}

function uint16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value);
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function hex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g)!, (pair) => Number.parseInt(pair, 16));
}
