import type { CipherGCMTypes } from "node:crypto";
import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import { blake3 } from "@noble/hashes/blake3.js";
import type { AeadCipher, ShadowsocksCryptography } from "../core/shadowsocks/cryptography.ts";
import type { AeadName } from "../core/shadowsocks/method.ts";
import { TAG_BYTES } from "../core/shadowsocks/method.ts";

const OPTIONS = { authTagLength: TAG_BYTES };

/** The cryptography for shadowsocks, from node:crypto, and BLAKE3 from \@noble/hashes. */
export const shadowsocksCryptography: ShadowsocksCryptography = {
  random: (length) => randomBytes(length),
  unixSeconds: () => Math.floor(Date.now() / 1000),
  aead: (name, key) => new NodeAead(name, key),
  md5: (data) => createHash("md5").update(data).digest(),
  hkdfSha1: (key, salt, info, length) => new Uint8Array(hkdfSync("sha1", key, salt, info, length)),
  blake3DeriveKey: (context, material, length) =>
    blake3(material, { context: new TextEncoder().encode(context), dkLen: length }),
};

class NodeAead implements AeadCipher {
  // The same overload accepts all four names; Node's types list ChaCha20 under another kind.
  readonly #name: CipherGCMTypes;
  readonly #key: Uint8Array;

  constructor(name: AeadName, key: Uint8Array) {
    this.#name = name as CipherGCMTypes;
    this.#key = key;
  }

  seal(nonce: Uint8Array, plain: Uint8Array, from: number, end: number, to: Uint8Array, at: number): number {
    const cipher = createCipheriv(this.#name, this.#key, nonce, OPTIONS);
    const isWhole = from === 0 && end === plain.length;
    to.set(cipher.update(isWhole ? plain : plain.subarray(from, end)), at);
    cipher.final();
    to.set(cipher.getAuthTag(), at + end - from);
    return at + end - from + TAG_BYTES;
  }

  open(nonce: Uint8Array, sealed: Uint8Array, from: number, end: number): Uint8Array | undefined {
    const decipher = createDecipheriv(this.#name, this.#key, nonce, OPTIONS);
    decipher.setAuthTag(sealed.subarray(end - TAG_BYTES, end));
    const plain = decipher.update(sealed.subarray(from, end - TAG_BYTES));
    try {
      decipher.final();
      return plain;
    } catch {
      return undefined;
    }
  }
}
