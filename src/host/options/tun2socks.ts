import type { Rule } from "../../core/tun2socks/rules.ts";
import { ROUTE_DROP, ROUTE_REJECT, ROUTE_SOCKS } from "../../core/tun2socks/rules.ts";
import { formatHost, ipAddress } from "../../wire/socket-address.ts";
import { parseCarrierChain } from "../carriers/carrier-chain.ts";
import { redactUrl } from "../carriers/hop.ts";
import type { CustomDevice } from "../devices/device.ts";
import type { InterfaceAddress } from "../devices/interface-address.ts";
import type { ResolvedUdpLocalOptions, UdpLocalSettings } from "./udp-local.ts";

/** Includes all options of the udp-local behind `local:`, whose SOCKS5 server is off unless `listen` is given. */
export interface Tun2SocksSettings extends Omit<UdpLocalSettings, "workers" | "tcpVia"> {
  /**
   * `tun:NAME` (created, or opened if it exists), `fd:N` (one packet per read and write), `unix:/path` (listens there for consecutive
   * IP packets), `pipe:` (the same on standard input and output), or a device of the caller. Default `tun:underpass0`.
   */
  readonly device?: string | CustomDevice | undefined;
  /** MTU of the device, 1,280 to 65,535. Default 1500. */
  readonly mtu?: number | undefined;
  /** `IP/PREFIX` of a TUN device or a descriptor, one per family. Default 198.18.0.1/30 and fd75:6e64:7270::1/126. */
  readonly addresses?: readonly string[] | undefined;
  /** `IP/PREFIX` that is routed to the TUN device while it exists. Default: none. */
  readonly routes?: readonly string[] | undefined;
  /** Exchanges packets longer than the MTU with the kernel through a TUN device, if the system supports it. Default on. */
  readonly offload?: "on" | "off" | undefined;
  /** True if 4 bytes with the family precede each packet of `fd:N`, as on macOS and iOS. Default false. */
  readonly familyHeader?: boolean | undefined;
  /** Servers that rules refer to as `socks:0` and so on: `socks5://[user:password@]host:port`, or for TCP `ss://`. Default: none. */
  readonly socks?: readonly string[] | undefined;
  /**
   * Where TCP goes if no rule matches: `socks5://`, `ss://`, hops separated by blanks that end with one of these, `socks:N`,
   * `direct`, `reject` or `drop`. Of several ways, all with hops, the first reachable one is used. Default `reject`.
   */
  readonly tcpVia?: string | readonly string[] | undefined;
  /**
   * Where UDP goes if no rule matches: `local:`, any value of `tcpVia` except `ss://`, or `socks5-udp://host:port`, a relay that needs no
   * UDP ASSOCIATE (`ss-local -U`). Default `local:`.
   */
  readonly udpVia?: string | undefined;
  /**
   * `tcp`: DNS queries (UDP to port 53) that no rule matches go to their servers over TCP, which is routed like other TCP.
   * Default `udp`: they go like other UDP.
   */
  readonly dns?: "udp" | "tcp" | undefined;
  /** Rules `PROTOCOL TARGET ACTION`; the first match applies (core/tun2socks/rules). Default: none. */
  readonly rules?: readonly string[] | undefined;
  /** Limit of TCP connections, 1 to 60,000. Default 16,384. */
  readonly maxFlows?: number | undefined;
  /**
   * What terminates TCP: `kernel`, by a listener on the device's address, for a TUN device or a descriptor; `lwip`, in the native
   * module, for any device. Default: `kernel` if the device has one behind it, otherwise `lwip`.
   */
  readonly tcpStack?: "kernel" | "lwip" | undefined;
  /** Memory for lwIP's connections and the TCP data that waits in them, in MiB; 4 to 65,536. Default 256. */
  readonly tcpMemory?: number | undefined;
  /** Option of badvpn-tun2socks: the name of a TUN device. */
  readonly tundev?: string | undefined;
  /** Option of badvpn-tun2socks: an unused address in the device's network. */
  readonly netifIpaddr?: string | undefined;
  readonly netifNetmask?: string | undefined;
  /** Option of badvpn-tun2socks: `HOST:PORT` of the SOCKS5 server for TCP. */
  readonly socksServerAddr?: string | undefined;
  /** Sends UDP to that server too. */
  readonly socks5Udp?: boolean | undefined;
}

/** All options of tun2socks with their defaults; every text is well-formed. */
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
  /** What terminates TCP; undefined: the kernel if one is behind the device, otherwise lwIP. */
  readonly tcpStack: "kernel" | "lwip" | undefined;
  /** Limit of the memory in lwIP. */
  readonly tcpMemoryBytes: number;
  /** True if any route leads into the tunnel. */
  readonly usesTunnel: boolean;
  readonly tunnel: ResolvedUdpLocalOptions;
}

/** The resolved options as lines of text, without secrets. */
export function describePlan(options: ResolvedTun2SocksOptions): string[] {
  const { device, mtu, addresses, routes, socks, tcpRoute, udpRoute, rules, usesTunnel, tunnel } = options;
  const { dnsRoute, otherTcpWays, tcpStack } = options;
  const terminated = tcpStack === undefined ? "" : `, terminated by ${tcpStack}`;
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
    `tcp -> ${[way(tcpRoute), ...otherTcpWays.map(redactUrl)].join(", or ")}${terminated}`,
    `udp -> ${way(udpRoute)}`,
    ...(usesTunnel
      ? [`udp-local -> ${tunnel.ways.map((way) => parseCarrierChain(way).description).join(", or ")}`]
      : []),
  ];
}

/** True for a well-formed way that carries TCP, but not datagrams. */
export function carriesTcpAlone(text: string): boolean {
  return text.startsWith("ss:") || /\s/.test(text);
}

/** Whether any TCP is carried, by a rule or by default. */
export function carriesTcp({
  tcpRoute,
  rules,
}: Pick<ResolvedTun2SocksOptions, "tcpRoute" | "rules">): boolean {
  const isCarried = (route: number) => route !== ROUTE_REJECT && route !== ROUTE_DROP;
  return isCarried(tcpRoute) || rules.some(({ protocol, route }) => protocol !== "udp" && isCarried(route));
}
