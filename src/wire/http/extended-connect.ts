/**
 * Extended CONNECT of HTTP/2 (RFC 8441 §4) for connect-udp (RFC 9298 §3.4, §3.5), converted to and from the equivalent upgrade of HTTP/1.1, so
 * that both ends evaluate one form only.
 */
import type { HttpHead } from "./http-head.ts";
import { asciiBytes, statusOf } from "./http-head.ts";
import { UPGRADE_TOKEN } from "./upgrade.ts";

/** What precedes the empty line in the client's connection preface, RFC 9113 §3.4: `PRI * HTTP/2.0`. */
const PREFACE_LINE = "PRI * HTTP/2.0";
/** Fields of a request that the server's verdict depends on. */
const REQUEST_FIELDS = [
  "capsule-protocol",
  "connect-udp-bind",
  "underpass",
  "content-length",
  "content-type",
] as const;
/** Connection-specific fields, which HTTP/2 does not have (RFC 9113 §8.2.2). */
const CONNECTION_FIELDS = ["connection", "upgrade", "keep-alive", "proxy-connection", "transfer-encoding"];

/** Fields and pseudo-header fields of a message, by name in lower case. */
export type Http2Fields = Readonly<Record<string, string | number | readonly string[] | undefined>>;

/** Whether a head is the beginning of HTTP/2, which is followed by `SM`, an empty line, and frames. */
export function isHttp2Preface({ startLine, fields }: HttpHead): boolean {
  return startLine === PREFACE_LINE && fields.size === 0;
}

/**
 * The request of HTTP/1.1 that is equivalent to one of HTTP/2: `GET` with an upgrade for extended CONNECT, and the same method for others.
 *
 * @returns undefined if a field has characters that HTTP/1.1 could not carry in its place
 */
export function encodeRequestOfHttp2(fields: Http2Fields): Uint8Array | undefined {
  const protocol = single(fields, ":protocol");
  const path = single(fields, ":path") ?? single(fields, ":authority") ?? "*";
  const method = protocol === undefined ? single(fields, ":method") : "GET";
  const authority = single(fields, ":authority") ?? single(fields, "host") ?? "";
  if (method === undefined || !isVisible(method) || !isVisible(path) || !/^[\x21-\x7e]*$/.test(authority)) {
    return undefined;
  }
  // Only CONNECT has a protocol.
  if (protocol !== undefined && (single(fields, ":method") !== "CONNECT" || !isVisible(protocol)))
    return undefined;
  let text = `${method} ${path} HTTP/1.1\r\nHost: ${authority}\r\n`;
  if (protocol !== undefined) text += `Connection: Upgrade\r\nUpgrade: ${protocol}\r\n`;
  for (const name of REQUEST_FIELDS) {
    const value = single(fields, name);
    if (value === undefined) continue;
    if (!/^[\t\x20-\x7e]*$/.test(value)) return undefined;
    text += `${name}: ${value}\r\n`;
  }
  return asciiBytes(`${text}\r\n`);
}

/** An answer of HTTP/1.1 in the form of HTTP/2: 200 for 101, without connection-specific fields. */
export function answerOfHttp1(
  head: HttpHead,
): { readonly status: number; readonly fields: Http2Fields } | undefined {
  const status = statusOf(head);
  if (status === undefined) return undefined;
  const fields: Record<string, string> = {};
  for (const [name, values] of head.fields) {
    if (!CONNECTION_FIELDS.includes(name)) fields[name] = values.join(", ");
  }
  return { status: status === 101 ? 200 : status, fields };
}

/** The fields of an answer, as a head of HTTP/1.1. */
export function headOfHttp2(fields: Http2Fields): HttpHead {
  const map = new Map<string, readonly string[]>();
  for (const [name, value] of Object.entries(fields)) {
    if (!name.startsWith(":") && value !== undefined)
      map.set(name, typeof value === "object" ? value : [String(value)]);
  }
  return { startLine: `HTTP/2 ${fields[":status"]}`, fields: map };
}

/** The fields of a request for one target, or of one that asks to bind. @param path  the expanded template */
export function extendedConnectFields(
  scheme: string,
  authority: string,
  path: string,
  bind: boolean,
): Http2Fields {
  return {
    ":method": "CONNECT",
    ":protocol": UPGRADE_TOKEN,
    ":scheme": scheme,
    ":authority": authority,
    ":path": path,
    "capsule-protocol": "?1",
    ...(bind ? { "connect-udp-bind": "?1" } : {}),
  };
}

function single(fields: Http2Fields, name: string): string | undefined {
  // Inherited properties are not fields.
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
  if (value === undefined || typeof value === "string") return value;
  return typeof value === "number" ? String(value) : value.join(", ");
}

function isVisible(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text);
}
