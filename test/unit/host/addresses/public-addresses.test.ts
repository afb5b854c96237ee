import { describe, expect, it } from "vitest";
import { publicIps } from "../../../../src/host/addresses/public-addresses.ts";
import type { InterfaceIp } from "../../../../src/host/system.ts";

const info = (ip: string): InterfaceIp => ({ ip, isInternal: ip === "127.0.0.1" || ip === "::1" });
const LOOPBACK = ["127.0.0.1", "::1"].map(info);
const machine = [
  LOOPBACK,
  ["192.0.2.2", "192.0.2.3", "fe80::2", "fd00::2", "2001:db8::2", "2001:db8::3"].map(info),
  ["169.254.1.1", "198.51.100.1", "fe80::1"].map(info),
];

describe("public addresses", () => {
  it.each([
    ["are those of loopback for a client on it", "127.0.0.1", ["127.0.0.1", "::1"]],
    [
      "are the address that the client came to, and one of the other family",
      "192.0.2.3",
      ["192.0.2.3", "2001:db8::2"],
    ],
    ["are the same for a client that came by IPv6", "2001:db8::3", ["192.0.2.2", "2001:db8::3"]],
    ["are a unique local one where that is what the client came to", "fd00::2", ["192.0.2.2", "fd00::2"]],
    ["leave link-local ones out, even where the client came to one", "fe80::2", ["192.0.2.2", "2001:db8::2"]],
    ["are of one family on an interface that has one", "198.51.100.1", ["198.51.100.1"]],
    ["are an address without an interface alone", "127.0.0.2", ["127.0.0.2"]],
    ["are those that reach farthest for a client on a Unix socket", undefined, ["192.0.2.2", "2001:db8::2"]],
  ])("%s", (_, localIp, ips) => {
    expect(publicIps(localIp, machine)).toEqual(ips);
  });

  it("are loopback's on a machine with nothing else, and none without any", () => {
    expect(publicIps(undefined, [LOOPBACK])).toEqual(["127.0.0.1", "::1"]);
    expect(publicIps(undefined, [])).toEqual([]);
  });
});
