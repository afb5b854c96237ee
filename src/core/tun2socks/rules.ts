import { encodeDnsName, isQueryWithin } from "../../wire/dns-name.ts";
import { PROTOCOL_TCP, type PROTOCOL_UDP } from "../../wire/ip/ip-packet.ts";
import { UsageError } from "../errors.ts";
import type { TargetRule } from "../target-rule.ts";
import { isWithin, parseTargetRule } from "../target-rule.ts";

/**
 * Route of a flow or an association, as a number. SOCKS5 servers are `ROUTE_SOCKS + index`, in the order of the host's configuration.
 */
export const ROUTE_TUNNEL = 0;
export const ROUTE_DIRECT = 1;
/** Refuses at once: RST for TCP, ICMP port unreachable for UDP. */
export const ROUTE_REJECT = 2;
/** Drops silently. */
export const ROUTE_DROP = 3;
export const ROUTE_SOCKS = 4;
export const MAX_SOCKS_ROUTES = 60;
export const ROUTE_COUNT = ROUTE_SOCKS + MAX_SOCKS_ROUTES;

const DNS_PORT = 53;

export interface Rule {
  readonly protocol: "tcp" | "udp" | "any";
  readonly target: TargetRule;
  /** For DNS queries over UDP: a name in wire form, which matches queries for it and for names below it. */
  readonly domain: Uint8Array | undefined;
  readonly route: number;
}

/**
 * Reads one rule, `PROTOCOL TARGET ACTION`: protocol `tcp`, `udp` or `any`; target `*`, `CIDR` or either with
 * `:PORTS` (core/target-rule), or `domain:NAME` for DNS queries over UDP for that name and all below it; action
 * `tunnel` (UDP only), `socks`, `socks:N` (N counts from 0), `direct`, `reject` or `drop`. Examples:
 * `udp 10.0.0.0/8:53 reject`, `any 192.168.0.0/16 direct`, `udp *:443 reject`, `udp domain:lan direct`.
 *
 * @throws UsageError ERR_OPTION
 */
export function parseRule(text: string): Rule {
  const rule = readRule(text);
  if (typeof rule === "string") throw new UsageError("ERR_OPTION", `rule "${text}": ${rule}`);
  return rule;
}

/** Reads one rule as {@link parseRule} does. @returns what is wrong, as text, if the rule is invalid */
export function readRule(text: string): Rule | string {
  const [protocol, targetText, action, ...rest] = text.trim().split(/\s+/);
  if (action === undefined || rest.length > 0) return "not PROTOCOL TARGET ACTION";
  if (protocol !== "tcp" && protocol !== "udp" && protocol !== "any") {
    return `"${protocol}" is not tcp, udp or any`;
  }
  const route = parseAction(action);
  if (route === undefined) {
    return `"${action}" is not tunnel, socks, socks:0 to socks:${MAX_SOCKS_ROUTES - 1}, direct, reject or drop`;
  }
  if (route === ROUTE_TUNNEL && protocol !== "udp") return "the tunnel carries only udp";
  const isDomain = targetText.startsWith("domain:");
  if (isDomain && protocol === "tcp") return "domain: applies only to DNS queries over udp";
  const domain = isDomain ? encodeDnsName(targetText.slice("domain:".length)) : undefined;
  const target = parseTargetRule(isDomain ? `*:${DNS_PORT}` : targetText);
  if (target === undefined || (isDomain && domain === undefined)) {
    return `"${targetText}" is not *, CIDR, either with :PORTS, or domain:NAME`;
  }
  return { protocol: isDomain ? "udp" : protocol, target, domain, route };
}

function parseAction(text: string): number | undefined {
  switch (text) {
    case "tunnel":
      return ROUTE_TUNNEL;
    case "direct":
      return ROUTE_DIRECT;
    case "reject":
      return ROUTE_REJECT;
    case "drop":
      return ROUTE_DROP;
    case "socks":
      return ROUTE_SOCKS;
    default: {
      const index = /^socks:(\d{1,2})$/.exec(text)?.[1];
      return index === undefined || Number(index) >= MAX_SOCKS_ROUTES
        ? undefined
        : ROUTE_SOCKS + Number(index);
    }
  }
}

/** Whether the route of datagrams to a port depends on what is in them. */
export function dependsOnPayload(rules: readonly Rule[], port: number): boolean {
  return port === DNS_PORT && rules.some(({ domain }) => domain !== undefined);
}

/**
 * The route of the first matching rule, or `otherwise`.
 *
 * @param ip       buffer with the destination address, 4 or 16 bytes, at `ipOffset`
 * @param payload  offset of the UDP payload in the same buffer, up to `end`
 */
export function routeOf(
  rules: readonly Rule[],
  protocol: typeof PROTOCOL_TCP | typeof PROTOCOL_UDP,
  ip: Uint8Array,
  ipOffset: number,
  ipBytes: number,
  port: number,
  payload: number,
  end: number,
  otherwise: number,
): number {
  for (let i = 0; i < rules.length; i++) {
    const rule = rules[i];
    if (rule.protocol === (protocol === PROTOCOL_TCP ? "udp" : "tcp")) continue;
    if (!isWithin(rule.target, ip, ipOffset, ipBytes, port)) continue;
    if (rule.domain !== undefined && !isQueryWithin(ip, payload, end, rule.domain)) continue;
    return rule.route;
  }
  return otherwise;
}
