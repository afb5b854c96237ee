import { readFileSync } from "node:fs";
import { formatHost, ipAddress, parseIp } from "../../wire/socket-address.ts";

/** A route of the kernel's main table. */
export interface Route {
  /** 4 or 16 bytes. */
  readonly network: Uint8Array;
  readonly prefixLength: number;
  readonly metric: number;
  readonly interfaceName: string;
}

/** RTF_UP and RTF_REJECT of linux/route.h. */
const FLAG_UP = 0x1;
const FLAG_REJECT = 0x200;
const LOOPBACK = "lo";

/** The routes of both families on Linux; none if the system does not show them. */
export function readRoutes(): readonly Route[] {
  return [
    ...lines("/proc/net/route").slice(1).flatMap(ipv4Route),
    ...lines("/proc/net/ipv6_route").flatMap(ipv6Route),
  ];
}

function ipv4Route(columns: readonly string[]): Route[] {
  const [interfaceName, destination, , flags, , , metric, mask] = columns;
  if (mask === undefined || (Number.parseInt(flags, 16) & FLAG_UP) === 0) return [];
  const bits = Number.parseInt(mask, 16).toString(2).replaceAll("0", "").length;
  // In the machine's byte order, which is little endian wherever Node runs.
  return [
    { network: bytesOf(destination).reverse(), prefixLength: bits, metric: Number(metric), interfaceName },
  ];
}

function ipv6Route(columns: readonly string[]): Route[] {
  const [destination, prefix, , , , metric, , , flags, interfaceName] = columns;
  if (interfaceName === undefined) return [];
  const number = Number.parseInt(flags, 16);
  if ((number & FLAG_UP) === 0 || (number & FLAG_REJECT) !== 0 || interfaceName === LOOPBACK) return [];
  return [
    {
      network: bytesOf(destination),
      prefixLength: Number.parseInt(prefix, 16),
      metric: Number.parseInt(metric, 16),
      interfaceName,
    },
  ];
}

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

function lines(path: string): string[][] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => line.trim().split(/\s+/));
  } catch {
    return [];
  }
}

/** The route for an address: the one with the longest prefix, then the lowest metric. @param ip  text */
export function routeTo(routes: readonly Route[], ip: string): Route | undefined {
  const bytes = parseIp(ip);
  if (bytes === undefined) return undefined;
  let best: Route | undefined;
  for (const route of routes) {
    if (!contains(route, bytes)) continue;
    const isBetter =
      best === undefined ||
      route.prefixLength > best.prefixLength ||
      (route.prefixLength === best.prefixLength && route.metric < best.metric);
    if (isBetter) best = route;
  }
  return best;
}

function contains(
  { network, prefixLength }: Pick<Route, "network" | "prefixLength">,
  ip: Uint8Array,
): boolean {
  if (network.length !== ip.length) return false;
  for (let bit = 0; bit < prefixLength; bit++) {
    const mask = 0x80 >> (bit & 7);
    if ((network[bit >> 3] & mask) !== (ip[bit >> 3] & mask)) return false;
  }
  return true;
}

export function routeText({ network, prefixLength }: Pick<Route, "network" | "prefixLength">): string {
  return `${formatHost(ipAddress(network, 0))}/${prefixLength}`;
}
