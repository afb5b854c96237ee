import * as z from "zod";
import { parseTargetRule } from "../../../core/target-rule.ts";
import { ATYP_DOMAIN, makeAddress } from "../../../wire/socket-address.ts";
import {
  endpointOf,
  ipFamily,
  isHostAndPort,
  parseEndpoint,
  rebaseEndpoint,
} from "../../addresses/endpoint.ts";
import { parseInherited } from "../../addresses/inherited.ts";
import { TargetPolicy } from "../../addresses/target-policy.ts";
import { parseDialectListen } from "../../dialects/dialect-listen.ts";
import { findDialectsProblem, parseDialects, TOLD_DIALECT_NAMES } from "../../dialects/dialect-options.ts";
import { isBareRelay } from "../../udp-paths/socks5.ts";
import { isCarrierUrl, listenText } from "../addresses.ts";
import { isExclusive, parseEgress } from "../egress-option.ts";
import { KEYS_EXPECTS, KEYS_SCHEMA } from "../keys.ts";
import { parseShadowsocksListen } from "../shadowsocks-listen.ts";
import type { ResolvedUdpServerOptions, UdpServerOptions } from "../udp-server.ts";
import { COMMON_FIELDS, MAX_PATH_PREFIX } from "./common-fields.ts";
import type { NameField, OptionField, OptionFields } from "./fields.ts";
import { checkFields, integer, libraryName, MAX_COUNT, wrong } from "./fields.ts";

const SERVER_LISTEN = "127.0.0.1:3456";

/** The parts that only the surrounding program has, or can check. */
export interface UdpServerPlatform {
  /** {@link UDP_SERVER_FIELDS}, and those of the surrounding program. */
  readonly fields: OptionFields;
  /** @returns the problem with a decoy's folder; undefined if there is none */
  findDecoyProblem(decoy: string): string | undefined;
}

export const UDP_SERVER_FIELDS = {
  listen: {
    schema: z
      .array(z.union([listenText, z.string().refine((text) => isOtherListen(text))]))
      .min(1)
      .optional(),
    expects:
      "IP:PORT, unix:/path, fd:NAME, ss://METHOD:PASSWORD@IP:PORT[/?plugin=obfs-server;obfs=http] or DIALECT://IP:PORT to listen " +
      "on, such as 127.0.0.1:3456 or [::]:3456",
    flag: "listen",
    value: "ADDRESS",
    help:
      "IP:PORT, unix:/path, fd:NAME (systemd's sockets of that name), ss:// (shadowsocks) or DIALECT:// for tunnels " +
      `(repeatable, default ${SERVER_LISTEN})`,
    isList: true,
    rebase: rebaseEndpoint,
  },
  shadowsocks: {
    schema: z.string().refine(isSsListen).optional(),
    expects: "a server's config.json, with an IP, and obfs-server as its plugin if any",
    flag: "ss-config",
    value: "FILE",
    help: "config.json of shadowsocks: also listen as that server",
    isSecretFile: true,
  },
  ssRelay: {
    schema: z
      .string()
      .refine(
        (text) => text === "off" || text === "direct" || (/^socks5h?:/.test(text) && isCarrierUrl(text)),
      )
      .default("off"),
    expects: "off, direct or socks5://[USER:PASSWORD@]HOST:PORT (percent-encoded)",
    flag: "ss-relay",
    value: "WAY",
    help: "way to the other targets of ss:// clients: off (default), direct or socks5://",
  },
  keys: {
    schema: KEYS_SCHEMA.optional(),
    expects: KEYS_EXPECTS,
    flag: "keys",
    value: "FILE",
    help: "JSON file with the keys of single clients, reloaded on SIGHUP (docs/operate/keys.md)",
    isSecretFile: true,
  },
  insecureOpenRelay: {
    schema: z.boolean().default(false),
    expects: "true or false",
    flag: "insecure-open-relay",
    help: "listen anywhere without a key, so that anyone can send through this server",
  },
  allow: {
    schema: z.array(targetRule()).default([]),
    expects: "CIDR[:ports], such as 10.0.0.0/8:53,1000-2000 or [2001:db8::/32]:53",
    flag: "allow",
    value: "CIDR[:PORTS]",
    help: "permit targets that are denied by default, such as 10.0.0.0/8:53 (repeatable)",
    isList: true,
  },
  deny: {
    schema: z.array(targetRule()).default([]),
    expects: "CIDR[:ports], such as 10.0.0.0/8:53,1000-2000 or [2001:db8::/32]:53",
    flag: "deny",
    value: "CIDR[:PORTS]",
    help: "deny targets, before any --allow (repeatable)",
    isList: true,
  },
  filtering: {
    schema: z
      .enum(["endpoint-independent", "address-dependent", "address-and-port-dependent"])
      .default("address-dependent"),
    expects: "endpoint-independent, address-dependent or address-and-port-dependent",
    flag: "filtering",
    value: "MODE",
    help: "accepted senders, RFC 4787: endpoint-independent, address-dependent (default) or address-and-port-dependent",
  },
  lingerS: integer("linger", "S", "how long a session without a connection may resume", 0, 86_400, 60),
  serverId: {
    schema: z
      .int()
      .min(0)
      .max(2 ** 24 - 1)
      .optional(),
    expects: "an integer from 0 to 16777215",
    flag: "server-id",
    value: "N",
    help: "number of this server behind a load balancer, shown in the ids of its sessions",
    isNumber: true,
  },
  drainS: integer(
    "drain",
    "S",
    "how long to wait on shutdown for clients to move to another server",
    0,
    600,
    0,
  ),
  egress: {
    schema: z.string().refine(isEgress).default("sockets"),
    expects:
      "sockets, socks5://[USER:PASSWORD@]HOST:PORT, tun2socks:[WAY], unix:/path or exec:PROGRAM ARGUMENT...",
    flag: "egress",
    value: "WAY",
    help: "how datagrams leave: sockets (default), socks5://, or as IP packets to tun2socks:, unix:/path or exec:",
  },
  publicAddress: {
    schema: z
      .array(z.string().refine((text) => ipFamily(text) !== undefined && !text.includes("%")))
      .refine((list) => list.length < 2 || (list.length === 2 && ipFamily(list[0]) !== ipFamily(list[1])))
      .default([]),
    expects: "an IPv4 address, an IPv6 address, or one of each, without a zone",
    flag: "public-address",
    value: "IP",
    help: "address that targets see, for clients that bind (repeatable, one per family)",
    isList: true,
  },
  wsPath: {
    schema: z
      .string()
      .regex(/^\/[\w.~!$&'()*+,;=:@%/-]*$/)
      .max(MAX_PATH_PREFIX)
      .optional(),
    expects: "a path, such as /tunnel",
    flag: "ws-path",
    value: "PATH",
    help: "path at which WebSockets carry tunnels, such as /tunnel",
  },
  dialects: {
    schema: z
      .array(
        z.string().superRefine((text, context) => {
          const problem = findDialectsProblem(text);
          if (problem !== undefined) context.addIssue({ code: "custom", params: { problem } });
        }),
      )
      .default([]),
    expects: `names from ${TOLD_DIALECT_NAMES}`,
    flag: "dialects",
    value: "NAMES",
    help: `clients of other programs to serve: ${TOLD_DIALECT_NAMES} (separated by commas; default none)`,
    isList: true,
  },
  dialectTarget: {
    schema: z.string().refine(isHostAndPort).optional(),
    expects: "HOST:PORT, such as 10.0.0.1:51820",
    flag: "dialect-target",
    value: "HOST:PORT",
    help: "target of datagrams of udptunnel, mullvad and gnb, which have no addresses",
  },
  ...COMMON_FIELDS,
  maxTunnels: integer("max-tunnels", "N", "limit of tunnels", 1, MAX_COUNT, 8_192),
  maxHalfOpen: integer("max-half-open", "N", "limit of connections in their handshake", 1, MAX_COUNT, 256),
  maxSessions: integer("max-sessions", "N", "limit of sessions", 1, MAX_COUNT, 1_024),
  maxLingering: integer("max-lingering", "N", "limit of sessions without a connection", 0, MAX_COUNT, 1_024),
  maxAssociations: integer("max-associations", "N", "limit of associations", 1, MAX_COUNT, 16_384),
  maxAssociationsPerSession: integer(
    "max-associations-per-session",
    "N",
    "limit of one session's associations",
    1,
    MAX_COUNT,
    4_096,
  ),
  maxContextsPerSession: integer(
    "max-contexts",
    "N",
    "limit of one session's remote addresses",
    1,
    MAX_COUNT,
    65_536,
  ),
  handshakeTimeoutMs: integer("handshake-timeout-ms", "MS", "deadline of a handshake", 100, 60_000, 5_000),
  idleTimeoutS: integer("idle-timeout", "S", "idle time after which an association ends", 1, 86_400, 600),
} satisfies Record<Exclude<keyof UdpServerOptions, "decoy" | "keepSessions">, OptionField>;

/**
 * Fills the defaults in, checks every field, and prevents an open relay by mistake.
 *
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveUdpServer(
  platform: UdpServerPlatform,
  input: UdpServerOptions,
  nameField: NameField = libraryName,
): ResolvedUdpServerOptions {
  const { shadowsocks, ...rest } = checkFields(platform.fields, input, nameField) as UdpServerOptions;
  const listed = rest.listen ?? (shadowsocks === undefined ? [SERVER_LISTEN] : []);
  const listen = shadowsocks === undefined ? listed : [...listed, shadowsocks];
  const options = { ...rest, listen } as ResolvedUdpServerOptions;
  if (options.psk === undefined && options.keys === undefined && !options.insecureOpenRelay) {
    const index = options.listen.findIndex((text) => !isPrivateListen(text));
    if (index >= 0) {
      throw wrong(
        nameField(["listen", index]),
        `${options.listen[index]} would let anybody send through this server: give ` +
          `${nameField(["psk"])} or ${nameField(["keys"])}, listen on loopback, or set ${nameField(["insecureOpenRelay"])}`,
      );
    }
  }
  checkDialects(options, nameField);
  if (options.keepSessions) checkKeepSessions(options, nameField);
  const problem = options.decoy === undefined ? undefined : platform.findDecoyProblem(options.decoy);
  if (problem !== undefined) throw wrong(nameField(["decoy"]), problem);
  return options;
}

/** @throws UsageError ERR_OPTION when sessions cannot be kept, or clients should move elsewhere */
function checkKeepSessions({ egress, drainS }: ResolvedUdpServerOptions, nameField: NameField): void {
  const name = nameField(["keepSessions"]);
  if (egress !== "sockets") {
    throw wrong(name, `only sockets can be kept, and ${nameField(["egress"])} is ${egress.split(":", 1)[0]}`);
  }
  if (drainS !== undefined && drainS > 0) {
    throw wrong(
      name,
      `cannot be combined with ${nameField(["drainS"])}, which moves clients to another server`,
    );
  }
}

/** @throws UsageError ERR_OPTION when strangers could use a dialect, or a dialect has no target */
function checkDialects(options: ResolvedUdpServerOptions, nameField: NameField): void {
  const { listen, dialects, dialectTarget, insecureOpenRelay, allow, deny, egress } = options;
  const own = listen.map(parseDialectListen);
  const used = [
    ...dialects.flatMap((text) => parseDialects(text)!),
    ...own.flatMap((each) => each?.dialect ?? []),
  ];
  if (used.length === 0) return;
  const name = dialects.length > 0 ? nameField(["dialects"]) : nameField(["listen", own.findIndex(Boolean)]);
  const isOpen = (text: string, index: number) =>
    !isPrivateListen(text) && (dialects.length > 0 || own[index] !== undefined);
  const open = insecureOpenRelay ? undefined : listen.find(isOpen);
  if (open !== undefined) {
    throw wrong(
      name,
      `a dialect proves no key, and anybody could send through ${open}: listen on loopback, or set ` +
        `${nameField(["insecureOpenRelay"])}`,
    );
  }
  if (isExclusive(parseEgress(egress)!)) {
    throw wrong(name, `dialects cannot use ${nameField(["egress"])} ${egress.split(":", 1)[0]}:`);
  }
  const bare = used.find(({ addresses }) => addresses === "none");
  if (bare !== undefined && dialectTarget === undefined) {
    throw wrong(name, `${bare.name} has no addresses: give ${nameField(["dialectTarget"])}`);
  }
  const target = dialectTarget === undefined ? undefined : parseEndpoint(dialectTarget);
  const address = target?.path === undefined && target && makeAddress(target.host, target.port);
  if (address && address[0] !== ATYP_DOMAIN && !new TargetPolicy(allow, deny).permits(address)) {
    throw wrong(nameField(["dialectTarget"]), `${dialectTarget} is denied: see ${nameField(["allow"])}`);
  }
}

/** True for an address that strangers cannot use: on this machine, or with a password. */
function isPrivateListen(text: string): boolean {
  if (text.startsWith("ss:")) return true;
  const endpoint = parseEndpoint(parseDialectListen(text)?.listen ?? text);
  if (endpoint.path !== undefined) return true;
  return /^127\./.test(endpoint.host) || makeAddress(endpoint.host, 0)?.toString() === LOOPBACK6;
}

const LOOPBACK6 = makeAddress("::1", 0)?.toString();

function isSsListen(text: string): boolean {
  return parseShadowsocksListen(text) !== undefined;
}

function isOtherListen(text: string): boolean {
  if (parseDialectListen(text) !== undefined) return true;
  return endpointOf(text)?.path !== undefined || isSsListen(text) || parseInherited(text) !== undefined;
}

function isEgress(text: string): boolean {
  const egress = parseEgress(text);
  if (egress?.kind === "socks5") return isSocksWay(egress.url);
  if (egress?.kind === "tun2socks") {
    return ["direct", "reject", "drop"].includes(egress.udpVia) || isSocksWay(egress.udpVia);
  }
  return egress !== undefined;
}

function isSocksWay(url: string): boolean {
  return isBareRelay(url) || (/^socks5h?:/.test(url) && isCarrierUrl(url));
}

function targetRule(): z.ZodType {
  return z.string().refine((text) => parseTargetRule(text) !== undefined);
}
