import type { AddressBytes } from "../../wire/socket-address.ts";
import type { ProtocolError } from "../errors.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import type { ShadowsocksCryptography } from "./cryptography.ts";
import type { Method } from "./method.ts";
import { SealedReader } from "./sealed-reader.ts";
import { SealedWriter } from "./sealed-writer.ts";

/** The client's end of a stream of SIP004. The target precedes its first data, and the server does not answer the request. */
export class ShadowsocksClient implements StreamCoding {
  readonly #target: AddressBytes;
  readonly #writer: SealedWriter;
  readonly #reader: SealedReader;
  #hasStarted = false;

  constructor(crypto: ShadowsocksCryptography, method: Method, key: Uint8Array, target: AddressBytes) {
    this.#target = target;
    this.#writer = new SealedWriter(crypto, method, key);
    this.#reader = new SealedReader(crypto, method, key);
  }

  get hasStarted(): boolean {
    return this.#hasStarted;
  }

  get mayEnd(): boolean {
    return this.#reader.isBetweenChunks;
  }

  encode(bytes: Uint8Array): Uint8Array {
    const writer = this.#writer;
    writer.begin(bytes.length + this.#target.length);
    if (this.#hasStarted) writer.writeChunks(bytes, 0);
    else {
      this.#hasStarted = true;
      const first = new Uint8Array(this.#target.length + bytes.length);
      first.set(this.#target);
      first.set(bytes, this.#target.length);
      writer.writeSalt();
      writer.writeChunks(first, 0);
    }
    return writer.finish();
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    return this.#reader.decode(bytes, offset, end, deliver);
  }
}
