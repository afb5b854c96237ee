import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { UdpServer } from "../../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../../src/node/options/udp-local.ts";
import { startUdpServer } from "../../support/start.ts";
import { expectTunnelEchoes, startUdpEcho } from "../../support/udp-echo.ts";
import { seededIntegers } from "../../unit/random.ts";
import { describeWith, freePort, run, startPeer } from "../peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");
const OTHER_KEY = Buffer.alloc(32, "o");
const folder = mkdtempSync(join(tmpdir(), "underpass-decoy-"));
const site = join(folder, "site");
const MUCH = Buffer.alloc(8 * 1024 * 1024, "m");

beforeAll(() => {
  mkdirSync(join(site, "sub"), { recursive: true });
  writeFileSync(join(site, "index.html"), "<h1>Welcome</h1>\n");
  writeFileSync(join(site, "sub", "index.html"), "sub\n");
  writeFileSync(join(site, "much.bin"), MUCH);
  writeFileSync(join(site, ".hidden"), "hidden\n");
  writeFileSync(join(folder, "secret"), "outside\n");
  mkdirSync(join(folder, "site-beside"));
  writeFileSync(join(folder, "site-beside", "secret"), "outside\n");
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function startServer(decoy: string, options = {}): Promise<{ server: UdpServer; port: number }> {
  const server = await startUdpServer({
    ...{ listen: ["127.0.0.1:0"], psk: KEY, allow: ["127.0.0.1/32"], wsPath: "/tunnel", decoy },
    ...options,
  });
  return { server, port: Number(server.address.listen[0].split(":")[1]) };
}

/** Sends bytes and reads the whole answer. */
async function raw(port: number, text: string | Buffer): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  const chunks: Buffer[] = [];
  socket.on("error", () => {});
  socket.on("data", (data) => void chunks.push(data));
  socket.write(text);
  await new Promise((done) => socket.once("close", done));
  return Buffer.concat(chunks).toString("latin1");
}

const get = (port: number, path: string) => raw(port, `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);

async function expectEcho(options: UdpLocalOptions): Promise<void> {
  const echo = await startUdpEcho();
  try {
    await expectTunnelEchoes(echo, { psk: KEY, ...options });
  } finally {
    echo.close();
  }
}

describe("a folder as a decoy", () => {
  let server: UdpServer;
  let port: number;

  beforeAll(async () => {
    ({ server, port } = await startServer(site, { maxHalfOpen: 8 }));
  });

  afterAll(() => server.close());

  it("leaves tunnels unchanged, with and without a WebSocket", async () => {
    await expectEcho({ server: `127.0.0.1:${port}` });
    await expectEcho({ via: [`ws://127.0.0.1:${port}/tunnel`] });
  });

  it(`answers strangers with files, types, index.html, HEAD, ranges and "not modified"`, async () => {
    const root = await fetch(`http://127.0.0.1:${port}/`);
    expect(root.headers.get("content-type")).toMatch(/^text\/html/);
    expect(root.headers.get("connection")).toBe("close");
    expect(await root.text()).toBe("<h1>Welcome</h1>\n");
    expect(await (await fetch(`http://127.0.0.1:${port}/sub`)).text()).toBe("sub\n");
    const much = await (await fetch(`http://127.0.0.1:${port}/much.bin?query`)).arrayBuffer();
    expect(Buffer.compare(Buffer.from(much), MUCH)).toBe(0);
    const head = await fetch(`http://127.0.0.1:${port}/much.bin`, { method: "HEAD" });
    expect([head.headers.get("content-length"), await head.text()]).toEqual([String(MUCH.length), ""]);
    const part = await fetch(`http://127.0.0.1:${port}/index.html`, { headers: { Range: "bytes=4-6" } });
    expect([part.status, await part.text()]).toEqual([206, "Wel"]);
    const etag = root.headers.get("etag")!;
    // fetch would remove this field.
    expect(await raw(port, `GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: ${etag}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 304 /,
    );
  });

  it.each([
    ...[
      "/../secret",
      "/..%2fsecret",
      "/%2e%2e/secret",
      "/sub/../../secret",
      "/..\\secret",
      "/%2e%2e%5csecret",
    ],
    ...[
      "//secret",
      "/../site-beside/secret",
      "/sub/%2e%2e/%2e%2e/site-beside/secret",
      "/%00",
      "/index.html%00.txt",
    ],
    ...["/%zz", "/.hidden", "/sub/../.hidden", "/%2ehidden", "/%c0%ae%c0%ae/secret", "http://a/../secret"],
    ...[
      "http://a",
      "secret",
      "*",
      `/${"a".repeat(5000)}`,
      "/%2f..%2f..%2fsecret",
      "/..;/secret",
      "/....//secret",
    ],
  ])("serves nothing hidden or from outside for %s", async (path) => {
    const answer = await get(port, path);
    expect(answer).toMatch(/^HTTP\/1\.1 /);
    expect(answer).not.toMatch(/outside|hidden\n/);
    if (path !== "http://a" && path !== "secret" && path !== "*")
      expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /);
  });

  it("treats a client with another key, a WebSocket at another path and a stranger's upgrade as visitors", async () => {
    const path = "/.well-known/masque/udp/%2A/%2A/";
    const upgrade = "Connection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n";
    const plain = await get(port, path);
    expect(plain).toMatch(/^HTTP\/1\.1 404 /);
    const withoutDate = (answer: string) => answer.replace(/Date: .*\r\n/, "");
    const upgraded = await raw(port, `GET ${path} HTTP/1.1\r\nHost: a\r\n${upgrade}\r\n`);
    expect(withoutDate(upgraded)).toBe(withoutDate(plain));
    await expect(expectEcho({ server: `127.0.0.1:${port}`, psk: OTHER_KEY })).rejects.toThrow(/404/);
    await expect(expectEcho({ via: [`ws://127.0.0.1:${port}/other`] })).rejects.toThrow(/404/);
    expect(await get(port, "/tunnel")).toMatch(/^HTTP\/1\.1 404 /);
  });

  it("refuses other methods, CONNECT and anything but HTTP", async () => {
    expect(await raw(port, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n")).toMatch(/^HTTP\/1\.1 405 /);
    expect(await raw(port, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")).toMatch(/^HTTP\/1\.1 405 /);
    expect(await raw(port, "gibberish\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect(await raw(port, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")).toMatch(
      /^HTTP\/1\.1 400 /,
    );
  });

  it("answers one request per connection, so that no second one can be smuggled in", async () => {
    const one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const answer = await raw(port, one + one);
    expect(answer.match(/HTTP\/1\.1 200 /g)).toHaveLength(1);
  });

  it("survives requests truncated or changed anywhere", async () => {
    const requests = [
      'GET /sub/index.html HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nIf-None-Match: "x"\r\n\r\n',
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ];
    const random = seededIntegers(54_321);
    for (let round = 0; round < 40; round++) {
      const sockets = Array.from({ length: 10 }, () => {
        const bytes = Buffer.from(requests[random(requests.length)]);
        for (let changes = random(4); changes > 0; changes--) bytes[random(bytes.length)] = random(256);
        const socket = connect(port, "127.0.0.1");
        socket.on("error", () => {});
        socket.end(bytes.subarray(0, 1 + random(bytes.length)));
        return socket.resume();
      });
      await Promise.all(sockets.map((socket) => new Promise((done) => socket.once("close", done))));
    }
    await expectEcho({ server: `127.0.0.1:${port}` });
  });

  it("keeps only the configured number of strangers, the newest, while tunnels continue", async () => {
    // Nobody reads these, so their answers stay unfinished.
    const slow = Array.from({ length: 24 }, () => {
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => {});
      socket.write("GET /much.bin HTTP/1.1\r\nHost: a\r\n\r\n");
      return socket;
    });
    let closed = 0;
    await new Promise<void>((done) => {
      for (const socket of slow)
        socket.once("close", () => {
          if (++closed === 16) done();
        });
      // A socket reports its end only after it has read everything before it.
      setTimeout(() => {
        for (const socket of slow.slice(0, 16)) socket.resume();
      }, 200);
    });
    await expectEcho({ server: `127.0.0.1:${port}` });
    for (const socket of slow) socket.destroy();
  });
});

describe("a web server as a decoy", () => {
  it("gets requests with their bodies but without hop-by-hop fields", async () => {
    const seen: IncomingMessage[] = [];
    const web = createServer((incoming, response) => {
      seen.push(incoming);
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk) => chunks.push(chunk));
      incoming.on("end", () => {
        response.writeHead(201, { "X-Site": "yes", Connection: "close, X-Hop", "X-Hop": "secret" });
        response.end(`${incoming.method} ${incoming.url} ${Buffer.concat(chunks).length}`);
      });
    }).listen(0, "127.0.0.1");
    await once(web, "listening");
    const webPort = (web.address() as AddressInfo).port;
    const { server, port } = await startServer(`http://127.0.0.1:${webPort}/base/`);
    try {
      const body = Buffer.alloc(3_000_000, "b");
      const answer = await fetch(`http://127.0.0.1:${port}/form?a=b`, { method: "POST", body });
      expect(answer.status).toBe(201);
      expect([answer.headers.get("x-site"), answer.headers.get("x-hop")]).toEqual(["yes", null]);
      expect(await answer.text()).toBe("POST /base/form?a=b 3000000");
      const upgrade = "Connection: Upgrade, X-Gone\r\nUpgrade: websocket\r\nX-Gone: 1\r\nX-Kept: 2\r\n";
      expect(await raw(port, `GET http://b/x HTTP/1.1\r\nHost: b\r\n${upgrade}\r\n`)).toMatch(
        /GET \/base\/x 0/,
      );
      const { headers } = seen.at(-1)!;
      expect([headers.host, headers.upgrade, headers["x-gone"], headers["x-kept"]]).toEqual([
        ...[`127.0.0.1:${webPort}`, undefined, undefined, "2"],
      ]);
      await expectEcho({ server: `127.0.0.1:${port}` });
    } finally {
      await server.close();
      web.close();
    }
  });

  it("gets one request of each connection, however many are pipelined", async () => {
    let asked = 0;
    let connections = 0;
    const web = createServer((_, response) => {
      asked++;
      setTimeout(() => response.end("answer"), 100);
    }).listen(0, "127.0.0.1");
    web.on("connection", () => connections++);
    await once(web, "listening");
    const { server, port } = await startServer(`http://127.0.0.1:${(web.address() as AddressInfo).port}`);
    try {
      const answer = await raw(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000));
      expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1);
      expect(answer).toMatch(/^HTTP\/1\.1 200 /);
      expect([asked, connections]).toEqual([1, 1]);
      await expectEcho({ server: `127.0.0.1:${port}` });
    } finally {
      await server.close();
      web.close();
    }
  });

  it.each([
    ["with chunks", "Transfer-Encoding: chunked\r\n"],
    ["with a length", "Content-Length: {}\r\n"],
    ["with a length that Connection names", "Connection: content-length\r\nContent-Length: {}\r\n"],
  ])("takes the content of a GET %s for content, not for another request", async (_, fields) => {
    const seen: string[] = [];
    const web = createServer((incoming, response) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk) => chunks.push(chunk));
      incoming.on("end", () => {
        seen.push(`${incoming.headers.host} ${incoming.url} ${Buffer.concat(chunks)}`);
        response.end("answer");
      });
    }).listen(0, "127.0.0.1");
    await once(web, "listening");
    const webPort = (web.address() as AddressInfo).port;
    const { server, port } = await startServer(`http://127.0.0.1:${webPort}`);
    try {
      const smuggled = "GET /smuggled HTTP/1.1\r\nHost: other\r\n\r\n";
      const isChunked = fields.startsWith("Transfer");
      const content = isChunked ? `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n` : smuggled;
      const head = `GET / HTTP/1.1\r\nHost: a\r\n${fields.replace("{}", `${content.length}`)}\r\n`;
      expect(await raw(port, head + content)).toMatch(/^HTTP\/1\.1 200 /);
      expect(seen).toEqual([`127.0.0.1:${webPort} / ${smuggled}`]);
    } finally {
      await server.close();
      web.close();
    }
  });

  it("is asked for nothing outside the URL's path", async () => {
    const seen: (string | undefined)[] = [];
    const web = createServer((incoming, response) => {
      seen.push(incoming.url);
      response.end("answer");
    }).listen(0, "127.0.0.1");
    await once(web, "listening");
    const webPort = (web.address() as AddressInfo).port;
    const below = await startServer(`http://127.0.0.1:${webPort}/base`);
    const root = await startServer(`http://127.0.0.1:${webPort}`);
    try {
      const outside = [
        ...[
          "/../secret",
          "/..",
          "/..?a",
          "/%2e%2e/secret",
          "/.%2E/secret",
          "/a/../../secret",
          "/..%2fsecret",
        ],
        ...[
          "/..\\secret",
          "/a%5c..%5c..%5csecret",
          "/..;/secret",
          "/%2f..%2fsecret",
          "http://a/../secret",
          "..",
        ],
      ];
      for (const path of outside)
        expect([path, await get(below.port, path)]).toEqual([path, expect.stringMatching(/^HTTP\/1\.1 4/)]);
      expect(seen).toEqual([]);
      for (const path of ["/...", "/a..b/..c", "/?a=/../b"]) await get(below.port, path);
      await get(root.port, "/../inside");
      expect(seen).toEqual(["/base/...", "/base/a..b/..c", "/base/?a=/../b", "/../inside"]);
    } finally {
      await below.server.close();
      await root.server.close();
      web.close();
    }
  });

  it("leads to 502 when it is down, and to a truncated answer when it stops halfway", async () => {
    const dead = await startServer(`http://127.0.0.1:${await freePort()}`);
    expect((await fetch(`http://127.0.0.1:${dead.port}/`)).status).toBe(502);
    await dead.server.close();
    const web = createServer((_, response) => {
      response.writeHead(200, { "Content-Length": 100 });
      response.write("half");
      setTimeout(() => response.destroy(), 20);
    }).listen(0, "127.0.0.1");
    await once(web, "listening");
    const broken = await startServer(`http://127.0.0.1:${(web.address() as AddressInfo).port}`);
    const outgoing = request({ port: broken.port, host: "127.0.0.1" }).end();
    const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
    await expect(once(answer.resume(), "end")).rejects.toThrow(/aborted/);
    await broken.server.close();
    web.close();
  });
});

describeWith(["nginx", "curl"], "nginx as decoy", () => {
  it("answers curl over HTTP/1.0 and HTTP/1.1, with a large file, and when curl offers HTTP/2", async () => {
    const webPort = await freePort();
    writeFileSync(
      join(folder, "nginx.conf"),
      `daemon off;
master_process off;
pid ${folder}/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  server { listen 127.0.0.1:${webPort}; root ${site}; }
}
`,
    );
    const nginx = await startPeer("nginx", ["-c", join(folder, "nginx.conf")], webPort);
    const { server, port } = await startServer(`http://127.0.0.1:${webPort}`);
    try {
      const url = `http://127.0.0.1:${port}`;
      for (const version of ["--http1.0", "--http1.1", "--http2"]) {
        const answer = await run("curl", ["-sS", "-i", version, `${url}/`]);
        expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n.*server: nginx.*<h1>Welcome<\/h1>\n$/is);
      }
      const size = await run("curl", ["-sS", "-o", "/dev/null", "-w", "%{size_download}", `${url}/much.bin`]);
      expect(Number(size)).toBe(MUCH.length);
    } finally {
      await server.close();
      await nginx.stop();
    }
  });
});
