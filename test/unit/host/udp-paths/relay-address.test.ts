import { describe, expect, it } from "vitest";
import { Cancellation } from "../../../../src/host/cancellation.ts";
import { silentLogger } from "../../../../src/host/log.ts";
import { configuredRelay, relayAddress } from "../../../../src/host/udp-paths/relay-address.ts";
import { chooseIo } from "../../../../src/node/io/io.ts";
import { nodeSystem } from "../../../../src/node/system.ts";
import { formatAddress, makeAddress } from "../../../../src/wire/socket-address.ts";

const system = nodeSystem(chooseIo("plain", "balanced", silentLogger));

async function relayOf(bound: string, peer: string): Promise<string> {
  const { address, zone } = await relayAddress(system, makeAddress(bound, 53)!, peer, new Cancellation());
  return `${formatAddress(address)}${zone === undefined ? "" : ` in ${zone}`}`;
}

describe("relayAddress", () => {
  it.each([
    ["0.0.0.0", "127.0.0.1"],
    ["::", "198.51.100.7"],
    ["0.1.2.3", "192.168.1.2"],
    ["255.255.255.255", "127.0.0.1"],
    ["224.0.0.1", "198.51.100.7"],
    ["ff02::1", "2001:db8::7"],
    ["127.0.0.1", "192.168.1.2"],
    ["127.0.0.1", "169.254.1.2"],
    ["::1", "2001:db8::7"],
    ["::ffff:127.0.0.1", "10.0.0.1"],
    ["169.254.9.9", "10.0.0.1"],
    ["fe80::9", "fd00::7"],
    ["10.1.2.3", "198.51.100.7"],
    ["172.31.2.3", "198.51.100.7"],
    ["192.168.2.3", "2001:db8::7"],
    ["100.64.2.3", "198.51.100.7"],
    ["fd00::9", "198.51.100.7"],
    ["localhost", "198.51.100.7"],
  ])("replaces %s, which a client of %s cannot reach, by the latter", async (bound, peer) => {
    expect(await relayOf(bound, peer)).toBe(formatAddress(makeAddress(peer, 53)!));
  });

  it.each([
    ["127.0.0.1", "127.0.0.1"],
    ["127.0.0.2", "127.0.0.1"],
    ["192.168.2.3", "127.0.0.1"],
    ["192.168.2.3", "10.0.0.1"],
    ["10.0.0.1", "fd00::7"],
    ["203.0.113.9", "198.51.100.7"],
    ["203.0.113.9", "10.0.0.1"],
    ["2001:db8::9", "198.51.100.7"],
    ["172.32.0.1", "198.51.100.7"],
    ["198.18.0.1", "198.51.100.7"],
  ])("keeps %s from a server at %s", async (bound, peer) => {
    expect(await relayOf(bound, peer)).toBe(formatAddress(makeAddress(bound, 53)!));
  });

  it("takes the zone of a link-local relay, and of no other, from the control connection", async () => {
    expect(await relayOf("fe80::9", "fe80::7%eth0")).toBe("[fe80::9]:53 in eth0");
    expect(await relayOf("::", "fe80::7%eth0")).toBe("[fe80::7]:53 in eth0");
    expect(await relayOf("2001:db8::9", "fe80::7%eth0")).toBe("[2001:db8::9]:53");
  });

  it("refuses a reply with port 0", async () => {
    const unspecified = makeAddress("192.0.2.1", 0)!;
    const relay = relayAddress(system, unspecified, "192.0.2.1", new Cancellation());
    await expect(relay).rejects.toThrow("UDP port 0");
  });
});

it("configuredRelay resolves a name, and accepts an address with its zone", async () => {
  const named = await configuredRelay(system, "localhost", 53, new Cancellation());
  expect(["127.0.0.1:53", "[::1]:53"]).toContain(formatAddress(named.address));
  const { address, zone } = await configuredRelay(system, "fe80::7%eth0", 53, new Cancellation());
  expect([formatAddress(address), zone]).toEqual(["[fe80::7]:53", "eth0"]);
});
