import { isIpv4Mapped, parseIpv4, parseIpv6 } from "../wire/socket-address.ts";

/** Prefix length of ::ffff:0:0/96. */
const MAPPED_PREFIX_BITS = 96;

/** A set of targets: a network and, unless any port matches, ranges of ports. */
export interface TargetRule {
  /** 4 or 16 bytes; empty for all addresses of both families. */
  readonly network: Uint8Array;
  /** Number of significant bits of `network`. */
  readonly prefixLength: number;
  /** Inclusive ranges, alternately low and high; empty for all ports. */
  readonly ports: Uint16Array;
}

/**
 * Reads `CIDR[:ports]`, or `*[:ports]` for every address: `192.0.2.0/24`, `192.0.2.1:53,1000-2000`, `2001:db8::/32`,
 * `[2001:db8::/32]:53`, `*:443`. An address without a prefix length is that one address.
 *
 * @returns undefined when the text is invalid
 */
export function parseTargetRule(text: string): TargetRule | undefined {
  const [, bracketed, plain, portText] =
    /^(?:\[([^\]]+)\]|(\*|\d+(?:\.\d+){3}(?:\/\d+)?))(?::(.+))?$/.exec(text) ?? [];
  const cidr = bracketed ?? plain ?? text;
  const ports = portText === undefined ? new Uint16Array(0) : parsePorts(portText);
  if (ports === undefined) return undefined;
  if (cidr === "*") return { network: new Uint8Array(0), prefixLength: 0, ports };
  const network = parseNetwork(cidr);
  return network === undefined ? undefined : { ...network, ports };
}

/**
 * Reads `IP/PREFIX`. An address without a prefix length is that one address. A network of IPv4-mapped addresses becomes one of IPv4.
 *
 * @returns undefined when the text is invalid
 */
export function parseNetwork(text: string): Pick<TargetRule, "network" | "prefixLength"> | undefined {
  const [, host, prefixText] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  if (host === undefined) return undefined;
  const network = host.includes(":") ? parseIpv6(host) : parseIpv4(host);
  if (network === undefined) return undefined;
  const bits = network.length * 8;
  const prefixLength = prefixText === undefined ? bits : Number(prefixText);
  if (prefixLength > bits) return undefined;
  if (bits === 32 || prefixLength < MAPPED_PREFIX_BITS || !isIpv4Mapped(network, 0)) {
    return { network, prefixLength };
  }
  return { network: network.slice(MAPPED_PREFIX_BITS / 8), prefixLength: prefixLength - MAPPED_PREFIX_BITS };
}

/** @param text  `53`, `1000-2000`, or several of these with commas between them */
function parsePorts(text: string): Uint16Array | undefined {
  const ranges: number[] = [];
  for (const part of text.split(",")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    if (match === null) return undefined;
    const low = Number(match[1]);
    const high = Number(match[2] ?? low);
    if (low < 1 || low > high || high > 65_535) return undefined;
    ranges.push(low, high);
  }
  return Uint16Array.from(ranges);
}

/** Whether a rule matches a port at the address of 4 or 16 bytes at `ip[offset]`. */
export function isWithin(
  { network, prefixLength, ports }: TargetRule,
  ip: Uint8Array,
  offset: number,
  ipBytes: number,
  port: number,
): boolean {
  if (network.length > 0) {
    if (ipBytes !== network.length) return false;
    const wholeBytes = prefixLength >> 3;
    for (let i = 0; i < wholeBytes; i++) if (ip[offset + i] !== network[i]) return false;
    const restBits = prefixLength & 7;
    if (restBits > 0 && (ip[offset + wholeBytes] ^ network[wholeBytes]) >> (8 - restBits) !== 0) return false;
  }
  for (let i = 0; i < ports.length; i += 2) if (port >= ports[i] && port <= ports[i + 1]) return true;
  return ports.length === 0;
}
