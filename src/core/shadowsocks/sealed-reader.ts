import { readUint16 } from "../../wire/network-order.ts";
import { copyOf } from "../../wire/socket-address.ts";
import { copyBytes } from "../copy-bytes.ts";
import { ProtocolError } from "../errors.ts";
import type { Deliver } from "../stream-coding.ts";
import type { AeadCipher, ShadowsocksCryptography } from "./cryptography.ts";
import { sessionCipher } from "./keys.ts";
import type { Method } from "./method.ts";
import { TAG_BYTES } from "./method.ts";
import { Nonce } from "./nonce.ts";
import type { AdmitSalt } from "./server-coding.ts";

const LENGTH_BYTES = 2;
/** The two upper bits of a length are reserved in SIP004. */
const MAX_CHUNK_2017 = 0x3fff;

/** The head between the salt and the chunks: sealed pieces, each of which gives the length of the next. */
export interface SealedHead {
  /** Length of the first piece, without its tag. */
  readonly firstBytes: number;
  /** Reads a piece. @returns the length of the next piece; undefined if chunks follow; or why the connection must end */
  handlePiece(piece: Uint8Array, deliver: Deliver): number | undefined | ProtocolError;
}

/** Decodes the receiving direction: a salt, the pieces of a head, and chunks. */
export class SealedReader {
  readonly #crypto: ShadowsocksCryptography;
  readonly #method: Method;
  readonly #key: Uint8Array;
  readonly #head: SealedHead | undefined;
  readonly #admit: AdmitSalt | undefined;
  readonly #nonce = new Nonce();
  #salt: Uint8Array | undefined;
  #cipher: AeadCipher | undefined;
  #state: "salt" | "head" | "length" | "payload" = "salt";
  /** Bytes of the next item, including its tag. */
  #wanted: number;
  /** The beginning of the next item, while it is incomplete. */
  #partial = new Uint8Array(0);
  #have = 0;
  #error: ProtocolError | undefined;

  /** @param admit  called once the peer has proved its key */
  constructor(
    crypto: ShadowsocksCryptography,
    method: Method,
    key: Uint8Array,
    head?: SealedHead,
    admit?: AdmitSalt,
  ) {
    this.#crypto = crypto;
    this.#method = method;
    this.#key = key;
    this.#head = head;
    this.#admit = admit;
    this.#wanted = method.keyBytes;
  }

  /** The peer's salt, once it has arrived. */
  get salt(): Uint8Array | undefined {
    return this.#salt;
  }

  /** True between two chunks, and before anything has arrived. */
  get isBetweenChunks(): boolean {
    return this.#have === 0 && (this.#state === "length" || this.#state === "salt");
  }

  /**
   * Decodes bytes of the stream, cut anywhere. Delivered bytes are in memory of their own.
   *
   * @returns why the connection must end; the same for all later calls
   */
  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    for (let at = offset; this.#error === undefined && at < end; ) {
      const length = this.#wanted;
      const missing = length - this.#have;
      if (end - at < missing) {
        this.#keep(bytes, at, end);
        break;
      }
      if (this.#have === 0) this.#error = this.#handle(bytes, at, at + length, deliver);
      else {
        this.#keep(bytes, at, at + missing);
        this.#have = 0;
        this.#error = this.#handle(this.#partial, 0, length, deliver);
      }
      at += missing;
    }
    return this.#error;
  }

  #keep(bytes: Uint8Array, from: number, end: number): void {
    if (this.#partial.length < this.#wanted) {
      const larger = new Uint8Array(this.#wanted);
      larger.set(this.#partial.subarray(0, this.#have));
      this.#partial = larger;
    }
    copyBytes(bytes, from, end - from, this.#partial, this.#have);
    this.#have += end - from;
  }

  #handle(bytes: Uint8Array, from: number, end: number, deliver: Deliver): ProtocolError | undefined {
    if (this.#state === "salt") return this.#handleSalt(copyOf(bytes, from, end - from));
    const plain = this.#cipher!.open(this.#nonce.bytes, bytes, from, end);
    if (plain === undefined) {
      return new ProtocolError(
        "ERR_SHADOWSOCKS_TAG",
        "the password or the method differs, or bytes were changed",
      );
    }
    const isFirst = this.#nonce.isZero;
    this.#nonce.advance();
    switch (this.#state) {
      case "head": {
        const next = this.#head!.handlePiece(plain, deliver);
        if (next instanceof ProtocolError) return next;
        // Only the salt of an otherwise valid head is remembered.
        if (isFirst && !this.#isAdmitted()) return replayed();
        this.#expect(next === undefined ? "length" : "head", next ?? LENGTH_BYTES);
        return undefined;
      }
      case "length": {
        if (isFirst && !this.#isAdmitted()) return replayed();
        const length = readUint16(plain, 0);
        if (length > MAX_CHUNK_2017 && !this.#method.is2022) {
          return new ProtocolError("ERR_SHADOWSOCKS_MALFORMED", `a chunk of ${length} bytes`);
        }
        this.#expect("payload", length);
        return undefined;
      }
      case "payload":
        if (plain.length > 0) deliver(plain, 0, plain.length);
        this.#expect("length", LENGTH_BYTES);
        return undefined;
    }
  }

  #isAdmitted(): boolean {
    return this.#admit === undefined || this.#admit(this.#salt!);
  }

  #handleSalt(salt: Uint8Array): undefined {
    this.#salt = salt;
    this.#cipher = sessionCipher(this.#crypto, this.#method, this.#key, salt);
    this.#expect(
      this.#head === undefined ? "length" : "head",
      this.#head === undefined ? LENGTH_BYTES : this.#head.firstBytes,
    );
  }

  #expect(state: "head" | "length" | "payload", bytes: number): void {
    this.#state = state;
    this.#wanted = bytes + TAG_BYTES;
  }
}

function replayed(): ProtocolError {
  return new ProtocolError("ERR_SHADOWSOCKS_REPLAY", "this may be a recorded connection");
}
