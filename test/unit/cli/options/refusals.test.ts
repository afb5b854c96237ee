import { describe, expect, it } from "vitest";
import { complaint, forward, KEY, resolveLocal, resolveServer } from "./resolving.ts";

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
    [{ via: ["socks5://h:1/path"] }, /^via\[0\]: expected socks5:\/\/\[USER:PASSWORD@\]HOST:PORT, got /],
    [{ via: ["http://h:1/path"] }, /^via\[0\]: expected http:\/\/\[USER:PASSWORD@\]HOST:PORT/],
    [{ via: ["https://h:1"] }, /^via\[0\]: expected http:\/\/, after tls:\/\/HOST:PORT for a proxy/],
    [{ via: ["tls://h:1?servername=a&servername=b"] }, /^via\[0\]: servername is given twice/],
    [
      { via: ["ss://aes-256-gcm:p@h:1?plugin=obfs-local%3Bobfs=http&plugin=obfs-local%3Bobfs=tls"] },
      /^via\[0\]: plugin is given twice/,
    ],
    [{ via: ["tls://h:1?insecure=0&insecure=1"] }, /^via\[0\]: insecure is given twice/],
    [{ via: ["wss://h/t?sni=a&sni=b"] }, /^via\[0\]: sni is given twice/],
    [{ via: ["ws://h/t?host=a&host=b"] }, /^via\[0\]: host is given twice/],
    [{ via: ["tls://h:1/path"] }, /^via\[0\]: expected tls:\/\/\[HOST:PORT\]/],
    [{ ways: ["tls:// unix:/a a:1"] }, /^ways\[0\]: unix: can only be the first, got /],
    [{ ways: ["tls:// a:0"] }, /^ways\[0\]: expected HOST:PORT behind the last hop, got /],
    [
      { ways: ["tls://?ca=/none"] },
      /^ways\[0\]: a file cannot be read or written: \/none: no such file or directory \(ENOENT\)$/,
    ],
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
