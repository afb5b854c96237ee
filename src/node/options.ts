import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import * as z from "zod";
import { UsageError } from "../core/errors.ts";
import { isDscpRule, parseLatencyRule } from "../core/latency-rules.ts";
import type { Filtering } from "../core/server-associations.ts";
import { parseTargetRule } from "../core/target-rule.ts";
import type { LatencyClass } from "../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../wire/latency-class.ts";
import { ATYP_IPV6, isUnspecified, makeAddress } from "../wire/socket-address.ts";
import { findTlsProblem, isBehindProxy } from "./carrier-chain.ts";
import { findHopProblem, rebaseHop, redactUrl } from "./carriers/hop.ts";
import { parseEgress, rebaseEgress } from "./egress-option.ts";
import type { Endpoint, InFolder } from "./endpoint.ts";
import { formatEndpoint, parseEndpoint, rebaseEndpoint, splitZone } from "./endpoint.ts";
import type { IoKind } from "./io.ts";
import { parseShadowsocksListen } from "./shadowsocks-listen.ts";
import { parseUdpPorts } from "./socks5/udp-ports.ts";
import { isBareRelay } from "./udp-paths/socks5.ts";
import { findDecoyProblem, parseDecoy, rebaseDecoy } from "./web/decoy.ts";

/** A fixed forward. */
export interface ForwardOptions {
  /**
   * `IP:PORT` of the UDP socket that applications send to; port 0 lets the system choose. If it is bound to any address, it
   * answers from the one that was asked; with plain I/O, and on Windows, from the one that routing chooses.
   */
  readonly listen: string;
  /** `HOST:PORT` of the target; the server resolves a domain name. */
  readonly target: string;
  /**
   * True to pass on datagrams from other ports of the target's host as the target's; otherwise they are dropped and counted
   * as `foreign_source`. Default false.
   */
  readonly anyPort?: boolean | undefined;
}

/** Name and password of SOCKS5 (RFC 1929); each 1 to 255 bytes of UTF-8. */
export interface SocksCredentials {
  readonly user: string;
  readonly password: string;
}

/** Makes the connection of one lane: any stream that carries bytes both ways in order. */
export type Carrier = () => Duplex | Promise<Duplex>;

/** Options of both ends. */
export interface CommonOptions {
  /** Pre-shared key, the same at both ends; at least 16 bytes. Default: none. */
  readonly psk?: Uint8Array | undefined;
  /**
   * Datagrams that were held up longer are dropped: in a send queue, or on their way behind a lost segment, beyond TCP's repairs of
   * it. 1 to 60,000 ms. Default 100.
   */
  readonly ageBudgetMs?: number | undefined;
  /**
   * Bound in bytes of what waits to be sent, on a lane or in a session with receipts. Past it, the association that has most waiting loses its oldest datagram.
   * 128 KiB to 1 GiB. Default 1 MiB.
   */
  readonly queueBytes?: number | undefined;
  /** Time between heartbeats; a lane is dead after 3 without an answer. 100 to 60,000 ms. Default 5,000. */
  readonly heartbeatMs?: number | undefined;
  /**
   * `native`: batched, by the module in native/, which is then required. `plain`: node:dgram and node:net. Default: the
   * environment variable UNDERPASS_IO, else native if the module can be loaded.
   */
  readonly io?: IoKind | undefined;
  /**
   * `interactive`: after datagrams the thread polls for some tens of microseconds before it sleeps, which saves it the time
   * to wake up and costs CPU. `bulk`: sockets are read at most once a millisecond or so, which saves CPU and costs that delay.
   * Native I/O on Linux only. Default balanced: neither.
   */
  readonly latency?: LatencyClass | undefined;
  /** True if listening on `[::]` excludes IPv4. Default false: `[::]` means every address of both families. */
  readonly ipv6Only?: boolean | undefined;
  /**
   * Threads, including the caller's. Each has its own sessions, and the bounds below apply to each. Native I/O only. 1 to
   * 256. Default 1; for the program udp-server one per core.
   */
  readonly workers?: number | undefined;
}

export interface UdpLocalOptions extends CommonOptions {
  /** `IP:PORT` of the SOCKS5 server, false for none. Default 127.0.0.1:1234, or none when there are forwards. */
  readonly listen?: string | false | undefined;
  /** `HOST:PORT` or `unix:/path` of udp-server, as the last carrier reaches it. Default 127.0.0.1:3456. */
  readonly server?: string | undefined;
  /** Prefix that a reverse proxy before the server requires in the path, such as `/tunnel`. Default: none. */
  readonly pathPrefix?: string | undefined;
  /**
   * Carriers on the way to the server, nearest first: `socks5://`, `http://` (CONNECT; `?header=Name:%20value` adds a field
   * to the request), `ss://` (SIP002), `tls://`, `ws://` and `wss://`, which lead to the udp-server behind them, `unix:`.
   * Default: a direct TCP connection.
   */
  readonly via?: readonly string[] | undefined;
  /**
   * `ss://` of a shadowsocks server (SIP002): the last carrier of `via`, and what `tcpVia` is unless it is given. Default:
   * none.
   */
  readonly shadowsocks?: string | undefined;
  /** Connects lanes instead of `via` and `server`. */
  readonly carrier?: Carrier | undefined;
  /** Default: none. */
  readonly forwards?: readonly ForwardOptions[] | undefined;
  /** `socks5://[user:password@]host:port` or `ss://` for the CONNECT requests. Default: they are connected directly. */
  readonly tcpVia?: string | undefined;
  /** Name of the interface for lanes and direct connections; native I/O only. Default: as routing decides. */
  readonly outInterface?: string | undefined;
  /** Mark (SO_MARK) of lanes and direct connections, 1 to 2^32 - 1; native I/O on Linux only. Default 0: none. */
  readonly outMark?: number | undefined;
  /** Name and password that SOCKS5 clients must present. Default: none. */
  readonly socksAuth?: SocksCredentials | undefined;
  /**
   * IPs, at most one per family, to which SOCKS5 clients of that family send datagrams, instead of the address of their
   * connection: for a server behind a NAT. Not used for clients on loopback. Default: none.
   */
  readonly socksAdvertise?: readonly string[] | undefined;
  /**
   * UDP ports of the SOCKS5 server: `FROM-TO`, one for each association, which is refused if none is free, or `PORT`,
   * shared by all associations, with one worker; the README has what this means for clients that share an IP. Default: the
   * system chooses.
   */
  readonly socksUdpPorts?: string | undefined;
  /**
   * Accepts a SOCKS5 client's datagrams only from the port that it named or first sent from. Default false: a client is
   * followed when its port changes, as behind a NAT.
   */
  readonly socksUdpStrict?: boolean | undefined;
  /**
   * `CLASS:MATCH` each, first match: the latency class of datagrams to targets, at both ends, where MATCH is `PORTS` or
   * `CIDR[:PORTS]`, such as `interactive:3478,5000-5010` or `bulk:10.0.0.0/8`, or, for tun2socks alone, `dscp=N[,N]`: the DSCP of
   * the application's packets, 0 to 63, such as `interactive:dscp=46`. Names match only rules without CIDR. An
   * association has the class of its most sensitive target, and a socket or device that several share that of the most sensitive
   * association. Default: all have `latency`.
   */
  readonly latencyRules?: readonly string[] | undefined;
  /** TCP connections of the session, 1 to 16; "auto": as many as help, up to 16, and 1 where the path is short. Default auto. */
  readonly lanes?: number | "auto" | undefined;
  /** Past it the idlest association of a forward ends, or a new one is refused; 1 to 1,000,000. Default 4,096. */
  readonly maxAssociations?: number | undefined;
  /**
   * Remote addresses in use at the same time. Past it, those that only the server registered are released, then those that
   * have been unused for long; else datagrams to a new address are dropped. 1 to 1,000,000. Default 65,536.
   */
  readonly maxContexts?: number | undefined;
  /** Idle time after which a forward's association ends, 1 to 86,400 s. Default 60. */
  readonly idleTimeoutS?: number | undefined;
  /** The same for associations that got more than one answer, 1 to 86,400 s and at least `idleTimeoutS`. Default 300. */
  readonly activeIdleTimeoutS?: number | undefined;
}

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

type Filled<Options, Absent extends keyof Options> = Readonly<Required<Omit<Options, Absent>>>;

/** All options with their defaults; all text is well-formed. */
export type ResolvedUdpLocalOptions = Filled<
  UdpLocalOptions,
  | "psk"
  | "listen"
  | "pathPrefix"
  | "carrier"
  | "tcpVia"
  | "shadowsocks"
  | "socksAuth"
  | "socksUdpPorts"
  | "io"
  | "outInterface"
> & {
  readonly outInterface: string | undefined;
  readonly io: IoKind | undefined;
  readonly psk: Uint8Array | undefined;
  readonly listen: string | false;
  readonly pathPrefix: string | undefined;
  readonly carrier: Carrier | undefined;
  readonly tcpVia: string | undefined;
  readonly shadowsocks: string | undefined;
  readonly socksAuth: SocksCredentials | undefined;
  readonly socksUdpPorts: string | undefined;
};

/** All options with their defaults; all text is well-formed. */
export type ResolvedUdpServerOptions = Filled<
  Omit<UdpServerOptions, "shadowsocks">,
  "psk" | "io" | "wsPath" | "decoy"
> & {
  readonly decoy: string | undefined;
  readonly wsPath: string | undefined;
  readonly io: IoKind | undefined;
  readonly psk: Uint8Array | undefined;
};

/** How one option is checked, and how programs take it. */
export interface OptionField {
  /** Checks the library's value, and gives the default. */
  readonly schema: z.ZodType;
  /** What a good value is, for messages. */
  readonly expects: string;
  /** Name of the flag and of the member of a config file; undefined for options of the library alone. */
  readonly flag?: string;
  /** Stands for the value in `--help`; undefined for a switch. */
  readonly value?: string;
  readonly help?: string;
  /** The flag may be repeated; a config file has an array. */
  readonly isList?: boolean;
  readonly isNumber?: boolean;
  /** Programs take the path of a file that holds the value. The value is never shown. */
  readonly isSecretFile?: boolean;
  /** Rewrites the paths of files in one text of the value; undefined where there are none. */
  readonly rebase?: (text: string, inFolder: InFolder) => string;
}

export type OptionFields = Readonly<Record<string, OptionField>>;

/** A number with a default. */
export function integer(
  flag: string,
  value: string,
  help: string,
  low: number,
  high: number,
  fallback: number,
): OptionField {
  const expects = `an integer from ${low} to ${high}`;
  return {
    schema: z.int().min(low).max(high).default(fallback),
    expects,
    flag,
    value,
    help: `${help} (default ${fallback})`,
    isNumber: true,
  };
}

const MAX_COUNT = 1_000_000;
const MAX_LANES = 16;
const MIN_PSK_BYTES = 16;
const MAX_PATH_PREFIX = 1_000;
const MAX_SOCKS_FIELD_BYTES = 255;
const LOCAL_LISTEN = "127.0.0.1:1234";
const SERVER_LISTEN = "127.0.0.1:3456";

const COMMON_FIELDS = {
  psk: {
    schema: z
      .instanceof(Uint8Array)
      .refine((key) => key.length >= MIN_PSK_BYTES)
      .optional(),
    expects: `a key of at least ${MIN_PSK_BYTES} bytes`,
    flag: "psk-file",
    value: "FILE",
    help: "file with the pre-shared key, at least 16 bytes, the same at both ends",
    isSecretFile: true,
  },
  ageBudgetMs: integer(
    "age-budget-ms",
    "MS",
    "drop datagrams that were held up longer, in milliseconds",
    1,
    60_000,
    100,
  ),
  queueBytes: integer(
    "queue-bytes",
    "N",
    "size limit in bytes of what waits to be sent, on a lane or in a session with receipts",
    131_072,
    2 ** 30,
    1_048_576,
  ),
  heartbeatMs: integer("heartbeat-ms", "MS", "time between heartbeats", 100, 60_000, 5_000),
  io: {
    schema: z.enum(["native", "plain"]).optional(),
    expects: "native or plain",
    flag: "io",
    value: "KIND",
    help: "native (batched) or plain (default: native if its module was built)",
  },
  latency: {
    schema: z.enum(LATENCY_CLASSES).default("balanced"),
    expects: "interactive, balanced or bulk",
    flag: "latency",
    value: "CLASS",
    help: "interactive (polls before it sleeps), balanced (default) or bulk (waits up to 1 ms to fill a batch)",
  },
  ipv6Only: {
    schema: z.boolean().default(false),
    expects: "true or false",
    flag: "ipv6-only",
    help: "listening on [::] excludes IPv4",
  },
  workers: {
    schema: z.int().min(1).max(256).default(1),
    expects: "an integer from 1 to 256",
    flag: "workers",
    value: "N",
    help: "threads, with native I/O (default: udp-server one per core, udp-local 1)",
    isNumber: true,
  },
} satisfies Record<keyof CommonOptions, OptionField>;

const listenText = z.string().transform((text, issues) => {
  const endpoint = endpointOf(text);
  const host = endpoint === undefined || endpoint.path !== undefined ? undefined : listenHost(endpoint.host);
  if (endpoint?.path !== undefined || host === undefined) {
    issues.addIssue({ code: "custom" });
    return z.NEVER;
  }
  return formatEndpoint(host, (endpoint as { port: number }).port);
});

const forward = z.preprocess(
  (value) => (typeof value === "string" ? splitForward(value) : value),
  z.strictObject({
    listen: listenText,
    target: z.string().refine(isHostAndPort),
    anyPort: z.boolean().default(false),
  }),
);

export const UDP_LOCAL_FIELDS = {
  listen: {
    schema: z.union([z.literal(false), listenText]).optional(),
    expects: "IP:PORT to listen on, such as 127.0.0.1:1234 or [::1]:1234",
    flag: "listen",
    value: "HOST:PORT",
    help: `SOCKS5 server for applications (default ${LOCAL_LISTEN}; off when only --forward is given)`,
  },
  server: {
    schema: z.string().refine(isServer).default(SERVER_LISTEN),
    expects: "HOST:PORT, [IPv6]:PORT or unix:/path of udp-server",
    flag: "server",
    value: "ADDRESS",
    help: `HOST:PORT or unix:/path of udp-server (default ${SERVER_LISTEN})`,
    rebase: rebaseEndpoint,
  },
  pathPrefix: {
    schema: z
      .string()
      .regex(/^(?:\/[\w.~!$&'()*+,;=:@%-]+)*\/?$/)
      .max(MAX_PATH_PREFIX)
      .transform((path) => path.replace(/\/$/, ""))
      .optional(),
    expects: "a path, such as /tunnel",
    flag: "path-prefix",
    value: "PATH",
    help: "path under which a reverse proxy serves the server, such as /tunnel",
  },
  via: {
    schema: z.array(hop()).default([]),
    expects:
      "socks5:// or http://[USER:PASSWORD@]HOST:PORT (percent-encoded), the latter with ?header=Name:%20value, " +
      "ss://METHOD:PASSWORD@HOST:PORT[/?plugin=...] (SIP002), unix:/path, ws:// or wss://HOST[:PORT]/PATH with ?host=, " +
      "header=Name:%20value and, for wss://, sni=, ca=, cert= and key=, insecure=1, or tls://[HOST:PORT] with ?servername=, ca=, cert= and key=, insecure=1",
    flag: "via",
    value: "URL",
    help: "carrier on the way to the server: socks5://, http://, ss://, tls://, ws://, wss:// or unix: (repeatable, nearest first)",
    isList: true,
    rebase: rebaseHop,
  },
  shadowsocks: {
    schema: tcpProxy(() => false).optional(),
    expects: "ss://METHOD:PASSWORD@HOST:PORT[/?plugin=...] (SIP002)",
    flag: "ss-config",
    value: "FILE",
    help: "config.json of shadowsocks: carries lanes as the last --via, and TCP unless --tcp-via is given",
    isSecretFile: true,
  },
  carrier: {
    schema: z.custom<Carrier>((value) => typeof value === "function").optional(),
    expects: "a function that gives a Duplex",
  },
  forwards: {
    schema: z.array(forward).default([]),
    expects: "LISTEN=TARGET[,any-port], such as 127.0.0.1:5353=9.9.9.9:53",
    flag: "forward",
    value: "LISTEN=TARGET",
    help:
      "fixed forward, such as 127.0.0.1:5353=9.9.9.9:53; with ,any-port behind it also what other ports of the target " +
      "answer (repeatable)",
    isList: true,
  },
  tcpVia: {
    schema: tcpProxy((url) => /^socks5h?:/.test(url) && isCarrierUrl(url)).optional(),
    expects:
      "socks5://[USER:PASSWORD@]HOST:PORT (percent-encoded) or ss://METHOD:PASSWORD@HOST:PORT (SIP002)",
    flag: "tcp-via",
    value: "URL",
    help: "SOCKS5 or shadowsocks server for CONNECT requests: socks5:// or ss:// (default: direct)",
  },
  outInterface: {
    schema: z
      .string()
      .regex(/^[^\s/]{1,15}$/)
      .optional(),
    expects: "the name of an interface",
    flag: "out-interface",
    value: "NAME",
    help: "interface for lanes and direct connections (native I/O)",
  },
  outMark: integer(
    "out-mark",
    "N",
    "mark of lanes and direct connections, for ip rule (Linux, native I/O)",
    0,
    2 ** 32 - 1,
    0,
  ),
  socksAuth: {
    schema: z.strictObject({ user: socksText(), password: socksText() }).optional(),
    expects: "USER:PASSWORD, each 1 to 255 bytes",
    flag: "socks-auth-file",
    value: "FILE",
    help: "file with one line USER:PASSWORD that SOCKS5 clients must present",
    isSecretFile: true,
  },
  socksAdvertise: {
    schema: z
      .array(z.string().refine(isUnicastIp))
      .refine((list) => list.length < 2 || (list.length === 2 && isIP(list[0]) !== isIP(list[1])))
      .default([]),
    expects: "an IPv4 address, an IPv6 address, or one of each, without a zone",
    flag: "socks-advertise",
    value: "IP",
    help: "address to which SOCKS5 clients send UDP (repeatable, one of each family; default: that of their connection)",
    isList: true,
  },
  socksUdpPorts: {
    schema: z
      .string()
      .refine((text) => parseUdpPorts(text) !== undefined)
      .optional(),
    expects: "FROM-TO or PORT, from 1 to 65535",
    flag: "socks-udp-ports",
    value: "PORTS",
    help: "UDP ports of the SOCKS5 server: FROM-TO, one per association, or PORT, shared (default: any)",
  },
  socksUdpStrict: {
    schema: z.boolean().default(false),
    expects: "true or false",
    flag: "socks-udp-strict",
    help: "do not follow SOCKS5 clients whose UDP port changes",
  },
  latencyRules: {
    schema: z.array(z.string().refine((text) => parseLatencyRule(text) !== undefined)).default([]),
    expects: "CLASS:PORTS or CLASS:CIDR[:PORTS], such as interactive:3478 or bulk:10.0.0.0/8",
    flag: "latency-rule",
    value: "CLASS:MATCH",
    help: "latency class of targets, PORTS or CIDR[:PORTS], and in tun2socks of dscp=N[,N] (repeatable, first match)",
    isList: true,
  },
  lanes: {
    schema: z.union([z.literal("auto"), z.int().min(1).max(MAX_LANES)]).default("auto"),
    expects: `auto or an integer from 1 to ${MAX_LANES}`,
    flag: "lanes",
    value: "N",
    help: "TCP connections of the session, or auto: as many as help (default auto)",
    isNumber: true,
  },
  ...COMMON_FIELDS,
  maxAssociations: integer("max-associations", "N", "limit of associations", 1, MAX_COUNT, 4_096),
  maxContexts: integer("max-contexts", "N", "limit of remote addresses in use", 1, MAX_COUNT, 65_536),
  idleTimeoutS: integer(
    "idle-timeout",
    "S",
    "idle time after which a forward's association ends",
    1,
    86_400,
    60,
  ),
  activeIdleTimeoutS: integer(
    "active-idle-timeout",
    "S",
    "the same for associations that got more than one answer",
    1,
    86_400,
    300,
  ),
} satisfies Record<keyof UdpLocalOptions, OptionField>;

export const UDP_SERVER_FIELDS = {
  listen: {
    schema: z
      .array(
        z.union([
          listenText,
          z.string().refine((text) => endpointOf(text)?.path !== undefined || isSsListen(text)),
        ]),
      )
      .min(1)
      .optional(),
    expects:
      "IP:PORT, unix:/path or ss://METHOD:PASSWORD@IP:PORT[/?plugin=obfs-server;obfs=http] to listen on, such as " +
      "127.0.0.1:3456 or [::]:3456",
    flag: "listen",
    value: "ADDRESS",
    help: `IP:PORT, unix:/path or ss:// (shadowsocks) for tunnels (repeatable, default ${SERVER_LISTEN})`,
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
    rebase: rebaseEgress,
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

/** Names a wrong field for the user. @param path  in the library's options */
export type NameField = (path: readonly PropertyKey[]) => string;

/**
 * Fills the defaults in and checks every field.
 *
 * @param hasRelay  whether datagrams come from elsewhere too, so that it need not listen
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveUdpLocalOptions(
  input: UdpLocalOptions,
  nameField: NameField = libraryName,
  hasRelay = false,
): ResolvedUdpLocalOptions {
  const options = withShadowsocks(checkFields(UDP_LOCAL_FIELDS, input, nameField) as ResolvedUdpLocalOptions);
  const hasForwards = options.forwards.length > 0;
  const listen = options.listen ?? (hasForwards || hasRelay ? false : LOCAL_LISTEN);
  if (listen === false && !hasForwards && !hasRelay) {
    throw wrong(nameField(["listen"]), "is off and there are no forwards: give at least one of them");
  }
  const isSocksOption = options.socksAdvertise.length > 0 || options.socksUdpPorts !== undefined;
  if (listen === false && isSocksOption) {
    const name = options.socksUdpPorts === undefined ? "socksAdvertise" : "socksUdpPorts";
    throw wrong(nameField([name]), `there is no SOCKS5 server: give ${nameField(["listen"])}`);
  }
  const { socksUdpPorts, workers } = options;
  if (workers > 1 && socksUdpPorts !== undefined && parseUdpPorts(socksUdpPorts)!.isShared) {
    throw wrong(
      nameField(["socksUdpPorts"]),
      `${socksUdpPorts}: a shared port needs ${nameField(["workers"])} 1: give FROM-TO, or leave that at 1`,
    );
  }
  const zoned = options.forwards.findIndex(({ target }) => target.includes("%"));
  if (zoned >= 0) {
    const { target } = options.forwards[zoned];
    throw wrong(nameField(["forwards", zoned]), `${target}: the server cannot know a zone of this machine`);
  }
  const marked = hasRelay
    ? -1
    : options.latencyRules.findIndex((text) => isDscpRule(parseLatencyRule(text)!));
  if (marked >= 0) {
    throw wrong(
      nameField(["latencyRules", marked]),
      `${options.latencyRules[marked]}: only tun2socks sees the DSCP of packets: give PORTS or CIDR[:PORTS]`,
    );
  }
  if (options.carrier !== undefined && options.via.length > 0) {
    throw wrong(nameField(["carrier"]), "cannot stand together with via: give one of them");
  }
  if (endpointOf(options.server)?.path !== undefined && isBehindProxy(options.via)) {
    throw wrong(
      nameField(["server"]),
      `${JSON.stringify(options.server)} is a socket of this machine: no proxy of ${nameField(["via"])} can reach it`,
    );
  }
  for (const [index, text] of options.via.entries()) {
    const problem = findTlsProblem(text);
    if (problem !== undefined) throw wrong(nameField(["via", index]), problem);
  }
  // An association that was answered is not worth less than one that was not.
  const activeIdleTimeoutS = Math.max(options.activeIdleTimeoutS, options.idleTimeoutS);
  return { ...options, listen, activeIdleTimeoutS };
}

function withShadowsocks(options: ResolvedUdpLocalOptions): ResolvedUdpLocalOptions {
  const { shadowsocks, via, tcpVia } = options;
  if (shadowsocks === undefined) return options;
  return {
    ...options,
    via: [...via, shadowsocks],
    tcpVia: tcpVia ?? shadowsocks,
    shadowsocks: undefined,
  };
}

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
  const problem = options.decoy === undefined ? undefined : findDecoyProblem(options.decoy);
  if (problem !== undefined) throw wrong(nameField(["decoy"]), problem);
  return options;
}

/**
 * Checks an object of options against its table.
 *
 * @throws UsageError ERR_OPTION
 */
export function checkFields(fields: OptionFields, input: object, nameField: NameField): object {
  const shape = Object.fromEntries(Object.entries(fields).map(([name, { schema }]) => [name, schema]));
  const result = z.strictObject(shape).safeParse(input);
  if (result.success) return result.data;
  const { code, path, ...rest } = result.error.issues[0];
  if (code === "unrecognized_keys") {
    const [key] = (rest as { keys: string[] }).keys;
    throw wrong(nameField([...path, key]), "there is no such option");
  }
  const field = fields[String(path[0])];
  if (field === undefined) throw wrong("options", "expected an object");
  const { params } = rest as { params?: { problem: string } };
  const problem = params?.problem ?? `expected ${field.expects}`;
  throw wrong(nameField(path), `${problem}${field.isSecretFile ? "" : got(input, path)}`);
}

export function libraryName(path: readonly PropertyKey[]): string {
  return path
    .map((part, i) => (typeof part === "number" ? `[${part}]` : `${i === 0 ? "" : "."}${String(part)}`))
    .join("");
}

/** The error for a wrong field. */
export function wrong(name: string, problem: string): UsageError {
  return new UsageError("ERR_OPTION", `${name}: ${problem}`);
}

/** What stands at `path`, or the last text on the way there. */
function got(input: unknown, path: readonly PropertyKey[]): string {
  let value = input;
  for (const part of path) {
    if (typeof value !== "object" || value === null) break;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  if (value === undefined) return "";
  if (typeof value === "object" && value !== null) return ", got an object";
  if (typeof value === "function") return ", got a function";
  return `, got ${typeof value === "string" ? JSON.stringify(redactUrl(value).slice(0, 200)) : String(value)}`;
}

function endpointOf(text: string): Endpoint | undefined {
  try {
    return parseEndpoint(text);
  } catch {
    return undefined;
  }
}

/** @returns the IP to bind, or undefined for another name than localhost */
function listenHost(host: string): string | undefined {
  if (host === "localhost") return "127.0.0.1";
  return isIP(host) === 0 ? undefined : host;
}

/** True for an address whose clients are no strangers: of this machine, or with a password. */
function isPrivateListen(text: string): boolean {
  if (text.startsWith("ss:")) return true;
  const endpoint = parseEndpoint(text);
  if (endpoint.path !== undefined) return true;
  return /^127\./.test(endpoint.host) || makeAddress(endpoint.host, 0)?.toString() === LOOPBACK6;
}

const LOOPBACK6 = makeAddress("::1", 0)?.toString();

function isUnicastIp(text: string): boolean {
  const address = isIP(text) === 0 || text.includes("%") ? undefined : makeAddress(text, 0);
  if (address === undefined || isUnspecified(address)) return false;
  return address[0] === ATYP_IPV6 ? address[1] !== 0xff : address[1] < 224;
}

function isHostAndPort(text: string): boolean {
  const endpoint = endpointOf(text);
  if (endpoint === undefined || endpoint.path !== undefined || endpoint.port === 0) return false;
  return makeAddress(splitZone(endpoint.host).ip, endpoint.port) !== undefined;
}

function isServer(text: string): boolean {
  return endpointOf(text)?.path !== undefined || isHostAndPort(text);
}

function isSsListen(text: string): boolean {
  return parseShadowsocksListen(text) !== undefined;
}

function isCarrierUrl(text: string): boolean {
  return findHopProblem(text) === undefined;
}

/** A server for TCP: one that `isOther` accepts, or `ss://`, which has more than one way to be wrong. */
export function tcpProxy(isOther: (text: string) => boolean): z.ZodType {
  return z.string().superRefine((text, context) => {
    const isShadowsocks = text.startsWith("ss:");
    const problem = isShadowsocks ? findHopProblem(text) : undefined;
    if (problem !== undefined) context.addIssue({ code: "custom", params: { problem } });
    else if (!isShadowsocks && !isOther(text)) context.addIssue({ code: "custom" });
  });
}

/** A carrier, which has more than one way to be wrong. */
function hop(): z.ZodType {
  return z.string().superRefine((text, context) => {
    const problem = findHopProblem(text);
    if (problem !== undefined) context.addIssue({ code: "custom", params: { problem } });
  });
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

function splitForward(text: string): object | undefined {
  const [, listen, target, anyPort] = /^([^=]*)=(.*?)(,any-port)?$/s.exec(text) ?? [];
  return listen === undefined ? undefined : { listen, target, anyPort: anyPort !== undefined };
}

function socksText(): z.ZodType {
  return z.string().refine((text) => {
    const { length } = Buffer.from(text);
    return length >= 1 && length <= MAX_SOCKS_FIELD_BYTES;
  });
}

function targetRule(): z.ZodType {
  return z.string().refine((text) => parseTargetRule(text) !== undefined);
}
