import { readUint16 } from "../../wire/network-order.ts";
import type { ProtocolError } from "../errors.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import { obfsError } from "./obfs-error.ts";
import { RECORD_HEAD_BYTES, RecordWriter } from "./tls-records.ts";

/** simple-obfs `tls` at either end: everything is in records, of which the first ones are a handshake. */
export abstract class ObfsTls implements StreamCoding {
  abstract readonly hasStarted: boolean;
  protected readonly records = new RecordWriter();
  readonly #head = new Uint8Array(RECORD_HEAD_BYTES);
  #headBytes = 0;
  /** Bytes of the record that have not arrived yet. */
  #left = 0;
  #error: ProtocolError | undefined;

  get mayEnd(): boolean {
    return this.#headBytes === 0 && this.#left === 0;
  }

  abstract encode(bytes: Uint8Array): Uint8Array;

  /** The type that the next record must have. */
  protected abstract readonly wanted: number;

  /** The next record begins. @returns what is wrong with its length */
  protected abstract begin(length: number): string | undefined;

  /** Takes bytes of a record, which may be only a part of it. */
  protected abstract take(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): void;

  /** A record has arrived. @returns what is wrong with it */
  protected abstract finish(deliver: Deliver): string | undefined;

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    for (let at = offset; this.#error === undefined && at < end; ) {
      let fault: string | undefined;
      if (this.#left === 0) {
        this.#head[this.#headBytes++] = bytes[at++];
        if (this.#headBytes < RECORD_HEAD_BYTES) continue;
        fault = this.#handleHead();
      } else {
        const count = Math.min(this.#left, end - at);
        this.take(bytes, at, at + count, deliver);
        at += count;
        this.#left -= count;
      }
      if (fault === undefined && this.#left === 0) fault = this.finish(deliver);
      if (fault !== undefined) this.#error = obfsError(fault);
    }
    return this.#error;
  }

  #handleHead(): string | undefined {
    const [type, major] = this.#head;
    this.#headBytes = 0;
    if (type !== this.wanted || major !== 3) return `a record of type ${type} instead of ${this.wanted}`;
    this.#left = readUint16(this.#head, 3);
    return this.begin(this.#left);
  }
}
