import { describe, expect, it } from "vitest";
import { parseCarrierChain } from "../../../../src/host/carriers/carrier-chain.ts";
import { complaint, KEY, resolveLocal, resolveServer } from "./resolving.ts";

describe("ways", () => {
  it("end with their own server, or use each given server, those of the first one first", () => {
    const { ways } = resolveLocal({
      server: ["a:1", "b:1"],
      ways: ["tls://", " ss://aes-256-gcm:p@h:1  tls://  c:1 ", "d:1"],
    });
    expect(ways).toEqual([
      { via: ["tls://"], server: "a:1" },
      { via: ["ss://aes-256-gcm:p@h:1", "tls://"], server: "c:1" },
      { via: [], server: "d:1" },
      { via: ["tls://"], server: "b:1" },
    ]);
  });

  it("are one for each server without them", () => {
    expect(resolveLocal({ server: ["a:1", "b:1"], via: ["tls://"] }).ways).toEqual([
      { via: ["tls://"], server: "a:1" },
      { via: ["tls://"], server: "b:1" },
    ]);
  });
});

it("a server on a Unix socket can be reached directly or over TLS", () => {
  for (const via of [[], ["tls://"], ["http://h:1", "tls://h:2"]]) {
    expect(resolveLocal({ server: "unix:/a", via })).toMatchObject({ ways: [{ server: "unix:/a", via }] });
  }
});

describe("listening", () => {
  it("SOCKS5 is off when there are only forwards, and on when it is asked for as well", () => {
    const forwards = ["127.0.0.1:5353=9.9.9.9:53"];
    expect(resolveLocal({ forwards })).toMatchObject({
      listen: false,
      forwards: [{ listen: "127.0.0.1:5353", target: "9.9.9.9:53" }],
    });
    expect(resolveLocal({ forwards, listen: "[::1]:0" })).toMatchObject({ listen: "[::1]:0" });
  });

  it("accepts a link-local address with its zone wherever an address of this machine's links is allowed", () => {
    const host = "[fe80::1%eth0]";
    const way = { server: `${host}:3456`, via: [`tls://${host}:443`] };
    const local = {
      listen: `${host}:1080`,
      tcpVia: ["socks5://[fe80::1%25eth0]:1080"],
      forwards: [{ listen: `${host}:53`, target: "9.9.9.9:53" }],
    };
    expect(resolveLocal({ ...local, ...way })).toMatchObject({ ...local, ways: [way] });
    expect(resolveLocal({ via: [`socks5://${host}:1080`] })).toMatchObject({
      ways: [{ via: [`socks5://${host}:1080`] }],
    });
    for (const egress of [`socks5://${host}:1`, `socks5-udp://${host}:1`, `tun2socks:socks5://${host}:1`]) {
      expect(resolveServer({ listen: [`${host}:3456`], psk: KEY, egress })).toMatchObject({ egress });
    }
  });

  it("accepts ports and addresses for SOCKS5 clients' datagrams", () => {
    const listen = "[::]:1080";
    for (const socksUdpPorts of ["1080", "40000-40999", "65535", "1-65535", "7-7"]) {
      expect(resolveLocal({ listen, socksUdpPorts })).toMatchObject({ socksUdpPorts });
    }
    const socksAdvertise = ["2001:db8::1", "198.51.100.1"];
    expect(resolveLocal({ listen, socksAdvertise })).toMatchObject({ socksAdvertise });
    expect(resolveLocal({ listen, socksUdpPorts: "1-9", workers: 2 })).toMatchObject({ workers: 2 });
  });

  it.each([
    [
      { latencyRules: ["interactive:5060", "fast:53"] },
      /^latencyRules\[1\]: expected CLASS:PORTS or CLASS:CIDR\[:PORTS\], .*, got "fast:53"$/,
    ],
    [
      { latencyRules: ["bulk:53", "interactive:dscp=46"] },
      /^latencyRules\[1\]: interactive:dscp=46: only tun2socks sees the DSCP of packets: give PORTS/,
    ],
    [{ latency: "fast" }, /^latency: expected interactive, balanced or bulk, got "fast"$/],
    [{ socksUdpPorts: "0" }, /^socksUdpPorts: expected FROM-TO or PORT, from 1 to 65535, got "0"$/],
    [{ socksUdpPorts: "9-8" }, /^socksUdpPorts: expected/],
    [{ socksUdpPorts: "1-65536" }, /^socksUdpPorts: expected/],
    [{ socksUdpPorts: "1-2-3" }, /^socksUdpPorts: expected/],
    [{ socksUdpPorts: "9", workers: 2 }, /^socksUdpPorts: 9: a shared port needs workers 1: give FROM-TO/],
    [{ socksUdpPorts: "9", listen: false }, /^socksUdpPorts: there is no SOCKS5 server: give listen$/],
    [
      { socksAdvertise: ["192.0.2.1"], listen: false },
      /^socksAdvertise: there is no SOCKS5 server: give listen$/,
    ],
    [{ socksAdvertise: ["0.0.0.0"] }, /^socksAdvertise\[0\]: expected an IPv4 address/],
    [{ socksAdvertise: ["ff02::1"] }, /^socksAdvertise\[0\]: expected/],
    [{ socksAdvertise: ["fe80::1%eth0"] }, /^socksAdvertise\[0\]: expected/],
    [{ socksAdvertise: ["host"] }, /^socksAdvertise\[0\]: expected/],
    [{ socksAdvertise: ["192.0.2.1", "192.0.2.2"] }, /^socksAdvertise: expected .* one of each/],
  ])("refuses %j", (options, pattern) => {
    const forwards = ["127.0.0.1:0=9.9.9.9:53"];
    expect(complaint(() => resolveLocal({ listen: "[::]:1080", forwards, ...options }))).toMatch(pattern);
  });

  it("refuses a zone that another machine would have to know", () => {
    const target = "[fe80::1%eth0]:53";
    expect(complaint(() => resolveLocal({ forwards: [`127.0.0.1:53=${target}`] }))).toBe(
      `forwards[0]: ${target}: the server does not know this machine's zones`,
    );
    for (const via of [["socks5://h:1"], ["http://h:1", "tls://"], ["socks5://h:1", `tls://${target}`]]) {
      const server = via.length > 1 && via[1] !== "tls://" ? "h:2" : target;
      expect(complaint(() => parseCarrierChain({ server, via }))).toBe(
        `via: no proxy can reach ${target}, as its zone belongs to this machine`,
      );
    }
    expect(complaint(() => resolveServer({ publicAddress: ["fe80::1%eth0"] }))).toMatch(/without a zone/);
  });

  it("reads the words after a forward's target as its flags", () => {
    expect(resolveLocal({ forwards: ["127.0.0.1:69=192.0.2.1:69,any-port"] })).toMatchObject({
      forwards: [{ listen: "127.0.0.1:69", target: "192.0.2.1:69", anyPort: true }],
    });
    expect(complaint(() => resolveLocal({ forwards: ["127.0.0.1:69=192.0.2.1:69,any"] }))).toMatch(
      /^forwards\[0\]\.target: expected LISTEN=TARGET\[,any-port\]/,
    );
  });

  it("an IPv4-mapped address to listen on is read as IPv4", () => {
    const listen = ["[::ffff:127.0.0.1]:1", "[::ffff:192.0.2.1]:2"];
    expect(resolveServer({ listen, psk: KEY })).toMatchObject({ listen: ["127.0.0.1:1", "192.0.2.1:2"] });
    expect(resolveServer({ listen: listen.slice(0, 1) })).toMatchObject({ listen: ["127.0.0.1:1"] });
    expect(() => resolveServer({ listen })).toThrow(/listen\[1\]: 192\.0\.2\.1:2 would let anybody/);
  });

  it("localhost is 127.0.0.1, and targets may be IPv6 addresses and domain names", () => {
    expect(
      resolveLocal({ forwards: ["localhost:0=[2001:db8::1]:53", "[::1]:0=dns.example:53"] }),
    ).toMatchObject({
      forwards: [
        { listen: "127.0.0.1:0", target: "[2001:db8::1]:53" },
        { listen: "[::1]:0", target: "dns.example:53" },
      ],
    });
  });

  it.each(["127.0.0.1:0", "127.9.9.9:1", "localhost:1", "[::1]:0", "[0:0:0:0:0:0:0:1]:0", "unix:/run/a"])(
    "listening on %s needs no key",
    (listen) => {
      expect(() => resolveServer({ listen: [listen] })).not.toThrow();
    },
  );

  it("dialects beside a key need loopback, ss:// or insecureOpenRelay", () => {
    const udpgw = { dialects: ["udpgw"], psk: KEY };
    expect(() => resolveServer(udpgw)).not.toThrow();
    expect(() => resolveServer({ ...udpgw, listen: ["0.0.0.0:1"], insecureOpenRelay: true })).not.toThrow();
    expect(() => resolveServer({ listen: ["192.0.2.1:1", "udpgw://127.0.0.1:1"], psk: KEY })).not.toThrow();
    const target = { dialectTarget: "10.0.0.1:53", allow: ["10.0.0.1/32:53"] };
    expect(() => resolveServer({ dialects: ["gnb"], ...target })).not.toThrow();
  });

  it.each(["0.0.0.0:0", "[::]:0", "192.0.2.1:3456", "[fe80::1]:1", "10.0.0.1:1"])(
    "listening on %s needs a key or insecureOpenRelay",
    (listen) => {
      const lists = ["127.0.0.1:0", listen];
      expect(complaint(() => resolveServer({ listen: lists }))).toBe(
        `listen[1]: ${listen} would let anybody send through this server: give psk or keys, listen on loopback, ` +
          "or set insecureOpenRelay",
      );
      expect(() => resolveServer({ listen: lists, psk: KEY })).not.toThrow();
      expect(() => resolveServer({ listen: lists, insecureOpenRelay: true })).not.toThrow();
    },
  );
});

describe("the decoy for strangers", () => {
  it.each(["https://www.example.com", "http://127.0.0.1:8080/base/", import.meta.dirname])(
    "may be %s",
    (decoy) => {
      expect(resolveServer({ decoy, wsPath: "/tunnel" })).toMatchObject({ decoy, wsPath: "/tunnel" });
    },
  );

  it.each([
    [{ decoy: "" }, /^decoy: expected a folder/],
    [{ decoy: "ftp://a" }, /^decoy: expected a folder/],
    [{ decoy: "http://" }, /^decoy: expected a folder/],
    [{ decoy: "http://u:p@a" }, /^decoy: expected a folder.*, got "http:\/\/\*\*\*@a"$/],
    [{ decoy: "http://a/?b" }, /^decoy: expected a folder/],
    [{ decoy: "/no/such/folder" }, /^decoy: \/no\/such\/folder: no such file or directory \(ENOENT\)$/],
    [{ decoy: import.meta.filename }, /^decoy: .* is not a folder$/],
    [{ wsPath: "tunnel" }, /^wsPath: expected a path/],
    [{ wsPath: "/a b" }, /^wsPath: expected a path/],
    [{ wsPath: "/a?b" }, /^wsPath: expected a path/],
  ])("may not be %j", (options, message) => {
    expect(complaint(() => resolveServer(options))).toMatch(message);
  });
});
