import type { KeyEntry } from "../core/keys/named-key.ts";
import { utf8Bytes } from "../wire/http/http-head.ts";
import type { KeyOption } from "./options/keys.ts";

/** Converts keys to core's form. */
export function keyEntries(keys: readonly KeyOption[]): KeyEntry[] {
  return keys.map(({ name, key, expires, bitsPerSecond, datagramsPerSecond, maxAssociations }) => ({
    name,
    key: utf8Bytes(key),
    expiresAt: expires === undefined ? undefined : expires * 1000,
    ...{ bitsPerSecond, datagramsPerSecond, maxAssociations },
  }));
}
