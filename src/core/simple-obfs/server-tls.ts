import { readUint16 } from "../../wire/network-order.ts";
import { copyBytes } from "../copy-bytes.ts";
import type { ProtocolError } from "../errors.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import { obfsError } from "./obfs-error.ts";
import {
  APPLICATION_DATA,
  HANDSHAKE,
  MAX_RECORD_BYTES,
  RECORD_HEAD_BYTES,
  RecordWriter,
  readClientHello,
  serverHello,
} from "./tls-records.ts";

/** simple-obfs `tls` at the server. */
export class ObfsTlsServer implements StreamCoding {
  readonly hasStarted = true;
  readonly #random: (length: number) => Uint8Array;
  readonly #unixSeconds: () => number;
  /** The session id of the ClientHello, once that has arrived. */
  #sessionId: Uint8Array | undefined;
  /** The ClientHello, as far as it has arrived. */
  #hello = new Uint8Array(0);
  #have = 0;
  #hasAnswered = false;
  readonly #records = new RecordWriter();
  readonly #recordHead = new Uint8Array(RECORD_HEAD_BYTES);
  #headBytes = 0;
  /** Bytes of the record that have not arrived yet. */
  #left = 0;
  #error: ProtocolError | undefined;

  constructor(random: (length: number) => Uint8Array, unixSeconds: () => number) {
    this.#random = random;
    this.#unixSeconds = unixSeconds;
  }

  get mayEnd(): boolean {
    return this.#sessionId !== undefined && this.#headBytes === 0 && this.#left === 0;
  }

  encode(bytes: Uint8Array): Uint8Array {
    if (bytes.length === 0) return bytes;
    let hello: Uint8Array = new Uint8Array(0);
    let type = APPLICATION_DATA;
    if (!this.#hasAnswered) {
      this.#hasAnswered = true;
      hello = serverHello(this.#sessionId ?? this.#random(32), this.#random, this.#unixSeconds());
      // The first record looks like the server's Finished.
      type = HANDSHAKE;
    }
    return this.#records.write(hello, type, bytes, 0);
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    for (let at = offset; this.#error === undefined && at < end; ) {
      if (this.#left === 0) {
        this.#recordHead[this.#headBytes++] = bytes[at++];
        if (this.#headBytes === RECORD_HEAD_BYTES) this.#error = this.#handleRecordHead();
        continue;
      }
      const count = Math.min(this.#left, end - at);
      if (this.#sessionId === undefined) copyBytes(bytes, at, count, this.#hello, this.#have);
      else deliver(bytes, at, at + count);
      this.#have += count;
      at += count;
      this.#left -= count;
      if (this.#left === 0 && this.#sessionId === undefined) this.#error = this.#handleHello(deliver);
    }
    return this.#error;
  }

  #handleRecordHead(): ProtocolError | undefined {
    const [type, major] = this.#recordHead;
    const length = readUint16(this.#recordHead, 3);
    const wanted = this.#sessionId === undefined ? HANDSHAKE : APPLICATION_DATA;
    this.#headBytes = 0;
    if (type !== wanted || major !== 3) return obfsError(`a record of type ${type} instead of ${wanted}`);
    if (wanted === HANDSHAKE) {
      if (length === 0 || length > MAX_RECORD_BYTES) return obfsError(`a ClientHello of ${length} bytes`);
      this.#hello = new Uint8Array(length);
    }
    this.#left = length;
    return undefined;
  }

  #handleHello(deliver: Deliver): ProtocolError | undefined {
    const hello = this.#hello;
    this.#hello = new Uint8Array(0);
    const read = readClientHello(hello);
    if (read === undefined) return obfsError("no ClientHello with a session ticket");
    this.#sessionId = read.sessionId;
    if (read.ticket.length > 0) deliver(read.ticket, 0, read.ticket.length);
    return undefined;
  }
}
