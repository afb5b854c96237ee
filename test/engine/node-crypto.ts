// Stands in for node:crypto in the engine, as far as the tests need it.
import { hmac } from "@noble/hashes/hmac.js";
import { md5, sha1 } from "@noble/hashes/legacy.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";

const HASHES = { md5, sha1, sha256, sha512 };

/** A hash or a MAC that processes all its input at the end. */
class Digest {
  readonly #parts: Uint8Array[] = [];
  readonly #compute: (data: Uint8Array) => Uint8Array;

  constructor(compute: (data: Uint8Array) => Uint8Array) {
    this.#compute = compute;
  }

  update(data: Uint8Array | string): this {
    this.#parts.push(Buffer.from(data));
    return this;
  }

  digest(encoding?: BufferEncoding): Buffer | string {
    const result = Buffer.from(this.#compute(new Uint8Array(Buffer.concat(this.#parts))));
    return encoding === undefined ? result : result.toString(encoding);
  }
}

export function createHash(name: keyof typeof HASHES): Digest {
  return new Digest((data) => HASHES[name](data));
}

export function createHmac(name: keyof typeof HASHES, key: Uint8Array | string): Digest {
  return new Digest((data) => hmac(HASHES[name], new Uint8Array(Buffer.from(key)), data));
}
