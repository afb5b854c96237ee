import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../../../src/core/errors.ts";
import { Cancellation } from "../../../../src/host/cancellation.ts";
import {
  isBehindProxy,
  openCarrierChain,
  parseCarrierChain,
  tcpWay,
} from "../../../../src/host/carriers/carrier-chain.ts";
import { redactUrl } from "../../../../src/host/carriers/hop.ts";
import { silentLogger } from "../../../../src/host/log.ts";
import { chooseIo } from "../../../../src/node/io/io.ts";
import { nodeSystem } from "../../../../src/node/system.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";

const parse = (via: readonly string[], server = "192.0.2.1:3456") => parseCarrierChain({ server, via });

/** The error for a list of hops. */
function complaint(...via: readonly string[]): string {
  try {
    parse(via);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as UsageError).message;
  }
  throw new Error("nothing was thrown");
}

/** The bytes that a peer receives before it closes the connection, after it has sent `answer` once. */
async function heardThrough(
  connect: (port: number) => Promise<unknown>,
  answer: Uint8Array,
): Promise<{ heard: Buffer; failure: string }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const pieces: Buffer[] = [];
  server.once("connection", (socket: Socket) => {
    socket.on("error", () => {});
    socket.once("data", () => socket.write(answer));
    socket.on("data", (data) => pieces.push(data));
  });
  const failure = await connect((server.address() as AddressInfo).port).then(
    () => "",
    (error: Error) => error.message,
  );
  server.close();
  return { heard: Buffer.concat(pieces), failure };
}

describe("parseCarrierChain", () => {
  it.each([
    [[], "192.0.2.1:3456"],
    [["socks5://h:1080"], "192.0.2.1:3456 via socks5 h:1080"],
    [["socks5h://h:1080/"], "192.0.2.1:3456 via socks5 h:1080"],
    [["socks5://alice:hunter2@[2001:db8::1]:1"], "192.0.2.1:3456 via socks5 [2001:db8::1]:1"],
    [["http://alice:p%40%3A%2F@192.0.2.9:8080"], "192.0.2.1:3456 via http 192.0.2.9:8080"],
    [["http://h:1?header=X:%20a&header=X:b"], "192.0.2.1:3456 via http h:1"],
    [["http://h:1/?"], "192.0.2.1:3456 via http h:1"],
    [["tls://"], "192.0.2.1:3456 via tls"],
    [["tls://?servername=a.test&ca=/ca.pem&cert=c&key=k&insecure=0"], "192.0.2.1:3456 via tls"],
    [["tls://h:443?insecure=1"], "192.0.2.1:3456 via tls h:443"],
    [["unix:/run/a"], "192.0.2.1:3456 via unix:/run/a"],
    [["ss://aes-256-gcm:hunter2@h:8388"], "192.0.2.1:3456 via ss h:8388"],
    [["ss://YWVzLTI1Ni1nY206aHVudGVyMg@[2001:db8::1]:1/#a%20name"], "192.0.2.1:3456 via ss [2001:db8::1]:1"],
    [["ss://YWVzLTI1Ni1nY206Pz8_Pg==@h:1"], "192.0.2.1:3456 via ss h:1"],
    [["ss://YWVzLTI1Ni1nY206Pz8/Pg%3D%3D@h:1?"], "192.0.2.1:3456 via ss h:1"],
    [["ss://2022-blake3-aes-128-gcm:AAAAAAAAAAAAAAAAAAAAAA==@h:1"], "192.0.2.1:3456 via ss h:1"],
    [
      ["ss://aes-128-gcm:p@h:1/?plugin=obfs-local%3Bobfs%3Dhttp%3Bobfs-host%3Da.test"],
      "192.0.2.1:3456 via ss h:1",
    ],
    [["ss://aes-128-gcm:p@h:1?plugin=obfs-local;obfs=tls;fast-open"], "192.0.2.1:3456 via ss h:1"],
    [["ws://h/tunnel"], "192.0.2.1:3456 via ws h:80"],
    [["wss://h/"], "192.0.2.1:3456 via wss h:443"],
    [
      ["wss://[::1]/a?sni=b.test&host=c.test:1&header=X:%20y&header=X:z&insecure=1"],
      "192.0.2.1:3456 via wss [::1]:443",
    ],
    [["tls://", "ws://[2001:db8::1]:81/a"], "192.0.2.1:3456 via tls, ws [2001:db8::1]:81"],
    [["tls://a:1", "ss://aes-128-gcm:p@h:1"], "192.0.2.1:3456 via tls a:1, ss h:1"],
    [
      ["unix:/run/a", "socks5://h:1", "http://i:2", "tls://"],
      "192.0.2.1:3456 via unix:/run/a, socks5 h:1, http i:2, tls",
    ],
  ])("reads %j", (via, description) => {
    expect(parse(via).description).toBe(description);
  });

  it("uses the server's host and port as the authority, and localhost for a Unix socket", () => {
    expect(parse([], "a.test:1").authority).toBe("a.test:1");
    expect(parse([], "[2001:db8::1]:1").authority).toBe("[2001:db8::1]:1");
    expect(parse([], "unix:/run/a").authority).toBe("localhost");
  });

  it.each([
    ["ftp://h:1", "expected socks5://"],
    ["h:1", "expected socks5://"],
    ["", "expected socks5://"],
    ["socks5://h:1/path", "expected socks5://"],
    ["SOCKS5://h:1", "expected socks5://"],
    ["socks5://", "HOST:PORT"],
    ["socks5://h", "HOST:PORT"],
    ["socks5://h:", "HOST:PORT"],
    ["socks5://h:0", "HOST:PORT"],
    ["http://h:0", "HOST:PORT"],
    ["tls://h:0", "HOST:PORT"],
    ["http://h:65536", "HOST:PORT"],
    ["http://2001:db8::1:1", "HOST:PORT"],
    ["http://[2001:db8::zz]:1", "HOST:PORT"],
    ["http://1.2.3.256:1", "HOST:PORT"],
    ["http://unix:80", "HOST:PORT"],
    ["socks5://@h:1", "USER:PASSWORD"],
    ["socks5://:p@h:1", "USER:PASSWORD"],
    ["socks5://%zz:p@h:1", "USER:PASSWORD"],
    [`socks5://${"u".repeat(256)}:p@h:1`, "USER:PASSWORD"],
    [`http://u:${"%C3%A9".repeat(128)}@h:1`, "USER:PASSWORD"],
    ["http://h:1?insecure=1", "no options but header"],
    ["http://h:1?header=", "expected header=Name:%20value"],
    ["http://h:1?header=X", "expected header=Name:%20value"],
    ["http://h:1?header=:x", "expected header=Name:%20value"],
    ["http://h:1?header=A%20B:x", "expected header=Name:%20value"],
    ["http://h:1?header=X%0d%0aY:x", "expected header=Name:%20value"],
    ["http://h:1?header=X:a%0d%0aY:b", "a control character in X"],
    ["http://h:1?header=X:a%0aY:b", "a control character in X"],
    ["http://h:1?header=X:%00", "a control character in X"],
    ["http://h:1?header=X:%7f", "a control character in X"],
    ["http://h:1?header=X:%ff", "percent-encoded"],
    ["http://h:1?header=X:%", "percent-encoded"],
    ["http://h:1?header=hOST:x", "hOST cannot be set by a header option"],
    ["http://h:1?header=Content-Length:5", "cannot be set by a header option"],
    ["http://h:1?header=Transfer-Encoding:chunked", "cannot be set by a header option"],
    ["http://u:p@h:1?header=Proxy-Authorization:x", "not both"],
    ["socks5://h:1?header=X:x", "expected no options"],
    ["tls://?header=X:x", "no options but servername"],
    ["tls://u@h:1", "no user"],
    ["ws://h", "expected a path"],
    ["ws://h/a b", "expected a path"],
    ["ws://h/a\r\nX: y", "expected a path"],
    ["ws:///a", "HOST:PORT"],
    ["ws://h:0/a", "HOST:PORT"],
    ["ws://::1/a", "HOST:PORT"],
    ["ws://u:p@h/a", "header=Authorization"],
    ["ws://h/a?sni=b", "no options but host, header"],
    ["wss://h/a?servername=b", "no options but host, header, sni, ca, cert, key, insecure"],
    ["wss://h/a?cert=c", "give both cert and key, or neither"],
    ["ws://h/a?host=a%0d%0ab", "host must be a name"],
    ["ws://h/a?header=Host:b", "Host cannot be set by a header option"],
    ["ws://h/a?header=Upgrade:b", "Upgrade cannot be set by a header option"],
    ["ws://h/a?header=Sec-WebSocket-Key:b", "Sec-WebSocket-Key cannot be set by a header option"],
    ["ws://h/a?header=X:%0a", "a control character in X"],
    ["tls://?verify=0", "no options but"],
    ["tls://?insecure=yes", "insecure must be 0 or 1"],
    ["tls://?cert=c", "give both cert and key, or neither"],
    ["tls://?key=k", "give both cert and key, or neither"],
    ["unix:", "expected socks5://|unix:/path"],
    ["ss://YWVzLTI1Ni1nY206cEBoOjE", "SIP002"],
    ["ss://aes-128-gcm:p@h:1/path", "SIP002"],
    ["ss://aes-128-gcm:p@h", "HOST:PORT"],
    ["ss://aes-128-gcm:p@h:0", "HOST:PORT"],
    ["ss://aes-128-gcm@h:1", "METHOD:PASSWORD"],
    ["ss://@h:1", "METHOD:PASSWORD"],
    ["ss://%zz:p@h:1", "METHOD:PASSWORD"],
    ["ss://gICAOg@h:1", "METHOD:PASSWORD"],
    ["ss://aes-128-gcm:@h:1", "expected a password"],
    ["ss://rc4-md5:p@h:1", "one of the methods chacha20-ietf-poly1305, "],
    ["ss://constructor:p@h:1", "one of the methods"],
    ["ss://2022-blake3-aes-256-gcm:AAAAAAAAAAAAAAAAAAAAAA==@h:1", "one key of 32 bytes in base64"],
    ["ss://aes-128-gcm:p@h:1?header=X:x", "no options but plugin"],
    ["ss://aes-128-gcm:p@h:1?plugin=%", "percent-encoded options"],
    ["ss://aes-128-gcm:p@h:1?plugin=obfs-local", "obfs=http or obfs=tls"],
    ["ss://aes-128-gcm:p@h:1?plugin=obfs-local;obfs=quic", "obfs=http or obfs=tls"],
    ["ss://aes-128-gcm:p@h:1?plugin=obfs-local;obfs=tls;t=1", "obfs-local accepts only the options"],
    ["ss://aes-128-gcm:p@h:1?plugin=obfs-local;obfs=http;obfs-host=a%0d%0ab", "obfs-host must be a name"],
    ["ss://aes-128-gcm:p@h:1?plugin=obfs-local;obfs=http;obfs-uri=a", "obfs-uri must be a path"],
    ["ss://aes-128-gcm:p@h:1?plugin=obfs-local;obfs=http;http-method=G%20T", "http-method must be a word"],
  ])("refuses %s", (hop, want) => {
    expect(complaint(hop)).toMatch(new RegExp(want));
  });

  it("refuses a plugin program behind another hop, and one that would need an outgoing interface", () => {
    const plugin = "ss://aes-128-gcm:p@h:1?plugin=v2ray-plugin";
    expect(parse([plugin, "tls://"]).description).toBe("192.0.2.1:3456 via ss h:1, tls");
    expect(complaint("tls://", plugin)).toMatch(/only be the first/);
    const outgoing = { interfaceName: "eth0", mark: 0 };
    expect(() => parseCarrierChain({ server: "h:1", via: [plugin], outgoing })).toThrow(/v2ray-plugin/);
  });

  it("refuses a Unix socket behind another hop", () => {
    expect(complaint("tls://", "unix:/run/a")).toMatch(/only be the first/);
  });

  it.each([
    "socks5://alice:hunter2@h",
    "socks5://alice:/hunter2@h:1",
    "http://alice:pass@hunter2@h:1",
    "http://alice:?hunter2=@h:1",
    "tls://alice:?hunter2=b@h:1",
    "ftp://alice:a//hunter2@h:1",
    "socks5://alice:hun\nhunter2@h",
    "http://alice:hunter2@h:1?header=Proxy-Authorization:hunter2",
    "ss://aes-256-gcm:alice/hunter2@h",
    "ss://aes-256-gcm:alice@hunter2@h:0",
    "ss://aes-256-gcm:alice@h:0?plugin=v2ray;key=hunter2",
    "ss://aes-256-gcm:alice@h:1?plugin=x&key=hunter2#hunter2",
  ])("shows neither user nor password of %j", (hop) => {
    const message = complaint(hop);
    expect(message).not.toMatch(/hunter2|alice|\n/);
    expect(message).toContain("***@h");
  });
});

describe("redactUrl", () => {
  it("removes everything between the scheme and the last @", () => {
    expect(redactUrl("socks5://a:b@c/d@h:1")).toBe("socks5://***@h:1");
    expect(redactUrl("a:b@h:1")).toBe("***@h:1");
    expect(redactUrl("http://h:1/")).toBe("http://h:1/");
  });

  it("removes the values of options, but keeps those of TLS, which are files and names", () => {
    expect(redactUrl("http://h:1?header=Cookie:a&h%65ader=b")).toBe("http://h:1?header=***&h%65ader=***");
    expect(redactUrl("tls://?ca=/a&key=/b&header=c")).toBe("tls://?ca=/a&key=/b&header=***");
  });

  it("removes all of an ss:// URL without a server, which may be base64 of everything", () => {
    expect(redactUrl("wss://h/s3cret?sni=a&host=b&header=c")).toBe("wss://h/***?sni=a&host=***&header=***");
    expect(redactUrl("ss://YWVzLTI1Ni1nY206cEBoOjE#name")).toBe("ss://***");
    expect(redactUrl("ss://a:b@h:1?plugin=v2ray;key=x&key=y#z")).toBe("ss://***@h:1?plugin=***&key=***");
  });
});

describe("isBehindProxy", () => {
  it.each([
    [[], false],
    [["unix:/a"], false],
    [["tls://"], false],
    [["socks5://h:1"], true],
    [["http://h:1", "tls://"], true],
    [["http://h:1", "tls://i:2"], false],
    [["tls://i:2", "http://h:1"], true],
    [["ss://aes-128-gcm:p@h:1"], true],
  ])("returns for %j: %s", (via, isBehind) => {
    expect(isBehindProxy(via)).toBe(isBehind);
  });
});

describe("a connection", () => {
  const never = new Cancellation();
  const system = nodeSystem(chooseIo("plain", "balanced", silentLogger));
  const open = (via: readonly string[], server: string) => openCarrierChain({ server, via }, system);

  it("asks an HTTP proxy for the server, with the percent-decoded user and password", async () => {
    const answer = Buffer.from("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    const { heard, failure } = await heardThrough(
      (port) => open([`http://al%40ce:p%3Ass@127.0.0.1:${port}`], "a.test:9").connect(never),
      answer,
    );
    const credentials = Buffer.from("al@ce:p:ss").toString("base64");
    expect(heard.toString()).toMatch(/^CONNECT a\.test:9 HTTP\/1\.1\r\n/);
    expect(heard.toString()).toContain(`\r\nProxy-Authorization: Basic ${credentials}\r\n`);
    expect(failure).toMatch(/http 127\.0\.0\.1:\d+: .*407/);
    expect(failure).not.toContain("al@ce");
  });

  it("sends an HTTP proxy the fields of its URL, in order and in UTF-8, with a plus sign unchanged", async () => {
    const fields = "?header=User-Agent:%20a%2Fb&header=X:&header=X:%09%C3%A9+:%20c%20";
    const { heard } = await heardThrough(
      (port) => open([`http://127.0.0.1:${port}${fields}`], "a.test:9").connect(never),
      Buffer.from("HTTP/1.1 403 No\r\n\r\n"),
    );
    const expected =
      "CONNECT a.test:9 HTTP/1.1\r\nHost: a.test:9\r\nUser-Agent: a/b\r\nX: \r\nX: é+: c\r\n\r\n";
    expect(heard.toString()).toBe(expected);
  });

  it("sends a shadowsocks server the target within about 20 ms, although there is no data yet", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const accepted = once(server, "connection");
    const stream = await tcpWay(`ss://aes-128-gcm:p@127.0.0.1:${port}`, system).connect(
      makeAddress("a.test", 9)!,
      never,
    );
    const [socket] = (await accepted) as [Socket];
    const [first] = (await once(socket, "data")) as [Buffer];
    expect(first.length).toBe(16 + 2 + 16 + makeAddress("a.test", 9)!.length + 16);
    stream.destroy();
    socket.destroy();
    server.close();
  });

  it.each([
    ["a target", false, Uint8Array.of(0)],
    ["a proxy, which relays it", true, Uint8Array.of(5, 0, 5, 0, 0, 1, 127, 0, 0, 1, 0, 9)],
  ])("knows whether a stream goes to %s", async (_name, isProxied, answer) => {
    let leadsOn: boolean | undefined;
    await heardThrough(async (port) => {
      const via = isProxied ? `socks5://127.0.0.1:${port}` : undefined;
      const stream = await tcpWay(via, system).connect(makeAddress("127.0.0.1", port)!, never);
      leadsOn = stream.leadsOn;
      stream.destroy();
    }, answer);
    expect(leadsOn).toBe(isProxied);
  });

  it("offers a SOCKS5 proxy no password if none is given", async () => {
    const { heard, failure } = await heardThrough(
      (port) => tcpWay(`socks5://127.0.0.1:${port}`, system).connect(makeAddress("a.test", 9)!, never),
      Uint8Array.of(5, 0xff),
    );
    expect([...heard]).toEqual([5, 1, 0]);
    expect(failure).toMatch(/socks5 127\.0\.0\.1:\d+: .*method 255/);
  });

  it("names the step that did not finish when it times out", async () => {
    const { failure } = await heardThrough(
      (port) =>
        openCarrierChain(
          { server: "a.test:9", via: [`http://127.0.0.1:${port}`], connectTimeoutMs: 50 },
          system,
        ).connect(never),
      new Uint8Array(0),
    );
    expect(failure).toMatch(/http 127\.0\.0\.1:\d+: nothing within 50 ms/);
  });
});
