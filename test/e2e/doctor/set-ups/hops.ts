import { DROPPED_PORT, SS_2022, SS_2022_KEY, SS_METHOD, SS_PASSWORD } from "../world.ts";
import type { SetUp } from "./set-up.ts";
import { ca, proxy, QUICK, secure, shadowsocks, through, to } from "./set-up.ts";

/** Set-ups with faults on the way to the server: names, TCP, proxies, TLS, shadowsocks. */
export const HOPS: readonly SetUp[] = [
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
  {
    name: "a TLS server that wants a certificate",
    fault: "tls-refused",
    options: (world) => [...to("wantsCertificate")(world), "--via", "tls://?insecure=1"],
  },
  {
    name: "the same with TLS 1.2",
    fault: "tls-refused",
    options: (world) => [...to("wantsOldCertificate")(world), "--via", "tls://?insecure=1"],
  },
  {
    name: "nginx that wants a certificate",
    fault: "tls-refused",
    options: (world) => [...to("nginxWantsCertificate")(world), "--via", "tls://?insecure=1"],
  },
  {
    name: "nginx that does not know the name",
    fault: "tls-refused",
    options: (world) => [...to("noName")(world), "--via", "tls://?insecure=1"],
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
    name: "obfs=http where the server has obfs=tls",
    fault: "shadowsocks-silent",
    options: shadowsocks("obfsTls", "inner", { plugin: "obfs-local;obfs=http" }),
  },
  {
    name: "a server behind ss-server that is silent",
    fault: "no-answer",
    options: ({ server, ports, keyFile }) => [
      ...["--server", `${server}:${ports.silent}`, "--psk-file", keyFile, ...QUICK],
      ...["--via", `ss://${SS_METHOD}:${encodeURIComponent(SS_PASSWORD)}@${server}:${ports.ss}`],
    ],
  },
  {
    name: "answers of obfs-server that are changed on the way",
    fault: "obfs-mismatch",
    options: shadowsocks("alteringObfs", "inner", { plugin: "obfs-local;obfs=http" }),
  },
  {
    name: "answers of ss-server that are changed on the way",
    fault: "shadowsocks-key",
    options: shadowsocks("altering", "inner"),
  },
  {
    name: "an SSH server for a shadowsocks server",
    fault: "proxy-protocol",
    options: shadowsocks("ssh", "inner"),
  },
  {
    name: "a web server for a shadowsocks server",
    fault: "proxy-protocol",
    options: shadowsocks("web", "inner"),
  },
  {
    name: "a web server for a shadowsocks server with obfs",
    fault: "proxy-protocol",
    options: shadowsocks("web", "inner", { plugin: "obfs-local;obfs=http" }),
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
];
