/** All dialects. A new one is a file of its own and an entry here. */
import type { Sniffed } from "../http/first-bytes.ts";
import type { Dialect } from "./dialect.ts";
import { gnb } from "./gnb.ts";
import { gost } from "./gost.ts";
import { hev } from "./hev.ts";
import { mullvad } from "./mullvad.ts";
import { udpgw } from "./udpgw.ts";
import { udptunnel } from "./udptunnel.ts";
import { uot } from "./uot.ts";

/** In order of precedence, since the same first bytes may fit several. */
export const DIALECTS: readonly Dialect[] = [udptunnel, hev, gost, uot, gnb, udpgw, mullvad];

export function dialectByName(name: string): Dialect | undefined {
  return DIALECTS.find((dialect) => dialect.name === name);
}

/**
 * Whether first bytes are the greeting of a SOCKS5 client. It then waits for the answer, or continues with a password (1) or a request (5). A
 * udpgw datagram of certain lengths may begin in the same way.
 */
export function sniffSocks5(bytes: Uint8Array, length: number): Sniffed {
  if (bytes[0] !== 5 || (length > 1 && bytes[1] === 0)) return "no";
  const end = length < 2 ? 3 : 2 + bytes[1];
  if (length < end) return "more";
  let isOffered = false;
  for (let i = 2; i < end; i++) isOffered ||= bytes[i] === 0 || bytes[i] === 2;
  if (!isOffered) return "no";
  return length === end || bytes[end] === 1 || bytes[end] === 5 ? "yes" : "no";
}
