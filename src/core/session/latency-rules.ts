import { MAX_DSCP } from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import { ATYP_DOMAIN, addressPort } from "../../wire/socket-address.ts";
import type { TargetRule } from "../target-rule.ts";
import { isWithin, parseTargetRule } from "../target-rule.ts";

/** The latency class for datagrams to a set of targets, or with certain DSCPs. */
export interface LatencyRule {
  /** The class, as its number on the wire. */
  readonly latency: number;
  readonly match: TargetRule | { readonly dscps: readonly number[] };
}

/**
 * Reads `CLASS:MATCH`, where MATCH is `PORT`, `FROM-TO`, several of these with commas between them, or `CIDR[:PORTS]`,
 * or `dscp=N[,N]`: `interactive:3478`, `bulk:10.0.0.0/8`, `interactive:[2001:db8::/32]:5000-5010`, `interactive:dscp=46`.
 *
 * @returns undefined when the text is invalid
 */
export function parseLatencyRule(text: string): LatencyRule | undefined {
  const colon = text.indexOf(":");
  const latency = LATENCY_CLASSES.indexOf(text.slice(0, colon) as LatencyClass);
  const match = text.slice(colon + 1);
  const found = match.startsWith("dscp=")
    ? parseDscps(match.slice("dscp=".length))
    : parseTargetRule(/^[\d,-]+$/.test(match) ? `*:${match}` : match);
  return colon < 0 || latency < 0 || found === undefined ? undefined : { latency, match: found };
}

function parseDscps(text: string): { readonly dscps: readonly number[] } | undefined {
  if (!/^\d{1,2}(,\d{1,2})*$/.test(text)) return undefined;
  const dscps = text.split(",").map(Number);
  return dscps.every((dscp) => dscp <= MAX_DSCP) ? { dscps } : undefined;
}

/** Whether a rule matches by DSCP, which is only known for packets of a device. */
export function isDscpRule({ match }: LatencyRule): boolean {
  return "dscps" in match;
}

/**
 * The class of datagrams to a target, from the first rule that matches. A domain name matches only rules without a network.
 *
 * @param address  ATYP, address, port
 * @param dscp  of the datagrams
 */
export function latencyOf(
  rules: readonly LatencyRule[],
  fallback: number,
  address: Uint8Array,
  dscp: number,
): number {
  const ipBytes = address[0] === ATYP_DOMAIN ? 0 : address.length - 3;
  const port = addressPort(address);
  for (const { latency, match } of rules) {
    if ("dscps" in match ? match.dscps.includes(dscp) : isWithin(match, address, 1, ipBytes, port))
      return latency;
  }
  return fallback;
}
