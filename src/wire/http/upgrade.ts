/** The HTTP/1.1 upgrade to connect-udp: RFC 9298 §3.2, §3.3, with Connect-UDP-Bind and our own `Underpass` field. */
import { decodeBase64, encodeBase64 } from "../base64.ts";
import type { HttpHead } from "./http-head.ts";
import { asciiBytes, fieldHasToken, singleField, statusOf } from "./http-head.ts";

/** RFC 9298 §3.4. */
export const TEMPLATE_PREFIX = "/.well-known/masque/udp/";
/** Path of a bound request without fallback: both variables are `*`. */
export const BIND_PATH = `${TEMPLATE_PREFIX}%2A/%2A/`;
/** Name of the protocol in an upgrade or in extended CONNECT. */
export const UPGRADE_TOKEN = "connect-udp";
export const EXTENSION_VERSION = 1;
const CONTENT_FIELDS = ["content-length", "content-type", "transfer-encoding"];
const MIN_TICKET_BYTES = 16;
const MAX_TICKET_BYTES = 64;

/** A ticket that the client returns to the server. */
export interface ShownTicket {
  /** 16 to 64 bytes, which only the server interprets. */
  readonly bytes: Uint8Array;
  /** Milliseconds since the client got it. */
  readonly age: number;
}

/** Bytes of {@link ExtensionRequest.keyId}. */
export const KEY_ID_BYTES = 8;

/** The client's `Underpass` field. Sizes in bytes: nonce 16, key id 8, session 16, MACs 32. */
export interface ExtensionRequest {
  readonly nonce: Uint8Array;
  /** Id by which the server finds a named key (member `k`). */
  readonly keyId?: Uint8Array | undefined;
  readonly lane: number;
  readonly ticket: ShownTicket | undefined;
  readonly session: Uint8Array | undefined;
  /** Whether datagrams have sequence numbers and are reported by receipts (member `q`). */
  readonly receipts: boolean;
  readonly mac: Uint8Array | undefined;
  readonly resumeMac: Uint8Array | undefined;
}

/** The server's `Underpass` field in a 101. */
export interface ExtensionResponse {
  readonly nonce: Uint8Array;
  readonly session: Uint8Array;
  readonly resumed: boolean;
  /** Whether the server agrees to sequence numbers and receipts. */
  readonly receipts: boolean;
  readonly mac: Uint8Array | undefined;
}

/** The server's `Underpass` field in a 401. */
export interface ExtensionChallenge {
  readonly ticket: Uint8Array;
  /** The server's clock in seconds since 1970, if it did not know the request's key id (member `u`). */
  readonly unixS?: number | undefined;
  readonly mac: Uint8Array | undefined;
}

/** Why a key that a client has proved is refused. */
export type KeyRefusalCause = "expired" | "name";

/** The server's `Underpass` field in a 403. */
export interface ExtensionRefusal {
  readonly cause: KeyRefusalCause;
  readonly mac: Uint8Array;
}

export interface UpgradeRequest {
  /** undefined: `*`/`*`, bound without fallback. */
  readonly target: { readonly host: string; readonly port: number } | undefined;
  readonly bind: boolean;
  readonly extension: ExtensionRequest | undefined;
}

export interface UpgradeResponse {
  readonly status: number;
  readonly bind: boolean;
  readonly extension: ExtensionResponse | undefined;
  readonly challenge: ExtensionChallenge | undefined;
  readonly refusal: ExtensionRefusal | undefined;
  /** Whether another request may follow this head on the same connection. */
  readonly keepsConnection: boolean;
}

function byteSequence(bytes: Uint8Array): string {
  return `:${encodeBase64(bytes)}:`;
}

export function encodeUpgradeRequest(
  authority: string,
  path: string,
  bind: boolean,
  extension: ExtensionRequest | undefined,
): Uint8Array {
  let text = `GET ${path} HTTP/1.1\r\nHost: ${authority}\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n`;
  text += "Capsule-Protocol: ?1\r\n";
  if (bind) text += "Connect-UDP-Bind: ?1\r\n";
  if (extension !== undefined) {
    text += `Underpass: v=${EXTENSION_VERSION}, n=${byteSequence(extension.nonce)}, l=${extension.lane}`;
    const { ticket } = extension;
    if (extension.keyId !== undefined) text += `, k=${byteSequence(extension.keyId)}`;
    if (ticket !== undefined) text += `, c=${byteSequence(ticket.bytes)}, t=${ticket.age}`;
    if (extension.session !== undefined) text += `, s=${byteSequence(extension.session)}`;
    if (extension.receipts) text += ", q=1";
    if (extension.mac !== undefined) text += `, m=${byteSequence(extension.mac)}`;
    if (extension.resumeMac !== undefined) text += `, r=${byteSequence(extension.resumeMac)}`;
    text += "\r\n";
  }
  return asciiBytes(`${text}\r\n`);
}

/** A 101. @param publicAddresses  `192.0.2.45:54321`, `[2001:db8::1]:54321`; only for a bound request */
export function encodeUpgradeResponse(
  bind: boolean,
  publicAddresses: readonly string[],
  extension: ExtensionResponse | undefined,
): Uint8Array {
  let text =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n";
  if (bind) text += "Connect-UDP-Bind: ?1\r\n";
  if (publicAddresses.length > 0) {
    text += `Proxy-Public-Address: ${publicAddresses.map((address) => `"${address}"`).join(", ")}\r\n`;
  }
  if (extension !== undefined) {
    text += `Underpass: v=${EXTENSION_VERSION}, n=${byteSequence(extension.nonce)}, s=${byteSequence(extension.session)}, r=?${extension.resumed ? 1 : 0}`;
    if (extension.receipts) text += ", q=1";
    if (extension.mac !== undefined) text += `, m=${byteSequence(extension.mac)}`;
    text += "\r\n";
  }
  return asciiBytes(`${text}\r\n`);
}

/**
 * A 401 that asks the client to try again with the ticket. RFC 9110 §15.5.2 requires a scheme.
 *
 * @param closes  whether the server closes the connection after it
 */
export function encodeChallengeResponse(challenge: ExtensionChallenge, closes = false): Uint8Array {
  let text = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Underpass\r\nContent-Length: 0\r\n";
  if (closes) text += "Connection: close\r\n";
  text += `Underpass: v=${EXTENSION_VERSION}, c=${byteSequence(challenge.ticket)}`;
  if (challenge.unixS !== undefined) text += `, u=${challenge.unixS}`;
  if (challenge.mac !== undefined) text += `, m=${byteSequence(challenge.mac)}`;
  return asciiBytes(`${text}\r\n\r\n`);
}

const REASON_PHRASES = {
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
} as const;

/** Status codes of refusals. */
export type RefusalStatus = keyof typeof REASON_PHRASES;

/** A page like any web server's, which does not reveal the cause of a 404. */
function refusalPage(status: RefusalStatus): string {
  const title = `${status} ${REASON_PHRASES[status]}`;
  return `<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`;
}

/** The refusal of a key that the client has proved; the connection is closed after it. */
export function encodeKeyRefusal({ cause, mac }: ExtensionRefusal): Uint8Array {
  const field = `Underpass: v=${EXTENSION_VERSION}, e=${cause}, m=${byteSequence(mac)}\r\n`;
  return asciiBytes(`${refusalHead(403)}${field}\r\n${refusalPage(403)}`);
}

function refusalHead(status: RefusalStatus): string {
  const { length } = refusalPage(status);
  return `HTTP/1.1 ${status} ${REASON_PHRASES[status]}\r\nContent-Type: text/html\r\nContent-Length: ${length}\r\nConnection: close\r\n`;
}

/**
 * A refusal after which the connection is closed.
 *
 * @param proxyStatus  error token of RFC 9209, sent only to a client that may know what listens here
 */
export function encodeRefusal(status: RefusalStatus, proxyStatus: string | undefined): Uint8Array {
  let text = refusalHead(status);
  if (proxyStatus !== undefined) text += `Proxy-Status: udp; error=${proxyStatus}\r\n`;
  return asciiBytes(`${text}\r\n${refusalPage(status)}`);
}

/** Whether an answer has the body that {@link encodeRefusal} writes, as far as its head shows, even through proxies. */
export function isOwnRefusal(head: HttpHead, status: number): boolean {
  if (!Object.hasOwn(REASON_PHRASES, status)) return false;
  const length = refusalPage(status as RefusalStatus).length;
  return (
    singleField(head, "content-length") === String(length) &&
    singleField(head, "content-type") === "text/html"
  );
}

/**
 * Decodes a request for the default template (RFC 9298 §2), after any prefix that a reverse proxy has added or left.
 *
 * @returns undefined if the request is for another resource, or names a version of the extension that is not ours; "malformed" if it is so by
 *          RFC 9298 §3 or the bind draft §2
 */
export function decodeUpgradeRequest(head: HttpHead): UpgradeRequest | "malformed" | undefined {
  const [, method, uri, version] = /^(\S+) (\S+) HTTP\/(\S+)$/.exec(head.startLine) ?? [];
  const path = uri?.replace(/^https?:\/\/[^/]*/i, "") ?? "";
  const variables = /^(?:\/[^?]*)?\/\.well-known\/masque\/udp\/([^/?]*)\/([^/?]*)\/$/.exec(path);
  if (variables === null) return undefined;
  if (method !== "GET" || version !== "1.1" || singleField(head, "host") === undefined) return "malformed";
  if (!fieldHasToken(head, "connection", "upgrade") || !fieldHasToken(head, "upgrade", "connect-udp")) {
    return "malformed";
  }
  // RFC 9297 §3.2: the capsule protocol is not used with content.
  if (CONTENT_FIELDS.some((name) => head.fields.has(name))) return "malformed";
  const extensionField = singleField(head, "underpass");
  const extension = extensionField === undefined ? undefined : decodeExtensionRequest(extensionField);
  if (extensionField !== undefined && extension === undefined) return undefined;
  const bind = hasBind(head);
  const host = percentDecode(variables[1]);
  const port = percentDecode(variables[2]);
  if (bind && host === "*" && port === "*") return { target: undefined, bind, extension };
  if (host === undefined || host === "*" || port === undefined || !/^[0-9]{1,5}$/.test(port))
    return "malformed";
  if (Number(port) < 1 || Number(port) > 65_535) return "malformed";
  return { target: { host, port: Number(port) }, bind, extension };
}

/** The extension's field of a request, regardless of other changes to the request on its way; undefined if there is none. */
export function decodeUnderpassField(head: HttpHead): ExtensionRequest | undefined {
  const field = singleField(head, "underpass");
  return field === undefined ? undefined : decodeExtensionRequest(field);
}

export function decodeUpgradeResponse(head: HttpHead): UpgradeResponse | undefined {
  const status = statusOf(head);
  if (status === undefined) return undefined;
  const isHttp11 = head.startLine.startsWith("HTTP/1.1");
  const bind = hasBind(head);
  const fields = decodeDictionary(singleField(head, "underpass"));
  let extension: ExtensionResponse | undefined;
  let challenge: ExtensionChallenge | undefined;
  let refusal: ExtensionRefusal | undefined;
  if (status === 101) {
    if (!isHttp11 || !fieldHasToken(head, "upgrade", "connect-udp")) return undefined;
    const nonce = bytesOf(fields, "n", 16);
    const session = bytesOf(fields, "s", 16);
    if (nonce !== undefined && session !== undefined) {
      extension = {
        nonce,
        session,
        resumed: fields?.get("r") === "?1",
        receipts: integerOf(fields, "q") === 1,
        mac: bytesOf(fields, "m", 32),
      };
    }
  } else if (status === 401) {
    const ticket = bytesOf(fields, "c", MIN_TICKET_BYTES, MAX_TICKET_BYTES);
    if (ticket !== undefined) {
      challenge = { ticket, unixS: integerOf(fields, "u"), mac: bytesOf(fields, "m", 32) };
    }
  } else if (status === 403) {
    const cause = fields?.get("e");
    const mac = bytesOf(fields, "m", 32);
    if ((cause === "expired" || cause === "name") && mac !== undefined) refusal = { cause, mac };
  }
  const keepsConnection =
    isHttp11 && singleField(head, "content-length") === "0" && !fieldHasToken(head, "connection", "close");
  return { status, bind, extension, challenge, refusal, keepsConnection };
}

function decodeExtensionRequest(field: string): ExtensionRequest | undefined {
  const fields = decodeDictionary(field);
  const nonce = bytesOf(fields, "n", 16);
  const lane = integerOf(fields, "l");
  if (fields?.get("v") !== String(EXTENSION_VERSION) || nonce === undefined) return undefined;
  if (lane === undefined || lane > 255) return undefined;
  const bytes = bytesOf(fields, "c", MIN_TICKET_BYTES, MAX_TICKET_BYTES);
  const age = integerOf(fields, "t");
  return {
    nonce,
    keyId: bytesOf(fields, "k", KEY_ID_BYTES),
    lane,
    ticket: bytes === undefined || age === undefined ? undefined : { bytes, age },
    session: bytesOf(fields, "s", 16),
    receipts: integerOf(fields, "q") === 1,
    mac: bytesOf(fields, "m", 32),
    resumeMac: bytesOf(fields, "r", 32),
  };
}

/** A dictionary (RFC 9651 §3.2) of integers, booleans and byte sequences, without parameters. */
function decodeDictionary(field: string | undefined): Map<string, string> | undefined {
  if (field === undefined) return undefined;
  const fields = new Map<string, string>();
  for (const member of field.split(",")) {
    const match = /^[ \t]*([a-z*][a-z0-9_\-.*]*)=(\S+)[ \t]*$/.exec(member);
    if (match === null) return undefined;
    fields.set(match[1], match[2]);
  }
  return fields;
}

function bytesOf(
  fields: Map<string, string> | undefined,
  key: string,
  shortest: number,
  longest = shortest,
): Uint8Array | undefined {
  const match = /^:([A-Za-z0-9+/]*={0,2}):$/.exec(fields?.get(key) ?? "");
  const bytes = match === null ? undefined : decodeBase64(match[1]);
  return bytes !== undefined && bytes.length >= shortest && bytes.length <= longest ? bytes : undefined;
}

function integerOf(fields: Map<string, string> | undefined, key: string): number | undefined {
  const text = fields?.get(key) ?? "";
  return /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Whether a request asks to bind, or an answer permits it. */
export function hasBind(head: HttpHead): boolean {
  return isTrue(singleField(head, "connect-udp-bind"));
}

/** Boolean of RFC 9651 §3.3.6; unknown parameters are ignored. */
function isTrue(value: string | undefined): boolean {
  return value !== undefined && /^\?1[ \t]*(;.*)?$/.test(value);
}

function percentDecode(text: string): string | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(text)) return undefined;
  const decoded = text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return /^[\x21-\x7e]+$/.test(decoded) ? decoded : undefined;
}
