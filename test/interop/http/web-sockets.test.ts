import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { WebSocket } from "ws";
import type { UdpServerOptions } from "../../../src/host/options/udp-server.ts";
import type { UdpLocal, UdpServer } from "../../../src/node/handles.ts";
import { hasNativeIo } from "../../../src/node/io/io.ts";
import type { UdpLocalOptions } from "../../../src/node/options/udp-local.ts";
import { programCommand } from "../../support/hosts.ts";
import { startUdpLocal, startUdpServer } from "../../support/start.ts";
import { expectTunnelEchoes, startUdpEcho } from "../../support/udp-echo.ts";
import { seededIntegers } from "../../unit/random.ts";
import { describeWith, freePort, run, startPeer } from "../peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");
const PEER = join(import.meta.dirname, "../peers/web-socket-peer.py");

let echo: UdpSocket;

beforeAll(async () => {
  echo = await startUdpEcho();
});

afterAll(() => echo.close());

async function startServer(options: UdpServerOptions = {}): Promise<{ server: UdpServer; port: number }> {
  const server = await startUdpServer({
    ...{ listen: ["127.0.0.1:0"], psk: KEY, allow: ["127.0.0.1/32"], wsPath: "/tunnel" },
    ...options,
  });
  return { server, port: Number(server.address.listen[0].split(":")[1]) };
}

function startLocal(options: UdpLocalOptions): Promise<UdpLocal> {
  const target = `127.0.0.1:${echo.address().port}`;
  return startUdpLocal({ psk: KEY, forwards: [{ listen: "127.0.0.1:0", target }], ...options });
}

/** Sends a datagram to the echo. @returns the server's port that the echo saw */
async function ask(local: UdpLocal, app: UdpSocket, payload: Buffer | string): Promise<number> {
  const asked = once(echo, "message");
  const answered = once(app, "message");
  app.send(payload, Number(local.address.forwards[0].listen.split(":")[1]), "127.0.0.1");
  const [, source] = await asked;
  const [data] = await answered;
  expect(data.equals(Buffer.from(payload))).toBe(true);
  return source.port;
}

const expectEcho = (options: UdpLocalOptions) => expectTunnelEchoes(echo, { psk: KEY, ...options });

describe("Underpass's own WebSocket at both ends", () => {
  let server: UdpServer;
  let port: number;

  beforeAll(async () => {
    ({ server, port } = await startServer());
  });

  afterAll(() => server.close());

  it("carries the tunnel with only --via", () => expectEcho({ via: [`ws://127.0.0.1:${port}/tunnel`] }));

  it("carries four lanes", () => expectEcho({ via: [`ws://127.0.0.1:${port}/tunnel`], lanes: 4 }));

  it("carries the tunnel on a Unix socket, and for a request with a query in its path", async () => {
    const folder = mkdtempSync(join(tmpdir(), "underpass-ws-"));
    const other = await startServer({ listen: [`unix:${folder}/socket`] });
    try {
      await expectEcho({ via: [`unix:${folder}/socket`, "ws://any.example/tunnel"] });
    } finally {
      await other.server.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it.skipIf(!hasNativeIo(undefined))(
    "keeps its sessions on the listening thread, while other sessions move",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "underpass-ws-"));
      writeFileSync(join(folder, "psk"), KEY, { mode: 0o600 });
      const [command, ...first] = programCommand("udp-server");
      const program = spawn(
        command,
        [
          ...[...first, "--listen", "127.0.0.1:0", "--ws-path", "/tunnel", "--workers", "3"],
          ...["--psk-file", join(folder, "psk"), "--allow", "127.0.0.0/8", "--log-format", "json"],
        ],
        { stdio: ["ignore", "ignore", "pipe"] },
      );
      try {
        let port = 0;
        for await (const line of createInterface({ input: program.stderr })) {
          const { listen } = JSON.parse(line);
          if (listen === undefined) continue;
          port = Number(listen[0].split(":")[1]);
          break;
        }
        for (let i = 0; i < 4; i++) {
          await expectEcho({ via: [`ws://127.0.0.1:${port}/tunnel`], lanes: 2 });
          await expectEcho({ server: `127.0.0.1:${port}`, lanes: 2 });
        }
      } finally {
        program.kill();
        await once(program, "exit");
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );

  it("still serves tunnels without a WebSocket on the same port", () =>
    expectEcho({ server: `127.0.0.1:${port}` }));

  it("carries a burst both ways unchanged, in more than one message at once", async () => {
    const local = await startLocal({ via: [`ws://127.0.0.1:${port}/tunnel`], queueBytes: 2 ** 24 });
    const app = createSocket({ type: "udp4", recvBufferSize: 2 ** 22 });
    try {
      await once(local, "session-up");
      const listen = Number(local.address.forwards[0].listen.split(":")[1]);
      const wanted = new Set<string>();
      const heard = new Promise<void>((done) => {
        app.on("message", (data) => {
          wanted.delete(data.toString("base64"));
          if (wanted.size === 0) done();
        });
      });
      for (let i = 0; i < 100; i++) {
        const payload = randomBytes(1 + ((i * 131) % 1400));
        wanted.add(payload.toString("base64"));
        app.send(payload, listen, "127.0.0.1");
      }
      await heard;
    } finally {
      app.close();
      await local.close();
    }
  });

  it("resumes on a new WebSocket after the first was cut", async () => {
    const sockets = new Set<Socket>();
    const { createServer } = await import("node:net");
    const gate = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      for (const end of [near, far]) {
        sockets.add(end);
        end.on("error", () => {});
        end.once("close", () => {
          near.destroy();
          far.destroy();
        });
      }
      near.pipe(far).pipe(near);
    }).listen(0, "127.0.0.1");
    await once(gate, "listening");
    const local = await startLocal({
      via: [`ws://127.0.0.1:${(gate.address() as { port: number }).port}/tunnel`],
      lanes: 2,
    });
    const app = createSocket("udp4");
    try {
      await once(local, "session-up");
      const before = await ask(local, app, "before");
      const resumed = new Promise((done) => local.once("session-resumed", done));
      for (const socket of sockets) socket.resetAndDestroy();
      await resumed;
      expect(await ask(local, app, "after")).toBe(before);
    } finally {
      app.close();
      await local.close();
      for (const socket of sockets) socket.destroy();
      gate.close();
    }
  });

  it("registers everything again after a restart of the server", async () => {
    const first = await startServer();
    const local = await startLocal({ via: [`ws://127.0.0.1:${first.port}/tunnel`] });
    const app = createSocket("udp4");
    try {
      await once(local, "session-up");
      await ask(local, app, "before");
      const again = new Promise((done) => local.once("session-up", done));
      await first.server.close();
      const second = await startServer({ listen: [`127.0.0.1:${first.port}`] });
      onTestFinished(() => second.server.close());
      await again;
      await ask(local, app, "after");
    } finally {
      app.close();
      await local.close();
    }
  });

  it("names the failed step without the path", async () => {
    const failure = expectEcho({ via: [`ws://127.0.0.1:${port}/s3cret`] });
    await expect(failure).rejects.toThrow(/ws 127.0.0.1:\d+: .*: status 404 instead of 101/);
    await expect(failure).rejects.not.toThrow(/s3cret/);
  });

  it("answers a plain visitor, another path and a malformed request with the same 404 page", async () => {
    const answers = await Promise.all([
      fetch(`http://127.0.0.1:${port}/elsewhere`),
      fetch(`http://127.0.0.1:${port}/tunnel`),
      fetch(`http://127.0.0.1:${port}/tunnel`, { method: "POST", body: "body" }),
    ]);
    const pages = await Promise.all(answers.map(async (answer) => [answer.status, await answer.text()]));
    expect(new Set(pages.map(String)).size).toBe(1);
    expect(pages[0][0]).toBe(404);
    const webSocket = new WebSocket(`ws://127.0.0.1:${port}/tunnel/more`);
    await expect(once(webSocket, "open")).rejects.toThrow("404");
    const wrongVersion = new WebSocket(`ws://127.0.0.1:${port}/tunnel`, { protocolVersion: 8 });
    await expect(once(wrongVersion, "open")).rejects.toThrow("404");
  });

  it("refuses a stranger on a WebSocket, and a WebSocket inside a WebSocket", async () => {
    for (const request of ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", upgradeRequest("/tunnel")]) {
      const webSocket = new WebSocket(`ws://127.0.0.1:${port}/tunnel`);
      await once(webSocket, "open");
      webSocket.send(Buffer.from(request));
      const [answer] = await once(webSocket, "message");
      expect(answer.toString()).toMatch(/^HTTP\/1\.1 404 /);
      const [code] = await once(webSocket, "close");
      expect(code).toBe(1000);
    }
  });
});

function upgradeRequest(path: string): string {
  return (
    `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`
  );
}

/** A WebSocket by hand, for frames that no library sends. */
async function openRaw(port: number, behind: Buffer = Buffer.alloc(0)): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.write(Buffer.concat([Buffer.from(upgradeRequest("/tunnel")), behind]));
  const [answer] = await once(socket, "data");
  expect(answer.toString()).toMatch(/^HTTP\/1\.1 101 /);
  return socket;
}

describe("a hostile WebSocket loses only its own connection", () => {
  let server: UdpServer;
  let port: number;
  let local: UdpLocal;
  let app: UdpSocket;

  beforeAll(async () => {
    ({ server, port } = await startServer({ handshakeTimeoutMs: 1_000, maxHalfOpen: 64 }));
    local = await startLocal({ via: [`ws://127.0.0.1:${port}/tunnel`], lanes: 1 });
    await once(local, "session-up");
    app = createSocket("udp4");
  });

  afterAll(async () => {
    app.close();
    await local.close();
    await server.close();
  });

  /** A frame with a mask of zeros, which leaves the payload readable. */
  function frame(opcode: number, payload: Buffer, length = payload.length): Buffer {
    const head = Buffer.alloc(14);
    head[0] = 0x80 | opcode;
    head[1] = 0x80 | 127;
    head.writeBigUInt64BE(BigInt(length), 2);
    return Buffer.concat([head, payload]);
  }

  const short = (opcode: number, payload: Buffer, final = true) =>
    Buffer.concat([Buffer.from([(final ? 0x80 : 0) | opcode, 0x80 | payload.length, 0, 0, 0, 0]), payload]);

  /** The close code of the last unmasked frame received. */
  async function closeCode(socket: Socket): Promise<number | undefined> {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.resume();
    if (!socket.destroyed) await once(socket, "close");
    const bytes = Buffer.concat(chunks);
    return bytes[0] === 0x88 ? bytes.readUInt16BE(2) : undefined;
  }

  it.each([
    ["text", () => short(1, Buffer.from("hello")), 1003],
    ["a message over the limit", () => frame(2, Buffer.alloc(0), 1_048_577), 1009],
    ["a frame without a mask", () => Buffer.from([0x82, 0x01, 0x00]), 1002],
    ["an unknown opcode", () => short(3, Buffer.alloc(0)), 1002],
    ["a compressed frame", () => Buffer.from([0xc2, 0x80, 0, 0, 0, 0]), 1002],
    [
      "more fragments than there may be",
      () =>
        Buffer.concat([
          short(2, Buffer.from("a"), false),
          ...Array(2_000).fill(short(0, Buffer.from("b"), false)),
        ]),
      1008,
    ],
  ])("%s", async (_, bytes, code) => {
    const socket = await openRaw(port);
    socket.write(bytes());
    expect(await closeCode(socket)).toBe(code);
    await ask(local, app, "still flows");
  });

  it("a flood of pings with unread answers", async () => {
    const socket = await openRaw(port);
    socket.pause();
    const pings = Buffer.concat(Array(2_000).fill(short(9, Buffer.alloc(125, "p"))));
    const closed = new Promise((done) => socket.once("close", done));
    const write = () => {
      if (!socket.destroyed) socket.write(pings, () => setImmediate(write));
    };
    write();
    await closed;
    await ask(local, app, "still flows");
  });

  it("silence inside a frame or after the opening ends at the handshake deadline", async () => {
    const sockets = await Promise.all([openRaw(port), openRaw(port, frame(2, Buffer.from("GET"), 1_000))]);
    await Promise.all(sockets.map((socket) => once(socket.resume(), "close")));
    await ask(local, app, "still flows");
  });

  it("a thousand silent WebSockets", async () => {
    const sockets = Array.from({ length: 1_000 }, () => {
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => {});
      socket.write(upgradeRequest("/tunnel"));
      return socket.resume();
    });
    await Promise.all(sockets.map((socket) => new Promise((done) => socket.once("close", done))));
    expect(server.stats().lanes).toBe(1);
    await ask(local, app, "still flows");
  });

  it("truncated or changed bytes anywhere in the opening or the first request", async () => {
    const inner =
      "GET /.well-known/masque/udp/%2A/%2A/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n";
    const whole = Buffer.concat([
      Buffer.from(upgradeRequest("/tunnel")),
      short(2, Buffer.from(inner).subarray(0, 120)),
    ]);
    const random = seededIntegers(12_345);
    for (let round = 0; round < 20; round++) {
      const sockets = Array.from({ length: 20 }, () => {
        const bytes = Buffer.from(whole);
        for (let changes = 1 + random(3); changes > 0; changes--) bytes[random(bytes.length)] = random(256);
        const socket = connect(port, "127.0.0.1");
        socket.on("error", () => {});
        socket.end(bytes.subarray(0, 1 + random(bytes.length)));
        return socket.resume();
      });
      await Promise.all(sockets.map((socket) => new Promise((done) => socket.once("close", done))));
    }
    await ask(local, app, "still flows");
  }, 60_000);
});

describeWith(["python:websockets"], "a WebSocket of python3-websockets", () => {
  it("carries RFC 9298 for another client", async () => {
    const { server, port } = await startServer({ psk: undefined });
    try {
      const answer = await run("/usr/bin/python3", [
        PEER,
        "ask",
        String(port),
        "/tunnel",
        String(echo.address().port),
      ]);
      expect(answer.trim()).toBe("hello");
    } finally {
      await server.close();
    }
  });

  it("carries the tunnel to a server behind another gateway", async () => {
    const { server, port } = await startServer({ wsPath: undefined });
    const gatewayPort = await freePort();
    const gateway = await startPeer(
      "/usr/bin/python3",
      [PEER, "gateway", String(gatewayPort), String(port)],
      gatewayPort,
    );
    try {
      await expectEcho({ via: [`ws://127.0.0.1:${gatewayPort}/any`], lanes: 2 });
    } finally {
      await gateway.stop();
      await server.close();
    }
  });
});

/** A web server in front of udp-server, with TLS at `ports.tls`. */
const WEB_SERVERS = [
  {
    program: "nginx",
    command: (folder: string) => ["nginx", "-c", `${folder}/config`],
    config: ({ tls, upstream }: Record<"tls" | "upstream", number>) => `daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  server {
    listen 127.0.0.1:${tls} ssl http2;
    server_name tunnel.test;
    ssl_certificate FOLDER/cert.pem;
    ssl_certificate_key FOLDER/key.pem;
    location / {
      return 200 "a web site";
    }
    location /tunnel {
      if ($http_x_gate != "open sesame") { return 403; }
      proxy_pass http://127.0.0.1:${upstream};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
    }
  }
}
`,
  },
  {
    program: "haproxy",
    command: (folder: string) => ["haproxy", "-db", "-f", `${folder}/config`],
    config: ({ tls, upstream }: Record<"tls" | "upstream", number>) => `defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
frontend paths
  bind 127.0.0.1:${tls} ssl crt FOLDER/both.pem alpn h2,http/1.1
  http-request deny unless { hdr(X-Gate) "open sesame" } { hdr(Host) tunnel.test }
  default_backend server
backend server
  server server 127.0.0.1:${upstream}
`,
  },
  {
    program: "caddy",
    // Caddy stores files in its home.
    command: (folder: string) => [
      ...["env", `HOME=${folder}`, "caddy", "run"],
      ...["--adapter", "caddyfile", "--config", `${folder}/config`],
    ],
    config: ({ tls, upstream }: Record<"tls" | "upstream", number>) => `{
  admin off
  auto_https off
}
https://tunnel.test:${tls} {
  bind 127.0.0.1
  tls FOLDER/cert.pem FOLDER/key.pem
  @gate header X-Gate "open sesame"
  handle @gate {
    reverse_proxy 127.0.0.1:${upstream}
  }
  respond 403
}
`,
  },
] as const;

describe.each(WEB_SERVERS)("wss:// through $program", ({ program, command, config }) => {
  describeWith([program, "openssl", "microsocks", "tinyproxy"], "with TLS", () => {
    const folder = mkdtempSync(join(tmpdir(), `underpass-wss-${program}-`));
    const ports = { tls: 0, upstream: 0, microsocks: 0, tinyproxy: 0 };
    const stops: (() => Promise<void>)[] = [];
    let web: { stop(): Promise<void> };

    const startWeb = () => {
      const [name, ...args] = command(folder);
      return startPeer(name, args, ports.tls);
    };

    beforeAll(async () => {
      const { status, stderr } = spawnSync(
        "openssl",
        [
          ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tunnel.test"],
          ...["-addext", "subjectAltName=DNS:tunnel.test", "-keyout", `${folder}/key.pem`],
          ...["-out", `${folder}/cert.pem`],
        ],
        { encoding: "utf8" },
      );
      if (status !== 0) throw new Error(stderr);
      const { readFileSync } = await import("node:fs");
      const both = ["cert", "key"].map((name) => readFileSync(`${folder}/${name}.pem`, "utf8")).join("");
      writeFileSync(`${folder}/both.pem`, both);
      const { server, port } = await startServer();
      stops.push(() => server.close());
      ports.upstream = port;
      for (const name of ["tls", "microsocks", "tinyproxy"] as const) ports[name] = await freePort();
      writeFileSync(`${folder}/config`, config(ports).replaceAll("FOLDER", folder));
      writeFileSync(`${folder}/tinyproxy.conf`, `Port ${ports.tinyproxy}\nListen 127.0.0.1\nTimeout 600\n`);
      web = await startWeb();
      const socks = await startPeer(
        "microsocks",
        ["-i", "127.0.0.1", "-p", String(ports.microsocks)],
        ports.microsocks,
      );
      const http = await startPeer("tinyproxy", ["-d", "-c", `${folder}/tinyproxy.conf`], ports.tinyproxy);
      stops.push(
        () => socks.stop(),
        () => http.stop(),
      );
    });

    afterAll(async () => {
      await web?.stop();
      for (const stop of stops) await stop();
      rmSync(folder, { recursive: true, force: true });
    });

    const url = (gate = "open%20sesame") =>
      `wss://127.0.0.1:${ports.tls}/tunnel?sni=tunnel.test&host=tunnel.test&ca=${folder}/cert.pem&header=X-Gate:%20${gate}`;

    it("carries four lanes with Host, SNI and a chosen header", () => expectEcho({ via: [url()], lanes: 4 }));

    it("carries the tunnel inside SOCKS5, inside CONNECT, and inside both", async () => {
      const socks = `socks5://127.0.0.1:${ports.microsocks}`;
      const http = `http://127.0.0.1:${ports.tinyproxy}`;
      for (const hops of [[socks], [http], [socks, http]]) await expectEcho({ via: [...hops, url()] });
    });

    it("carries ws:// inside a separate tls://", () =>
      expectEcho({
        server: `127.0.0.1:${ports.tls}`,
        via: [
          `tls://127.0.0.1:${ports.tls}?servername=tunnel.test&ca=${folder}/cert.pem`,
          "ws://tunnel.test/tunnel?header=X-Gate:%20open%20sesame",
        ],
      }));

    it("names the hop that refuses", () =>
      expect(expectEcho({ via: [url("closed")] })).rejects.toThrow(
        new RegExp(`wss 127.0.0.1:${ports.tls}: .*: status 403 instead of 101`),
      ));

    it("refuses a certificate for another name", () =>
      expect(expectEcho({ via: [url().replace("sni=tunnel.test", "sni=other.test")] })).rejects.toThrow(
        // Caddy has no certificate for that name and sends an alert first.
        /other\.test|alert/,
      ));

    it("resumes after a restart of the web server", async () => {
      const local = await startLocal({ via: [url()] });
      const app = createSocket("udp4");
      try {
        await once(local, "session-up");
        const before = await ask(local, app, "before");
        await web.stop();
        const resumed = new Promise((done) => local.once("session-resumed", done));
        web = await startWeb();
        await resumed;
        expect(await ask(local, app, "after")).toBe(before);
      } finally {
        app.close();
        await local.close();
      }
    });
  });
});
