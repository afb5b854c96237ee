import type { AddressBytes } from "../../wire/socket-address.ts";
import { ADDRESS_INVALID, addressLength, copyAddress } from "../../wire/socket-address.ts";
import { ProtocolError } from "../errors.ts";
import type { Deliver } from "../stream-coding.ts";
import type { ShadowsocksCryptography } from "./cryptography.ts";
import type { Method } from "./method.ts";
import { SealedReader } from "./sealed-reader.ts";
import { SealedWriter } from "./sealed-writer.ts";
import type { AdmitSalt, ServerCoding } from "./server-coding.ts";

/** Longest address: a name of 255 bytes. */
const MAX_ADDRESS_BYTES = 259;

/** The server's end of a stream of SIP004. The first bytes name the target, and the rest is for it. */
export class ShadowsocksServer implements ServerCoding {
  readonly hasStarted = true;
  readonly #writer: SealedWriter;
  readonly #reader: SealedReader;
  readonly #admit: AdmitSalt;
  #hasSalt = false;
  #target: AddressBytes | undefined;
  /** The target, as far as it has arrived. */
  readonly #address = new Uint8Array(MAX_ADDRESS_BYTES);
  #have = 0;
  #error: ProtocolError | undefined;
  #deliver: Deliver = () => {};

  constructor(crypto: ShadowsocksCryptography, method: Method, key: Uint8Array, admit: AdmitSalt) {
    this.#admit = admit;
    this.#writer = new SealedWriter(crypto, method, key);
    this.#reader = new SealedReader(crypto, method, key, undefined, admit);
  }

  get target(): AddressBytes | undefined {
    return this.#target;
  }

  get mayEnd(): boolean {
    return this.#reader.isBetweenChunks;
  }

  encode(bytes: Uint8Array): Uint8Array {
    if (bytes.length === 0) return bytes;
    this.#writer.begin(bytes.length);
    if (!this.#hasSalt) {
      this.#hasSalt = true;
      // Our own answer must not be accepted as a request if someone sends it back.
      this.#admit(this.#writer.salt);
      this.#writer.writeSalt();
    }
    this.#writer.writeChunks(bytes, 0);
    return this.#writer.finish();
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    this.#deliver = deliver;
    const error = this.#error ?? this.#reader.decode(bytes, offset, end, this.#handlePayload);
    this.#error ??= error;
    return this.#error;
  }

  readonly #handlePayload: Deliver = (bytes, offset, end) => {
    if (this.#target !== undefined) {
      this.#deliver(bytes, offset, end);
      return;
    }
    for (let at = offset; at < end && this.#error === undefined; ) {
      this.#address[this.#have++] = bytes[at++];
      const length = addressLength(this.#address, 0, this.#have);
      if (length === ADDRESS_INVALID) {
        this.#error = new ProtocolError("ERR_SHADOWSOCKS_MALFORMED", "no target");
      } else if (length > 0) {
        this.#target = copyAddress(this.#address, 0, length);
        if (at < end) this.#deliver(bytes, at, end);
        return;
      }
    }
  };
}
