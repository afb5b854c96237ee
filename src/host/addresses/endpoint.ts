import { UsageError } from "../../core/errors.ts";
import {
  ATYP_IPV4,
  formatHost,
  isLinkLocal,
  makeAddress,
  parseIpv4,
  parseIpv6,
} from "../../wire/socket-address.ts";

/**
 * Where to listen or to connect to: a host and port, or the path of a Unix socket. A link-local IPv6 host may be
 * followed by a zone, as in `fe80::1%eth0` (RFC 4007 §11).
 */
export type Endpoint =
  | { readonly host: string; readonly port: number; readonly path?: undefined }
  | { readonly path: string };

/**
 * Reads `HOST:PORT`, `[IPv6]:PORT`, `[IPv6%ZONE]:PORT` or `unix:/path`.
 *
 * @throws UsageError ERR_OPTION that names the text
 */
export function parseEndpoint(text: string): Endpoint {
  if (text.startsWith("unix:") && text.length > 5) return { path: text.slice(5) };
  const match = /^(?:\[([0-9a-fA-F:.]+(?:%[^\s\]/%@]+)?)\]|([^\s:[\]/@]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new UsageError("ERR_OPTION", `"${text}" is not HOST:PORT, [IPv6]:PORT or unix:/path`);
  }
  const host = match[1] === undefined ? match[2] : inOneForm(match[1]);
  const { ip, zone } = splitZone(host);
  if (zone !== undefined && !isLinkLocal(makeAddress(ip, 0))) {
    throw new UsageError("ERR_OPTION", `"${text}": only link-local IPv6 addresses have a zone`);
  }
  return { host, port };
}

/** Like {@link parseEndpoint}, for URLs, where the `%` before a zone may be percent-encoded (RFC 6874). */
export function parseUrlEndpoint(text: string): Endpoint {
  return parseEndpoint(text.replace(/^(\[[^\]%]*)%25/, "$1%"));
}

/** Returns IPv4 text for an IPv4-mapped address, and other text unchanged. */
function inOneForm(ipv6: string): string {
  const address = makeAddress(ipv6, 0);
  return address?.[0] === ATYP_IPV4 ? formatHost(address) : ipv6;
}

/** @returns undefined for text that is not an endpoint */
export function endpointOf(text: string): Endpoint | undefined {
  try {
    return parseEndpoint(text);
  } catch {
    return undefined;
  }
}

/** True for a host and a port that a connection can be made to. */
export function isHostAndPort(text: string): boolean {
  const endpoint = endpointOf(text);
  if (endpoint === undefined || endpoint.path !== undefined || endpoint.port === 0) return false;
  return makeAddress(splitZone(endpoint.host).ip, endpoint.port) !== undefined;
}

/** Splits a host into IP and zone: `fe80::1%eth0` is `fe80::1` on the link of `eth0`. */
export function splitZone(host: string): { readonly ip: string; readonly zone: string | undefined } {
  const at = host.includes(":") ? host.indexOf("%") : -1;
  return at < 0 ? { ip: host, zone: undefined } : { ip: host.slice(0, at), zone: host.slice(at + 1) };
}

/** The family of an IP text, which may have a zone; undefined for other text. */
export function ipFamily(host: string): 4 | 6 | undefined {
  if (parseIpv4(host) !== undefined) return 4;
  return parseIpv6(splitZone(host).ip) === undefined ? undefined : 6;
}

/** Resolves a relative path of a config file. */
export type InFolder = (path: string) => string;

/** The same endpoint, with the path of a Unix socket rewritten. */
export function rebaseEndpoint(text: string, inFolder: InFolder): string {
  return text.startsWith("unix:") && text.length > 5 ? `unix:${inFolder(text.slice(5))}` : text;
}

/** Text of a host and port, with brackets around IPv6. */
export function formatEndpoint(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
