import { readUint16 } from "../../wire/network-order.ts";
import type { ProtocolError } from "../errors.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import { obfsError } from "./obfs-error.ts";
import {
  APPLICATION_DATA,
  CHANGE_CIPHER_SPEC,
  clientHello,
  HANDSHAKE,
  MAX_TICKET_BYTES,
  RECORD_HEAD_BYTES,
  RecordWriter,
} from "./tls-records.ts";

/** What the next record must be. */
type Expected = "server hello" | "change cipher spec" | "first data" | "data";

/** simple-obfs `tls` at the client. The first bytes are the session ticket of a ClientHello; all others are in records. */
export class ObfsTlsClient implements StreamCoding {
  readonly #serverName: string;
  readonly #random: (length: number) => Uint8Array;
  readonly #unixSeconds: () => number;
  #hasStarted = false;
  readonly #records = new RecordWriter();
  #expected: Expected = "server hello";
  readonly #recordHead = new Uint8Array(RECORD_HEAD_BYTES);
  #headBytes = 0;
  /** Bytes of the record that have not arrived yet. */
  #left = 0;
  #error: ProtocolError | undefined;

  constructor(serverName: string, random: (length: number) => Uint8Array, unixSeconds: () => number) {
    this.#serverName = serverName;
    this.#random = random;
    this.#unixSeconds = unixSeconds;
  }

  get hasStarted(): boolean {
    return this.#hasStarted;
  }

  get mayEnd(): boolean {
    return this.#headBytes === 0 && this.#left === 0;
  }

  encode(bytes: Uint8Array): Uint8Array {
    if (bytes.length === 0) return bytes;
    let at = 0;
    let hello: Uint8Array = new Uint8Array(0);
    if (!this.#hasStarted) {
      this.#hasStarted = true;
      at = Math.min(bytes.length, MAX_TICKET_BYTES);
      hello = clientHello(this.#serverName, bytes.subarray(0, at), this.#random, this.#unixSeconds());
    }
    return this.#records.write(hello, APPLICATION_DATA, bytes, at);
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    for (let at = offset; this.#error === undefined && at < end; ) {
      if (this.#left === 0) {
        this.#recordHead[this.#headBytes++] = bytes[at++];
        if (this.#headBytes === RECORD_HEAD_BYTES) this.#error = this.#handleRecordHead();
        continue;
      }
      const count = Math.min(this.#left, end - at);
      const isData = this.#expected === "first data" || this.#expected === "data";
      if (isData) deliver(bytes, at, at + count);
      at += count;
      this.#left -= count;
      if (this.#left === 0) this.#expectNext();
    }
    return this.#error;
  }

  #handleRecordHead(): ProtocolError | undefined {
    const [type, major] = this.#recordHead;
    const length = readUint16(this.#recordHead, 3);
    this.#headBytes = 0;
    const wanted =
      this.#expected === "data"
        ? APPLICATION_DATA
        : this.#expected === "change cipher spec"
          ? CHANGE_CIPHER_SPEC
          : HANDSHAKE;
    if (type !== wanted || major !== 3) return obfsError(`a record of type ${type} instead of ${wanted}`);
    this.#left = length;
    if (length === 0) this.#expectNext();
    return undefined;
  }

  #expectNext(): void {
    if (this.#expected === "server hello") this.#expected = "change cipher spec";
    else if (this.#expected === "change cipher spec") this.#expected = "first data";
    else this.#expected = "data";
  }
}
