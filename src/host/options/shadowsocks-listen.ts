import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, formatHost } from "../../wire/socket-address.ts";
import { formatEndpoint, ipFamily, parseEndpoint, parseUrlEndpoint } from "../addresses/endpoint.ts";
import type { Shadowsocks } from "../carriers/shadowsocks-parameters.ts";
import { readShadowsocks } from "../carriers/shadowsocks-parameters.ts";
import { parseShadowsocksUri } from "../carriers/shadowsocks-uri.ts";

/** A built-in shadowsocks server. */
export interface ShadowsocksListen {
  /** `IP:PORT` to listen on. */
  readonly listen: string;
  readonly shadowsocks: Shadowsocks;
}

/**
 * Reads `ss://METHOD:PASSWORD@IP:PORT[/?plugin=obfs-server;obfs=http|tls]`.
 *
 * @returns undefined when the text is invalid
 */
export function parseShadowsocksListen(text: string): ShadowsocksListen | undefined {
  if (!text.startsWith("ss://")) return undefined;
  const uri = parseShadowsocksUri(text);
  if (typeof uri === "string") return undefined;
  const { server, method, password, plugin } = uri;
  // A client's URL with obfs-local is accepted too.
  const isObfs = plugin?.program === "obfs-server";
  const shadowsocks = readShadowsocks(
    method,
    password,
    isObfs ? { ...plugin, program: "obfs-local" } : plugin,
  );
  if (typeof shadowsocks === "string" || shadowsocks.plugin !== undefined) return undefined;
  try {
    const endpoint = parseUrlEndpoint(server);
    if (endpoint.path !== undefined || ipFamily(endpoint.host) === undefined) return undefined;
    return { listen: formatEndpoint(endpoint.host, endpoint.port), shadowsocks };
  } catch {
    return undefined;
  }
}

export function isShadowsocksListen(text: string): boolean {
  return text.startsWith("ss:");
}

/** The address at which clients expect a udp-server that listens nowhere else. */
const DEFAULT_TUNNEL = "127.0.0.1:3456";
const LOOPBACK = ["127.0.0.1", "::1", "localhost"];
const ANY = ["0.0.0.0", "::"];

/**
 * True if a client that asks for `target` means the tunnels of this server.
 *
 * @param addresses  `HOST:PORT` on which it listens for tunnels
 */
export function isTunnelTarget(target: AddressBytes, addresses: readonly string[]): boolean {
  const host = formatHost(target);
  return (addresses.length === 0 ? [DEFAULT_TUNNEL] : addresses).some((text) => {
    const own = parseEndpoint(text) as { host: string; port: number };
    if (own.port !== addressPort(target)) return false;
    if (own.host === host) return true;
    return LOOPBACK.includes(host) && (LOOPBACK.includes(own.host) || ANY.includes(own.host));
  });
}
