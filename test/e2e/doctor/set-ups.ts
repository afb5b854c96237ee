import type { ProgramName } from "../../support/hosts.ts";
import type { PortName, World } from "./world.ts";
import {
  BUSY_DEVICE,
  DROPPED_PORT,
  SS_2022,
  SS_2022_KEY,
  SS_METHOD,
  SS_PASSWORD,
  TAKEN_NETWORK,
} from "./world.ts";

/** A set-up, and what doctor is to find. */
export interface SetUp {
  readonly name: string;
  /** Code of the fault; undefined for a healthy one. */
  readonly fault: string | undefined;
  /** Codes of the warnings. */
  readonly warnings?: readonly string[];
  readonly options: (world: World) => readonly string[];
  readonly program?: ProgramName;
  /** A command line that runs doctor. */
  readonly wrap?: readonly string[];
  readonly resolver?: string;
  /** Default 1 for a fault, else 0. */
  readonly exitStatus?: number;
}

/** To a port of the server with the right key. */
function to(port: PortName, ...rest: string[]): (world: World) => readonly string[] {
  return ({ server, ports, keyFile }) => [
    "--server",
    `${server}:${ports[port]}`,
    "--psk-file",
    keyFile,
    ...QUICK,
    ...rest,
  ];
}

/** Through hops to the server's own udp-server. */
function through(
  hop: (world: World) => string,
  target: PortName = "tunnel",
): (world: World) => readonly string[] {
  return (world) => [...to(target)(world), "--via", hop(world)];
}

/** Through shadowsocks to the udp-server beside it. */
function shadowsocks(
  port: PortName,
  target: PortName,
  { method = SS_METHOD, password = SS_PASSWORD, plugin = "" } = {},
): (world: World) => readonly string[] {
  return ({ server, ports, keyFile }) => [
    // The server's own shadowsocks leads to its tunnels alone.
    ...[
      "--server",
      `127.0.0.1:${port === "ss2022" ? 3456 : ports[target]}`,
      "--psk-file",
      keyFile,
      ...QUICK,
      "--via",
    ],
    `ss://${method}:${encodeURIComponent(password)}@${server}:${ports[port]}${plugin === "" ? "" : `/?plugin=${encodeURIComponent(plugin)}`}`,
  ];
}

/** In the tunnel, a name server that udp-server reaches. */
function asking(dns: (world: World) => string, ...rest: string[]): (world: World) => readonly string[] {
  return (world) => [...to("tunnel")(world), "--test-dns", dns(world), ...rest];
}

function echoing(echo: (world: World) => string): (world: World) => readonly string[] {
  return (world) => [...to("tunnel")(world), "--test-echo", echo(world)];
}

/** With one of the keys for people. */
function person(
  file: "aliceKeyFile" | "expiredKeyFile" | "otherKeyFile",
  ...rest: string[]
): (world: World) => readonly string[] {
  return (world) => {
    const { server, ports, [file]: keyFile } = world;
    return ["--server", `${server}:${ports.keys}`, "--psk-file", keyFile, ...QUICK, ...rest];
  };
}

const TEMPLATE = "/.well-known/masque/udp/{target_host}/{target_port}/";
/** The last value of an option counts. A machine that is busy with other tests is no queue on the way. */
const MEASURED = ["--test-seconds", "1", "--age-budget-ms", "5000"];
const QUICK = ["--test-timeout-ms", "1500", "--test-seconds", "0"];
const proxy =
  (scheme: string, port: PortName, user = "") =>
  (world: World) =>
    `${scheme}://${user}${world.server}:${world.ports[port]}`;
const secure = (options: (world: World) => string) => (world: World) => [
  ...["--server", `tunnel.test:${world.ports.secure}`, "--psk-file", world.keyFile, ...QUICK],
  ...["--path-prefix", "/good", "--via", `tls://?${options(world)}`],
];
const ca = ({ caFile }: World) => `ca=${caFile}`;

export const SET_UPS: readonly SetUp[] = [
  // Healthy.
  { name: "direct TCP", fault: undefined, options: to("tunnel") },
  {
    name: "direct TCP by a name, and DNS",
    fault: undefined,
    options: asking(({ ports }) => `127.0.0.1:${ports.dns}`, "--test-name", "example.test", "--lanes", "3"),
  },
  {
    name: "a SOCKS5 proxy",
    fault: undefined,
    options: through(proxy("socks5", "authSocks", "user:password@")),
  },
  { name: "shadowsocks", fault: undefined, options: shadowsocks("ss", "inner") },
  {
    name: "shadowsocks with obfs",
    fault: undefined,
    options: shadowsocks("obfs", "inner", { plugin: "obfs-local;obfs=http" }),
  },
  {
    name: "shadowsocks 2022",
    fault: undefined,
    options: shadowsocks("ss2022", "inner", { method: SS_2022, password: SS_2022_KEY }),
  },
  { name: "TLS and nginx", fault: undefined, options: secure(ca) },
  {
    name: "a WebSocket through nginx",
    fault: undefined,
    options: through(({ server, ports }) => `ws://${server}:${ports.web}/ws`),
  },
  {
    name: "a MASQUE proxy",
    fault: undefined,
    options: ({ server, ports }) => [
      "--masque",
      `http://${server}:${ports.open}${TEMPLATE}`,
      "--test-dns",
      `127.0.0.1:${ports.dns}`,
      "--test-name",
      "example.test",
      ...QUICK,
    ],
  },
  {
    name: "a MASQUE proxy that is down",
    fault: "tcp-refused",
    options: ({ server, ports }) => ["--masque", `http://${server}:${ports.nothing}${TEMPLATE}`, ...QUICK],
  },
  {
    name: "a server of another tunnel, in its dialect",
    fault: undefined,
    options: ({ server, ports }) => [
      "--dialect",
      "udpgw",
      "--server",
      `${server}:${ports.udpgw}`,
      "--test-dns",
      `127.0.0.1:${ports.dns}`,
      "--test-name",
      "example.test",
      ...QUICK,
    ],
  },
  {
    name: "udp-server where another tunnel's is expected",
    fault: "dns-silent",
    options: ({ server, ports }) => [
      "--dialect",
      "udpgw",
      "--server",
      `${server}:${ports.tunnel}`,
      "--test-dns",
      `127.0.0.1:${ports.dns}`,
      ...QUICK,
    ],
  },
  // This machine.
  {
    name: "a key file that is missing",
    fault: "config-bad",
    exitStatus: 2,
    options: () => ["--psk-file", "/nonexistent"],
  },
  {
    name: "an option that is wrong",
    fault: "config-bad",
    exitStatus: 2,
    options: () => ["--server", "nowhere"],
  },
  {
    name: "a key that others may read",
    fault: undefined,
    warnings: ["key-exposed"],
    options: ({ server, ports, hosts }) => [
      "--server",
      `${server}:${ports.tunnel}`,
      "--psk-file",
      `${hosts.directory}/exposed-psk`,
      ...QUICK,
    ],
  },
  {
    name: "a full limit of descriptors",
    fault: "descriptors-full",
    options: to("tunnel"),
    wrap: ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"],
  },
  // The name and TCP.
  {
    name: "a name that is unknown",
    fault: "name-unknown",
    options: ({ keyFile }) => ["--server", "nobody.test:443", "--psk-file", keyFile, ...QUICK],
  },
  {
    name: "a resolver that is silent",
    fault: "name-server-silent",
    resolver: "10.77.0.2",
    options: ({ keyFile }) => ["--server", "nobody.test:443", "--psk-file", keyFile, ...QUICK],
  },
  {
    name: "IPv6 that leads nowhere",
    fault: undefined,
    warnings: ["address-dead"],
    options: ({ keyFile, ports }) => [
      "--server",
      `dual.test:${ports.tunnel}`,
      "--psk-file",
      keyFile,
      ...QUICK,
    ],
  },
  { name: "a port where nothing listens", fault: "tcp-refused", options: to("nothing") },
  {
    name: "a firewall that drops the port",
    fault: "tcp-silent",
    options: ({ server, keyFile }) => [
      "--server",
      `${server}:${DROPPED_PORT}`,
      "--psk-file",
      keyFile,
      ...QUICK,
    ],
  },
  {
    name: "an address without a route",
    fault: "tcp-unreachable",
    options: ({ keyFile }) => ["--server", "192.0.2.1:3456", "--psk-file", keyFile, ...QUICK],
  },
  {
    name: "a Unix socket that is missing",
    fault: "socket-missing",
    options: ({ keyFile }) => ["--server", "unix:/nonexistent.sock", "--psk-file", keyFile, ...QUICK],
  },
  {
    name: "the first of two ways down",
    fault: undefined,
    warnings: ["way-dead"],
    options: ({ server, ports, keyFile }) => [
      "--way",
      `${server}:${ports.nothing}`,
      "--way",
      `${server}:${ports.tunnel}`,
      "--psk-file",
      keyFile,
      ...QUICK,
    ],
  },
  // Hops.
  { name: "a hop that is down", fault: "tcp-refused", options: through(proxy("socks5", "nothing")) },
  {
    name: "the second hop down",
    fault: "proxy-cannot-reach",
    options: (world) => [
      ...through(proxy("socks5", "socks"))(world),
      "--via",
      proxy("socks5", "nothing")(world),
    ],
  },
  {
    name: "a server behind a SOCKS5 proxy that is down",
    fault: "proxy-cannot-reach",
    options: through(proxy("socks5", "socks"), "nothing"),
  },
  {
    name: "a SOCKS5 proxy without the password",
    fault: "proxy-credentials",
    options: through(proxy("socks5", "authSocks")),
  },
  {
    name: "a SOCKS5 proxy with another password",
    fault: "proxy-credentials",
    options: through(proxy("socks5", "authSocks", "user:wrong-one@")),
  },
  {
    name: "a web server for a SOCKS5 proxy",
    fault: "proxy-protocol",
    options: through(proxy("socks5", "web")),
  },
  {
    name: "an SSH server for an HTTP proxy",
    fault: "proxy-protocol",
    options: through(proxy("http", "ssh")),
  },
  {
    name: "an HTTP proxy that refuses the port",
    fault: "proxy-forbids",
    options: through(proxy("http", "httpProxy")),
  },
  {
    name: "an HTTP proxy that wants a password (407)",
    fault: "proxy-credentials",
    options: through(proxy("http", "authProxy")),
  },
  { name: "a proxy that is silent", fault: "proxy-silent", options: through(proxy("socks5", "silent")) },
  { name: "a proxy that closes", fault: "proxy-closed", options: through(proxy("socks5", "closing")) },
  {
    name: "a web server without that WebSocket",
    fault: "websocket-refused",
    options: through(({ server, ports }) => `ws://${server}:${ports.web}/elsewhere`),
  },
  // TLS.
  {
    name: "a certificate for another name",
    fault: "tls-name",
    options: secure((world) => `${ca(world)}&servername=other.test`),
  },
  { name: "a certificate of an unknown authority", fault: "tls-untrusted", options: secure(() => "") },
  {
    name: "a clock that is a year ahead of a certificate",
    fault: "tls-time",
    options: secure(ca),
    wrap: ["faketime", "-f", "+1y"],
  },
  {
    name: "a certificate that is of the future",
    fault: "tls-time",
    options: secure(ca),
    wrap: ["faketime", "-f", "-1y"],
  },
  {
    name: "TLS where none is spoken",
    fault: "tls-not-spoken",
    options: (world) => [...to("web")(world), "--via", "tls://?insecure=1"],
  },
  { name: "no TLS where nginx wants it", fault: "tls-expected", options: to("secure") },
  { name: "no TLS where a TLS server wants it", fault: "tls-expected", options: to("tlsOnly") },
  // shadowsocks.
  {
    name: "another password of shadowsocks",
    fault: "shadowsocks-silent",
    options: shadowsocks("ss", "inner", { password: "wrong" }),
  },
  {
    name: "another method of shadowsocks",
    fault: "shadowsocks-silent",
    options: shadowsocks("ss", "inner", { method: "aes-256-gcm" }),
  },
  {
    name: "obfs where the server has none",
    fault: "shadowsocks-silent",
    options: shadowsocks("ss", "inner", { plugin: "obfs-local;obfs=http" }),
  },
  {
    name: "udp-server behind ss-server down",
    fault: "closed-unanswered",
    options: shadowsocks("ss", "nothing"),
  },
  {
    name: "shadowsocks 2022 with a clock an hour ahead",
    fault: "shadowsocks-clock",
    options: shadowsocks("ss2022", "inner", { method: SS_2022, password: SS_2022_KEY }),
    wrap: ["faketime", "-f", "+1h"],
  },
  {
    name: "the same where a clock can be compared",
    fault: "clock-off",
    options: (world) => [
      ...shadowsocks("ss2022", "inner", { method: SS_2022, password: SS_2022_KEY })(world),
      "--test-clock",
      `http://${world.server}:${world.ports.web}/`,
    ],
    wrap: ["faketime", "-f", "+1h"],
  },
  {
    name: "a plugin that is missing",
    fault: "plugin-failed",
    options: shadowsocks("ss", "inner", { plugin: "no-such-plugin;x=1" }),
  },
  // The upgrade.
  {
    name: "another key",
    fault: "key-wrong",
    options: ({ server, ports, otherKeyFile }) => [
      "--server",
      `${server}:${ports.tunnel}`,
      "--psk-file",
      otherKeyFile,
      ...QUICK,
    ],
  },
  { name: "a key of a person", fault: undefined, options: person("aliceKeyFile", "--key-name", "alice") },
  {
    name: "a key that has expired",
    fault: "key-expired",
    options: person("expiredKeyFile", "--key-name", "bob"),
  },
  {
    name: "a key with another name",
    fault: "key-name",
    options: person("aliceKeyFile", "--key-name", "bob"),
  },
  {
    name: "a key that nobody has",
    fault: "key-wrong",
    options: person("otherKeyFile", "--key-name", "alice"),
  },
  { name: "a server at its limit", fault: "server-limit", options: to("limited") },
  {
    name: "no key",
    fault: "key-missing",
    options: ({ server, ports }) => ["--server", `${server}:${ports.tunnel}`, ...QUICK],
  },
  { name: "a server without a key", fault: "key-unproven", options: to("open") },
  {
    name: "nginx that rewrites the path",
    fault: "request-changed",
    options: to("web", "--path-prefix", "/rewritten"),
  },
  {
    name: "nginx that does not pass Upgrade on",
    fault: "request-changed",
    options: to("web", "--path-prefix", "/no-upgrade"),
  },
  { name: "nginx without the path", fault: "path-unknown", options: to("web") },
  {
    name: "nginx before a server that is down",
    fault: "server-down",
    options: to("web", "--path-prefix", "/dead"),
  },
  { name: "nginx that redirects", fault: "redirected", options: to("web", "--path-prefix", "/moved") },
  { name: "nginx that forbids", fault: "web-forbidden", options: to("web", "--path-prefix", "/forbidden") },
  { name: "an SSH server", fault: "other-server", options: to("ssh") },
  { name: "a SOCKS5 proxy for a server", fault: "other-server", options: to("socks") },
  { name: "a server that is silent", fault: "no-answer", options: to("silent") },
  { name: "a server that closes", fault: "closed-unanswered", options: to("closing") },
  {
    name: "a server of another tunnel",
    fault: "other-dialect",
    options: (world) => [...to("udpgw")(world), "--test-dns", `127.0.0.1:${world.ports.dns}`],
  },
  // Targets.
  {
    name: "a target that the server denies",
    fault: "target-private",
    options: asking(({ server }) => `${server}:53`),
  },
  {
    name: "a UDP port that is closed",
    fault: "target-closed",
    options: asking(({ ports }) => `127.0.0.1:${ports.nothing}`),
  },
  {
    name: "a name server that is silent",
    fault: "dns-silent",
    options: asking(({ ports }) => `127.0.0.1:${ports.mute}`),
  },
  {
    name: "a name server that refuses",
    fault: "dns-error",
    options: asking(({ ports }) => `127.0.0.1:${ports.dns}`, "--test-name", "unknown.example"),
  },
  {
    name: "a network that the server has no route to",
    fault: "target-unreachable",
    options: asking(() => "192.0.2.5:53"),
  },
  {
    name: "an echo service that is silent",
    fault: "echo-silent",
    options: echoing(({ ports }) => `127.0.0.1:${ports.mute}`),
  },
  {
    name: "an echo service",
    fault: undefined,
    options: echoing(({ internet }) => `${internet.first}:${internet.echo}`),
  },
  {
    name: "fragments that are lost",
    fault: undefined,
    warnings: ["fragments-lost"],
    options: echoing(({ internet }) => `${internet.second}:${internet.noFragments}`),
  },
  {
    name: "one datagram in four lost",
    fault: undefined,
    warnings: ["datagrams-lost"],
    options: echoing(({ internet }) => `${internet.first}:${internet.lossy}`),
  },
  {
    name: "a STUN server",
    fault: undefined,
    options: (world) => [...to("tunnel")(world), "--test-stun", world.internet.stun],
  },
  {
    name: "a symmetric NAT",
    fault: undefined,
    warnings: ["nat-symmetric"],
    options: (world) => [...to("tunnel")(world), "--test-stun", world.internet.stunSymmetric],
  },
  {
    name: "a STUN server that is silent",
    fault: undefined,
    warnings: ["stun-silent"],
    options: (world) => [...to("tunnel")(world), "--test-stun", `127.0.0.1:${world.ports.mute}`],
  },
  // The path.
  { name: "an MTU of 1,280 in the middle, without ICMP", fault: "path-mtu", options: to("narrow") },
  { name: "delay over direct TCP", fault: undefined, options: to("tunnel", ...MEASURED) },
  {
    name: "delay over shadowsocks that does not wait",
    fault: undefined,
    options: (world) => [...shadowsocks("ss", "inner")(world), ...MEASURED],
  },
  {
    name: "ss-server without --no-delay, which our end acknowledges at once",
    fault: undefined,
    options: (world) => [...shadowsocks("ssWaits", "inner")(world), ...MEASURED],
  },
  {
    name: "obfs-server, which always waits",
    fault: "delayed-acks",
    options: (world) => [
      ...shadowsocks("obfs", "inner", { plugin: "obfs-local;obfs=http" })(world),
      ...MEASURED,
    ],
  },
  // tun2socks.
  {
    name: "tun2socks on a network behind the server",
    fault: undefined,
    program: "tun2socks",
    options: to("tunnel", "--route", "198.51.100.0/24"),
  },
  {
    name: "no /dev/net/tun",
    fault: "device-missing",
    program: "tun2socks",
    wrap: ["sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"],
    options: to("tunnel"),
  },
  {
    name: "no right to make a device",
    fault: "device-rights",
    program: "tun2socks",
    wrap: ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"],
    options: to("tunnel"),
  },
  {
    name: "a device of another program",
    fault: "device-busy",
    program: "tun2socks",
    options: to("tunnel", "--device", `tun:${BUSY_DEVICE}`),
  },
  {
    name: "an interface that is missing",
    fault: "interface-missing",
    program: "tun2socks",
    options: to("tunnel", "--out-interface", "nope0"),
  },
  {
    name: "a route that exists",
    fault: "route-taken",
    program: "tun2socks",
    options: to("tunnel", "--route", TAKEN_NETWORK),
  },
  {
    name: "a route that leads the tunnel into its own device",
    fault: "route-loop",
    program: "tun2socks",
    options: to("tunnel", "--route", "10.77.0.2/32"),
  },
  {
    name: "the same past the device",
    fault: undefined,
    program: "tun2socks",
    options: to("tunnel", "--route", "10.77.0.2/32", "--out-interface", "veth0"),
  },
  {
    name: "a resolver that is not reached by the device",
    fault: undefined,
    warnings: ["dns-leak"],
    program: "tun2socks",
    resolver: "10.77.0.2",
    options: to("tunnel", "--route", "0.0.0.0/0", "--route", "::/0"),
  },
  {
    name: "IPv6 that does not enter the device",
    fault: undefined,
    warnings: ["ipv6-leak"],
    program: "tun2socks",
    options: to("tunnel", "--route", "0.0.0.0/0"),
  },
];
