import type { AeadCipher, ShadowsocksCryptography } from "../core/shadowsocks/cryptography.ts";
import type { AeadName } from "../core/shadowsocks/method.ts";
import { blake3DeriveKey } from "./blake3.ts";
import type { CHost, Cipher } from "./c-host.ts";

/** The cryptography for shadowsocks, from mbedTLS, and BLAKE3 from \@noble/hashes. */
export function cShadowsocks(host: CHost): ShadowsocksCryptography {
  return {
    random: (length) => host.random(length),
    unixSeconds: () => Math.floor(host.unixMs() / 1000),
    aead: (name, key) => new CAead(host, name, key),
    md5: (data) => host.md5(data),
    hkdfSha1: (key, salt, info, length) => host.hkdfSha1(key, salt, info, length),
    blake3DeriveKey,
  };
}

class CAead implements AeadCipher {
  readonly #host: CHost;
  readonly #cipher: Cipher;

  constructor(host: CHost, name: AeadName, key: Uint8Array) {
    this.#host = host;
    this.#cipher = host.aead(name, key);
  }

  seal(nonce: Uint8Array, plain: Uint8Array, from: number, end: number, to: Uint8Array, at: number): number {
    return this.#host.aeadSeal(this.#cipher, nonce, plain, from, end, to, at);
  }

  open(nonce: Uint8Array, sealed: Uint8Array, from: number, end: number): Uint8Array | undefined {
    return this.#host.aeadOpen(this.#cipher, nonce, sealed, from, end);
  }
}
