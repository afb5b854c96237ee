import { isIP } from "node:net";
import { resolve } from "node:path";
import * as z from "zod";
import type { Filtering } from "../../core/server-associations.ts";
import { parseTargetRule } from "../../core/target-rule.ts";
import { endpointOf, isHostAndPort, parseEndpoint, rebaseEndpoint } from "../../host/addresses/endpoint.ts";
import { TargetPolicy } from "../../host/addresses/target-policy.ts";
import {
  findDialectsProblem,
  parseDialectListen,
  parseDialects,
  TOLD_DIALECT_NAMES,
} from "../../host/dialects/dialect-options.ts";
import type { IoKind } from "../../host/io/io.ts";
import { isExclusive, parseEgress, rebaseEgress } from "../../host/options/egress-option.ts";
import { ATYP_DOMAIN, makeAddress } from "../../wire/socket-address.ts";
import { parseShadowsocksListen } from "../shadowsocks-listen.ts";
import { isBareRelay } from "../udp-paths/socks5.ts";
import { findDecoyProblem, parseDecoy, rebaseDecoy } from "../web/decoy.ts";
import { isCarrierUrl, listenText } from "./addresses.ts";
import type { CommonOptions, Filled } from "./common.ts";
import { COMMON_FIELDS, MAX_PATH_PREFIX } from "./common.ts";
import type { NameField, OptionField } from "./fields.ts";
import { checkFields, integer, libraryName, MAX_COUNT, wrong } from "./fields.ts";

export interface UdpServerOptions extends CommonOptions {
  /**
   * Each `IP:PORT` or `unix:/path` to listen on, or `ss://` (SIP002) with an IP: a shadowsocks server, where a client that
   * asks for any of the others, or for 127.0.0.1:3456 if there is none, gets a tunnel. Without a key only loopback, Unix
   * sockets and `ss://`. Default 127.0.0.1:3456, or none where `shadowsocks` is given.
   */
  readonly listen?: readonly string[] | undefined;
  /** `ss://` (SIP002) to listen on, too. Default: none. */
  readonly shadowsocks?: string | undefined;
  /**
   * Where clients of `ss://` get to that ask for another target, which `allow` and `deny` have to permit: `direct`,
   * `socks5://[user:password@]host:port` or `off`. Default `off`: their connections end.
   */
  readonly ssRelay?: string | undefined;
  /** Listens anywhere without a key, so that anyone who reaches the server can send through it. Default false. */
  readonly insecureOpenRelay?: boolean | undefined;
  /** `CIDR[:ports]` that are permitted although the defaults deny them. Default: none. */
  readonly allow?: readonly string[] | undefined;
  /** `CIDR[:ports]` that are denied, regardless of `allow`. Default: none. */
  readonly deny?: readonly string[] | undefined;
  /**
   * Which senders an association accepts (RFC 4787 §5). A client of RFC 9298 that binds chooses itself. Default
   * address-dependent.
   */
  readonly filtering?: Filtering | undefined;
  /** How long a session without lanes keeps its sockets and may resume, 0 to 86,400 s. Default 60. */
  readonly lingerS?: number | undefined;
  /**
   * How datagrams leave: `sockets`; `socks5://[user:password@]host:port`, a server with UDP ASSOCIATE;
   * `socks5-udp://host:port`, a relay that needs none (`ss-local -U`); or IP packets to `tun2socks:WAY` (within the process;
   * WAY is its `udpVia`, default `direct`), to `unix:/path` (a tun2socks that listens there) or to
   * `exec:PROGRAM ARGUMENT...` (one that is started, with `--device pipe:`). The last two imply one thread. Default sockets.
   */
  readonly egress?: string | undefined;
  /**
   * IPs that targets see, at most one per family, which clients of RFC 9298 that bind get (Proxy-Public-Address). Default:
   * those of the interface that the client connected to.
   */
  readonly publicAddress?: readonly string[] | undefined;
  /**
   * Path, such as `/tunnel`, at which a WebSocket carries a tunnel's connection. Such sessions stay with the thread that
   * listens. Default: none.
   */
  readonly wsPath?: string | undefined;
  /**
   * Dialects of other UDP-over-TCP programs that are understood on all of `listen` but `ss://`, told by their first bytes:
   * `udptunnel`, `gnb`, `udpgw`, `hev`, `gost`, `uot`; each text may have several, with commas between them. `uot` also on
   * `ss://`. Their clients prove no key: loopback and Unix sockets only, unless `insecureOpenRelay`. `mullvad`, or any other,
   * may have a listener of its own, `mullvad://IP:PORT` in `listen`. Default: none.
   */
  readonly dialects?: readonly string[] | undefined;
  /**
   * `HOST:PORT` for the datagrams of udptunnel, mullvad and gnb, which have no addresses; `allow` and `deny` have to permit it.
   * Required for these.
   */
  readonly dialectTarget?: string | undefined;
  /**
   * What strangers see, instead of 404: a folder of files, or `http://HOST[:PORT][/PATH]` or `https://` of a web server to which
   * their requests are passed on. At most `maxHalfOpen` at a time. Default: none.
   */
  readonly decoy?: string | undefined;
  /**
   * Tunnels past their handshake. Past it, requests are answered with 503; past three quarters of it, those for one more lane of a
   * session. 1 to 1,000,000. Default 8,192.
   */
  readonly maxTunnels?: number | undefined;
  /** Connections within their handshake. Past it, the oldest is closed. 1 to 1,000,000. Default 256. */
  readonly maxHalfOpen?: number | undefined;
  /**
   * Past it, the session that has been without lanes longest ends; if all have lanes, requests are answered with 503.
   * 1 to 1,000,000. Default 1,024.
   */
  readonly maxSessions?: number | undefined;
  /**
   * Sessions without lanes that may resume. Past it, the one that has been without lanes longest ends. 0 to 1,000,000.
   * Default 256.
   */
  readonly maxLingering?: number | undefined;
  /**
   * Of the whole process, each with its UDP sockets. Past it, the session that has most loses its idlest one. 1 to
   * 1,000,000. Default 16,384.
   */
  readonly maxAssociations?: number | undefined;
  /**
   * Past it, the idlest that got no more than one answer ends; if there is none, the new one is refused. 1 to 1,000,000.
   * Default 4,096.
   */
  readonly maxAssociationsPerSession?: number | undefined;
  /**
   * Remote addresses of a session. Senders that the client did not register may take up to half, and are evicted for those
   * that it registers; past it, registrations are refused. 1 to 1,000,000. Default 65,536.
   */
  readonly maxContextsPerSession?: number | undefined;
  /** For the whole of a client's request, 100 to 60,000 ms. Default 5,000. */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Idle time after which an association ends, 1 to 86,400 s. Default 600. */
  readonly idleTimeoutS?: number | undefined;
}

/** All options with their defaults; all text is well-formed. */
export type ResolvedUdpServerOptions = Filled<
  Omit<UdpServerOptions, "shadowsocks">,
  "psk" | "io" | "wsPath" | "decoy" | "dialectTarget"
> & {
  readonly dialectTarget: string | undefined;
  readonly decoy: string | undefined;
  readonly wsPath: string | undefined;
  readonly io: IoKind | undefined;
  readonly psk: Uint8Array | undefined;
};

const SERVER_LISTEN = "127.0.0.1:3456";

export const UDP_SERVER_FIELDS = {
  listen: {
    schema: z
      .array(z.union([listenText, z.string().refine((text) => isOtherListen(text))]))
      .min(1)
      .optional(),
    expects:
      "IP:PORT, unix:/path, ss://METHOD:PASSWORD@IP:PORT[/?plugin=obfs-server;obfs=http] or DIALECT://IP:PORT to listen " +
      "on, such as 127.0.0.1:3456 or [::]:3456",
    flag: "listen",
    value: "ADDRESS",
    help: `IP:PORT, unix:/path, ss:// (shadowsocks) or DIALECT:// for tunnels (repeatable, default ${SERVER_LISTEN})`,
    isList: true,
    rebase: rebaseEndpoint,
  },
  shadowsocks: {
    schema: z.string().refine(isSsListen).optional(),
    expects: "a server's config.json, with an IP, and obfs-server as its plugin if any",
    flag: "ss-config",
    value: "FILE",
    help: "config.json of shadowsocks: listen as that server, too",
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
    help: "where clients of ss:// get to that ask for anything but the tunnel: off (default), direct or socks5://",
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
  egress: {
    schema: z.string().refine(isEgress).default("sockets"),
    expects:
      "sockets, socks5://[USER:PASSWORD@]HOST:PORT, tun2socks:[WAY], unix:/path or exec:PROGRAM ARGUMENT...",
    flag: "egress",
    value: "WAY",
    help: "how datagrams leave: sockets (default), socks5://, or as IP packets to tun2socks:, unix:/path or exec:",
    rebase: (text, inFolder) => rebaseEgress(text, inFolder, resolve),
  },
  publicAddress: {
    schema: z
      .array(z.string().refine((text) => isIP(text) !== 0 && !text.includes("%")))
      .refine((list) => list.length < 2 || (list.length === 2 && isIP(list[0]) !== isIP(list[1])))
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
    help: `other programs' clients to serve: ${TOLD_DIALECT_NAMES} (with commas; default none)`,
    isList: true,
  },
  dialectTarget: {
    schema: z.string().refine(isHostAndPort).optional(),
    expects: "HOST:PORT, such as 10.0.0.1:51820",
    flag: "dialect-target",
    value: "HOST:PORT",
    help: "where datagrams of udptunnel, mullvad and gnb go, which have no addresses",
  },
  decoy: {
    schema: z
      .string()
      .refine((text) => parseDecoy(text) !== undefined)
      .optional(),
    expects: "a folder, or http://HOST[:PORT][/PATH] or https:// of a web server",
    flag: "decoy",
    value: "URL|FOLDER",
    help: "what strangers see instead of 404: the files of a folder, or a web server",
    rebase: rebaseDecoy,
  },
  ...COMMON_FIELDS,
  maxTunnels: integer("max-tunnels", "N", "limit of tunnels", 1, MAX_COUNT, 8_192),
  maxHalfOpen: integer("max-half-open", "N", "limit of connections in their handshake", 1, MAX_COUNT, 256),
  maxSessions: integer("max-sessions", "N", "limit of sessions", 1, MAX_COUNT, 1_024),
  maxLingering: integer("max-lingering", "N", "limit of sessions without a connection", 0, MAX_COUNT, 256),
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
} satisfies Record<keyof UdpServerOptions, OptionField>;

/**
 * Fills the defaults in and checks every field, and that no open relay is made by mistake.
 *
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveUdpServerOptions(
  input: UdpServerOptions,
  nameField: NameField = libraryName,
): ResolvedUdpServerOptions {
  const { shadowsocks, ...rest } = checkFields(UDP_SERVER_FIELDS, input, nameField) as UdpServerOptions;
  const listed = rest.listen ?? (shadowsocks === undefined ? [SERVER_LISTEN] : []);
  const listen = shadowsocks === undefined ? listed : [...listed, shadowsocks];
  const options = { ...rest, listen } as ResolvedUdpServerOptions;
  if (options.psk === undefined && !options.insecureOpenRelay) {
    const index = options.listen.findIndex((text) => !isPrivateListen(text));
    if (index >= 0) {
      throw wrong(
        nameField(["listen", index]),
        `${options.listen[index]} would let anybody send through this server: give ` +
          `${nameField(["psk"])}, listen on loopback, or set ${nameField(["insecureOpenRelay"])}`,
      );
    }
  }
  checkDialects(options, nameField);
  const problem = options.decoy === undefined ? undefined : findDecoyProblem(options.decoy);
  if (problem !== undefined) throw wrong(nameField(["decoy"]), problem);
  return options;
}

/** @throws UsageError ERR_OPTION when strangers could use a dialect, or it has no target */
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
    throw wrong(name, `dialects do not leave by ${nameField(["egress"])} ${egress.split(":", 1)[0]}:`);
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

/** True for an address whose clients are no strangers: of this machine, or with a password. */
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
  return endpointOf(text)?.path !== undefined || isSsListen(text);
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
