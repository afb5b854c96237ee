import { writeUint16 } from "../../wire/network-order.ts";
import type { AeadCipher, ShadowsocksCryptography } from "./cryptography.ts";
import { sessionCipher } from "./keys.ts";
import type { Method } from "./method.ts";
import { TAG_BYTES } from "./method.ts";
import { Nonce } from "./nonce.ts";

/** Most payload in one chunk by SIP004. */
const LARGE_CHUNK_BYTES = 0x3fff;
/** Most payload of a chunk in a short batch. The peer can use a chunk only once it is complete, so the first datagrams wait for few others. */
const SMALL_CHUNK_BYTES = 4096;
/** Batches up to this size count as short. In a longer one throughput matters more, and each chunk costs two runs of the cipher. */
const SHORT_BATCH_BYTES = 16_384;
const LENGTH_BYTES = 2;

/** Encodes the sending direction: a salt, then sealed pieces and chunks. The buffer is reused for each batch. */
export class SealedWriter {
  readonly salt: Uint8Array;
  readonly #cipher: AeadCipher;
  readonly #nonce = new Nonce();
  readonly #chunkLength = new Uint8Array(LENGTH_BYTES);
  #buffer = new Uint8Array(0);
  #end = 0;

  /** @param salt  by default a new one */
  constructor(crypto: ShadowsocksCryptography, method: Method, key: Uint8Array, salt?: Uint8Array) {
    this.salt = salt ?? crypto.random(method.keyBytes);
    this.#cipher = sessionCipher(crypto, method, key, this.salt);
  }

  /** Begins a batch. @param payloadBytes  upper bound of its content, without salts and tags */
  begin(payloadBytes: number): void {
    const chunks = Math.ceil(payloadBytes / SMALL_CHUNK_BYTES) + 3;
    const needed = payloadBytes + chunks * (LENGTH_BYTES + 2 * TAG_BYTES) + this.salt.length;
    if (needed > this.#buffer.length) this.#buffer = new Uint8Array(2 ** Math.ceil(Math.log2(needed)));
    this.#end = 0;
  }

  writeSalt(): void {
    this.#buffer.set(this.salt, this.#end);
    this.#end += this.salt.length;
  }

  /** Seals `bytes[from..end)`, without a length. */
  writePiece(bytes: Uint8Array, from: number, end: number): void {
    this.#end = this.#cipher.seal(this.#nonce.bytes, bytes, from, end, this.#buffer, this.#end);
    this.#nonce.advance();
  }

  /** Seals `bytes[from..)` in chunks, each with its length. */
  writeChunks(bytes: Uint8Array, from: number): void {
    const isShort = bytes.length - from <= SHORT_BATCH_BYTES;
    const most = isShort ? SMALL_CHUNK_BYTES : LARGE_CHUNK_BYTES;
    for (let at = from; at < bytes.length; at += most) {
      const end = Math.min(at + most, bytes.length);
      writeUint16(this.#chunkLength, 0, end - at);
      this.writePiece(this.#chunkLength, 0, LENGTH_BYTES);
      this.writePiece(bytes, at, end);
    }
  }

  /** The batch, valid until the next one begins. */
  finish(): Uint8Array {
    return this.#buffer.subarray(0, this.#end);
  }
}
