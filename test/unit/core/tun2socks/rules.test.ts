import { describe, expect, it } from "vitest";
import {
  parseRule,
  ROUTE_DIRECT,
  ROUTE_DROP,
  ROUTE_REJECT,
  ROUTE_SOCKS,
  ROUTE_TUNNEL,
  routeOf,
} from "../../../../src/core/tun2socks/rules.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP } from "../../../../src/wire/ip/ip-packet.ts";
import { ip } from "../../packet-oracle.ts";

const OTHERWISE = 63;

function route(
  rules: string[],
  protocol: "tcp" | "udp",
  host: string,
  port: number,
  payload: Uint8Array = Buffer.alloc(0),
) {
  const address = ip(host);
  const bytes = Buffer.concat([address, payload]);
  const number = protocol === "tcp" ? PROTOCOL_TCP : PROTOCOL_UDP;
  const { length } = address;
  return routeOf(rules.map(parseRule), number, bytes, 0, length, port, length, bytes.length, OTHERWISE);
}

function query(name: string, flags = 0x0100): Buffer {
  const labels = name.split(".").map((label) => Buffer.from([label.length, ...Buffer.from(label)]));
  const header = Buffer.from([0x12, 0x34, flags >> 8, flags & 255, 0, 1, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, 1, 0, 1])]);
}

describe("rules", () => {
  it.each([
    ["udp 10.0.0.0/8:53 reject", "udp", "10.1.2.3", 53, ROUTE_REJECT],
    ["udp 10.0.0.0/8:53 reject", "tcp", "10.1.2.3", 53, OTHERWISE],
    ["udp 10.0.0.0/8:53 reject", "udp", "10.1.2.3", 54, OTHERWISE],
    ["udp 10.0.0.0/8:53 reject", "udp", "11.1.2.3", 53, OTHERWISE],
    ["any 192.168.0.0/16 direct", "tcp", "192.168.255.1", 9, ROUTE_DIRECT],
    ["any 192.168.0.0/16 direct", "udp", "192.169.0.1", 9, OTHERWISE],
    ["udp *:443 reject", "udp", "2001:db8::1", 443, ROUTE_REJECT],
    ["udp *:443,8000-8999 tunnel", "udp", "192.0.2.1", 8999, ROUTE_TUNNEL],
    ["tcp * socks", "tcp", "192.0.2.1", 1, ROUTE_SOCKS],
    ["tcp 2001:db8::/33 socks:3", "tcp", "2001:db8:7fff::1", 1, ROUTE_SOCKS + 3],
    ["tcp 2001:db8::/33 socks:3", "tcp", "2001:db8:8000::1", 1, OTHERWISE],
    ["any [2001:db8::1]:80 drop", "tcp", "2001:db8::1", 80, ROUTE_DROP],
    ["any 0.0.0.0/0 drop", "tcp", "2001:db8::1", 80, OTHERWISE],
  ] as const)("%s, for %s %s port %i", (rule, protocol, host, port, expected) => {
    expect(route([rule], protocol, host, port)).toBe(expected);
  });

  it("the first rule that matches decides", () => {
    const rules = ["udp 10.0.0.1:53 tunnel", "any 10.0.0.0/8 direct", "any * drop"];
    expect(route(rules, "udp", "10.0.0.1", 53)).toBe(ROUTE_TUNNEL);
    expect(route(rules, "tcp", "10.0.0.1", 53)).toBe(ROUTE_DIRECT);
    expect(route(rules, "tcp", "192.0.2.1", 53)).toBe(ROUTE_DROP);
  });

  it.each([
    ["corp.example", "corp.example", true],
    ["corp.example", "a.b.CORP.Example", true],
    ["corp.example.", "corp.example", true],
    ["corp.example", "notcorp.example", false],
    ["corp.example", "example", false],
    ["corp.example", "corp.example.org", false],
  ])("domain:%s for a query of %s: %s", (rule, name, expected) => {
    const matched = route([`udp domain:${rule} reject`], "udp", "192.0.2.1", 53, query(name));
    expect(matched).toBe(expected ? ROUTE_REJECT : OTHERWISE);
  });

  it("a domain rule matches only whole DNS queries to port 53", () => {
    const rules = ["udp domain:example reject"];
    const whole = query("example");
    expect(route(rules, "udp", "192.0.2.1", 54, whole)).toBe(OTHERWISE);
    expect(route(rules, "tcp", "192.0.2.1", 53, whole)).toBe(OTHERWISE);
    expect(route(rules, "udp", "192.0.2.1", 53, query("example", 0x8180))).toBe(OTHERWISE);
    for (let length = 0; length < 12 + 9; length++) {
      expect(route(rules, "udp", "192.0.2.1", 53, whole.subarray(0, length))).toBe(OTHERWISE);
    }
    const pointer = Buffer.concat([whole.subarray(0, 12), Buffer.from([0xc0, 0x0c, 0, 1, 0, 1])]);
    expect(route(rules, "udp", "192.0.2.1", 53, pointer)).toBe(OTHERWISE);
  });

  it.each([
    "",
    "udp *",
    "udp * reject now",
    "icmp * drop",
    "udp 10.0.0.0/33 drop",
    "udp 10.0.0.0/8:0 drop",
    "udp 10.0.0.0/8:70000 drop",
    "udp 10.0.0.0/8:9-8 drop",
    "udp example.com drop",
    "udp * socks:60",
    "udp * socks:x",
    "tcp * tunnel",
    "any * tunnel",
    "tcp domain:example drop",
    "udp domain: drop",
    "udp domain:a..b drop",
    "udp domain:exa mple drop",
  ])("refuses %j with ERR_OPTION", (text) => {
    expect(() => parseRule(text)).toThrow(expect.objectContaining({ code: "ERR_OPTION" }));
  });
});
