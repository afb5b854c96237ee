import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { describe, expect, it } from "vitest";
import { TargetPolicy } from "../../../../src/host/addresses/target-policy.ts";
import type { AddressBytes } from "../../../../src/wire/socket-address.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";

const permits = (policy: TargetPolicy, host: string, port = 53) => policy.permits(makeAddress(host, port)!);

/** Networks whose inside and surroundings are tested, with /0 for all others. */
const IPV4_NETWORKS =
  "0.0.0.0/0 0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 " +
  "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32";
const IPV6_NETWORKS =
  "::/0 ::/96 ::/128 ::1/128 ::ffff:0:0/96 ::ffff:7f00:0/104 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b::a00:0/104 " +
  "64:ff9b:1::/48 100::/64 2000::/3 2001::/23 2001::/32 2001:db8::/32 2002::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8";

/** Texts of addresses in one of the networks, or outside it by one bit of its prefix. */
function hostNear(networks: string): fc.Arbitrary<string> {
  return fc.constantFrom(...networks.split(" ").map(ipaddr.parseCIDR)).chain(([network, prefixLength]) => {
    const bytes = network.toByteArray();
    const noise = fc.uint8Array({ minLength: bytes.length, maxLength: bytes.length });
    const flippedBit =
      prefixLength === 0 ? fc.constant(null) : fc.option(fc.nat(prefixLength - 1), { freq: 2 });
    return fc.tuple(noise, flippedBit).map(([tail, flipped]) => {
      const mixed = bytes.map((byte, i) => {
        const kept = Math.min(Math.max(prefixLength - 8 * i, 0), 8);
        const mask = 0xff >> kept;
        return byte | (tail[i] & mask);
      });
      if (flipped !== null) mixed[flipped >> 3] ^= 0x80 >> (flipped & 7);
      return ipaddr.fromByteArray(mixed).toString();
    });
  });
}

/** Documentation networks and the old relays of 6to4: ipaddr.js calls them reserved, but no host inside a network has them. */
const HARMLESS = ["192.0.2.0/24", "192.88.99.0/24", "198.51.100.0/24", "203.0.113.0/24"].map((cidr) =>
  ipaddr.IPv4.parseCIDR(cidr),
);

function isPublicIpv4(address: ipaddr.IPv4): boolean {
  const range = address.range();
  if (range === "reserved") return HARMLESS.some((network) => address.match(network));
  return ["unicast", "as112", "amt"].includes(range);
}

const DENIED_IPV6 = new Set([
  "unspecified",
  "loopback",
  "linkLocal",
  "multicast",
  "uniqueLocal",
  "deprecatedSiteLocal",
  "rfc6145",
  "6to4",
  "teredo",
]);

function isPublicIpv6(address: ipaddr.IPv6): boolean {
  const inner = new ipaddr.IPv4(address.toByteArray().slice(12));
  if (address.match(ipaddr.IPv6.parseCIDR("64:ff9b:1::/48"))) return false;
  if (["ipv4Mapped", "rfc6052"].includes(address.range())) return isPublicIpv4(inner);
  return !DENIED_IPV6.has(address.range()) && !address.match(ipaddr.IPv6.parseCIDR("::/96"));
}

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
    "192.0.0.0",
    "192.0.0.255",
    "192.168.1.1",
    "198.18.0.0",
    "198.19.255.255",
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
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "64:ff9b::909:909",
    "::ffff:9.9.9.9",
  ])("permits %s", (host) => {
    expect(permits(policy, host)).toBe(true);
  });

  it("denies port 0 and names that were not resolved", () => {
    expect(permits(policy, "9.9.9.9", 0)).toBe(false);
    expect(permits(policy, "example.com")).toBe(false);
  });

  it("permits exactly the IPv4 addresses that ipaddr.js puts in no special range, also in mapped and NAT64 form", () => {
    const forms = ["", "::ffff:", "64:ff9b::"];
    fc.assert(
      fc.property(hostNear(IPV4_NETWORKS), fc.constantFrom(...forms), (host, form) => {
        expect({ host, form, isPermitted: permits(policy, form + host) }).toEqual({
          host,
          form,
          isPermitted: isPublicIpv4(ipaddr.IPv4.parse(host)),
        });
      }),
      { seed: 5, numRuns: 20_000 },
    );
  });

  it("permits exactly the IPv6 addresses that ipaddr.js puts in no special range", () => {
    fc.assert(
      fc.property(hostNear(IPV6_NETWORKS), (host) => {
        const isPermitted = permits(policy, host);
        expect({ host, isPermitted }).toEqual({ host, isPermitted: isPublicIpv6(ipaddr.IPv6.parse(host)) });
      }),
      { seed: 6, numRuns: 20_000 },
    );
  });
});

describe("TargetPolicy with rules", () => {
  it("permits a target that is allowed explicitly, on the ports that are given", () => {
    const policy = new TargetPolicy(["127.0.0.0/8:53,1000-2000", "[fd00::/8]:443", "10.0.0.0/8"], []);
    expect(permits(policy, "127.0.0.1", 53)).toBe(true);
    expect(permits(policy, "127.0.0.1", 1500)).toBe(true);
    expect(permits(policy, "127.0.0.1", 54)).toBe(false);
    expect(permits(policy, "fd00::1", 443)).toBe(true);
    expect(permits(policy, "fd00::1", 444)).toBe(false);
    expect(permits(policy, "10.9.8.7", 1)).toBe(true);
    expect(permits(policy, "192.168.0.1", 53)).toBe(false);
  });

  it.each(["192.0.0.0/24", "198.18.0.0/15"])("lifts the default denial of %s", (cidr) => {
    const host = cidr.replace("0/", "9/").split("/")[0];
    expect(permits(new TargetPolicy([cidr], []), host)).toBe(true);
    expect(permits(new TargetPolicy([], []), host)).toBe(false);
  });

  it("denies before it allows, and judges a mapped address as the IPv4 address inside", () => {
    const policy = new TargetPolicy(["10.0.0.0/8"], ["10.1.0.0/16", "9.9.9.0/24:53"]);
    expect(permits(policy, "10.2.0.1")).toBe(true);
    expect(permits(policy, "10.1.0.1")).toBe(false);
    expect(permits(policy, "::ffff:10.1.0.1")).toBe(false);
    expect(permits(policy, "9.9.9.9", 53)).toBe(false);
    expect(permits(policy, "9.9.9.9", 54)).toBe(true);
  });

  it("reads a rule for mapped addresses as a rule for IPv4", () => {
    const policy = new TargetPolicy(["[::ffff:10.0.0.0/104]:53"], ["::ffff:10.1.0.0/112"]);
    expect(permits(policy, "10.2.0.1")).toBe(true);
    expect(permits(policy, "::ffff:10.2.0.1")).toBe(true);
    expect(permits(policy, "10.2.0.1", 54)).toBe(false);
    expect(permits(policy, "10.1.0.1")).toBe(false);
  });

  it("judges each target by itself, whichever it has judged before", () => {
    const policy = new TargetPolicy(["10.0.0.0/8"], ["9.9.9.9:53"]);
    const address = makeAddress("10.0.0.1", 53)!;
    for (let i = 0; i < 2; i++) {
      expect(permits(policy, "9.9.9.9", 53)).toBe(false);
      expect(permits(policy, "9.9.9.9", 54)).toBe(true);
      expect(permits(policy, "11.0.0.1")).toBe(true);
      expect(permits(policy, "127.0.0.1")).toBe(false);
      expect(policy.permits(address)).toBe(true);
    }
  });

  it.each([
    { bytes: "a Uint8Array", copy: (address: Uint8Array) => Uint8Array.from(address) },
    { bytes: "a Buffer", copy: (address: Uint8Array) => Buffer.from(address) },
  ])("remembers no target in the caller's memory, which is $bytes", ({ copy }) => {
    const policy = new TargetPolicy(["10.0.0.0/8"], []);
    const address = copy(makeAddress("10.0.0.1", 53)!) as AddressBytes;
    expect(policy.permits(address)).toBe(true);
    address.set(makeAddress("127.0.0.1", 53)!);
    expect(policy.permits(address)).toBe(false);
  });
});
