import { decodeBase64 } from "../../wire/base64.ts";
import { asciiBytes, utf8Bytes } from "../../wire/http/http-head.ts";
import type { AeadCipher, ShadowsocksCryptography } from "./cryptography.ts";
import type { Method } from "./method.ts";

/**
 * The key of a server: EVP_BytesToKey of the password with MD5 (SIP004). For the 2022 edition, the password is the key in base64.
 *
 * @returns undefined if the password is not a valid key of the 2022 edition
 */
export function masterKey(
  crypto: ShadowsocksCryptography,
  method: Method,
  password: string,
): Uint8Array | undefined {
  const { keyBytes, is2022 } = method;
  if (is2022) {
    const key = decodeBase64(password);
    return key?.length === keyBytes ? key : undefined;
  }
  const secret = utf8Bytes(password);
  if (secret.length === 0) return undefined;
  const key = new Uint8Array(keyBytes);
  let digest: Uint8Array = new Uint8Array(0);
  for (let at = 0; at < keyBytes; at += digest.length) {
    digest = crypto.md5(joined(digest, secret));
    key.set(digest.subarray(0, keyBytes - at), at);
  }
  return key;
}

/** Whether {@link masterKey} accepts the password. */
export function isPassword({ keyBytes, is2022 }: Method, password: string): boolean {
  return is2022 ? decodeBase64(password)?.length === keyBytes : password !== "";
}

/** The cipher of one direction of a connection (SIP004, SIP022 §2.2). */
export function sessionCipher(
  crypto: ShadowsocksCryptography,
  method: Method,
  key: Uint8Array,
  salt: Uint8Array,
): AeadCipher {
  const { aead, keyBytes, is2022 } = method;
  const subkey = is2022
    ? crypto.blake3DeriveKey("shadowsocks 2022 session subkey", joined(key, salt), keyBytes)
    : crypto.hkdfSha1(key, salt, asciiBytes("ss-subkey"), keyBytes);
  return crypto.aead(aead, subkey);
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
