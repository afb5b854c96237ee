import { spawnSync } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { EventEmitter, once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttp2Server } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { connect as connectTcp, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UdpServerOptions } from "../../../src/host/options/udp-server.ts";
import type { UdpLocal, UdpServer } from "../../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../../src/node/options/udp-local.ts";

import { associate } from "../../e2e/peers/socks5/socks5-udp-client.mjs";
import { startUdpLocal, startUdpServer } from "../../support/start.ts";
import { describeWith, freePort, run, startPeer } from "../peers/peer-program.ts";

const PATH = "/.well-known/masque/udp/{target_host}/{target_port}/";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function udp(address: string, onMessage?: (socket: UdpSocket) => void): Promise<UdpSocket> {
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  onMessage?.(socket);
  socket.bind(0, address);
  await once(socket, "listening");
  cleanups.push(() => socket.close());
  return socket;
}

/** Echoes each datagram behind the sender's port. */
const echo = (address = "127.0.0.1") =>
  udp(address, (socket) =>
    socket.on("message", (data, remote) =>
      socket.send(`${remote.port} ${data}`, remote.port, remote.address),
    ),
  );

async function serve(options: UdpServerOptions = {}): Promise<UdpServer> {
  const server = await startUdpServer({
    listen: ["127.0.0.1:0"],
    allow: ["127.0.0.1/32", "[::1/128]"],
    ...options,
  });
  cleanups.push(() => server.close());
  return server;
}

async function connect(options: UdpLocalOptions): Promise<UdpLocal> {
  const local = await startUdpLocal(options);
  cleanups.push(() => local.close());
  return local;
}

/** Sends one datagram to a forward, again until an answer arrives. @returns the answer */
async function ask(app: UdpSocket, forward: string, text: string): Promise<string> {
  const [, port] = /:(\d+)$/.exec(forward)!;
  for (let tries = 0; tries < 50; tries++) {
    const heard = new AbortController();
    const answer = once(app, "message", { signal: heard.signal });
    app.send(text, Number(port), "127.0.0.1");
    const [data] = (await Promise.race([answer, wait(200, [undefined])])) as [Buffer | undefined];
    answer.catch(() => {});
    heard.abort();
    if (data?.toString().endsWith(text)) return data.toString();
  }
  throw new Error("no answer");
}

const forwardsTo = (...targets: string[]) => targets.map((target) => ({ listen: "127.0.0.1:0", target }));

/** The source port that a target saw, from its {@link echo}. */
const sourceIn = (answer: string) => answer.split(" ")[0];

/** Sends one datagram to each target from one SOCKS5 association. @returns the answers by target, in any order */
async function askBySocks(local: UdpLocal, ports: readonly number[]): Promise<string[]> {
  const answers: string[] = [];
  const heard = new EventEmitter();
  const [host, port] = local.address.socks5!.split(":");
  const client = await associate({ host, port: Number(port) }, (payload: Buffer) => {
    answers.push(payload.toString());
    if (answers.length === ports.length) heard.emit("all");
  });
  cleanups.push(() => client.close());
  const all = once(heard, "all", { signal: AbortSignal.timeout(10_000) });
  for (const target of ports) client.send(Buffer.from(`to ${target}`), { host: "127.0.0.1", port: target });
  await all;
  return answers;
}

describe.each([
  ["HTTP/1.1", ""],
  ["HTTP/2", "#http=2"],
])("udp-local --masque with udp-server over %s", (_, fragment) => {
  let app: UdpSocket;
  const template = (server: UdpServer) => `http://${server.address.listen[0]}${PATH}${fragment}`;

  beforeEach(async () => {
    app = await udp("127.0.0.1");
  });

  it("reaches IPv4, IPv6 and a name through forwards, with one request each", async () => {
    const server = await serve();
    const four = await echo();
    const six = await echo("::1");
    const targets = [
      `127.0.0.1:${four.address().port}`,
      `[::1]:${six.address().port}`,
      `localhost:${four.address().port}`,
    ];
    const local = await connect({ masque: template(server), forwards: forwardsTo(...targets) });
    for (const { listen } of local.address.forwards)
      expect(await ask(app, listen, "hello")).toMatch(/ hello$/);
    expect(server.stats().associations).toBe(3);
    expect(local.stats().lanes).toBe(3);
  });

  it("uses one request and one source port for all targets of a SOCKS5 association if the proxy binds", async () => {
    const server = await serve();
    const ports = (await Promise.all([echo(), echo(), echo()])).map((socket) => socket.address().port);
    const local = await connect({ masque: template(server), listen: "127.0.0.1:0" });
    const answers = await askBySocks(local, ports);
    expect(answers.map((text) => text.slice(text.indexOf(" "))).sort()).toEqual(
      ports.map((port) => ` to ${port}`).sort(),
    );
    expect(new Set(answers.map(sourceIn)).size).toBe(1);
    expect(server.stats().lanes).toBe(1);
  });

  it("uses one request and source port for each target if the proxy does not bind", async () => {
    const behind = await serve();
    const relay = await connect({ server: behind.address.listen[0], listen: "127.0.0.1:0" });
    // The egress has no address to bind to.
    const server = await serve({ egress: `socks5://${relay.address.socks5}` });
    const ports = (await Promise.all([echo(), echo(), echo()])).map((socket) => socket.address().port);
    const local = await connect({ masque: template(server), listen: "127.0.0.1:0" });
    expect(new Set((await askBySocks(local, ports)).map(sourceIn)).size).toBe(3);
    expect(server.stats().lanes).toBe(3);
  });

  it("counts a refused target and does not request it again at once", async () => {
    const server = await serve({ allow: [] });
    const local = await connect({ masque: template(server), forwards: forwardsTo("10.0.0.1:9") });
    const [, port] = /:(\d+)$/.exec(local.address.forwards[0].listen)!;
    while (local.stats().drops.refused_target < 5) {
      app.send("hello", Number(port), "127.0.0.1");
      await wait(10);
    }
    expect(server.stats().refused.target_denied).toBe(1);
    expect(local.stats().unreachable.prohibited).toBe(1);
  });

  it("requests its targets again after a restart of the server", async () => {
    const target = await echo();
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: ["127.0.0.1/32"] });
    const local = await connect({
      masque: template(server),
      forwards: forwardsTo(`127.0.0.1:${target.address().port}`),
    });
    const forward = local.address.forwards[0].listen;
    const before = await ask(app, forward, "before");
    await server.close();
    await serve({ listen: server.address.listen });
    expect(sourceIn(await ask(app, forward, "after"))).not.toBe(sourceIn(before));
  });

  it("carries datagrams of 0 to 60,000 bytes unchanged", async () => {
    const target = await udp("127.0.0.1", (socket) =>
      socket.on("message", (data, remote) => socket.send(data, remote.port, remote.address)),
    );
    const server = await serve();
    const local = await connect({
      masque: template(server),
      forwards: forwardsTo(`127.0.0.1:${target.address().port}`),
    });
    const [, port] = /:(\d+)$/.exec(local.address.forwards[0].listen)!;
    for (const size of [0, 1, 63, 64, 1200, 9000, 60_000, 65_507]) {
      const payload = Buffer.from(Array.from({ length: size }, (_, i) => i % 251));
      const answer = once(app, "message");
      app.send(payload, Number(port), "127.0.0.1");
      expect((await answer)[0].equals(payload)).toBe(true);
    }
  });

  it("reaches the proxy through the hops of --via", async () => {
    const target = await echo();
    const server = await serve();
    const password = "sixteen bytes of";
    const relay = await serve({
      listen: [`ss://chacha20-ietf-poly1305:${encodeURIComponent(password)}@127.0.0.1:0`],
      ssRelay: "direct",
      allow: ["127.0.0.1/32"],
    });
    const [, port] = /:(\d+)$/.exec(relay.address.listen[0])!;
    const local = await connect({
      masque: template(server),
      via: [`ss://chacha20-ietf-poly1305:${encodeURIComponent(password)}@127.0.0.1:${port}`],
      forwards: forwardsTo(`127.0.0.1:${target.address().port}`),
    });
    expect(await ask(app, local.address.forwards[0].listen, "hello")).toMatch(/ hello$/);
  });
});

describe("misbehaving proxies of --masque", () => {
  async function flood(local: UdpLocal, until: () => boolean): Promise<void> {
    const app = await udp("127.0.0.1");
    const [, port] = /:(\d+)$/.exec(local.address.forwards[0].listen)!;
    while (!until()) {
      for (let i = 0; i < 100; i++) app.send(Buffer.alloc(1_200), Number(port), "127.0.0.1");
      await wait(5);
    }
  }

  it("a proxy that does not read its tunnel over HTTP/1.1 loses datagrams, counted", async () => {
    const proxy = createServer((socket) => {
      socket.on("error", () => {});
      cleanups.push(() => socket.destroy());
      socket.once("data", () => {
        socket.pause();
        socket.write(
          "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n",
        );
      });
    }).listen(0, "127.0.0.1");
    await once(proxy, "listening");
    cleanups.push(() => proxy.close());
    const { port } = proxy.address() as AddressInfo;
    const local = await connect({
      masque: `http://127.0.0.1:${port}${PATH}`,
      forwards: forwardsTo("192.0.2.1:9"),
    });
    await flood(local, () => local.stats().drops.age + local.stats().drops.queue_full > 1_000);
  });

  it("a proxy that does not read its tunnel over HTTP/2 loses datagrams of that tunnel, counted", async () => {
    const proxy = createHttp2Server({ settings: { enableConnectProtocol: true } });
    proxy.on("stream", (stream) => {
      stream.on("error", () => {});
      stream.respond({ ":status": 200 });
    });
    proxy.on("session", (session) => cleanups.push(() => session.destroy()));
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    cleanups.push(() => proxy.close());
    const { port } = proxy.address() as AddressInfo;
    const local = await connect({
      masque: `http://127.0.0.1:${port}${PATH}#http=2`,
      forwards: forwardsTo("192.0.2.1:9"),
    });
    await flood(local, () => local.stats().drops.age + local.stats().drops.queue_full > 1_000);
  });

  it("a silent connection of HTTP/2 is closed after four heartbeats, and another is opened", async () => {
    const target = await echo();
    const server = await serve();
    const upstream = Number(server.address.listen[0].split(":")[1]);
    const sockets: Socket[] = [];
    const relay = createServer((socket) => {
      const inner = connectTcp(upstream, "127.0.0.1");
      for (const end of [socket, inner]) {
        sockets.push(end);
        end.on("error", () => {});
      }
      socket.pipe(inner).pipe(socket);
    }).listen(0, "127.0.0.1");
    await once(relay, "listening");
    cleanups.push(() => {
      relay.close();
      for (const socket of sockets) socket.destroy();
    });
    const { port } = relay.address() as AddressInfo;
    const local = await connect({
      masque: `http://127.0.0.1:${port}${PATH}#http=2`,
      heartbeatMs: 100,
      forwards: forwardsTo(`127.0.0.1:${target.address().port}`),
    });
    const app = await udp("127.0.0.1");
    const forward = local.address.forwards[0].listen;
    const before = await ask(app, forward, "before");
    for (const socket of sockets) socket.unpipe().pause();
    expect(sourceIn(await ask(app, forward, "after"))).not.toBe(sourceIn(before));
    expect(sockets).toHaveLength(4);
  });
});

/** A certificate for localhost, its key, and both in one file. */
function certificate(): { cert: string; key: string; both: string } {
  const folder = mkdtempSync(join(tmpdir(), "underpass-masque-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
  const [cert, key, both] = ["cert.pem", "key.pem", "both.pem"].map((name) => join(folder, name));
  const args = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
  const { status, stderr } = spawnSync(
    "openssl",
    [...args, "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
    { encoding: "utf8" },
  );
  if (status !== 0) throw new Error(stderr);
  writeFileSync(both, spawnSync("cat", [cert, key]).stdout);
  return { cert, key, both };
}

describeWith(["haproxy", "openssl", "python:h2"], "with TLS by haproxy before udp-server", () => {
  it.each([
    ["h2,http/1.1", "", 1],
    ["h2,http/1.1", "&http=1.1", 2],
    ["http/1.1", "", 2],
  ])(
    "a proxy that offers %s is spoken to accordingly (%s): %s connections for two targets",
    async (alpn, option, connections) => {
      const server = await serve();
      const { cert, both } = certificate();
      const port = await freePort();
      const upstream = server.address.listen[0];
      const config = `${both}.cfg`;
      writeFileSync(
        config,
        `defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend tls
  bind 127.0.0.1:${port} ssl crt ${both} alpn ${alpn}
  default_backend server
backend server
  server server ${upstream}
`,
      );
      const peer = await startPeer("haproxy", ["-db", "-f", config], port);
      cleanups.push(() => peer.stop());
      const app = await udp("127.0.0.1");
      const targets = await Promise.all([echo(), echo()]);
      const local = await connect({
        masque: `https://localhost:${port}${PATH}#ca=${cert}${option}`,
        forwards: forwardsTo(...targets.map((target) => `127.0.0.1:${target.address().port}`)),
      });
      for (const { listen } of local.address.forwards)
        expect(await ask(app, listen, "hello")).toMatch(/ hello$/);
      const { stdout } = spawnSync("ss", [
        "-Htn",
        "state",
        "established",
        `( sport = :${upstream.split(":")[1]} )`,
      ]);
      expect(stdout.toString().trim().split("\n")).toHaveLength(connections);
      if (alpn.startsWith("h2")) {
        const script = join(import.meta.dirname, "../peers/connect-udp-h2.py");
        const target = String(targets[0].address().port);
        // This client expects an echo of the payload alone.
        const plain = await udp("127.0.0.1", (socket) =>
          socket.on("message", (data, remote) => socket.send(data, remote.port, remote.address)),
        );
        expect(target).not.toBe("");
        await run("/usr/bin/python3", [script, String(port), String(plain.address().port), cert]);
      }
    },
  );
});

describeWith(["openssl", "python:h2"], "with a proxy by h2", () => {
  it.each(["http", "https"])(
    "%s: udp-local spreads requests over connections, sends credentials and understands refusals",
    async (scheme) => {
      const { cert, key } = certificate();
      const port = await freePort();
      const script = join(import.meta.dirname, "../peers/masque-proxy-h2.py");
      const peer = await startPeer(
        "/usr/bin/python3",
        [script, String(port), "2", ...(scheme === "https" ? [cert, key] : [])],
        port,
      );
      cleanups.push(() => peer.stop());
      let output = "";
      peer.child.stdout!.on("data", (data) => {
        output += data;
      });
      const app = await udp("127.0.0.1");
      const six = await echo("::1");
      const fours = await Promise.all([echo(), echo(), echo(), echo()]);
      const option = scheme === "https" ? `ca=${cert}` : "http=2";
      const template = (user: string) =>
        `${scheme}://${user}localhost:${port}/masque?h={target_host}&p={target_port}#${option}`;
      const local = await connect({
        masque: template("u:p@"),
        forwards: forwardsTo(
          `[::1]:${six.address().port}`,
          ...fours.map((target) => `127.0.0.1:${target.address().port}`),
        ),
      });
      for (const { listen } of local.address.forwards)
        expect(await ask(app, listen, "hello")).toMatch(/ hello$/);
      expect(local.stats().lanes).toBe(5);
      expect(output).toContain(
        `ask /masque?h=%3A%3A1&p=${six.address().port} connect-udp ${scheme} localhost:${port}\n`,
      );

      for (const [user, target, message] of [
        ["u:p@", "127.0.0.1:9", /status 403, Proxy-Status: tester; error=destination_ip_prohibited$/],
        [
          "",
          "127.0.0.1:53",
          /status 401, the proxy wants credentials \(Basic\): use https:\/\/USER:PASSWORD@HOST/,
        ],
      ] as const) {
        const refused = await connect({ masque: template(user), forwards: forwardsTo(target) });
        const failed = once(refused, "error").catch((error: Error) => [error]);
        const [, refusedPort] = /:(\d+)$/.exec(refused.address.forwards[0].listen)!;
        app.send("hello", Number(refusedPort), "127.0.0.1");
        expect((await failed)[0].message).toMatch(message);
      }
    },
  );
});
