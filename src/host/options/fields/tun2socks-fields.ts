import * as z from "zod";
import { TUN2SOCKS_LIMITS } from "../../../core/tun2socks/options.ts";
import {
  MAX_SOCKS_ROUTES,
  parseRule,
  ROUTE_DIRECT,
  ROUTE_DROP,
  ROUTE_REJECT,
  ROUTE_SOCKS,
  ROUTE_TUNNEL,
  readRule,
} from "../../../core/tun2socks/rules.ts";
import { makeAddress } from "../../../wire/socket-address.ts";
import { rebaseEndpoint } from "../../addresses/endpoint.ts";
import { findHopProblem, redactUrl } from "../../carriers/hop.ts";
import { rebaseWay } from "../../carriers/way.ts";
import type { CustomDevice } from "../../devices/device.ts";
import type { InterfaceAddress } from "../../devices/interface-address.ts";
import { isNetwork, parseCidr, parseInterfaceAddress } from "../../devices/interface-address.ts";
import { isBareRelay } from "../../udp-paths/socks5.ts";
import { tcpProxies, tcpProxy } from "../addresses.ts";
import type { ResolvedTun2SocksOptions, Tun2SocksSettings } from "../tun2socks.ts";
import { carriesTcpAlone } from "../tun2socks.ts";
import type { NameField, OptionField, OptionFields } from "./fields.ts";
import { checkFields, integer, libraryName, wrong } from "./fields.ts";
import type { UdpLocalPlatform } from "./udp-local-fields.ts";
import { resolveUdpLocal, UDP_LOCAL_FIELDS } from "./udp-local-fields.ts";

const { workers: _workers, tcpVia: _tcpVia, ...TUNNEL_FIELDS } = UDP_LOCAL_FIELDS;
const DEVICE = "tun:underpass0";
const ADDRESSES = ["198.18.0.1/30", "fd75:6e64:7270::1/126"];
const MAX_NAME_BYTES = 15;
const WAY = "socks5://[USER:PASSWORD@]HOST:PORT, socks:N, direct, reject or drop";
const TCP_WAY = `ss://METHOD:PASSWORD@HOST:PORT (SIP002), ${WAY}`;

export const TUN2SOCKS_FIELDS = {
  device: {
    schema: z
      .union([z.string().refine(isDevice), z.custom<CustomDevice>((value) => isCustomDevice(value))])
      .optional(),
    expects: `tun:NAME of at most ${MAX_NAME_BYTES} bytes, fd:N, unix:/path or pipe:`,
    flag: "device",
    value: "DEVICE",
    help: `tun:NAME, fd:N, unix:/path or pipe: (default ${DEVICE})`,
    rebase: rebaseEndpoint,
  },
  mtu: integer("mtu", "BYTES", "MTU of the device", 1_280, 65_535, 1_500),
  addresses: {
    schema: z.array(z.string().refine((text) => parseInterfaceAddress(text) !== undefined)).optional(),
    expects: "IP/PREFIX of a network with room for two, such as 198.18.0.1/30",
    flag: "address",
    value: "IP/PREFIX",
    help: `address of the device, one per family (repeatable, default ${ADDRESSES.join(" and ")})`,
    isList: true,
  },
  routes: {
    schema: z.array(z.string().refine(isNetwork)).default([]),
    expects: "IP/PREFIX of a network, with all host bits 0, such as 192.0.2.0/24",
    flag: "route",
    value: "IP/PREFIX",
    help: "network to route to the TUN device while it exists (repeatable)",
    isList: true,
  },
  offload: {
    schema: z.enum(["on", "off"]).default("on"),
    expects: "on or off",
    flag: "offload",
    value: "on|off",
    help: "exchange packets longer than the MTU with the kernel if it supports that (default on)",
  },
  familyHeader: {
    schema: z.boolean().default(false),
    expects: "true or false",
    flag: "family-header",
    help: "4 bytes with the family precede each packet of fd:N",
  },
  socks: {
    schema: z
      .array(tcpProxy(isSocksUrl))
      .max(MAX_SOCKS_ROUTES - 3)
      .default([]),
    expects:
      "socks5://[USER:PASSWORD@]HOST:PORT (percent-encoded) or ss://METHOD:PASSWORD@HOST:PORT (SIP002)",
    flag: "socks",
    value: "URL",
    help: "SOCKS5 server, or shadowsocks server for TCP; rules refer to it as socks:0, socks:1 and so on (repeatable)",
    rebase: rebaseWay,
    isList: true,
  },
  tcpVia: {
    schema: tcpProxies(isWay),
    expects: TCP_WAY,
    flag: "tcp-via",
    value: "WAY",
    help:
      'where TCP goes: socks5://, ss://, "HOP ... URL" (repeatable: the first that can be reached), socks:N, direct, reject or ' +
      "drop (default reject)",
    isList: true,
    rebase: rebaseWay,
  },
  udpVia: {
    schema: z
      .string()
      .refine((text) => text === "local:" || isWay(text) || isBareRelay(text))
      .optional(),
    expects: `local:, socks5-udp://HOST:PORT, ${WAY}`,
    flag: "udp-via",
    value: "WAY",
    help: "where UDP goes: local: (the tunnel, default), any value of --tcp-via but ss://, or socks5-udp://HOST:PORT (ss-local -U)",
  },
  dns: {
    schema: z.enum(["udp", "tcp"]).default("udp"),
    expects: "udp or tcp",
    flag: "dns",
    value: "udp|tcp",
    help: "tcp: send DNS queries over TCP, routed like other TCP (default udp: like other UDP)",
  },
  rules: {
    schema: z.array(z.string()).default([]),
    expects: "PROTOCOL TARGET ACTION",
    flag: "rule",
    value: "RULE",
    help: 'PROTOCOL TARGET ACTION, such as "udp *:443 reject" or "any 10.0.0.0/8 direct" (repeatable, the first match applies)',
    isList: true,
  },
  ...TUNNEL_FIELDS,
  listen: { ...TUNNEL_FIELDS.listen, help: "additional SOCKS5 server for applications (default: none)" },
  maxFlows: integer("max-flows", "N", "limit of TCP connections", 1, 60_000, TUN2SOCKS_LIMITS.maxFlows),
  tcpStack: {
    schema: z.enum(["kernel", "lwip"]).optional(),
    expects: "kernel or lwip",
    flag: "tcp-stack",
    value: "kernel|lwip",
    help: "what terminates TCP (default: the kernel if the device has one, otherwise lwip)",
  },
  tcpMemory: integer("tcp-memory", "MIB", "memory in MiB for TCP data that waits in lwIP", 4, 65_536, 256),
  tundev: {
    schema: z
      .string()
      .refine((name) => isDevice(`tun:${name}`))
      .optional(),
    expects: `a name of at most ${MAX_NAME_BYTES} bytes`,
    flag: "tundev",
    value: "NAME",
    help: "the same as --device tun:NAME (option of badvpn-tun2socks)",
  },
  netifIpaddr: {
    schema: z.ipv4().optional(),
    expects: "an IPv4 address",
    flag: "netif-ipaddr",
    value: "IP",
    help: "an unused address in the device's network (option of badvpn-tun2socks)",
  },
  netifNetmask: {
    schema: z.ipv4().optional(),
    expects: "a netmask such as 255.255.255.0",
    flag: "netif-netmask",
    value: "MASK",
    help: "netmask of that network",
  },
  socksServerAddr: {
    schema: z
      .string()
      .refine((address) => isSocksUrl(`socks5://${address}`))
      .optional(),
    expects: "HOST:PORT",
    flag: "socks-server-addr",
    value: "HOST:PORT",
    help: "the same as --tcp-via socks5://HOST:PORT",
  },
  socks5Udp: {
    schema: z.boolean().default(false),
    expects: "true or false",
    flag: "socks5-udp",
    help: "with --socks-server-addr: send UDP there too",
  },
} satisfies Record<Exclude<keyof Tun2SocksSettings, "masque">, OptionField>;

/** The differences between hosts. */
export interface Tun2SocksPlatform {
  /** The table of options, including those that only one host has. */
  readonly fields: OptionFields;
  /** The options of only its tunnel. */
  readonly tunnel: UdpLocalPlatform;
  /** The address of an interface, which need not be up; undefined if unknown. */
  readonly interfaceIpv4: (name: string) => Uint8Array | undefined;
}

type Checked = Required<Tun2SocksSettings>;

/**
 * Fills the defaults in and checks every field.
 *
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveTun2Socks(
  platform: Tun2SocksPlatform,
  input: Tun2SocksSettings,
  nameField: NameField = libraryName,
): ResolvedTun2SocksOptions {
  const options = checkFields(platform.fields, input, nameField) as Checked;
  const { tundev, socksServerAddr, socks5Udp, mtu, offload, familyHeader, maxFlows, tcpStack } = options;
  for (const [stock, own] of [
    ["tundev", "device"],
    ["netifIpaddr", "addresses"],
    ["socksServerAddr", "tcpVia"],
  ] as const) {
    if (options[stock] !== undefined && options[own] !== undefined) {
      throw wrong(nameField([stock]), `is the same as ${nameField([own])}: give only one`);
    }
  }
  if (socks5Udp && socksServerAddr === undefined) {
    throw wrong(nameField(["socks5Udp"]), `needs ${nameField(["socksServerAddr"])}`);
  }
  const stockServer = socksServerAddr === undefined ? undefined : `socks5://${socksServerAddr}`;
  const socks = [...options.socks];
  const routeTo = (field: "tcpVia" | "udpVia", text: string): number => {
    const route = routeOf(text, socks);
    if (route !== undefined) return route;
    throw wrong(nameField([field]), `${text}: only ${socks.length} given with ${nameField(["socks"])}`);
  };
  const rules = options.rules.map((text, index) => {
    const rule = readRule(text);
    if (typeof rule === "string") throw wrong(nameField(["rules", index]), `"${text}": ${rule}`);
    return rule;
  });
  const configured = socks.length;
  const carriesOnlyTcp = (route: number) =>
    route >= ROUTE_SOCKS && carriesTcpAlone(socks[route - ROUTE_SOCKS]);
  for (const [index, { route, protocol }] of rules.entries()) {
    const problem =
      route >= ROUTE_SOCKS + configured
        ? `only ${configured} given with ${nameField(["socks"])}`
        : carriesOnlyTcp(route) && protocol !== "tcp"
          ? "ss:// and several hops carry only tcp"
          : undefined;
    if (problem !== undefined)
      throw wrong(nameField(["rules", index]), `"${options.rules[index]}": ${problem}`);
  }
  const [firstTcpWay, ...otherTcpWays] = (options.tcpVia as readonly string[]) ?? [
    stockServer ?? options.shadowsocks ?? "reject",
  ];
  const tcpRoute = routeTo("tcpVia", firstTcpWay);
  const odd = [firstTcpWay, ...otherTcpWays].find((text) => !/[:]\/\//.test(text));
  if (otherTcpWays.length > 0 && odd !== undefined) {
    throw wrong(nameField(["tcpVia"]), `${odd} cannot be one of several`);
  }
  const udpRoute = routeTo("udpVia", options.udpVia ?? (socks5Udp ? stockServer! : "local:"));
  if (carriesOnlyTcp(udpRoute))
    throw wrong(
      nameField(["udpVia"]),
      `${redactUrl(options.udpVia!)}: ss:// and several hops carry only tcp`,
    );
  const dnsRoute = options.dns === "tcp" ? ROUTE_SOCKS + socks.length : undefined;
  if (dnsRoute !== undefined) {
    if (tcpRoute === ROUTE_REJECT || tcpRoute === ROUTE_DROP) {
      throw wrong(nameField(["dns"]), `tcp needs ${nameField(["tcpVia"])}`);
    }
    rules.push({ ...parseRule("udp *:53 drop"), route: dnsRoute });
  }
  const device = options.device ?? (tundev === undefined ? DEVICE : `tun:${tundev}`);
  const tunnelInput = Object.fromEntries(
    Object.keys(platform.tunnel.fields)
      .filter(isOfTunnel)
      .map((name) => [name, (input as Record<string, unknown>)[name]]),
  );
  return {
    device,
    mtu,
    addresses: addressesOf(platform, options, nameField),
    routes: options.routes.map((text) => parseCidr(text)!),
    offload,
    familyHeader,
    socks,
    tcpRoute,
    otherTcpWays,
    udpRoute,
    rules,
    dnsRoute,
    maxFlows,
    tcpStack,
    tcpMemoryBytes: options.tcpMemory * 1024 * 1024,
    usesTunnel: udpRoute === ROUTE_TUNNEL || rules.some(({ route }) => route === ROUTE_TUNNEL),
    tunnel: resolveUdpLocal(platform.tunnel, tunnelInput, nameField, true),
  };
}

function isOfTunnel(name: string): boolean {
  return name !== "workers" && name !== "tcpVia";
}

function addressesOf(
  platform: Tun2SocksPlatform,
  options: Checked,
  nameField: NameField,
): InterfaceAddress[] {
  if (options.netifIpaddr !== undefined) return [stockAddress(platform, options, nameField)];
  const addresses = (options.addresses ?? ADDRESSES).map((text) => parseInterfaceAddress(text)!);
  for (const bytes of [4, 16]) {
    if (addresses.filter(({ own }) => own.length === bytes).length > 1) {
      throw wrong(nameField(["addresses"]), "more than one address of a family");
    }
  }
  return addresses;
}

/** With badvpn, the user chooses the device's own address; `netifIpaddr` is the peer address, which represents all other hosts. */
function stockAddress(
  { interfaceIpv4 }: Tun2SocksPlatform,
  { netifIpaddr, netifNetmask, tundev }: Checked,
  nameField: NameField,
): InterfaceAddress {
  const mask = makeAddress(netifNetmask ?? "255.255.255.0", 0)!;
  const bits = [...mask.subarray(1, 5)].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const prefixLength = bits.lastIndexOf("1") + 1;
  if (bits.slice(0, prefixLength).includes("0")) throw wrong(nameField(["netifNetmask"]), "is not a netmask");
  const standing = interfaceIpv4(tundev ?? "");
  const found = parseInterfaceAddress(`${netifIpaddr}/${prefixLength}`);
  if (found === undefined) {
    throw wrong(nameField(["netifIpaddr"]), `is not a host address in a /${prefixLength} network`);
  }
  return { own: standing ?? found.peer, prefixLength, peer: found.own };
}

/** @returns undefined for an unknown number; a URL is added to `socks` */
function routeOf(text: string, socks: string[]): number | undefined {
  switch (text) {
    case "local:":
      return ROUTE_TUNNEL;
    case "direct":
      return ROUTE_DIRECT;
    case "reject":
      return ROUTE_REJECT;
    case "drop":
      return ROUTE_DROP;
    default: {
      const index = /^socks:(\d{1,2})$/.exec(text)?.[1];
      if (index === undefined) return ROUTE_SOCKS + socks.push(text) - 1;
      return Number(index) < socks.length ? ROUTE_SOCKS + Number(index) : undefined;
    }
  }
}

function isWay(text: string): boolean {
  return ["direct", "reject", "drop"].includes(text) || /^socks:\d{1,2}$/.test(text) || isSocksUrl(text);
}

function isSocksUrl(text: string): boolean {
  return /^socks5h?:/.test(text) && findHopProblem(text) === undefined;
}

function isDevice(text: string): boolean {
  if (text === "pipe:" || /^fd:\d{1,9}$/.test(text) || /^unix:./.test(text)) return true;
  return text.startsWith("tun:") && text.length <= 4 + MAX_NAME_BYTES && /^tun:[^\s/:]+$/.test(text);
}

function isCustomDevice(value: unknown): boolean {
  const device = value as Partial<CustomDevice> | null;
  return (
    typeof device === "object" && typeof device?.start === "function" && typeof device.write === "function"
  );
}
