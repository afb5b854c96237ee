import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_IPV4, ATYP_IPV6, isUnspecified, makeAddress } from "../../wire/socket-address.ts";
import { systemErrorCode } from "../system-error.ts";
import { parseEndpoint } from "./endpoint.ts";

/** How many ports chosen by the system are tried until one is free on every host. */
const MAX_TRIES = 16;
/** Errors that mean that this machine lacks the address family. */
const NO_FAMILY = ["EAFNOSUPPORT", "EADDRNOTAVAIL"];

/** One or more sockets bound to one host. */
export interface Bound {
  readonly port: number;
  close(): unknown;
}

/**
 * The IPs that a listen option binds to, each with its own socket. `[::]` stands for all addresses of both families, unless `0.0.0.0` with
 * the same port is also a value of the option.
 *
 * @param text      `IP:PORT`
 * @param values    all values of the option
 * @param ipv6Only  true if `[::]` stands only for IPv6
 */
export function listenHosts(text: string, values: readonly string[], ipv6Only: boolean): readonly string[] {
  const { host } = parseEndpoint(text) as { host: string };
  if (ipv6Only || !isAny(text, ATYP_IPV6)) return [host];
  const isElsewhere = values.some((value) => isAny(value, ATYP_IPV4) && portOf(value) === portOf(text));
  return isElsewhere && portOf(text) !== 0 ? [host] : [host, "0.0.0.0"];
}

/**
 * Opens something on each of several hosts, with the same port. On a machine without IPv6, it opens only on IPv4.
 *
 * @param port  0 for one that the system chooses
 * @throws what `open` throws, after closing what was opened
 */
export async function openOnEach<Opened extends Bound>(
  hosts: readonly string[],
  port: number,
  open: (host: string, port: number) => Promise<Opened>,
): Promise<readonly Opened[]> {
  for (let tries = 1; ; tries++) {
    const opened: Opened[] = [];
    try {
      let missing: unknown;
      for (const host of hosts) {
        try {
          opened.push(await open(host, opened[0]?.port ?? port));
        } catch (error) {
          if (hosts.length === 1 || !NO_FAMILY.includes(systemErrorCode(error) ?? "")) throw error;
          missing = error;
        }
      }
      if (opened.length === 0) throw missing;
      return opened;
    } catch (error) {
      await Promise.all(opened.map((one) => one.close()));
      const isPortTaken = port === 0 && opened.length > 0 && systemErrorCode(error) === "EADDRINUSE";
      if (!isPortTaken || tries === MAX_TRIES) throw error;
    }
  }
}

function isAny(text: string, family: typeof ATYP_IPV4 | typeof ATYP_IPV6): boolean {
  const address = addressOf(text);
  return address?.[0] === family && isUnspecified(address);
}

function portOf(text: string): number {
  return (parseEndpoint(text) as { port: number }).port;
}

function addressOf(text: string): AddressBytes | undefined {
  const endpoint = parseEndpoint(text);
  return endpoint.path === undefined ? makeAddress(endpoint.host, endpoint.port) : undefined;
}
