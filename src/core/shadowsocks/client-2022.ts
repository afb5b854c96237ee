import { writeUint16 } from "../../wire/network-order.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { sameBytes } from "../../wire/socket-address.ts";
import { ProtocolError } from "../errors.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import type { ShadowsocksCryptography } from "./cryptography.ts";
import {
  FIXED_HEAD_BYTES,
  isTimely,
  MAX_FIRST_PAYLOAD,
  MAX_PADDING,
  nextLength,
  TYPE_CLIENT,
  TYPE_SERVER,
  writeFixedHead,
} from "./head-2022.ts";
import type { Method } from "./method.ts";
import type { SealedHead } from "./sealed-reader.ts";
import { SealedReader } from "./sealed-reader.ts";
import { SealedWriter } from "./sealed-writer.ts";

/** The client's end of a stream of the 2022 edition (SIP022 §3.1). */
export class ShadowsocksClient2022 implements StreamCoding {
  readonly #crypto: ShadowsocksCryptography;
  readonly #target: AddressBytes;
  readonly #writer: SealedWriter;
  readonly #reader: SealedReader;
  #hasStarted = false;

  constructor(crypto: ShadowsocksCryptography, method: Method, key: Uint8Array, target: AddressBytes) {
    this.#crypto = crypto;
    this.#target = target;
    this.#writer = new SealedWriter(crypto, method, key);
    this.#reader = new SealedReader(crypto, method, key, new ResponseHead(crypto, this.#writer.salt));
  }

  get hasStarted(): boolean {
    return this.#hasStarted;
  }

  get mayEnd(): boolean {
    return this.#reader.isBetweenChunks;
  }

  encode(bytes: Uint8Array): Uint8Array {
    const writer = this.#writer;
    if (this.#hasStarted) {
      writer.begin(bytes.length);
      writer.writeChunks(bytes, 0);
      return writer.finish();
    }
    this.#hasStarted = true;
    const payloadBytes = Math.min(bytes.length, MAX_FIRST_PAYLOAD);
    const head = this.#variableHead(bytes, payloadBytes);
    const fixed = new Uint8Array(FIXED_HEAD_BYTES);
    writeFixedHead(fixed, TYPE_CLIENT, this.#crypto.unixSeconds());
    writeUint16(fixed, FIXED_HEAD_BYTES - 2, head.length);
    writer.begin(fixed.length + head.length + bytes.length - payloadBytes);
    writer.writeSalt();
    writer.writePiece(fixed, 0, fixed.length);
    writer.writePiece(head, 0, head.length);
    writer.writeChunks(bytes, payloadBytes);
    return writer.finish();
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    return this.#reader.decode(bytes, offset, end, deliver);
  }

  /** The target, padding if there is no payload, and the first payload. */
  #variableHead(bytes: Uint8Array, payloadBytes: number): Uint8Array {
    const paddingBytes = payloadBytes > 0 ? 0 : this.#paddingBytes();
    const target = this.#target;
    const head = new Uint8Array(target.length + 2 + paddingBytes + payloadBytes);
    head.set(target);
    writeUint16(head, target.length, paddingBytes);
    head.set(this.#crypto.random(paddingBytes), target.length + 2);
    head.set(bytes.subarray(0, payloadBytes), target.length + 2 + paddingBytes);
    return head;
  }

  #paddingBytes(): number {
    const [high, low] = this.#crypto.random(2);
    return 1 + (((high << 8) | low) % MAX_PADDING);
  }
}

/** The head of a response: it must be new, and for this request. */
class ResponseHead implements SealedHead {
  readonly firstBytes: number;
  readonly #crypto: ShadowsocksCryptography;
  readonly #requestSalt: Uint8Array;
  #isPayload = false;

  constructor(crypto: ShadowsocksCryptography, requestSalt: Uint8Array) {
    this.#crypto = crypto;
    this.#requestSalt = requestSalt;
    this.firstBytes = FIXED_HEAD_BYTES + requestSalt.length;
  }

  handlePiece(piece: Uint8Array, deliver: Deliver): number | undefined | ProtocolError {
    if (this.#isPayload) {
      if (piece.length > 0) deliver(piece, 0, piece.length);
      return undefined;
    }
    this.#isPayload = true;
    const salt = this.#requestSalt;
    if (piece[0] !== TYPE_SERVER) return malformed(`a head of type ${piece[0]}`);
    if (!sameBytes(piece, FIXED_HEAD_BYTES - 2, salt, 0, salt.length)) {
      return malformed("an answer to another request");
    }
    if (!isTimely(piece, this.#crypto.unixSeconds())) return malformed("its clock differs by more than 30 s");
    return nextLength(piece);
  }
}

function malformed(detail: string): ProtocolError {
  return new ProtocolError("ERR_SHADOWSOCKS_MALFORMED", detail);
}
