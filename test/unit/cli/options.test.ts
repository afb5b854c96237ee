import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import type { CommandLine } from "../../../src/cli/option-sources.ts";
import { gatherOptions } from "../../../src/cli/option-sources.ts";
import { isExposed, readCredentialsFile, readSecretFile } from "../../../src/cli/secret-file.ts";
import { HostError, UsageError } from "../../../src/core/errors.ts";
import { parseCarrierChain } from "../../../src/host/carriers/carrier-chain.ts";
import type { OptionFields } from "../../../src/host/options/fields/fields.ts";
import type { UdpServerOptions } from "../../../src/host/options/udp-server.ts";
import type { UdpLocalOptions } from "../../../src/node/options/udp-local.ts";
import { resolveUdpLocalOptions, UDP_LOCAL_FIELDS } from "../../../src/node/options/udp-local.ts";
import { resolveUdpServerOptions, UDP_SERVER_FIELDS } from "../../../src/node/options/udp-server.ts";

const KEY = new TextEncoder().encode("0123456789abcdef");
const folder = mkdtempSync(join(tmpdir(), "underpass-options-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// The tests pass wrong values, which the types must not refuse first.
const resolveLocal = (input: unknown) => resolveUdpLocalOptions(input as UdpLocalOptions);
const resolveServer = (input: unknown) => resolveUdpServerOptions(input as UdpServerOptions);

/** The thrown UsageError: one line, without the text of its code. */
function complaint(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    const { code, message } = error as UsageError;
    expect(code).toBe("ERR_OPTION");
    expect(message).not.toContain("\n");
    return message.replace("an option is missing or wrong: ", "");
  }
  throw new Error("nothing was thrown");
}

const forward = (target: string) => ({ listen: "127.0.0.1:0", target });

const NO_TAP = {
  tapFiles: 2,
  tapFileBytes: 104_857_600,
  tapPayloadBytes: 65_535,
  tapFilter: [],
  tapInterfaces: "one",
};

describe("defaults", () => {
  it("udp-local has these defaults", () => {
    expect(resolveLocal({})).toEqual({
      ...NO_TAP,
      listen: "127.0.0.1:1234",
      ways: [{ server: "127.0.0.1:3456", via: [] }],
      forwards: [],
      tcpVia: [],
      outMark: 0,
      socksAdvertise: [],
      socksUdpStrict: false,
      lanes: "auto",
      ageBudgetMs: 100,
      queueBytes: 1_048_576,
      heartbeatMs: 5_000,
      workers: 1,
      latency: "balanced",
      latencyRules: [],
      ipv6Only: false,
      maxAssociations: 4_096,
      maxContexts: 65_536,
      idleTimeoutS: 60,
      activeIdleTimeoutS: 300,
    });
  });

  it.each([
    ["/tunnel", "/tunnel"],
    ["/tunnel/", "/tunnel"],
    ["/a/b%20c/~d", "/a/b%20c/~d"],
    ["/", ""],
    ["", ""],
  ])("a path prefix of %j is read as %j", (given, taken) => {
    expect(resolveLocal({ pathPrefix: given }).pathPrefix).toBe(taken);
  });

  it("udp-server has these defaults", () => {
    expect(resolveServer({})).toEqual({
      ...NO_TAP,
      listen: ["127.0.0.1:3456"],
      ssRelay: "off",
      insecureOpenRelay: false,
      drainS: 0,
      allow: [],
      deny: [],
      dialects: [],
      filtering: "address-dependent",
      lingerS: 60,
      egress: "sockets",
      publicAddress: [],
      ageBudgetMs: 100,
      queueBytes: 1_048_576,
      heartbeatMs: 5_000,
      workers: 1,
      latency: "balanced",
      ipv6Only: false,
      maxTunnels: 8_192,
      maxHalfOpen: 256,
      maxSessions: 1_024,
      maxLingering: 1_024,
      maxAssociations: 16_384,
      maxAssociationsPerSession: 4_096,
      maxContextsPerSession: 65_536,
      handshakeTimeoutMs: 5_000,
      idleTimeoutS: 600,
    });
  });
});

describe("ranges", () => {
  it.each([
    ["ageBudgetMs", 1, 60_000],
    ["queueBytes", 131_072, 2 ** 30],
    ["heartbeatMs", 100, 60_000],
    ["workers", 1, 256],
    ["maxAssociations", 1, 1_000_000],
    ["maxContexts", 1, 1_000_000],
    ["idleTimeoutS", 1, 86_400],
    ["activeIdleTimeoutS", 1, 86_400],
  ])("udp-local's %s is an integer from %d to %d", (name, low, high) => {
    expectRange(resolveLocal, name, low, high);
  });

  it.each([
    ["lingerS", 0, 86_400],
    ["ageBudgetMs", 1, 60_000],
    ["queueBytes", 131_072, 2 ** 30],
    ["heartbeatMs", 100, 60_000],
    ["workers", 1, 256],
    ["maxTunnels", 1, 1_000_000],
    ["maxHalfOpen", 1, 1_000_000],
    ["maxSessions", 1, 1_000_000],
    ["maxLingering", 0, 1_000_000],
    ["maxAssociations", 1, 1_000_000],
    ["maxAssociationsPerSession", 1, 1_000_000],
    ["maxContextsPerSession", 1, 1_000_000],
    ["handshakeTimeoutMs", 100, 60_000],
    ["idleTimeoutS", 1, 86_400],
  ])("udp-server's %s is an integer from %d to %d", (name, low, high) => {
    expectRange(resolveServer, name, low, high);
  });

  function expectRange(resolve: (input: object) => object, name: string, low: number, high: number): void {
    for (const value of [low, high]) expect(() => resolve({ [name]: value })).not.toThrow();
    for (const value of [low - 1, high + 1, low + 0.5, Number.NaN, String(high), null]) {
      expect(complaint(() => resolve({ [name]: value }))).toMatch(
        new RegExp(`^${name}: expected an integer from ${low} to ${high}, got `),
      );
    }
  }

  it("udp-local's lanes is auto or an integer from 1 to 16", () => {
    for (const lanes of ["auto", 1, 16]) expect(() => resolveLocal({ lanes })).not.toThrow();
    for (const lanes of [0, 17, 1.5, "many", "2", null]) {
      expect(complaint(() => resolveLocal({ lanes }))).toMatch(
        /^lanes: expected auto or an integer from 1 to 16, got /,
      );
    }
  });

  it("raises activeIdleTimeoutS to idleTimeoutS when that is longer", () => {
    expect(resolveLocal({ idleTimeoutS: 400 })).toMatchObject({ activeIdleTimeoutS: 400 });
  });
});

describe("an error names the path and the value of the wrong field, and what is expected:", () => {
  it.each([
    [{ lanes: 17 }, "lanes: expected auto or an integer from 1 to 16, got 17"],
    [{ ageBudget: 5 }, "ageBudget: unknown option"],
    [{ via: ["unix:/a", "ftp://b:1"] }, /^via\[1\]: expected socks5:\/\/.*, got "ftp:\/\/b:1"$/],
    [{ via: "unix:/a" }, /^via: expected .*, got "unix:\/a"$/],
    [{ server: "nowhere" }, /^server: expected HOST:PORT, .*, got "nowhere"$/],
    [{ server: "a:1\nb" }, /^server: .*, got "a:1\\nb"$/],
    [{ server: "a:0" }, /^server: /],
    [{ pathPrefix: "tunnel" }, 'pathPrefix: expected a path, such as /tunnel, got "tunnel"'],
    [{ pathPrefix: "/a b" }, /^pathPrefix: /],
    [{ pathPrefix: "/a\r\nb" }, /^pathPrefix: /],
    [{ pathPrefix: "/a?b" }, /^pathPrefix: /],
    [{ pathPrefix: "//a" }, /^pathPrefix: /],
    [{ pathPrefix: `/${"a".repeat(1_000)}` }, /^pathPrefix: /],
    [{ server: "a:65536" }, /^server: /],
    [{ listen: "example.com:1" }, /^listen: expected IP:PORT .*, got "example.com:1"$/],
    [{ listen: "unix:/a" }, /^listen: /],
    [{ tcpVia: "http://a:1" }, /^tcpVia: expected socks5:\/\/.*, got "http:\/\/a:1"$/],
    [{ tcpVia: "socks5://a" }, /^tcpVia: expected socks5:\/\/.*, got "socks5:\/\/a"$/],
    [{ carrier: "tcp" }, /^carrier: expected a function .*, got "tcp"$/],
    [{ forwards: ["127.0.0.1:0"] }, /^forwards\[0\]: expected LISTEN=TARGET/],
    [
      { forwards: [{ listen: "127.0.0.1:0", target: "a:53" }, { listen: "127.0.0.1:0" }] },
      /^forwards\[1\]\.target: /,
    ],
    [{ forwards: [{ listen: "127.0.0.1:0", target: "a:0" }] }, /^forwards\[0\]\.target: .*, got "a:0"$/],
    [{ forwards: [{ listen: "127.0.0.1:0", target: "a:1", to: 1 }] }, "forwards[0].to: unknown option"],
    [{ listen: false }, /^listen: is off and there are no forwards/],
    [{ via: ["http://h:0"] }, /^via\[0\]: expected HOST:PORT, got "http:\/\/h:0"$/],
    [
      { via: ["http://h:1?header=Host:hunter2"] },
      'via[0]: Host cannot be set by a header option, got "http://h:1?header=***"',
    ],
    [{ via: [5] }, /^via\[0\]: expected socks5:\/\/.*, got 5$/],
    [{ tcpVia: "socks5://h:0" }, /^tcpVia: /],
    [
      { server: "unix:/a", via: ["http://h:1"] },
      'server: "unix:/a" is a socket of this machine: no proxy of via can reach it',
    ],
    [{ server: "unix:/a", via: ["tls://h:1", "socks5://h:1", "tls://"] }, /^server: "unix:\/a" is a socket/],
    [{ carrier: () => {}, via: ["unix:/a"] }, /^carrier: cannot be combined with via/],
    [{ carrier: () => {}, server: ["a:1", "b:1"] }, /^carrier: cannot be combined with .* several servers/],
    [{ server: ["a:1", "nowhere"] }, /^server\[1\]: expected HOST:PORT, .*, got "nowhere"$/],
    [{ server: [] }, /^server: expected HOST:PORT/],
    [{ ways: ["a:1"], via: ["unix:/a"] }, "ways: cannot be combined with via: give only one"],
    [
      { ways: ["a:1"], shadowsocks: "ss://aes-256-gcm:p@h:1" },
      "ways: cannot be combined with shadowsocks: give only one",
    ],
    [{ ways: ["a:1", " "] }, /^ways\[1\]: expected hops, a server, or both, got " "$/],
    [{ ways: ["a:1 b:1"] }, /^ways\[0\]: expected socks5:\/\/.*, got "a:1 b:1"$/],
    [{ ways: ["tls:// unix:/a a:1"] }, /^ways\[0\]: unix: can only be the first, got /],
    [{ ways: ["tls:// a:0"] }, /^ways\[0\]: expected HOST:PORT behind the last hop, got /],
    [{ ways: ["tls://?ca=/none"] }, /^ways\[0\]: a file cannot be read: \/none: ENOENT$/],
    [{ ways: ["wss://u.test/hunter2?host=hunter2 b"] }, /^ways\[0\]: (?!.*hunter2)/],
    [{ ways: ["tls:// ss://hunter2hunter2"] }, /^ways\[0\]: (?!.*hunter2)/],
    [{ ways: Array.from({ length: 9 }, () => "a:1") }, /^ways: expected at most 8 ways/],
    [
      { ways: Array.from({ length: 5 }, () => "tls://"), server: ["a:1", "b:1"] },
      "ways: 10 ways to all servers together: at most 8",
    ],
    [{ ways: ["socks5://h:1"], server: "unix:/a" }, /^server: "unix:\/a" .*: no proxy of ways can reach it$/],
    [{ tcpVia: "socks5://h:1 h:2" }, /^tcpVia: expected only hops, got /],
    [
      { tcpVia: "ss://aes-256-gcm:p@h:1 tls://h:2" },
      /^tcpVia: expected socks5:\/\/ or ss:\/\/ as the last hop/,
    ],
    [{ tcpVia: ["socks5://h:1", "http://a:1"] }, /^tcpVia\[1\]: expected socks5:\/\//],
    [{ tcpVia: [] }, /^tcpVia: expected socks5:\/\//],
    [{ dialect: "udpwg" }, /^dialect: expected one of udptunnel, .*, got "udpwg"$/],
    [{ dialect: "hev", psk: KEY }, "psk: hev has no key: leave it out"],
    [
      { dialect: "gnb" },
      /^dialect: gnb has no addresses, and its server has one target: give only forwards$/,
    ],
    [
      { dialect: "gnb", forwards: [forward("192.0.2.1:1"), forward("192.0.2.1:1"), forward("192.0.2.2:1")] },
      /^forwards\[2\]: 192.0.2.2:1: gnb has no addresses, .*, not 192.0.2.1:1 too$/,
    ],
    [
      { dialect: "udpgw", forwards: [forward("a:1")] },
      "forwards[0]: a:1: udpgw does not carry names: give an IP",
    ],
    [null, "options: expected an object"],
  ] as const)("udp-local refuses %j", (input, message) => {
    expect(complaint(() => resolveLocal(input))).toMatch(message);
  });

  it.each([
    [{ listen: [] }, /^listen: expected IP:PORT, unix:/],
    [{ listen: ["127.0.0.1:1", "host:1"] }, /^listen\[1\]: .*, got "host:1"$/],
    [{ filtering: "none" }, /^filtering: expected endpoint-independent, .*, got "none"$/],
    [{ insecureOpenRelay: "yes" }, 'insecureOpenRelay: expected true or false, got "yes"'],
    [{ allow: ["10.0.0.0/8", "10.0.0.0/33"] }, /^allow\[1\]: expected CIDR.*, got "10.0.0.0\/33"$/],
    [{ deny: ["10.0.0.0/8:0"] }, /^deny\[0\]: /],
    [{ deny: ["10.0.0.0/8:9-8"] }, /^deny\[0\]: /],
    [{ deny: ["10.0.0.0/8:65536"] }, /^deny\[0\]: /],
    [{ deny: ["10.0.0.0/8:"] }, /^deny\[0\]: /],
    [{ deny: ["example.com"] }, /^deny\[0\]: /],
    [{ egress: "tun2socks:http://a:1" }, /^egress: expected .*, got "tun2socks:http:\/\/a:1"$/],
    [{ egress: "tun2socks:local:" }, /^egress: expected /],
    [{ egress: "tun2socks:socks5://u:hunter2@a" }, /^egress: expected (?!.*hunter2)/],
    [{ publicAddress: ["192.0.2.1", "example.com"] }, /^publicAddress\[1\]: .*, got "example.com"$/],
    [{ publicAddress: ["192.0.2.1", "192.0.2.2"] }, /^publicAddress: expected .* one of each/],
    [{ dialects: ["udpgw,udpwg"] }, /^dialects\[0\]: expected names from udptunnel, .*, got "udpgw,udpwg"$/],
    [
      { dialects: ["mullvad"] },
      /^dialects\[0\]: no first bytes tell mullvad: .*--listen mullvad:\/\/IP:PORT, got/,
    ],
    [{ dialects: ["udpgw", "gnb"] }, "dialects: gnb has no addresses: give dialectTarget"],
    [{ listen: ["mullvad://127.0.0.1:1"] }, "listen[0]: mullvad has no addresses: give dialectTarget"],
    [{ listen: ["mulvad://127.0.0.1:1"] }, /^listen\[0\]: expected IP:PORT, unix:/],
    [{ dialects: ["gnb"], dialectTarget: "a" }, /^dialectTarget: expected HOST:PORT/],
    [
      { dialects: ["gnb"], dialectTarget: "169.254.169.254:53" },
      "dialectTarget: 169.254.169.254:53 is denied: see allow",
    ],
    [{ dialects: ["udpgw"], egress: "unix:/run/a" }, "dialects: dialects cannot use egress unix:"],
    [
      { dialects: ["udpgw"], listen: ["127.0.0.1:1", "192.0.2.1:1"], psk: KEY },
      "dialects: a dialect proves no key, and anybody could send through 192.0.2.1:1: listen on loopback, " +
        "or set insecureOpenRelay",
    ],
    [{ listen: ["127.0.0.1:1", "udpgw://192.0.2.1:1"], psk: KEY }, /^listen\[1\]: a dialect proves no key/],
  ] as const)("udp-server refuses %j", (input, message) => {
    expect(complaint(() => resolveServer(input))).toMatch(message);
  });
});

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

describe("secrets", () => {
  it("a key needs 16 bytes, not 15 and not a string, and is never shown", () => {
    expect(resolveServer({ psk: KEY })).toMatchObject({ psk: KEY });
    expect(complaint(() => resolveServer({ psk: KEY.subarray(1) }))).toBe(
      "psk: expected a key of at least 16 bytes",
    );
    expect(complaint(() => resolveLocal({ psk: "0123456789abcdef" }))).toBe(
      "psk: expected a key of at least 16 bytes",
    );
  });

  it("errors show neither the name nor the password of SOCKS5", () => {
    for (const socksAuth of [
      { user: "alice", password: "" },
      { user: "alice", password: "x".repeat(256) },
      "alice:x",
    ]) {
      const message = complaint(() => resolveLocal({ socksAuth }));
      expect(message).toMatch(/^socksAuth(\.password)?: expected USER:PASSWORD, each 1 to 255 bytes$/);
    }
  });

  it("errors show no password of a URL, whatever it contains and whatever else is wrong", () => {
    const secretPart = fc.string({ unit: fc.constantFrom(..."@/?#:%[] \n="), maxLength: 6 });
    const scheme = fc.constantFrom("socks5", "http", "tls", "ftp");
    fc.assert(
      fc.property(scheme, secretPart, secretPart, fc.constantFrom("h", "h:x", "h:1/"), (name, a, b, host) => {
        const url = `${name}://user:${a}hunter2${b}@${host}`;
        for (const input of [
          { via: [url] },
          { ways: [url] },
          { ways: [`${url} a.test:1`] },
          { ways: [`socks5://a.test:1 ${url}`] },
          { tcpVia: url },
          { tcpVia: `${url} socks5://a.test:1` },
          { server: url },
          { listen: url },
        ]) {
          try {
            for (const way of resolveLocal(input).ways) parseCarrierChain(way);
          } catch (error) {
            expect((error as Error).message).not.toContain("hunter2");
          }
        }
      }),
      { seed: 7, numRuns: 2_000 },
    );
  });

  it.each([
    ["0123456789abcdef", "0123456789abcdef"],
    ["0123456789abcdef\n", "0123456789abcdef"],
    ["0123456789abcdef\r\n", "0123456789abcdef"],
    ["0123456789abcdef \t\r\n\r\n \n", "0123456789abcdef"],
    ["\ufeff0123456789abcdef\r\n", "0123456789abcdef"],
    [" 01234 6789\nabcde\n", " 01234 6789\nabcde"],
    [" \r\n", ""],
  ])("a key file with %j gives the key %j", (text, key) => {
    expect(Buffer.from(readSecretFile(file("key", text))).toString()).toBe(key);
  });

  it.each([
    Buffer.from("\ufeff0123456789abcdef", "utf16le"),
    Buffer.from("\ufeff0123456789abcdef", "utf16le").swap16(),
  ])("a key file in UTF-16 is refused", (bytes) => {
    const path = file("key", bytes);
    expect(complaint(() => readSecretFile(path))).toBe(`${path}: is UTF-16: save it as UTF-8`);
  });

  it("a binary key may begin like UTF-16", () => {
    const key = Buffer.from([0xff, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    expect(readSecretFile(file("key", key))).toEqual(key);
  });

  it("a file with USER:PASSWORD loses its byte-order mark and the newlines after the password", () => {
    expect(readCredentialsFile(file("auth", "\ufeffalice:pass:word \r\n\r\n"))).toEqual({
      user: "alice",
      password: "pass:word",
    });
  });

  it("a file is exposed if anyone but its owner can read it", () => {
    const path = file("key", "0123456789abcdef");
    const exposed = [0o600, 0o400, 0o640, 0o604].map((mode) => {
      chmodSync(path, mode);
      return isExposed(path);
    });
    expect(exposed).toEqual([false, false, true, true]);
  });
});

describe("one table", () => {
  it.each([
    ["udp-local", UDP_LOCAL_FIELDS, ["carrier"]],
    ["udp-server", UDP_SERVER_FIELDS, []],
  ])(
    "every option of %s has a flag in kebab-case, except those that only the library has",
    (_, table, alone) => {
      const fields = Object.entries(table as OptionFields);
      const flags = fields.flatMap(([, { flag }]) => flag ?? []);
      expect(fields.filter(([, { flag }]) => flag === undefined).map(([name]) => name)).toEqual(alone);
      expect(new Set(flags).size).toBe(flags.length);
      for (const flag of flags) expect(flag).toMatch(/^[a-z][a-z0-9]*(-[a-z]+)*$/);
    },
  );
});

describe("command line and config file", () => {
  const local: CommandLine = {
    name: "udp-local",
    description: "",
    version: "0",
    examples: [],
    fields: {
      ...UDP_LOCAL_FIELDS,
      config: { ...UDP_LOCAL_FIELDS.server, flag: "config", value: "FILE", isList: false },
    },
  };
  const gather = (...argv: string[]) => gatherOptions(local, argv)!;
  const config = (members: unknown) => file("config.json", JSON.stringify(members));

  it("the command line and the file accept the library's options under the names of the flags", () => {
    const { values } = gather(
      "--age-budget-ms",
      "50",
      "--forward",
      "a",
      "--forward",
      "b",
      "--idle-timeout",
      "9",
    );
    expect(values).toEqual({ ageBudgetMs: 50, forwards: ["a", "b"], idleTimeoutS: 9 });
    const members = { "age-budget-ms": 50, forward: ["a", "b"], listen: false };
    expect(gather("--config", config(members)).values).toMatchObject({
      ageBudgetMs: 50,
      forwards: ["a", "b"],
      listen: false,
    });
  });

  it("flags override the file, and lists replace lists", () => {
    const path = config({ lanes: 2, "queue-bytes": 200_000, via: ["unix:/a", "unix:/b"] });
    const { values } = gather("--config", path, "--lanes", "3", "--via", "unix:/c");
    expect(values).toMatchObject({ lanes: 3, queueBytes: 200_000, via: ["unix:/c"] });
  });

  it("an error names the flag or the place in the file where the wrong value is", () => {
    const path = config({ lanes: 99, via: ["unix:/a", "b"] });
    const check = (...argv: string[]) => {
      const { values, nameField } = gather("--config", path, ...argv);
      const { config: _, ...options } = values;
      return complaint(() => resolveUdpLocalOptions(options, nameField));
    };
    expect(check("--lanes", "x")).toMatch(/config\.json:1:30: via\[1\]: .*, got "b"$/);
    expect(check("--lanes", "x", "--via", "unix:/a")).toBe(
      '--lanes: expected auto or an integer from 1 to 16, got "x"',
    );
    expect(check("--via", "unix:/a")).toMatch(
      /config\.json:1:10: lanes: expected auto or an integer from 1 to 16, got 99$/,
    );
  });

  it.each(["1e1", "0x10", " 2", "2 ", "", "Infinity", "2,0"])("%j is not read as a number", (text) => {
    const { values, nameField } = gather("--lanes", text);
    expect(complaint(() => resolveUdpLocalOptions(values, nameField))).toBe(
      `--lanes: expected auto or an integer from 1 to 16, got ${JSON.stringify(text)}`,
    );
  });

  it("secrets are read from files, whose paths are returned so that their modes can be checked", () => {
    const key = file("key", "0123456789abcdef\n");
    const auth = file("auth", "alice:pass:word\n");
    const fromFlags = gather("--psk-file", key, "--socks-auth-file", auth);
    const expected = { psk: Buffer.from(KEY), socksAuth: { user: "alice", password: "pass:word" } };
    expect(fromFlags.values).toEqual(expected);
    expect(new Set(fromFlags.secretFiles.values())).toEqual(new Set([key, auth]));
    const fromFile = gather("--config", config({ "psk-file": key, "socks-auth-file": auth }));
    expect(fromFile.values).toMatchObject(expected);
    expect(new Set(fromFile.secretFiles.values())).toEqual(new Set([key, auth]));
  });

  it("udp-server listens as the server of shadowsocks' config.json, besides its other listeners", () => {
    const config = {
      server: "0.0.0.0",
      server_port: 8388,
      password: "p",
      method: "aes-256-gcm",
      plugin: "obfs-server",
      plugin_opts: "obfs=tls",
    };
    const line = { ...local, name: "udp-server", fields: UDP_SERVER_FIELDS };
    const path = file("ss.json", JSON.stringify(config));
    const url = "ss://aes-256-gcm:p@0.0.0.0:8388/?plugin=obfs-server%3Bobfs%3Dtls";
    const { values } = gatherOptions(line, ["--ss-config", path])!;
    expect(values.shadowsocks).toBe(url);
    // The listener has a password, so it needs no key of ours.
    expect(resolveUdpServerOptions(values).listen).toEqual([url]);
    const both = resolveUdpServerOptions({ ...values, listen: ["127.0.0.1:1"] });
    expect(both.listen).toEqual(["127.0.0.1:1", url]);
    expect(resolveUdpServerOptions({}).listen).toEqual(["127.0.0.1:3456"]);
  });

  it.each([
    [
      { listen: ["ss://aes-256-gcm:hunter2@h:1"] },
      /^listen\[0\]: expected IP:PORT, .*got "ss:\/\/\*\*\*@h:1"$/,
    ],
    [{ listen: ["ss://rc4-md5:hunter2@127.0.0.1:1"] }, /^listen\[0\]: expected/],
    [
      { listen: ["ss://aes-256-gcm:hunter2@127.0.0.1:1?plugin=v2ray-plugin;server"] },
      /^listen\[0\]: expected/,
    ],
    [{ shadowsocks: "ss://aes-256-gcm:hunter2@h:1" }, /^shadowsocks: expected a server's config\.json.*any$/],
    [{ ssRelay: "socks5://alice:hunter2@h" }, /^ssRelay: expected off, direct or socks5:.*\*\*\*@h"$/],
    [{ ssRelay: "on" }, /^ssRelay: expected off, direct or socks5:/],
  ])("udp-server refuses %j without its password", (options, message) => {
    const text = complaint(() => resolveUdpServerOptions(options));
    expect(text).toMatch(message);
    expect(text).not.toContain("hunter2");
  });

  it("shadowsocks' config.json adds a carrier, which also carries TCP unless another way is given", () => {
    const config = {
      server: ["::1"],
      server_port: 8388,
      local_port: 1080,
      password: "pä:ss@/",
      method: "aes-256-gcm",
      plugin: "obfs-local",
      plugin_opts: "obfs=http;obfs-host=a.test",
    };
    const path = file("ss.json", `// comment\n${JSON.stringify(config)}`);
    const { values, secretFiles } = gather("--ss-config", path, "--via", "unix:/a");
    expect([...secretFiles.values()]).toEqual([path]);
    const url =
      "ss://aes-256-gcm:p%C3%A4%3Ass%40%2F@[::1]:8388/?plugin=obfs-local%3Bobfs%3Dhttp%3Bobfs-host%3Da.test";
    expect(values.shadowsocks).toBe(url);
    expect(resolveUdpLocalOptions(values)).toMatchObject({
      ways: [{ via: ["unix:/a", url] }],
      tcpVia: [url],
    });
    const other = { ...values, tcpVia: "socks5://h:1" };
    expect(resolveUdpLocalOptions(other)).toMatchObject({
      ways: [{ via: ["unix:/a", url] }],
      tcpVia: ["socks5://h:1"],
    });
  });

  it.each([
    [{ server: ["a", "b"] }, /ss\.json:1:11: server: expected one host/],
    [{ server: "a", server_port: "8388" }, /server_port: expected a port/],
    [{ server: "a", server_port: 8388, method: "aes-256-gcm" }, /password: expected text/],
    [{ server: "a", server_port: 8388, password: 7, method: "x" }, /method|password: expected text/],
    [{ server: "a", server_port: 8388, password: "p", method: "m", plugin: 7 }, /plugin: expected text/],
  ])("the shadowsocks config %j is refused with its place", (members, message) => {
    expect(complaint(() => gather("--ss-config", file("ss.json", JSON.stringify(members))))).toMatch(message);
  });

  it("a wrong value of a shadowsocks config is reported without the password", () => {
    const members = { server: "a", server_port: 8388, password: "hunter2", method: "rc4-md5" };
    const { values, nameField } = gather("--ss-config", file("ss.json", JSON.stringify(members)));
    const message = complaint(() => resolveUdpLocalOptions(values, nameField));
    expect(message).toMatch(/^--ss-config: expected one of the methods/);
    expect(message).not.toContain("hunter2");
  });

  it("an error names a file that is unreadable or holds no USER:PASSWORD, and shows none of it", () => {
    const missing = join(folder, "missing");
    for (const flag of ["--psk-file", "--socks-auth-file", "--config"]) {
      expect(() => gather(flag, missing)).toThrow(HostError);
      expect(() => gather(flag, missing)).toThrow(`${missing}: ENOENT`);
    }
    const message = complaint(() => gather("--socks-auth-file", file("auth", "hunter2")));
    expect(message).toMatch(/auth: expected one line USER:PASSWORD$/);
  });

  it.each([
    ['{"via":["socks5://u:hunter2@h:1",', /config\.json:1:34: not JSON: value expected$/],
    ['{"lanes": hunter2}', /config\.json:1:11: not JSON: invalid symbol$/],
    ['{\r\n  "lanes": 2\r\n  "listen": "hunter2"}', /config\.json:3:3: not JSON: comma expected$/],
    ['{\n\n"via": ["hunter2]\n}', /config\.json:3:9: not JSON: unexpected end of string$/],
    ['{"lanes": 2} "hunter2"', /config\.json:1:14: not JSON: end of file expected$/],
    ['\ufeff{"lanes" 2}', /config\.json:1:10: not JSON: colon expected$/],
    ["{ /* hunter2 }", /config\.json:1:3: not JSON: unexpected end of comment$/],
    ["", /config\.json:1:1: not JSON: value expected$/],
    ["[]", /config\.json:1:1: expected one object$/],
    ["// none\nnull", /config\.json:2:1: expected one object$/],
    ['{"psk":"hunter2"}', /config\.json:1:2: "psk": unknown option$/],
    ['{\n\t"ageBudgetMs":1}', /config\.json:2:2: "ageBudgetMs": unknown option$/],
    ['{"config":"other.json"}', /config\.json:1:2: "config": unknown option$/],
    ['{"__proto__":{"lanes":2}}', /config\.json:1:2: "__proto__": unknown option$/],
    ['{"lanes": 2,\n "lanes": 3}', /config\.json:2:2: "lanes" is given twice$/],
  ])("the file %j is refused in one line without its secrets", (text, pattern) => {
    const message = complaint(() => gather("--config", file("config.json", text)));
    expect(message).toMatch(pattern);
    expect(message).not.toContain("hunter2");
  });

  it("a config file in UTF-16 is refused, and one that is not UTF-8", () => {
    const path = file("config.json", Buffer.from('\ufeff{"lanes":2}', "utf16le"));
    expect(complaint(() => gather("--config", path))).toBe(`${path}: is UTF-16: save it as UTF-8`);
    file("config.json", Buffer.from('{"listen":"caf\xe9:1"}', "latin1"));
    expect(complaint(() => gather("--config", path))).toBe(`${path}: is not UTF-8`);
  });

  it("a config file may have a byte-order mark, CRLF, comments, trailing commas and lists of one without brackets", () => {
    const text = [
      "\ufeff// The tunnel.",
      "{",
      '  "server": "192.0.2.1:3456", // behind /* nothing */',
      '  /* nearest first,\r\n     "lanes": 9 */',
      '  "via": "socks5://127.0.0.1:1080",',
      '  "forward": [ "127.0.0.1:53=9.9.9.9:53", ],',
      "}",
      "",
    ].join("\r\n");
    expect(gather("--config", file("config.json", text)).values).toEqual({
      server: ["192.0.2.1:3456"],
      via: ["socks5://127.0.0.1:1080"],
      forwards: ["127.0.0.1:53=9.9.9.9:53"],
      config: join(folder, "config.json"),
    });
  });

  it.each([
    ['{\n  "via": "b"}', /config\.json:2:10: via: expected .*, got "b"$/],
    ['{\n  "via":\n [ "unix:/a",\n   "b"]}', /config\.json:4:4: via\[1\]: expected .*, got "b"$/],
    ['{"forward": [{"listen": "[::1]:0",\n"target": "a:0"}]}', /:2:11: forward\[0\]\.target: .*, got "a:0"$/],
    [
      '{"forward": [{"listen": "[::1]:0", "target": "a:1",\n"to": 1}]}',
      /config\.json:2:7: forward\[0\]\.to: unknown option$/,
    ],
    ['{"via": 5}', /config\.json:1:9: via: expected .*, got 5$/],
    ['{\n"listen": false}', /config\.json:2:11: listen: is off and there are no forwards/],
    ['{\n"via": "tls://?ca=none.pem"}', /:2:8: via: a file cannot be read: \/.*\/none\.pem: ENOENT$/],
  ])("an error points at the line and column of what is wrong in %j", (text, pattern) => {
    const { values, nameField } = gather("--config", file("config.json", text));
    const { config: _, ...options } = values;
    expect(complaint(() => resolveUdpLocalOptions(options, nameField))).toMatch(pattern);
  });

  it("relative paths in a config file start in its folder, those in flags in the working directory", () => {
    file("key", "0123456789abcdef");
    const path = config({
      "psk-file": "key",
      server: "unix:run/a",
      via: ["unix:../b", "tls://h:1?ca=tls/ca%20x.pem&insecure=1&cert=/c&key=k", "tls://", "socks5://a/b:1"],
    });
    expect(gather("--config", path).values).toMatchObject({
      psk: Buffer.from(KEY),
      server: [`unix:${folder}/run/a`],
      via: [
        `unix:${join(folder, "../b")}`,
        `tls://h:1?ca=${folder}/tls/ca%20x.pem&insecure=1&cert=/c&key=${folder}/k`,
        "tls://",
        "socks5://a/b:1",
      ],
    });
    expect(gather("--server", "unix:run/a", "--via", "tls://?ca=c").values).toEqual({
      server: ["unix:run/a"],
      via: ["tls://?ca=c"],
    });
  });

  it("the paths in ways, and in hops for TCP, start in the config file's folder", () => {
    const path = config({ way: ["unix:a tls://?ca=b", "c:1"], "tcp-via": "tls://h:1?ca=b socks5://h:1" });
    expect(gather("--config", path).values).toMatchObject({
      ways: [`unix:${folder}/a tls://?ca=${folder}/b`, "c:1"],
      tcpVia: [`tls://h:1?ca=${folder}/b socks5://h:1`],
    });
  });

  it.each([
    ["unix:packets", `unix:${folder}/packets`],
    ["exec:./tun2socks --device pipe:", `exec:["${folder}/tun2socks","--device","pipe:"]`],
    ["exec:tun2socks --config a/b", "exec:tun2socks --config a/b"],
    ["tun2socks:direct", "tun2socks:direct"],
  ])("the egress %s in a config file becomes %s", (egress, led) => {
    const path = config({ egress });
    const fields = { ...UDP_SERVER_FIELDS, config: local.fields.config };
    expect(gatherOptions({ ...local, fields }, ["--config", path])!.values).toMatchObject({ egress: led });
  });

  it.each([
    [["--psk=hunter2"], "unknown option '--psk'; see --help"],
    [["hunter2"], /^too many arguments/],
    [["--lanes"], "option '--lanes <N>' argument missing; see --help"],
  ])("the command line %j is refused in one line without what may be a key", (argv, wanted) => {
    const message = complaint(() => gather(...argv));
    expect(message).toMatch(wanted);
    expect(message).not.toContain("hunter2");
  });
});

/** @returns the path of a file that only its owner can read */
function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

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
    [{ decoy: "/no/such/folder" }, /^decoy: ENOENT: .*\/no\/such\/folder/],
    [{ decoy: import.meta.filename }, /^decoy: .* is not a folder$/],
    [{ wsPath: "tunnel" }, /^wsPath: expected a path/],
    [{ wsPath: "/a b" }, /^wsPath: expected a path/],
    [{ wsPath: "/a?b" }, /^wsPath: expected a path/],
  ])("may not be %j", (options, message) => {
    expect(complaint(() => resolveServer(options))).toMatch(message);
  });
});
