/** AEAD ciphers, with a nonce of 12 bytes and a tag of 16. */
export type AeadName = "aes-128-gcm" | "aes-192-gcm" | "aes-256-gcm" | "chacha20-poly1305";

/** Length of the tag that an AEAD cipher appends. */
export const TAG_BYTES = 16;

export interface Method {
  readonly aead: AeadName;
  /** Length of the key and of the salt. */
  readonly keyBytes: number;
  /** True for the 2022 edition (SIP022), false for AEAD of 2017 (SIP004). */
  readonly is2022: boolean;
}

/** Methods by their shadowsocks names. */
export const METHODS: Readonly<Record<string, Method>> = {
  "chacha20-ietf-poly1305": { aead: "chacha20-poly1305", keyBytes: 32, is2022: false },
  "aes-256-gcm": { aead: "aes-256-gcm", keyBytes: 32, is2022: false },
  "aes-192-gcm": { aead: "aes-192-gcm", keyBytes: 24, is2022: false },
  "aes-128-gcm": { aead: "aes-128-gcm", keyBytes: 16, is2022: false },
  "2022-blake3-aes-128-gcm": { aead: "aes-128-gcm", keyBytes: 16, is2022: true },
  "2022-blake3-aes-256-gcm": { aead: "aes-256-gcm", keyBytes: 32, is2022: true },
  "2022-blake3-chacha20-poly1305": { aead: "chacha20-poly1305", keyBytes: 32, is2022: true },
};
