import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { describe, expect, it } from "vitest";
import { TargetPolicy } from "../../src/node/target-policy.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";

const permits = (policy: TargetPolicy, host: string, port = 53) => policy.permits(makeAddress(host, port)!);

describe("TargetPolicy without rules", () => {
  const policy = new TargetPolicy([], []);

  it.each([
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001:0:7f00:1::1",
  ])("denies %s", (host) => {
    expect(permits(policy, host)).toBe(false);
  });

  it.each([
    "1.1.1.1",
    "9.9.9.9",
    "100.128.0.1",
    "172.32.0.1",
    "192.167.255.255",
    "223.255.255.255",
    "2606:4700::1111",
    "64:ff9b::909:909",
    "::ffff:9.9.9.9",
  ])("permits %s", (host) => {
    expect(permits(policy, host)).toBe(true);
  });

  it("denies port 0 and whatever was not resolved", () => {
    expect(permits(policy, "9.9.9.9", 0)).toBe(false);
    expect(permits(policy, "example.com")).toBe(false);
  });

  it("permits no IPv4 address that ipaddr.js does not call unicast", () => {
    fc.assert(
      fc.property(fc.ipV4(), (host) => {
        const range = ipaddr.IPv4.parse(host).range();
        return (
          range === "unicast" ||
          range === "reserved" ||
          range === "as112" ||
          range === "amt" ||
          !permits(policy, host)
        );
      }),
      { seed: 5, numRuns: 20_000 },
    );
  });

  it("permits no IPv6 address of the ranges that ipaddr.js calls local, multicast or unspecified", () => {
    const local = new Set([
      "unspecified",
      "linkLocal",
      "multicast",
      "loopback",
      "uniqueLocal",
      "6to4",
      "teredo",
    ]);
    fc.assert(
      fc.property(fc.ipV6(), (host) => !local.has(ipaddr.IPv6.parse(host).range()) || !permits(policy, host)),
      { seed: 6, numRuns: 20_000 },
    );
  });
});

describe("TargetPolicy with rules", () => {
  it("lifts the default denial for what is allowed by name, on the ports that are named", () => {
    const policy = new TargetPolicy(["127.0.0.0/8:53,1000-2000", "[fd00::/8]:443", "10.0.0.0/8"], []);
    expect(permits(policy, "127.0.0.1", 53)).toBe(true);
    expect(permits(policy, "127.0.0.1", 1500)).toBe(true);
    expect(permits(policy, "127.0.0.1", 54)).toBe(false);
    expect(permits(policy, "fd00::1", 443)).toBe(true);
    expect(permits(policy, "fd00::1", 444)).toBe(false);
    expect(permits(policy, "10.9.8.7", 1)).toBe(true);
    expect(permits(policy, "192.168.0.1", 53)).toBe(false);
  });

  it("lets a denial win over an allowance, and a mapped address be judged as the IPv4 address inside", () => {
    const policy = new TargetPolicy(["10.0.0.0/8"], ["10.1.0.0/16", "9.9.9.0/24:53"]);
    expect(permits(policy, "10.2.0.1")).toBe(true);
    expect(permits(policy, "10.1.0.1")).toBe(false);
    expect(permits(policy, "::ffff:10.1.0.1")).toBe(false);
    expect(permits(policy, "9.9.9.9", 53)).toBe(false);
    expect(permits(policy, "9.9.9.9", 54)).toBe(true);
  });
});
