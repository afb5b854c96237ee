/** Requests that open a WebSocket (RFC 6455 §4.2.1). */
import type { HttpHead } from "./http-head.ts";
import { asciiBytes, fieldHasToken, singleField, utf8Bytes } from "./http-head.ts";

/** 16 bytes in base64. */
const KEY = /^[+/0-9A-Za-z]{22}==$/;

/**
 * The value of `Sec-WebSocket-Key` in a well-formed request for `path`, with or without a query.
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

/** Appended to the key before SHA-1 (RFC 6455 §1.3). */
export const ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** @param accept  SHA-1 of the key and {@link ACCEPT_SUFFIX}, in base64 */
export function encodeWebSocketAnswer(accept: string): Uint8Array {
  return asciiBytes(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
}

/** @param fields  further fields @param key  16 random bytes in base64 */
export function encodeWebSocketRequest(
  path: string,
  host: string,
  fields: readonly (readonly [name: string, value: string])[],
  key: string,
): Uint8Array {
  let text = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`;
  text += `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n`;
  for (const [name, value] of fields) text += `${name}: ${value}\r\n`;
  return utf8Bytes(`${text}\r\n`);
}

/** Whether a 101 opens a WebSocket without extensions and subprotocols (§4.1). */
export function opensWebSocket(head: HttpHead, accept: string): boolean {
  return (
    fieldHasToken(head, "connection", "upgrade") &&
    singleField(head, "upgrade")?.toLowerCase() === "websocket" &&
    singleField(head, "sec-websocket-accept") === accept &&
    !head.fields.has("sec-websocket-extensions") &&
    !head.fields.has("sec-websocket-protocol")
  );
}
