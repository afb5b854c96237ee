import { SS_2022, SS_2022_KEY } from "../world.ts";
import type { SetUp } from "./set-up.ts";
import { asking, ca, proxy, QUICK, secure, shadowsocks, TEMPLATE, through, to } from "./set-up.ts";

/** Set-ups without a fault. */
export const HEALTHY: readonly SetUp[] = [
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
];
