import type { LatencyClass } from "../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../wire/latency-class.ts";
import { ATYP_DOMAIN, addressPort } from "../wire/socket-address.ts";
import type { TargetRule } from "./target-rule.ts";
import { isWithin, parseTargetRule } from "./target-rule.ts";

/** The class of datagrams to a set of targets. */
export interface LatencyRule {
  /** By its number on the wire. */
  readonly latency: number;
  readonly targets: TargetRule;
}

/**
 * Reads `CLASS:MATCH`, where MATCH is `PORT`, `FROM-TO`, several of these with commas between them, or `CIDR[:PORTS]`:
 * `interactive:3478`, `bulk:10.0.0.0/8`, `interactive:[2001:db8::/32]:5000-5010`.
 *
 * @returns undefined when the text is invalid
 */
export function parseLatencyRule(text: string): LatencyRule | undefined {
  const colon = text.indexOf(":");
  const latency = LATENCY_CLASSES.indexOf(text.slice(0, colon) as LatencyClass);
  const match = text.slice(colon + 1);
  const targets = parseTargetRule(/^[\d,-]+$/.test(match) ? `*:${match}` : match);
  return colon < 0 || latency < 0 || targets === undefined ? undefined : { latency, targets };
}

/**
 * The class of a target, by the first rule that matches it; a domain name matches only rules without a network.
 *
 * @param address  ATYP, address, port
 */
export function latencyOf(rules: readonly LatencyRule[], fallback: number, address: Uint8Array): number {
  const ipBytes = address[0] === ATYP_DOMAIN ? 0 : address.length - 3;
  const port = addressPort(address);
  for (const { latency, targets } of rules) {
    if (isWithin(targets, address, 1, ipBytes, port)) return latency;
  }
  return fallback;
}
