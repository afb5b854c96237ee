/** Requests that open a WebSocket (RFC 6455 §4.2.1). */
import type { HttpHead } from "./http-head.ts";
import { fieldHasToken, singleField } from "./http-head.ts";

/** 16 bytes in base64. */
const KEY = /^[+/0-9A-Za-z]{22}==$/;

/**
 * The value of `Sec-WebSocket-Key` in a well-formed request for `path`, whatever query follows that.
 *
 * @returns undefined for any other request
 */
export function webSocketKey(head: HttpHead, path: string): string | undefined {
  const [, target] = /^GET (\S+) HTTP\/1\.1$/.exec(head.startLine) ?? [];
  if (target?.replace(/^https?:\/\/[^/]*/i, "").replace(/\?.*$/, "") !== path) return undefined;
  const key = singleField(head, "sec-websocket-key");
  const isUpgrade =
    singleField(head, "host") !== undefined &&
    fieldHasToken(head, "connection", "upgrade") &&
    singleField(head, "upgrade")?.toLowerCase() === "websocket" &&
    singleField(head, "sec-websocket-version") === "13" &&
    !head.fields.has("content-length") &&
    !head.fields.has("transfer-encoding");
  return isUpgrade && key !== undefined && KEY.test(key) ? key : undefined;
}
