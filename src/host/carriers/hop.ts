import { UsageError } from "../../core/errors.ts";
import type { HeaderField } from "../../core/handshakes/http-connect.ts";
import type { Socks5Credentials } from "../../core/handshakes/socks5-server.ts";
import { isToken, trimBlanks, utf8Bytes } from "../../wire/http/http-head.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { Endpoint, InFolder } from "../addresses/endpoint.ts";
import {
  formatEndpoint,
  parseEndpoint,
  parseUrlEndpoint,
  rebaseEndpoint,
  splitZone,
} from "../addresses/endpoint.ts";
import type { Shadowsocks } from "./shadowsocks-parameters.ts";
import { readShadowsocks } from "./shadowsocks-parameters.ts";
import { parseShadowsocksUri } from "./shadowsocks-uri.ts";
import type { TlsOptions } from "./tls-options.ts";
import type { WebSocketRequest } from "./web-socket-request.ts";

/** One `--via`. */
export type Hop =
  | {
      readonly kind: "socks5" | "http";
      readonly endpoint: Endpoint;
      readonly credentials: Socks5Credentials | undefined;
      /** Additional fields of the CONNECT request; empty for SOCKS5. */
      readonly fields: readonly HeaderField[];
    }
  | { readonly kind: "tls"; readonly endpoint: Endpoint | undefined; readonly options: TlsOptions }
  | { readonly kind: "ss"; readonly endpoint: ProxyEndpoint; readonly shadowsocks: Shadowsocks }
  | { readonly kind: "ws"; readonly endpoint: ProxyEndpoint; readonly request: WebSocketRequest }
  | { readonly kind: "unix"; readonly endpoint: Endpoint };

export type ProxyEndpoint = Exclude<Endpoint, { readonly path: string }>;

/** Fields that decide where a request goes or ends: with a second one, a proxy might read a different request. */
const OWN_FIELDS = ["host", "content-length", "transfer-encoding"];
/** Fields that the WebSocket handshake sets itself. */
const OWN_WEB_SOCKET_FIELDS = /^(?:connection|upgrade|sec-websocket-.*)$/;
const TLS_FILE_OPTIONS = ["ca", "cert", "key", "insecure"];
const MAX_WEB_SOCKET_PATH = 1_024;

/**
 * Parses `socks5://`, `http://`, `ss://`, `tls://`, `ws://`, `wss://` or `unix:`.
 *
 * @param index  its position in the list
 * @throws UsageError ERR_OPTION that names the text, without its secrets
 */
export function parseHop(text: string, index: number): Hop {
  if (text.startsWith("unix:")) {
    if (index > 0) throw badHop(text, "unix: can only be the first");
    return { kind: "unix", endpoint: parseEndpoint(text) };
  }
  if (text.startsWith("ss://")) return parseShadowsocksHop(text, index);
  if (/^wss?:\/\//.test(text)) return parseWebSocketHop(text);
  const match = /^(socks5h?|http|tls):\/\/(?:([^@/?]*)@)?([^/?]*)\/?(?:\?(.*))?$/.exec(text);
  if (match === null) throw badHop(text, expectedForm(text));
  const [, scheme, userInfo, host, query] = match;
  if (scheme === "tls") {
    if (userInfo !== undefined) throw badHop(text, "expected no user");
    return {
      kind: "tls",
      endpoint: host === "" ? undefined : parseHopEndpoint(text, host),
      options: parseTlsOptions(text, query ?? ""),
    };
  }
  if (scheme !== "http" && query !== undefined) throw badHop(text, "expected no options");
  const endpoint = parseHopEndpoint(text, host);
  const credentials = parseCredentials(text, userInfo);
  const fields = parseFields(text, query ?? "", credentials !== undefined);
  return { kind: scheme === "http" ? "http" : "socks5", endpoint, credentials, fields };
}

/** @param text  no hop. @returns the form of what it begins like */
function expectedForm(text: string): string {
  if (/^socks5h?:/.test(text)) return "expected socks5://[USER:PASSWORD@]HOST:PORT";
  if (text.startsWith("http:")) return "expected http://[USER:PASSWORD@]HOST:PORT[?header=NAME:%20VALUE]";
  if (text.startsWith("https:"))
    return "expected http://, after tls://HOST:PORT for a proxy that expects TLS";
  if (text.startsWith("tls:")) return "expected tls://[HOST:PORT][?OPTIONS]";
  return "expected socks5://, http://, ss://, tls://, ws://, wss:// or unix:";
}

/** Rewrites the paths of the socket and the files that a hop names. */
export function rebaseHop(text: string, inFolder: InFolder): string {
  const [, address, query] = /^((?:tls|wss):[^?]*)\?(.*)$/s.exec(text) ?? [];
  if (query === undefined) return rebaseEndpoint(text, inFolder);
  return `${address}?${rebaseFiles(query, inFolder)}`;
}

/** Rewrites the paths of the files in options. */
export function rebaseFiles(query: string, inFolder: InFolder): string {
  const options = query.split("&").map((option) => {
    const [, name, path] = /^(ca|cert|key)=(.*)$/s.exec(option) ?? [];
    return name === undefined ? option : `${name}=${rebasePath(path, inFolder)}`;
  });
  return options.join("&");
}

/** The name of a hop in logs. */
export function hopText(hop: Hop): string {
  if (hop.endpoint === undefined) return hop.kind;
  if (hop.kind === "ws")
    return `${hop.request.tls === undefined ? "ws" : "wss"} ${endpointText(hop.endpoint)}`;
  return hop.kind === "unix" ? endpointText(hop.endpoint) : `${hop.kind} ${endpointText(hop.endpoint)}`;
}

export function endpointText(endpoint: Endpoint): string {
  return endpoint.path === undefined ? formatEndpoint(endpoint.host, endpoint.port) : `unix:${endpoint.path}`;
}

/** The error for a malformed hop. */
export function badHop(text: string, problem: string): UsageError {
  return new UsageError("ERR_OPTION", `via: ${JSON.stringify(redactUrl(text))}: ${problem}`, {
    cause: problem,
  });
}

/** @returns the problem with a malformed hop, without its text; undefined for a well-formed one */
export function findHopProblem(text: string): string | undefined {
  try {
    parseHop(text, 0);
    return undefined;
  } catch (error) {
    // An error of parseEndpoint has no cause.
    return ((error as Error).cause as string | undefined) ?? "expected unix:/path";
  }
}

/** The TLS of a hop; undefined if it has none. */
export function tlsOf(hop: Hop): TlsOptions | undefined {
  if (hop.kind === "tls") return hop.options;
  return hop.kind === "ws" ? hop.request.tls : undefined;
}

/**
 * Removes user and password, whatever they contain, the path of a WebSocket, which may be a secret, and the values of all options except
 * those for TLS. For several hops separated by blanks, also removes everything before the last password.
 */
export function redactUrl(text: string): string {
  if (/^https?:.*\{/s.test(text)) {
    // The template of a MASQUE proxy.
    return text.replace(/^(https?:\/\/)?[^/]*@/i, "$1***@").replace(/([#&]header=)[^&]*/g, "$1***");
  }
  const hidden = text
    .replace(/^([a-z0-9+.-]+:\/\/)?.*@/is, "$1***@")
    // Without a server, the password may be anywhere: before SIP002, all of it was base64.
    .replace(/(^|\s)ss:[^@]*$/is, "$1ss://***");
  return hidden
    .split(/(?<=\s)/)
    .map(redactOptions)
    .join("");
}

function redactOptions(text: string): string {
  const options = /^(?:tls|wss):/.test(text)
    ? /([?&](?!(?:servername|sni|ca|cert|key|insecure)=)[^=&]*=)[^&\s]*/g
    : /([?&][^=&]*=)[^&\s]*/g;
  return text.replace(/^(wss?:\/\/[^/?]*\/)[^?\s]+/, "$1***").replace(options, "$1***");
}

function parseShadowsocksHop(text: string, index: number): Hop {
  const uri = parseShadowsocksUri(text);
  if (typeof uri === "string") throw badHop(text, uri);
  const { server, method, password, plugin } = uri;
  const shadowsocks = readShadowsocks(method, password, plugin);
  if (typeof shadowsocks === "string") throw badHop(text, shadowsocks);
  if (shadowsocks.plugin !== undefined && index > 0) {
    throw badHop(text, "a plugin that is a program connects by itself: it can only be the first");
  }
  return { kind: "ss", endpoint: parseHopEndpoint(text, server), shadowsocks };
}

function parseWebSocketHop(text: string): Hop {
  const [, scheme, address, path, query = ""] = /^(wss?):\/\/([^/?]*)(\/[^?]*)?(?:\?(.*))?$/s.exec(text)!;
  if (address.includes("@")) throw badHop(text, "expected no user: give header=Authorization:%20...");
  const isSecure = scheme === "wss";
  const defaultPort = isSecure ? 443 : 80;
  const hasPort = /^(?:\[[^\]]*\]|[^:]*):\d+$/.test(address);
  const endpoint = parseHopEndpoint(text, hasPort ? address : `${address}:${defaultPort}`);
  if (path === undefined || path.length > MAX_WEB_SOCKET_PATH || !/^[\w.~!$&'()*+,;=:@%/-]+$/.test(path)) {
    throw badHop(text, "expected a path, such as ws://HOST/tunnel");
  }
  const known = new Map<string, string>();
  const fields: (readonly [string, string])[] = [];
  for (const [name, value] of parseQuery(text, query)) {
    if (known.has(name)) throw badHop(text, `${name} is given twice`);
    if (name === "header") {
      const field = parseField(text, value);
      if (OWN_WEB_SOCKET_FIELDS.test(field[0].toLowerCase())) {
        throw badHop(text, `${field[0]} cannot be set by a header option`);
      }
      fields.push(field);
    } else if (name === "host" || (isSecure && ["sni", ...TLS_FILE_OPTIONS].includes(name)))
      known.set(name, value);
    else
      throw badHop(
        text,
        `expected no options but host, header${isSecure ? ", sni, ca, cert, key, insecure" : ""}`,
      );
  }
  const { host, port } = endpoint;
  const ownHost =
    port === defaultPort ? formatEndpoint(splitZone(host).ip, port).replace(/:\d+$/, "") : address;
  const hostField = known.get("host") ?? ownHost;
  if (!/^[\w.:[\]-]{1,255}$/.test(hostField))
    throw badHop(text, "host must be a name, or a name with a port");
  const tls = isSecure ? { ...makeTlsOptions(text, known, "sni"), protocols: ["http/1.1"] } : undefined;
  return { kind: "ws", endpoint, request: { path, host: hostField, fields, tls } };
}

export function parseHopEndpoint(text: string, host: string): ProxyEndpoint {
  try {
    const endpoint = parseUrlEndpoint(host);
    const isHost =
      endpoint.path === undefined && makeAddress(splitZone(endpoint.host).ip, endpoint.port) !== undefined;
    if (isHost && endpoint.port > 0) return endpoint;
  } catch {
    // Reported below, without the text.
  }
  throw badHop(text, "expected HOST:PORT");
}

export function parseCredentials(text: string, userInfo: string | undefined): Socks5Credentials | undefined {
  if (userInfo === undefined) return undefined;
  const colon = userInfo.indexOf(":");
  try {
    const user = decodeURIComponent(colon < 0 ? userInfo : userInfo.slice(0, colon));
    const password = colon < 0 ? "" : decodeURIComponent(userInfo.slice(colon + 1));
    const fits = (part: string) => utf8Bytes(part).length <= 255;
    if (user !== "" && fits(user) && fits(password)) return { user, password };
  } catch {
    // Reported below, with what is expected.
  }
  throw badHop(text, "expected USER:PASSWORD, percent-encoded, of at most 255 bytes each");
}

function parseFields(text: string, query: string, hasUser: boolean): HeaderField[] {
  return parseQuery(text, query).map(([option, field]) => {
    if (option !== "header") throw badHop(text, "expected no options but header");
    const [name, value] = parseField(text, field);
    if (hasUser && name.toLowerCase() === "proxy-authorization") {
      throw badHop(text, "give a user or Proxy-Authorization, not both");
    }
    return [name, value];
  });
}

export function parseField(text: string, field: string): HeaderField {
  const colon = field.indexOf(":");
  const name = field.slice(0, Math.max(colon, 0));
  const value = trimBlanks(field.slice(colon + 1));
  if (!isToken(name)) throw badHop(text, "expected header=Name:%20value");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters to refuse.
  if (/[\x00-\x08\x0a-\x1f\x7f]/.test(value)) throw badHop(text, `a control character in ${name}`);
  if (OWN_FIELDS.includes(name.toLowerCase())) throw badHop(text, `${name} cannot be set by a header option`);
  return [name, value];
}

function parseTlsOptions(text: string, query: string): TlsOptions {
  const known = new Map<string, string>();
  for (const [name, value] of parseQuery(text, query)) {
    if (!["servername", ...TLS_FILE_OPTIONS].includes(name)) {
      throw badHop(text, "expected no options but servername, ca, cert, key, insecure");
    }
    if (known.has(name)) throw badHop(text, `${name} is given twice`);
    known.set(name, value);
  }
  return makeTlsOptions(text, known, "servername");
}

/** @param nameOption  the option that contains the server's name */
export function makeTlsOptions(
  text: string,
  known: ReadonlyMap<string, string>,
  nameOption: string,
): TlsOptions {
  const insecure = known.get("insecure") ?? "0";
  if (insecure !== "0" && insecure !== "1") throw badHop(text, "insecure must be 0 or 1");
  if (known.has("cert") !== known.has("key")) throw badHop(text, "give both cert and key, or neither");
  return {
    serverName: known.get(nameOption),
    caFile: known.get("ca"),
    certFile: known.get("cert"),
    keyFile: known.get("key"),
    isInsecure: insecure === "1",
  };
}

/** Splits and percent-decodes a query. Unlike in form encoding, a plus sign stands for itself. */
export function parseQuery(text: string, query: string): (readonly [name: string, value: string])[] {
  try {
    return query
      .split("&")
      .filter((option) => option !== "")
      .map((option) => {
        const at = option.indexOf("=");
        const [name, value] = at < 0 ? [option, ""] : [option.slice(0, at), option.slice(at + 1)];
        return [decodeURIComponent(name), decodeURIComponent(value)];
      });
  } catch {
    throw badHop(text, "expected percent-encoded options");
  }
}

function rebasePath(encoded: string, inFolder: InFolder): string {
  try {
    return encodeURIComponent(inFolder(decodeURIComponent(encoded))).replaceAll("%2F", "/");
  } catch {
    // The parser reports the error.
    return encoded;
  }
}
