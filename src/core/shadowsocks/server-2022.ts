import { readUint16, writeUint16 } from "../../wire/network-order.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressLength, copyAddress } from "../../wire/socket-address.ts";
import { ProtocolError } from "../errors.ts";
import type { Deliver } from "../stream-coding.ts";
import type { ShadowsocksCryptography } from "./cryptography.ts";
import {
  FIXED_HEAD_BYTES,
  isTimely,
  MAX_FIRST_PAYLOAD,
  nextLength,
  TYPE_CLIENT,
  TYPE_SERVER,
  writeFixedHead,
} from "./head-2022.ts";
import type { Method } from "./method.ts";
import type { SealedHead } from "./sealed-reader.ts";
import { SealedReader } from "./sealed-reader.ts";
import { SealedWriter } from "./sealed-writer.ts";
import type { AdmitSalt, ServerCoding } from "./server-coding.ts";

/** The server's end of a stream of the 2022 edition (SIP022 §3.1). */
export class ShadowsocksServer2022 implements ServerCoding {
  readonly hasStarted = true;
  readonly #crypto: ShadowsocksCryptography;
  readonly #writer: SealedWriter;
  readonly #reader: SealedReader;
  readonly #head: RequestHead;
  #hasAnswered = false;

  /** @param admit  has to remember salts for 60 s */
  constructor(crypto: ShadowsocksCryptography, method: Method, key: Uint8Array, admit: AdmitSalt) {
    this.#crypto = crypto;
    this.#writer = new SealedWriter(crypto, method, key);
    this.#head = new RequestHead(crypto);
    this.#reader = new SealedReader(crypto, method, key, this.#head, admit);
  }

  get target(): AddressBytes | undefined {
    return this.#head.target;
  }

  get mayEnd(): boolean {
    return this.#reader.isBetweenChunks;
  }

  encode(bytes: Uint8Array): Uint8Array {
    const writer = this.#writer;
    if (bytes.length === 0) return bytes;
    if (this.#hasAnswered) {
      writer.begin(bytes.length);
      writer.writeChunks(bytes, 0);
      return writer.finish();
    }
    this.#hasAnswered = true;
    // The salt is known, because nothing is sent before the target is known.
    const requestSalt = this.#reader.salt!;
    const payloadBytes = Math.min(bytes.length, MAX_FIRST_PAYLOAD);
    const head = new Uint8Array(FIXED_HEAD_BYTES + requestSalt.length);
    writeFixedHead(head, TYPE_SERVER, this.#crypto.unixSeconds());
    head.set(requestSalt, FIXED_HEAD_BYTES - 2);
    writeUint16(head, head.length - 2, payloadBytes);
    writer.begin(head.length + bytes.length);
    writer.writeSalt();
    writer.writePiece(head, 0, head.length);
    writer.writePiece(bytes, 0, payloadBytes);
    writer.writeChunks(bytes, payloadBytes);
    return writer.finish();
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    return this.#reader.decode(bytes, offset, end, deliver);
  }
}

/** The head of a request: it must be new, and have a target. */
class RequestHead implements SealedHead {
  readonly firstBytes = FIXED_HEAD_BYTES;
  target: AddressBytes | undefined;
  readonly #crypto: ShadowsocksCryptography;
  #isVariable = false;

  constructor(crypto: ShadowsocksCryptography) {
    this.#crypto = crypto;
  }

  handlePiece(piece: Uint8Array, deliver: Deliver): number | undefined | ProtocolError {
    if (!this.#isVariable) {
      this.#isVariable = true;
      if (piece[0] !== TYPE_CLIENT) return malformed(`a head of type ${piece[0]}`);
      if (!isTimely(piece, this.#crypto.unixSeconds()))
        return malformed("its clock differs by more than 30 s");
      return nextLength(piece);
    }
    const length = addressLength(piece, 0, piece.length);
    if (length <= 0 || piece.length < length + 2) return malformed("no target");
    const payloadAt = length + 2 + readUint16(piece, length);
    if (payloadAt > piece.length) return malformed("padding that is longer than its head");
    // SIP022 §3.1.3: without payload there must be padding.
    if (piece.length === length + 2) return malformed("neither payload nor padding");
    this.target = copyAddress(piece, 0, length);
    if (payloadAt < piece.length) deliver(piece, payloadAt, piece.length);
    return undefined;
  }
}

function malformed(detail: string): ProtocolError {
  return new ProtocolError("ERR_SHADOWSOCKS_MALFORMED", detail);
}
