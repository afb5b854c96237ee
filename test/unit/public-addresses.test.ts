import type { NetworkInterfaceInfo } from "node:os";
import { describe, expect, it } from "vitest";
import { publicIps } from "../../src/node/public-addresses.ts";

const info = (address: string): NetworkInterfaceInfo => {
  const internal = address === "127.0.0.1" || address === "::1";
  const rest = { address, netmask: "", mac: "", internal, cidr: null };
  return address.includes(":") ? { ...rest, family: "IPv6", scopeid: 0 } : { ...rest, family: "IPv4" };
};
const machine = {
  lo: ["127.0.0.1", "::1"].map(info),
  eth0: ["192.0.2.2", "192.0.2.3", "fe80::2", "fd00::2", "2001:db8::2", "2001:db8::3"].map(info),
  eth1: ["169.254.1.1", "198.51.100.1", "fe80::1"].map(info),
};

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

  it("are loopback's on a machine that has nothing else, and none where there is none", () => {
    expect(publicIps(undefined, { lo: machine.lo })).toEqual(["127.0.0.1", "::1"]);
    expect(publicIps(undefined, {})).toEqual([]);
  });
});
