import type { Rule } from "../../core/tun2socks/rules.ts";
import { ROUTE_SOCKS } from "../../core/tun2socks/rules.ts";
import { formatHost, ipAddress } from "../../wire/socket-address.ts";
import { parseCarrierChain } from "../carriers/carrier-chain.ts";
import { redactUrl } from "../carriers/hop.ts";
import type { CustomDevice } from "../devices/device.ts";
import type { InterfaceAddress } from "../devices/interface-address.ts";
import type { ResolvedUdpLocalOptions } from "./udp-local.ts";

/** All options of tun2socks with their defaults; all text is well-formed. */
export interface ResolvedTun2SocksOptions {
  readonly device: string | CustomDevice;
  readonly mtu: number;
  readonly addresses: readonly InterfaceAddress[];
  readonly routes: readonly { readonly network: Uint8Array; readonly prefixLength: number }[];
  readonly offload: "on" | "off";
  readonly familyHeader: boolean;
  /** URLs of the routes from ROUTE_SOCKS on. */
  readonly socks: readonly string[];
  readonly tcpRoute: number;
  /** Ways for TCP after that of `tcpRoute`, in the order of preference. */
  readonly otherTcpWays: readonly string[];
  readonly udpRoute: number;
  /** Ends with a rule for DNS over TCP, if that is enabled. */
  readonly rules: readonly Rule[];
  /** The route of DNS over TCP, one more than those of `socks`; undefined for none. */
  readonly dnsRoute: number | undefined;
  readonly maxFlows: number;
  /** True if any route leads into the tunnel. */
  readonly usesTunnel: boolean;
  readonly tunnel: ResolvedUdpLocalOptions;
}

/** The resolved options as lines of text, without secrets. */
export function describePlan(options: ResolvedTun2SocksOptions): string[] {
  const { device, mtu, addresses, routes, socks, tcpRoute, udpRoute, rules, usesTunnel, tunnel } = options;
  const { dnsRoute, otherTcpWays } = options;
  const ip = (bytes: Uint8Array) => formatHost(ipAddress(bytes, 0));
  const way = (route: number) =>
    route === dnsRoute
      ? "the server over TCP"
      : (["udp-local", "direct", "reject", "drop"][route] ?? redactUrl(socks[route - ROUTE_SOCKS]));
  const isTun = typeof device === "string" && device.startsWith("tun:");
  return [
    `device ${typeof device === "string" ? device : "of the caller"}, MTU ${mtu}`,
    ...(isTun
      ? addresses.map(
          ({ own, prefixLength, peer }) => `address ${ip(own)}/${prefixLength}, TCP comes from ${ip(peer)}`,
        )
      : []),
    ...(isTun ? routes.map(({ network, prefixLength }) => `route ${ip(network)}/${prefixLength}`) : []),
    ...rules.map((rule, index) => `rule ${index + 1}: ${rule.protocol} -> ${way(rule.route)}`),
    `tcp -> ${[way(tcpRoute), ...otherTcpWays.map(redactUrl)].join(", or ")}`,
    `udp -> ${way(udpRoute)}`,
    ...(usesTunnel
      ? [`udp-local -> ${tunnel.ways.map((way) => parseCarrierChain(way).description).join(", or ")}`]
      : []),
  ];
}

/** True for a well-formed way that carries TCP, but no datagrams. */
export function carriesTcpAlone(text: string): boolean {
  return text.startsWith("ss:") || /\s/.test(text);
}
