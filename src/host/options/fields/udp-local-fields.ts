import * as z from "zod";
import { isDscpRule, parseLatencyRule } from "../../../core/session/latency-rules.ts";
import { dialectByName } from "../../../wire/dialects/dialects.ts";
import { utf8Bytes } from "../../../wire/http/http-head.ts";
import {
  endpointOf,
  ipFamily,
  isHostAndPort,
  parseEndpoint,
  rebaseEndpoint,
} from "../../addresses/endpoint.ts";
import { isBehindProxy } from "../../carriers/carrier-chain.ts";
import { parseHop, rebaseHop, tlsOf } from "../../carriers/hop.ts";
import type { TlsOptions } from "../../carriers/tls-options.ts";
import { rebaseWay, splitWay } from "../../carriers/way.ts";
import { DIALECT_NAMES } from "../../dialects/dialect-options.ts";
import { parseMasqueProxy } from "../../masque/masque-option.ts";
import { parseUdpPorts } from "../../socks5/udp-ports.ts";
import {
  hop,
  isCarrierUrl,
  isServer,
  isUnicastIp,
  listenText,
  MAX_WAYS,
  tcpProxies,
  tcpProxy,
  way,
} from "../addresses.ts";
import { isKeyName, KEY_NAME_EXPECTS } from "../keys.ts";
import type { ResolvedUdpLocalOptions, ServerWay, UdpLocalSettings } from "../udp-local.ts";
import { COMMON_FIELDS, MAX_PATH_PREFIX } from "./common-fields.ts";
import type { NameField, OptionField, OptionFields } from "./fields.ts";
import { checkFields, integer, libraryName, MAX_COUNT, wrong } from "./fields.ts";
import { MASQUE_FIELD } from "./masque-field.ts";

/** The parts that only the surrounding program has, or can check. */
export interface UdpLocalPlatform {
  /** {@link UDP_LOCAL_FIELDS}, and those of the surrounding program. */
  readonly fields: OptionFields;
  /** @returns the problem with a client's files; undefined if there is none */
  findTlsProblem(tls: TlsOptions): string | undefined;
}

/** Options that apply only to a udp-server. */
const NOT_WITH_MASQUE = [
  "server",
  "ways",
  "psk",
  "keyName",
  "pathPrefix",
  "carrier",
  "dialect",
  "lanes",
] as const;

const MAX_LANES = 16;
const MAX_SOCKS_FIELD_BYTES = 255;
const LOCAL_LISTEN = "127.0.0.1:1234";
const DEFAULT_SERVER = "127.0.0.1:3456";

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
    value: "IP:PORT",
    help: `SOCKS5 server for applications (default ${LOCAL_LISTEN}; off when only --forward is given)`,
  },
  server: {
    schema: z
      .preprocess(
        (value) => (typeof value === "string" ? [value] : value),
        z.array(z.string().refine(isServer)).min(1).max(MAX_WAYS),
      )
      .default([DEFAULT_SERVER]),
    expects: "HOST:PORT, [IPv6]:PORT or unix:/path of udp-server",
    flag: "server",
    value: "ADDRESS",
    help: `HOST:PORT or unix:/path of udp-server (repeatable: the first that can be reached; default ${DEFAULT_SERVER})`,
    isList: true,
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
  ways: {
    schema: z.array(way()).max(MAX_WAYS).default([]),
    expects: `at most ${MAX_WAYS} ways`,
    flag: "way",
    value: '"HOP ... [SERVER]"',
    help: "hops as in --via, nearest first, then HOST:PORT of the server unless --server gives it (repeatable: the first way that works)",
    isList: true,
    rebase: rebaseWay,
  },
  shadowsocks: {
    schema: tcpProxy(() => false).optional(),
    expects: "ss://METHOD:PASSWORD@HOST:PORT[/?plugin=...] (SIP002)",
    flag: "ss-config",
    value: "FILE",
    help: "config.json of shadowsocks, whose server carries lanes as the last --via, and TCP unless --tcp-via is given",
    isSecretFile: true,
  },
  masque: MASQUE_FIELD,
  dialect: {
    schema: z
      .string()
      .refine((name) => dialectByName(name) !== undefined)
      .optional(),
    expects: `one of ${DIALECT_NAMES}`,
    flag: "dialect",
    value: "NAME",
    help: `dialect of a server that is another program: ${DIALECT_NAMES}`,
  },
  forwards: {
    schema: z.array(forward).default([]),
    expects: "LISTEN=TARGET[,any-port], such as 127.0.0.1:5353=9.9.9.9:53",
    flag: "forward",
    value: "LISTEN=TARGET",
    help:
      "fixed forward, such as 127.0.0.1:5353=9.9.9.9:53; ,any-port at the end accepts answers from other ports of the " +
      "target (repeatable)",
    isList: true,
  },
  tcpVia: {
    schema: tcpProxies((url) => /^socks5h?:/.test(url) && isCarrierUrl(url)),
    expects:
      "socks5://[USER:PASSWORD@]HOST:PORT (percent-encoded) or ss://METHOD:PASSWORD@HOST:PORT (SIP002), optionally after other hops",
    flag: "tcp-via",
    value: "URL",
    help:
      'SOCKS5 or shadowsocks server for CONNECT requests: socks5:// or ss://, or "HOP ... URL" (repeatable: the first ' +
      "that can be reached; default: direct)",
    isList: true,
    rebase: rebaseWay,
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
    help: "file with one line, USER:PASSWORD, that SOCKS5 clients must present",
    isSecretFile: true,
  },
  socksAdvertise: {
    schema: z
      .array(z.string().refine(isUnicastIp))
      .refine((list) => list.length < 2 || (list.length === 2 && ipFamily(list[0]) !== ipFamily(list[1])))
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
    help: "latency class of targets: PORTS or CIDR[:PORTS], or dscp=N[,N] in tun2socks (repeatable, the first match applies)",
    isList: true,
  },
  keyName: {
    schema: z.string().refine(isKeyName).optional(),
    expects: KEY_NAME_EXPECTS,
    flag: "key-name",
    value: "NAME",
    help: "name of the key in the server's --keys; it is not sent",
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
} satisfies Record<keyof UdpLocalSettings, OptionField>;

/** Options, and the surrounding program's function that makes connections. */
type UdpLocalInput = UdpLocalSettings & { readonly carrier?: unknown };

/**
 * Fills the defaults in and checks every field.
 *
 * @param hasRelay  whether datagrams come from elsewhere too, so that it need not listen
 * @throws UsageError ERR_OPTION: one line with the field's path, its value unless it is secret, and what is wanted
 */
export function resolveUdpLocal(
  platform: UdpLocalPlatform,
  input: UdpLocalInput,
  nameField: NameField = libraryName,
  hasRelay = false,
): ResolvedUdpLocalOptions & { readonly carrier: unknown } {
  const options = checkFields(platform.fields, input, nameField) as CheckedOptions;
  const hasForwards = options.forwards.length > 0;
  const listen = options.listen ?? (hasForwards || hasRelay ? false : LOCAL_LISTEN);
  if (listen === false && !hasForwards && !hasRelay) {
    throw wrong(nameField(["listen"]), "is off and there are no forwards: give at least one");
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
      `${socksUdpPorts}: a shared port needs ${nameField(["workers"])} 1: give FROM-TO, or use 1 worker`,
    );
  }
  const zoned = options.forwards.findIndex(({ target }) => target.includes("%"));
  if (zoned >= 0) {
    const { target } = options.forwards[zoned];
    throw wrong(nameField(["forwards", zoned]), `${target}: the server does not know this machine's zones`);
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
  if (options.masque !== undefined) {
    const other = NOT_WITH_MASQUE.find((name) => input[name] !== undefined);
    if (other !== undefined) {
      throw wrong(
        nameField([other]),
        `applies to a udp-server, not to the proxy of ${nameField(["masque"])}`,
      );
    }
    const { tls } = parseMasqueProxy(options.masque);
    const problem = tls && platform.findTlsProblem(tls);
    if (problem !== undefined) throw wrong(nameField(["masque"]), problem);
  }
  if (options.keyName !== undefined && options.psk === undefined) {
    throw wrong(nameField(["keyName"]), `there is no key: give ${nameField(["psk"])}`);
  }
  checkDialect({ ...options, listen }, nameField, hasRelay);
  // An answered association is worth at least as much as an unanswered one.
  const activeIdleTimeoutS = Math.max(options.activeIdleTimeoutS, options.idleTimeoutS);
  const { shadowsocks, server: _server, via: _via, ...rest } = options;
  const tcpVia = options.tcpVia ?? (shadowsocks === undefined ? [] : [shadowsocks]);
  return { ...rest, listen, activeIdleTimeoutS, tcpVia, ways: waysOf(platform, options, nameField) };
}

/** @throws UsageError ERR_OPTION for options that the server's dialect cannot express */
function checkDialect(
  { dialect: name, psk, listen, forwards }: CheckedOptions,
  nameField: NameField,
  hasRelay: boolean,
): void {
  const dialect = name === undefined ? undefined : dialectByName(name)!;
  if (dialect === undefined) return;
  if (psk !== undefined) throw wrong(nameField(["psk"]), `${name} has no key: leave it out`);
  const targets = forwards.map(({ target }) => target);
  if (dialect.addresses === "none") {
    const fault = `${name} has no addresses, and its server has one target`;
    if (listen !== false || hasRelay) throw wrong(nameField(["dialect"]), `${fault}: give only forwards`);
    const other = targets.findIndex((target) => target !== targets[0]);
    if (other >= 0)
      throw wrong(nameField(["forwards", other]), `${targets[other]}: ${fault}, not ${targets[0]} too`);
  }
  const named = targets.findIndex(
    (target) => ipFamily((parseEndpoint(target) as { host: string }).host) === undefined,
  );
  if (dialect.addresses === "ip" && named >= 0) {
    throw wrong(
      nameField(["forwards", named]),
      `${targets[named]}: ${name} does not carry names: give an IP`,
    );
  }
}

type CheckedOptions = Omit<ResolvedUdpLocalOptions, "ways" | "tcpVia"> & {
  readonly tcpVia: readonly string[] | undefined;
  readonly carrier: unknown;
  readonly server: readonly string[];
  readonly via: readonly string[];
  readonly ways: readonly string[];
  readonly shadowsocks: string | undefined;
};

/** All ways to the first server, then all to the next. */
function waysOf(
  platform: UdpLocalPlatform,
  options: CheckedOptions,
  nameField: NameField,
): readonly ServerWay[] {
  const { server: servers, via, ways: texts, shadowsocks, carrier } = options;
  for (const name of ["via", "shadowsocks"] as const) {
    if (texts.length > 0 && (options[name]?.length ?? 0) > 0) {
      throw wrong(nameField(["ways"]), `cannot be combined with ${nameField([name])}: give only one`);
    }
  }
  if (carrier !== undefined && via.length + texts.length + servers.length > 1) {
    throw wrong(
      nameField(["carrier"]),
      "cannot be combined with via, ways or several servers: give only one",
    );
  }
  const single = { server: undefined, via: shadowsocks === undefined ? via : [...via, shadowsocks] };
  const given = texts.length === 0 ? [single] : texts.map(splitWay);
  for (const [index, { via: hops }] of given.entries()) {
    for (const [position, hop] of hops.entries()) {
      const tls = tlsOf(parseHop(hop, 0));
      const problem = tls && platform.findTlsProblem(tls);
      const path = texts.length === 0 ? ["via", position] : ["ways", index];
      if (problem !== undefined) throw wrong(nameField(path), problem);
    }
  }
  const ways = servers.flatMap((server, index) =>
    // A way with its own server appears once.
    given
      .filter((way) => index === 0 || way.server === undefined)
      .map((way) => ({ via: way.via, server: way.server ?? server })),
  );
  if (ways.length > MAX_WAYS) {
    throw wrong(nameField(["ways"]), `${ways.length} ways to all servers together: at most ${MAX_WAYS}`);
  }
  const local = ways.find((way) => endpointOf(way.server)?.path !== undefined && isBehindProxy(way.via));
  if (local !== undefined) {
    throw wrong(
      nameField(["server"]),
      `${JSON.stringify(local.server)} is a socket of this machine: no proxy of ${nameField([texts.length === 0 ? "via" : "ways"])} can reach it`,
    );
  }
  return ways;
}

function splitForward(text: string): object | undefined {
  const [, listen, target, anyPort] = /^([^=]*)=(.*?)(,any-port)?$/s.exec(text) ?? [];
  return listen === undefined ? undefined : { listen, target, anyPort: anyPort !== undefined };
}

function socksText(): z.ZodType {
  return z.string().refine((text) => {
    const { length } = utf8Bytes(text);
    return length >= 1 && length <= MAX_SOCKS_FIELD_BYTES;
  });
}
