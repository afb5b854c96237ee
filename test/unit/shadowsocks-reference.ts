import { createCipheriv, createDecipheriv, createHash, hkdfSync } from "node:crypto";
import { blake3 } from "@noble/hashes/blake3.js";
import type { Method } from "../../src/core/shadowsocks/method.ts";
import { concat } from "./cuts.ts";

/** A reference for tests: Shadowsocks as its documents describe it, over whole messages. */

/** EVP_BytesToKey with MD5, one iteration and no salt. */
export function passwordKey(password: string, length: number): Uint8Array {
  let [all, last] = [Buffer.alloc(0), Buffer.alloc(0)];
  while (all.length < length) {
    last = createHash("md5").update(last).update(password, "utf8").digest();
    all = Buffer.concat([all, last]);
  }
  return new Uint8Array(all.subarray(0, length));
}

/** One direction of a connection. */
export class ReferenceDirection {
  readonly #method: Method;
  readonly #subkey: Uint8Array;
  #count = 0n;

  constructor(method: Method, key: Uint8Array, salt: Uint8Array) {
    this.#method = method;
    this.#subkey = method.is2022
      ? blake3(concat(key, salt), {
          context: Buffer.from("shadowsocks 2022 session subkey"),
          dkLen: method.keyBytes,
        })
      : new Uint8Array(hkdfSync("sha1", key, salt, "ss-subkey", method.keyBytes));
  }

  seal(plain: Uint8Array): Uint8Array {
    const cipher = createCipheriv(this.#method.aead as "aes-128-gcm", this.#subkey, this.#nonce(), {
      authTagLength: 16,
    });
    const body = Buffer.concat([cipher.update(plain), cipher.final()]);
    return concat(body, cipher.getAuthTag());
  }

  open(sealed: Uint8Array): Uint8Array {
    const decipher = createDecipheriv(this.#method.aead as "aes-128-gcm", this.#subkey, this.#nonce(), {
      authTagLength: 16,
    });
    decipher.setAuthTag(sealed.subarray(-16));
    return concat(decipher.update(sealed.subarray(0, -16)), decipher.final());
  }

  chunk(payload: Uint8Array): Uint8Array {
    return concat(this.seal(uint16(payload.length)), this.seal(payload));
  }

  /** The payloads of all chunks. */
  openChunks(bytes: Uint8Array): Uint8Array[] {
    const payloads: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; ) {
      const [high, low] = this.open(bytes.subarray(at, at + 18));
      const end = at + 18 + ((high << 8) | low) + 16;
      payloads.push(this.open(bytes.subarray(at + 18, end)));
      at = end;
    }
    return payloads;
  }

  #nonce(): Uint8Array {
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64LE(this.#count++);
    return nonce;
  }
}

export function uint16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value);
}

/** `type | unix seconds`, the start of a head of the 2022 edition. */
export function typeAndTime(type: number, unixSeconds: number): Uint8Array {
  const bytes = Buffer.alloc(9);
  bytes[0] = type;
  bytes.writeBigUInt64BE(BigInt(unixSeconds), 1);
  return bytes;
}
