import type { AddressBytes } from "../wire/socket-address.ts";
import { ATYP_DOMAIN, addressPort, parseIpv4, parseIpv6 } from "../wire/socket-address.ts";

/** A set of targets: a network and, unless any will do, ranges of ports. */
export interface TargetRule {
  /** 4 or 16 bytes. */
  readonly network: Uint8Array;
  /** Bits of `network` that count. */
  readonly prefixLength: number;
  /** Inclusive ranges; undefined for every port. */
  readonly ports: readonly (readonly [low: number, high: number])[] | undefined;
}

/** Forms of IPv6 that carry an IPv4 target in their last four bytes, and are judged as that. */
const EMBEDDING_NETWORKS = ["::ffff:0:0/96", "64:ff9b::/96"].map(mustParse);

/** Targets that are inside of some network, or no unicast host at all (RFC 6890, IANA's special-purpose registries). */
const DEFAULT_DENIED = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "224.0.0.0/4",
  "240.0.0.0/4",
  // ::, ::1 and the IPv4-compatible forms.
  "::/96",
  // SIIT, RFC 2765, and local NAT64, RFC 8215: which IPv4 host stands behind them only the network knows.
  "::ffff:0:0:0/96",
  "64:ff9b:1::/48",
  "2001::/32",
  "2002::/16",
  "fc00::/7",
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
].map(mustParse);

/**
 * Which targets datagrams may be sent to. Asked after resolution, with the address that is sent to. Deny rules come
 * first, then allow rules, which lift the defaults, then the defaults: private, loopback, link-local, CGNAT,
 * protocol assignment, benchmarking, multicast, broadcast, reserved and tunnelling ranges are denied. Everything else
 * is permitted.
 */
export class TargetPolicy {
  readonly #allow: readonly TargetRule[];
  readonly #deny: readonly TargetRule[];

  /** @param allow, deny  rules that {@link parseTargetRule} reads. @throws RangeError for others */
  constructor(allow: readonly string[], deny: readonly string[]) {
    this.#allow = allow.map(mustParse);
    this.#deny = deny.map(mustParse);
  }

  /** @param address  IPv4 or IPv6; a domain name and port 0 are never permitted */
  permits(address: AddressBytes): boolean {
    const port = addressPort(address);
    if (address[0] === ATYP_DOMAIN || port === 0) return false;
    const ip = address.subarray(1, -2);
    const judged = EMBEDDING_NETWORKS.some((rule) => matches(rule, ip, port)) ? ip.subarray(12) : ip;
    const isDenied = (rule: TargetRule) => matches(rule, judged, port) || matches(rule, ip, port);
    if (this.#deny.some(isDenied)) return false;
    if (this.#allow.some((rule) => matches(rule, judged, port))) return true;
    return !DEFAULT_DENIED.some((rule) => matches(rule, judged, port));
  }
}

/**
 * Reads `CIDR[:ports]`: `192.0.2.0/24`, `192.0.2.1:53,1000-2000`, `2001:db8::/32`, `[2001:db8::/32]:53`. An address
 * without a prefix length is that one address.
 *
 * @returns undefined when it is none
 */
export function parseTargetRule(text: string): TargetRule | undefined {
  const bracketed = /^\[([^\]]+)\](?::(.+))?$/.exec(text);
  const plain = /^(\d+(?:\.\d+){3}(?:\/\d+)?)(?::(.+))?$/.exec(text);
  const [, cidr = text, portText] = bracketed ?? plain ?? [];
  const [, host, prefixText] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(cidr) ?? [];
  if (host === undefined) return undefined;
  const network = host.includes(":") ? parseIpv6(host) : parseIpv4(host);
  if (network === undefined) return undefined;
  const bits = network.length * 8;
  const prefixLength = prefixText === undefined ? bits : Number(prefixText);
  const ports = portText === undefined ? undefined : parsePorts(portText);
  if (prefixLength > bits || (portText !== undefined && ports === undefined)) return undefined;
  return { network, prefixLength, ports };
}

/** @param text  `53`, `1000-2000`, or several of these with commas between them */
function parsePorts(text: string): [number, number][] | undefined {
  const ranges: [number, number][] = [];
  for (const part of text.split(",")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    if (match === null) return undefined;
    const low = Number(match[1]);
    const high = Number(match[2] ?? low);
    if (low < 1 || low > high || high > 65_535) return undefined;
    ranges.push([low, high]);
  }
  return ranges;
}

function matches({ network, prefixLength, ports }: TargetRule, ip: Uint8Array, port: number): boolean {
  if (ip.length !== network.length) return false;
  const wholeBytes = prefixLength >> 3;
  for (let i = 0; i < wholeBytes; i++) if (ip[i] !== network[i]) return false;
  const restBits = prefixLength & 7;
  if (restBits > 0 && (ip[wholeBytes] ^ network[wholeBytes]) >> (8 - restBits) !== 0) return false;
  return ports === undefined || ports.some(([low, high]) => port >= low && port <= high);
}

function mustParse(text: string): TargetRule {
  const rule = parseTargetRule(text);
  if (rule === undefined) throw new RangeError(`"${text}" is not CIDR[:ports]`);
  return rule;
}
