import { blake3 } from "@noble/hashes/blake3.js";
import { asciiBytes } from "../wire/http/http-head.ts";

/** BLAKE3's key derivation, which mbedTLS does not have. */
export function blake3DeriveKey(context: string, material: Uint8Array, length: number): Uint8Array {
  return blake3(material, { context: asciiBytes(context), dkLen: length });
}
