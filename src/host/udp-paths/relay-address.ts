import { isWithin, parseTargetRule } from "../../core/target-rule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import {
  ATYP_DOMAIN,
  addressDomain,
  addressPort,
  isLinkLocal,
  makeAddress,
} from "../../wire/socket-address.ts";
import { splitZone } from "../addresses/endpoint.ts";
import { LOOKUP_MS } from "../addresses/name-lookups.ts";
import type { Cancellation } from "../cancellation.ts";
import { resolveHost } from "../carriers/happy-eyeballs.ts";
import type { System } from "../system.ts";

/** What looking up a name needs. */
type Resolver = Pick<System, "lookUp" | "after">;

/** Networks by how far their addresses reach, starting with those that no host has; all others are public. */
const REACHES = [
  ["0.0.0.0/8", "224.0.0.0/3", "::/128", "ff00::/8"],
  ["127.0.0.0/8", "::1/128"],
  ["169.254.0.0/16", "fe80::/10"],
  ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"],
].map((networks) => networks.map((text) => parseTargetRule(text)!));

/** The IPv4 or IPv6 address of a relay, with its zone if it is link-local. */
export interface RelayAddress {
  readonly address: AddressBytes;
  readonly zone: string | undefined;
}

/**
 * The relay's address, from a SOCKS5 server's reply (RFC 1928 §6). A server behind a NAT, in a container or bound to any address may reply
 * with an address that is unreachable from here. The server's own IP then replaces it.
 *
 * @param bound  BND.ADDR and BND.PORT
 * @param peer   IP text of the server, from the control connection, with its zone
 * @throws Error if the reply has no port, or a name that is not resolved within 5 s
 */
export async function relayAddress(
  system: Resolver,
  bound: AddressBytes,
  peer: string,
  cancellation: Cancellation,
): Promise<RelayAddress> {
  const port = addressPort(bound);
  if (port === 0) throw new Error("the server replied with UDP port 0");
  const { ip, zone } = splitZone(peer);
  const own = makeAddress(ip, port)!;
  const named =
    bound[0] === ATYP_DOMAIN ? await resolve(system, addressDomain(bound), port, cancellation) : bound;
  const address = reachOf(named) < reachOf(own) ? own : named;
  return { address, zone: isLinkLocal(address) ? zone : undefined };
}

/**
 * The address of a relay that an option names.
 *
 * @param host  a name, or IP text with its zone
 * @throws Error if it is a name that is not resolved within 5 s
 */
export async function configuredRelay(
  system: Resolver,
  host: string,
  port: number,
  cancellation: Cancellation,
): Promise<RelayAddress> {
  const { ip, zone } = splitZone(host);
  const address = makeAddress(ip, port)!;
  const isName = address[0] === ATYP_DOMAIN;
  return { address: isName ? await resolve(system, ip, port, cancellation) : address, zone };
}

async function resolve(
  system: Resolver,
  name: string,
  port: number,
  cancellation: Cancellation,
): Promise<AddressBytes> {
  const deadline = cancellation.within(system, LOOKUP_MS);
  try {
    const [ip] = await resolveHost(system, name, deadline);
    return makeAddress(ip, port)!;
  } finally {
    deadline.release();
  }
}

function reachOf(address: AddressBytes): number {
  const ip = address.subarray(1, -2);
  const reach = REACHES.findIndex((networks) => networks.some((each) => isWithin(each, ip, 0, ip.length, 1)));
  return reach < 0 ? REACHES.length : reach;
}
