import { describe, expect, it } from "vitest";
import { UsageError } from "../../../src/core/errors.ts";
import { ROUTE_DROP, ROUTE_REJECT, ROUTE_SOCKS, ROUTE_TUNNEL } from "../../../src/core/tun2socks/rules.ts";
import { parseInterfaceAddress } from "../../../src/host/devices/interface-address.ts";
import { parseEgress } from "../../../src/host/options/egress-option.ts";
import { describePlan } from "../../../src/host/options/tun2socks.ts";
import type { Tun2SocksOptions } from "../../../src/node/options/tun2socks.ts";
import { resolveTun2SocksOptions } from "../../../src/node/options/tun2socks.ts";

function complaint(options: Tun2SocksOptions): string {
  try {
    resolveTun2SocksOptions(options);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as UsageError).message.replace("an option is missing or wrong: ", "");
  }
  throw new Error("nothing was thrown");
}

const bytes = (...values: number[]) => Uint8Array.from(values);

describe("options of tun2socks", () => {
  it("UDP goes into the tunnel and TCP is refused by default", () => {
    const { device, mtu, udpRoute, tcpRoute, usesTunnel, tunnel } = resolveTun2SocksOptions({});
    expect({ device, mtu, udpRoute, tcpRoute, usesTunnel }).toEqual({
      device: "tun:underpass0",
      mtu: 1500,
      udpRoute: ROUTE_TUNNEL,
      tcpRoute: ROUTE_REJECT,
      usesTunnel: true,
    });
    expect(tunnel.listen).toBe(false);
  });

  it("SOCKS servers are numbered: those of rules first, then those of TCP and UDP", () => {
    const options = resolveTun2SocksOptions({
      socks: ["socks5://127.0.0.1:1", "socks5://127.0.0.1:2"],
      tcpVia: "socks5://127.0.0.1:3",
      udpVia: "socks5-udp://127.0.0.1:4",
      rules: ["tcp 10.0.0.0/8 socks:1", "udp *:443 drop"],
    });
    expect(options.socks.map((url) => url.slice(-1))).toEqual(["1", "2", "3", "4"]);
    expect(options.rules.map(({ route }) => route)).toEqual([ROUTE_SOCKS + 1, ROUTE_DROP]);
    expect(options).toMatchObject({
      tcpRoute: ROUTE_SOCKS + 2,
      udpRoute: ROUTE_SOCKS + 3,
      usesTunnel: false,
    });
  });

  it("several ways for TCP are one route", () => {
    const options = resolveTun2SocksOptions({
      socks: ["socks5://127.0.0.1:1"],
      tcpVia: ["socks5://127.0.0.1:2", "socks5://u:secret@127.0.0.1:3"],
      dns: "tcp",
    });
    expect(options).toMatchObject({ tcpRoute: ROUTE_SOCKS + 1, dnsRoute: ROUTE_SOCKS + 2 });
    expect(options.otherTcpWays).toEqual(["socks5://u:secret@127.0.0.1:3"]);
    const tcp = describePlan(options).find((line) => line.startsWith("tcp ->"));
    expect(tcp).toMatch(/^tcp -> socks5:\/\/127\.0\.0\.1:2, or socks5:\/\/.*127\.0\.0\.1:3$/);
    expect(tcp).not.toContain("secret");
  });

  it("the option names of badvpn-tun2socks are accepted", () => {
    const options = resolveTun2SocksOptions({
      tundev: "tun7",
      netifIpaddr: "10.0.0.2",
      netifNetmask: "255.255.255.0",
      socksServerAddr: "127.0.0.1:1080",
      socks5Udp: true,
    });
    expect(options).toMatchObject({
      device: "tun:tun7",
      addresses: [{ own: bytes(10, 0, 0, 3), peer: bytes(10, 0, 0, 2), prefixLength: 24 }],
      usesTunnel: false,
    });
    expect(options.socks).toEqual(["socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080"]);
  });

  it.each<[Tun2SocksOptions, string]>([
    [
      { device: "tap:x" },
      'device: expected tun:NAME of at most 15 bytes, fd:N, unix:/path or pipe:, got "tap:x"',
    ],
    [{ device: "tun:a-name-of-16-byt" }, "device: expected"],
    [{ mtu: 1279 }, "mtu: expected an integer from 1280 to 65535, got 1279"],
    [{ addresses: ["10.0.0.1/32"] }, "addresses[0]: expected"],
    [{ addresses: ["10.0.0.1/24", "10.0.1.1/24"] }, "addresses: more than one address of a family"],
    [
      { routes: ["10.0.0.0/8", "10.0.0.1/8"] },
      "routes[1]: expected IP/PREFIX of a network, with all host bits 0",
    ],
    [{ routes: ["0.0.0.0/0", "::/0", "2001:db8::/28"] }, "routes[2]: expected"],
    [{ tcpVia: "local:" }, "tcpVia: expected"],
    [{ tcpVia: ["socks5://h:1", "direct"] }, "tcpVia: direct cannot be one of several"],
    [
      { tcpVia: ["socks:0", "socks5://h:1"], socks: ["socks5://h:2"] },
      "tcpVia: socks:0 cannot be one of several",
    ],
    [{ tcpVia: "socks:0" }, "tcpVia: socks:0: only 0 given with socks"],
    [{ rules: ["tcp * socks"] }, 'rules[0]: "tcp * socks": only 0 given with socks'],
    [{ rules: ["tcp * tunnel"] }, 'rules[0]: "tcp * tunnel": the tunnel carries only udp'],
    [{ tundev: "tun0", device: "tun:tun1" }, "tundev: is the same as device: give only one"],
    [{ dns: "tcp" }, "dns: tcp needs tcpVia"],
    [{ socks5Udp: true }, "socks5Udp: needs socksServerAddr"],
    [{ netifIpaddr: "10.0.0.2", netifNetmask: "255.0.255.0" }, "netifNetmask: is not a netmask"],
  ])("refuses %o", (options, expected) => {
    expect(complaint(options)).toContain(expected);
  });

  it("accepts shadowsocks servers only for TCP", () => {
    const ss = "ss://aes-256-gcm:hunter2@h:8388/?plugin=obfs-local%3Bobfs%3Dhttp";
    const options: Tun2SocksOptions = { tcpVia: ss, socks: [ss, "socks5://h:1"] };
    const rules = ["tcp 192.0.2.0/24 socks:0", "any 198.51.100.0/24 socks:1"];
    const plan = describePlan(resolveTun2SocksOptions({ ...options, rules }));
    expect(plan).toContain("tcp -> ss://***@h:8388/?plugin=***");
    expect(complaint({ ...options, udpVia: ss })).toMatch(/^udpVia: /);
    expect(complaint({ ...options, udpVia: "socks:0" })).toBe(
      "udpVia: socks:0: ss:// and several hops carry only tcp",
    );
    for (const protocol of ["any", "udp"]) {
      const rule = `${protocol} 192.0.2.0/24 socks:0`;
      expect(complaint({ ...options, rules: [rule] })).toBe(
        `rules[0]: "${rule}": ss:// and several hops carry only tcp`,
      );
    }
    for (const wrong of [
      { tcpVia: "ss://rc4-md5:hunter2@h:1" },
      { udpVia: "ss://aes-256-gcm:hunter2@h:1" },
    ]) {
      expect(complaint(wrong)).not.toContain("hunter2");
    }
  });

  it("describePlan describes what tun2socks would do, without passwords", () => {
    const plan = describePlan(
      resolveTun2SocksOptions({
        tcpVia: "socks5://user:secret@127.0.0.1:3",
        routes: ["192.0.2.0/24"],
        rules: ["udp *:443 reject"],
      }),
    );
    expect(plan).toEqual([
      "device tun:underpass0, MTU 1500",
      "address 198.18.0.1/30, TCP comes from 198.18.0.2",
      "address fd75:6e64:7270::1/126, TCP comes from fd75:6e64:7270::2",
      "route 192.0.2.0/24",
      "rule 1: udp -> reject",
      "tcp -> socks5://***@127.0.0.1:3",
      "udp -> udp-local",
      "udp-local -> 127.0.0.1:3456",
    ]);
  });
});

describe("parseInterfaceAddress", () => {
  it.each([
    ["10.0.0.1/30", bytes(10, 0, 0, 2)],
    ["10.0.0.2/30", bytes(10, 0, 0, 1)],
    ["10.0.0.0/31", bytes(10, 0, 0, 1)],
    ["10.0.0.1/31", bytes(10, 0, 0, 0)],
    ["10.0.0.255/16", bytes(10, 0, 0, 254)],
  ])("returns a neighbour of %s that no host has", (text, peer) => {
    expect(parseInterfaceAddress(text)?.peer).toEqual(peer);
  });

  it.each(["10.0.0.1", "10.0.0.1/32", "10.0.0.0/24", "10.0.0.255/24", "fd00::1/128", "10.0.0.1/33", "x/8"])(
    "refuses %s",
    (text) => {
      expect(parseInterfaceAddress(text)).toBeUndefined();
    },
  );
});

describe("parseEgress", () => {
  it.each([
    ["sockets", { kind: "sockets" }],
    ["socks5://u:p@h:1", { kind: "socks5", url: "socks5://u:p@h:1" }],
    ["unix:/run/x", { kind: "unix", path: "/run/x" }],
    ["tun2socks:", { kind: "tun2socks", udpVia: "direct" }],
    ["tun2socks:socks5://h:1", { kind: "tun2socks", udpVia: "socks5://h:1" }],
    ["exec:tun2socks  --device pipe:", { kind: "exec", argv: ["tun2socks", "--device", "pipe:"] }],
    ['exec:["a b","c"]', { kind: "exec", argv: ["a b", "c"] }],
  ])("reads %s", (text, expected) => {
    expect(parseEgress(text)).toEqual(expected);
  });

  it.each(["", "socket", "unix:", "exec:", "exec: ", "exec:[1]", 'exec:["a"', "http://h:1"])(
    "refuses %j",
    (text) => {
      expect(parseEgress(text)).toBeUndefined();
    },
  );
});
