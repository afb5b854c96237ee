import { createHmac, randomBytes } from "node:crypto";
import type { Cryptography } from "../core/handshakes/credentials.ts";

/** The part of node:crypto that core needs. */
export const nodeCryptography: Cryptography = {
  hmac: (key, data) => createHmac("sha256", key).update(data).digest(),
  random: (length) => randomBytes(length),
};
