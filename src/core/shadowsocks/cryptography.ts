import type { AeadName } from "./method.ts";

/** An AEAD cipher with its key. */
export interface AeadCipher {
  /**
   * Encrypts `plain[from..end)` and appends the tag.
   *
   * @param nonce  12 bytes, borrowed
   * @returns the end offset of the tag in `to`
   */
  seal(nonce: Uint8Array, plain: Uint8Array, from: number, end: number, to: Uint8Array, at: number): number;
  /** Decrypts `sealed[from..end)`. @returns the plaintext, in memory of its own; undefined if the tag is wrong */
  open(nonce: Uint8Array, sealed: Uint8Array, from: number, end: number): Uint8Array | undefined;
}

/** What shadowsocks needs from its host. */
export interface ShadowsocksCryptography {
  /** Unpredictable bytes. */
  random(length: number): Uint8Array;
  /** Seconds since 1970, for the 2022 edition. */
  unixSeconds(): number;
  aead(name: AeadName, key: Uint8Array): AeadCipher;
  md5(data: Uint8Array): Uint8Array;
  /** HKDF (RFC 5869) with SHA-1. */
  hkdfSha1(key: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Uint8Array;
  /** `derive_key` of BLAKE3. */
  blake3DeriveKey(context: string, material: Uint8Array, length: number): Uint8Array;
}
