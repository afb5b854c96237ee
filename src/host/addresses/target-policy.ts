import type { TargetRule } from "../../core/target-rule.ts";
import { isWithin, parseTargetRule } from "../../core/target-rule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_DOMAIN, addressPort, copyOf, sameBytes } from "../../wire/socket-address.ts";

/** NAT64 (RFC 6052), judged as the IPv4 target in its last four bytes. */
const NAT64 = mustParse("64:ff9b::/96");

/** Targets inside a private network, or not unicast hosts at all (RFC 6890, IANA's special-purpose registries). */
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
  // SIIT (RFC 2765) and local NAT64 (RFC 8215): only the network knows which IPv4 host is behind such an address.
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
 * Decides which targets datagrams may be sent to. It applies after resolution, to the address that is sent to. Deny rules come first, then
 * allow rules, which override the defaults, then the defaults. They deny private, loopback, link-local, CGNAT, protocol assignment,
 * benchmarking, multicast, broadcast, reserved and tunnelling ranges. Everything else is permitted.
 */
export class TargetPolicy {
  readonly #allow: readonly TargetRule[];
  readonly #deny: readonly TargetRule[];
  /** The last target that was judged: many associations in a row have the same one, such as a resolver. */
  #last: AddressBytes | undefined;
  #permitsLast = false;

  /** @param allow, deny  rules for {@link parseTargetRule}. @throws RangeError for invalid ones */
  constructor(allow: readonly string[], deny: readonly string[]) {
    this.#allow = allow.map(mustParse);
    this.#deny = deny.map(mustParse);
  }

  /** @param address  IPv4 or IPv6; domain names and port 0 are never permitted */
  permits(address: AddressBytes): boolean {
    const last = this.#last;
    if (last?.length !== address.length || !sameBytes(last, 0, address, 0, address.length)) {
      this.#permitsLast = this.#judge(address);
      this.#last = copyOf(address, 0, address.length) as AddressBytes;
    }
    return this.#permitsLast;
  }

  #judge(address: AddressBytes): boolean {
    const port = addressPort(address);
    if (address[0] === ATYP_DOMAIN || port === 0) return false;
    const ip = address.subarray(1, -2);
    const judged = matches(NAT64, ip, port) ? ip.subarray(12) : ip;
    const isDenied = (rule: TargetRule) => matches(rule, judged, port) || matches(rule, ip, port);
    if (this.#deny.some(isDenied)) return false;
    if (this.#allow.some((rule) => matches(rule, judged, port))) return true;
    return !DEFAULT_DENIED.some((rule) => matches(rule, judged, port));
  }
}

function matches(rule: TargetRule, ip: Uint8Array, port: number): boolean {
  return isWithin(rule, ip, 0, ip.length, port);
}

function mustParse(text: string): TargetRule {
  const rule = parseTargetRule(text);
  if (rule === undefined) throw new RangeError(`"${text}" is not CIDR[:ports]`);
  return rule;
}
