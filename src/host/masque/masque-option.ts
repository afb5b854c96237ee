import type { HeaderField } from "../../core/handshakes/http-connect.ts";
import { encodeBase64 } from "../../wire/base64.ts";
import { utf8Bytes } from "../../wire/http/http-head.ts";
import type { UdpProxyTemplate } from "../../wire/http/uri-template.ts";
import { parseUdpProxyTemplate } from "../../wire/http/uri-template.ts";
import type { InFolder } from "../addresses/endpoint.ts";
import type { ProxyEndpoint } from "../carriers/hop.ts";
import {
  badHop,
  makeTlsOptions,
  parseCredentials,
  parseField,
  parseHopEndpoint,
  parseQuery,
  rebaseFiles,
} from "../carriers/hop.ts";
import type { TlsOptions } from "../carriers/tls-options.ts";

/** The version of HTTP: the one that TLS negotiates (ALPN), or a fixed one. */
export type HttpVersion = "negotiated" | "1.1" | "2";

/** A MASQUE proxy, parsed from its option. */
export interface MasqueProxyOption {
  readonly template: UdpProxyTemplate;
  readonly endpoint: ProxyEndpoint;
  /** For the Host field or `:authority`: without the user, and without the scheme's default port. */
  readonly authority: string;
  /** Undefined for `http://`. */
  readonly tls: TlsOptions | undefined;
  readonly version: HttpVersion;
  /** Credentials, and further fields of each request. */
  readonly fields: readonly HeaderField[];
}

const PORTS = { http: 80, https: 443 } as const;
/** Fields that a request sets itself. */
const OWN_FIELDS = /^(?:connection|upgrade|capsule-protocol|connect-udp-bind)$/;
const TLS_OPTIONS = ["sni", "ca", "cert", "key", "insecure"];

/**
 * Parses a template of RFC 9298 §2. A fragment after it may contain options for this end, which are not sent: `http=1.1|2`,
 * `header=Name:%20value`, and for https `sni`, `ca`, `cert`, `key`, `insecure=1`.
 *
 * @throws UsageError ERR_OPTION whose cause is the problem
 */
export function parseMasqueProxy(text: string): MasqueProxyOption {
  const at = fragmentAt(text);
  const [templateText, fragment] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
  const template = parseUdpProxyTemplate(templateText);
  if (typeof template === "string") throw badHop(text, template);
  const [, userInfo, host] = /^(?:([^@]*)@)?([^@]*)$/.exec(template.authority) ?? [];
  if (host === undefined) throw badHop(text, "expected USER:PASSWORD@HOST, percent-encoded");
  const { scheme } = template;
  const hasPort = /^(?:\[[^\]]*\]|[^:]*):\d+$/.test(host);
  const endpoint = parseHopEndpoint(text, hasPort ? host : `${host}:${PORTS[scheme]}`);
  const fields: HeaderField[] = [];
  const credentials = parseCredentials(text, userInfo);
  if (credentials !== undefined) {
    const pair = utf8Bytes(`${credentials.user}:${credentials.password}`);
    fields.push(["Authorization", `Basic ${encodeBase64(pair)}`]);
  }
  const known = new Map<string, string>();
  for (const [name, value] of parseQuery(text, fragment)) {
    if (name === "header") {
      const field = parseField(text, value);
      const lower = field[0].toLowerCase();
      if (OWN_FIELDS.test(lower)) throw badHop(text, `${field[0]} cannot be set by a header option`);
      if (!/^[\t\x20-\x7e]*$/.test(field[1]))
        throw badHop(text, `${field[0]} has characters other than ASCII`);
      if (lower === "authorization" && credentials !== undefined) {
        throw badHop(text, "give a user or Authorization, not both");
      }
      fields.push(field);
    } else if (known.has(name)) throw badHop(text, `${name} is given twice`);
    else if (name === "http" || (scheme === "https" && TLS_OPTIONS.includes(name))) known.set(name, value);
    else {
      const names = ["http", "header", ...(scheme === "https" ? TLS_OPTIONS : [])].join(", ");
      throw badHop(text, `expected no options after # but ${names}`);
    }
  }
  return {
    template,
    endpoint,
    authority: hasPort && endpoint.port === PORTS[scheme] ? host.replace(/:\d+$/, "") : host,
    tls: scheme === "https" ? makeTlsOptions(text, known, "sni") : undefined,
    version: versionOf(text, known.get("http"), scheme),
    fields,
  };
}

function versionOf(text: string, asked: string | undefined, scheme: "http" | "https"): HttpVersion {
  // Without TLS, nothing negotiates a version, and every http:// server speaks HTTP/1.1.
  if (asked === undefined) return scheme === "https" ? "negotiated" : "1.1";
  if (asked !== "1.1" && asked !== "2") throw badHop(text, "http must be 1.1 or 2");
  return asked;
}

/** @returns the problem with a text that is not a MASQUE proxy; undefined for a valid one */
export function findMasqueProblem(text: string): string | undefined {
  try {
    parseMasqueProxy(text);
    return undefined;
  } catch (error) {
    const { cause, message } = error as Error;
    return typeof cause === "string" ? cause : message;
  }
}

/** Rewrites the paths of files. */
export function rebaseMasqueProxy(text: string, inFolder: InFolder): string {
  const at = fragmentAt(text);
  return at < 0 ? text : `${text.slice(0, at + 1)}${rebaseFiles(text.slice(at + 1), inFolder)}`;
}

/** The position at which the fragment begins, or -1; `{#name}` is an expression. */
function fragmentAt(text: string): number {
  return text.search(/#(?![^{}]*\})/);
}
