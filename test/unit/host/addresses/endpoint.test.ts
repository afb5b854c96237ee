import { describe, expect, it } from "vitest";
import { parseEndpoint, parseUrlEndpoint, splitZone } from "../../../../src/host/addresses/endpoint.ts";

describe("parseEndpoint", () => {
  it.each([
    ["127.0.0.1:53", { host: "127.0.0.1", port: 53 }],
    ["a.test:0", { host: "a.test", port: 0 }],
    ["[2001:db8::1]:53", { host: "2001:db8::1", port: 53 }],
    ["[::ffff:192.0.2.1]:53", { host: "192.0.2.1", port: 53 }],
    ["[fe80::1%eth0]:53", { host: "fe80::1%eth0", port: 53 }],
    ["[fe80::1%br-lan.5]:53", { host: "fe80::1%br-lan.5", port: 53 }],
    ["[febf::1%3]:53", { host: "febf::1%3", port: 53 }],
    ["unix:/run/a", { path: "/run/a" }],
  ])("reads %s", (text, endpoint) => {
    expect(parseEndpoint(text)).toEqual(endpoint);
  });

  it.each([
    "127.0.0.1",
    "127.0.0.1:65536",
    "::1:53",
    "[::1]",
    "unix:",
    "[fe80::1%]:53",
    "[fe80::1%eth0%eth1]:53",
    "[fe80::1%eth 0]:53",
    "[fe80::1%eth/0]:53",
    "[fe80::1%eth0]",
    "fe80::1%eth0:53",
  ])("refuses %s", (text) => {
    expect(() => parseEndpoint(text)).toThrow(`"${text}" is not HOST:PORT, [IPv6]:PORT or unix:/path`);
  });

  it.each(["[2001:db8::1%eth0]:53", "[fec0::1%eth0]:53", "[::ffff:192.0.2.1%eth0]:53", "[fe80:::%eth0]:53"])(
    "refuses the zone of %s, which is not a link-local address",
    (text) => {
      expect(() => parseEndpoint(text)).toThrow(`"${text}": only link-local IPv6 addresses have a zone`);
    },
  );
});

it("parseUrlEndpoint reads a zone after %25, as in RFC 6874, and after a bare %", () => {
  for (const text of ["[fe80::1%25eth0]:53", "[fe80::1%eth0]:53"]) {
    expect(parseUrlEndpoint(text)).toEqual({ host: "fe80::1%eth0", port: 53 });
  }
});

it("splitZone leaves names and IPv4 alone", () => {
  expect(splitZone("a%b.test")).toEqual({ ip: "a%b.test", zone: undefined });
  expect(splitZone("fe80::1%eth0")).toEqual({ ip: "fe80::1", zone: "eth0" });
});
