import { sha1 } from "@noble/hashes/legacy.js";
import { encodeBase64 } from "../../wire/base64.ts";
import { asciiBytes } from "../../wire/http/http-head.ts";
import { ACCEPT_SUFFIX } from "../../wire/http/websocket-upgrade.ts";

/** The server's answer to a WebSocket client's key (RFC 6455 §4.2.2). */
export function acceptOf(key: string): string {
  return encodeBase64(sha1(asciiBytes(key + ACCEPT_SUFFIX)));
}
