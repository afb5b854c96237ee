import { createHash } from "node:crypto";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import type { AddressInfo, Server } from "node:net";
import { connect, createServer } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { METHODS } from "../../src/core/shadowsocks/method.ts";
import type { UdpServerOptions } from "../../src/host/options/udp-server.ts";
import type { UdpServer } from "../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../src/node/options/udp-local.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";
import { startUdpLocal, startUdpServer } from "../support/start.ts";
import { expectTunnelEchoes, startUdpEcho } from "../support/udp-echo.ts";
import { concat } from "../unit/cuts.ts";
import { passwordKey, ReferenceDirection } from "../unit/shadowsocks-reference.ts";
import { openWay } from "./peers/open-way.ts";
import type { PeerProgram } from "./peers/peer-program.ts";
import { describeWith, freePort, startPeer } from "./peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");
const PASSWORD = "pä:ss/w@rd";
const PSK_2022 = (bytes: number) => Buffer.alloc(bytes, "q").toString("base64");

let echo: UdpSocket;
let echoTcp: Server;
let server: UdpServer | undefined;
const peers: PeerProgram[] = [];

beforeAll(async () => {
  echo = await startUdpEcho();
  echoTcp = createServer({ allowHalfOpen: true }, (socket) => socket.on("error", () => {}).pipe(socket));
  echoTcp.listen(0, "127.0.0.1");
  await once(echoTcp, "listening");
});

afterEach(async () => {
  await Promise.all(peers.splice(0).map((peer) => peer.stop()));
  await server?.close();
  server = undefined;
});

afterAll(() => {
  echo.close();
  echoTcp.close();
});

const echoPort = () => (echoTcp.address() as AddressInfo).port;

function passwordFor(method: string): string {
  return METHODS[method].is2022 ? PSK_2022(METHODS[method].keyBytes) : PASSWORD;
}

function url(method: string, port: number, plugin?: string, password = passwordFor(method)): string {
  const query = plugin === undefined ? "" : `/?plugin=${encodeURIComponent(plugin)}`;
  return `ss://${encodeURIComponent(method)}:${encodeURIComponent(password)}@127.0.0.1:${port}${query}`;
}

/** Starts udp-server with one ss:// listener. @returns the port of that listener */
async function startServer(method: string, obfs?: string, options: UdpServerOptions = {}): Promise<number> {
  const plugin = obfs && `obfs-server;obfs=${obfs}`;
  server = await startUdpServer({
    listen: [url(method, 0, plugin)],
    psk: KEY,
    allow: ["127.0.0.1/32"],
    ...options,
  });
  const [address] = server.address.listen;
  expect(address).toMatch(/^ss:\/\/127\.0\.0\.1:\d+$/);
  return Number(address.split(":")[2]);
}

const expectEcho = (options: UdpLocalOptions) =>
  expectTunnelEchoes(echo, { psk: KEY, ...options }, [1, 1_200, 9_000, 60_000, 1_200]);

/** Sends megabytes both ways. */
async function expectEchoOf(stream: Duplex, bytes: number) {
  const [sent, heard] = [createHash("sha256"), createHash("sha256")];
  let count = 0;
  const back = new Promise<void>((done) => {
    stream.on("data", (data) => {
      heard.update(data);
      count += data.length;
      if (count >= bytes) done();
    });
    stream.resume();
  });
  for (let at = 0; at < bytes; ) {
    const piece = Buffer.alloc(Math.min(1 + (at % 77_777), bytes - at), at & 255);
    sent.update(piece);
    at += piece.length;
    if (!stream.write(piece)) await new Promise((done) => stream.once("drain", done));
  }
  await back;
  expect(count).toBe(bytes);
  expect(heard.digest("hex")).toBe(sent.digest("hex"));
  stream.destroy();
}

describeWith(
  ["ss-tunnel", "ss-local", "obfs-local"],
  "udp-server that listens on ss://, and clients not ours",
  () => {
    async function startClient(program: string, port: number, method: string, more: readonly string[]) {
      const own = await freePort();
      const args = ["-s", "127.0.0.1", "-p", String(port), "-l", String(own), "-k", PASSWORD, "-m", method];
      peers.push(await startPeer(program, [...args, "--no-delay", ...more], own));
      return own;
    }
    const plugin = (obfs: string | undefined) =>
      obfs === undefined ? [] : ["--plugin", "obfs-local", "--plugin-opts", `obfs=${obfs};obfs-host=a.test`];

    it.each([
      ["chacha20-ietf-poly1305", undefined],
      ["aes-256-gcm", "http"],
      ["aes-128-gcm", "tls"],
      ["aes-192-gcm", undefined],
    ])("accepts tunnels from ss-tunnel, %s, obfs %s", async (method, obfs) => {
      const port = await startServer(method, obfs);
      const own = await startClient("ss-tunnel", port, method, ["-L", "127.0.0.1:3456", ...plugin(obfs)]);
      await expectEcho({ server: `127.0.0.1:${own}` });
    });

    it.each([undefined, "http", "tls"])("accepts tunnels and TCP from ss-local, obfs %s", async (obfs) => {
      const port = await startServer("chacha20-ietf-poly1305", obfs, { ssRelay: "direct" });
      const own = await startClient("ss-local", port, "chacha20-ietf-poly1305", plugin(obfs));
      const via = `socks5://127.0.0.1:${own}`;
      await expectEcho({ via: [via] });
      await expectEchoOf(await openWay(via).connect(makeAddress("127.0.0.1", echoPort())!), 20_000_000);
      await expectEchoOf(await openWay(via).connect(makeAddress("localhost", echoPort())!), 1_000);
    });
  },
);

describe("udp-server with an ss:// listener", () => {
  it.each(
    Object.keys(METHODS).flatMap((method) => [
      [method, undefined],
      [method, METHODS[method].keyBytes === 32 ? "http" : "tls"],
    ]),
  )("takes tunnels and TCP of our client with %s, obfs %s", async (method, obfs) => {
    const port = await startServer(method!, obfs, { ssRelay: "direct" });
    const via = url(method!, port, obfs && `obfs-local;obfs=${obfs}`);
    await expectEcho({ via: [via] });
    await expectEchoOf(await openWay(via).connect(makeAddress("127.0.0.1", echoPort())!), 5_000_000);
  });

  it("can be reached at its other listener, too", async () => {
    const port = await freePort();
    const ss = await freePort();
    const listen = [`0.0.0.0:${port}`, url("aes-256-gcm", ss)];
    server = await startUdpServer({ listen, psk: KEY, allow: ["127.0.0.1/32"] });
    for (const own of [`127.0.0.1:${port}`, `localhost:${port}`]) {
      await expectEcho({ via: [url("aes-256-gcm", ss)], server: own });
    }
    await expectEcho({ server: `127.0.0.1:${port}` });
  });

  /** The outcome of a connection to a target through the server. */
  async function outcome(via: string, host: string): Promise<string> {
    const stream = await openWay(via).connect(makeAddress(host, echoPort())!);
    const closed = new Promise<string>((done) => stream.once("end", () => done("closed")));
    const echoed = new Promise<string>((done) => stream.once("data", () => done("echoed")));
    stream.write("x");
    const result = await Promise.race([closed, echoed]);
    stream.destroy();
    return result;
  }

  it.each([
    ["off", { ssRelay: "off" }, "closed"],
    ["direct, to an address that is not allowed", { ssRelay: "direct", allow: [] }, "closed"],
    ["direct", { ssRelay: "direct" }, "echoed"],
  ])("relays TCP if that is %s: %s, %s", async (_, options, wanted) => {
    const port = await startServer("aes-256-gcm", undefined, options);
    for (const host of ["127.0.0.1", "localhost"]) {
      expect(await outcome(url("aes-256-gcm", port), host)).toBe(wanted);
    }
    expect(server!.stats().refused.target_denied).toBe(wanted === "closed" ? 2 : 0);
  });

  it("relays TCP through a SOCKS5 server", async () => {
    const local = await startUdpLocal({ psk: KEY, listen: "127.0.0.1:0" });
    const port = await startServer("aes-256-gcm", undefined, { ssRelay: `socks5://${local.address.socks5}` });
    expect(await outcome(url("aes-256-gcm", port), "localhost")).toBe("echoed");
    await local.close();
  });

  /** Connects, writes and waits. @returns the number of bytes received, and whether the connection is still open */
  async function probe(
    port: number,
    pieces: readonly Uint8Array[],
  ): Promise<{ heard: number; isOpen: boolean }> {
    const socket = connect(port, "127.0.0.1");
    let [heard, isOpen] = [0, true];
    socket.on("data", (data) => {
      heard += data.length;
    });
    socket.on("error", () => {});
    socket.once("close", () => {
      isOpen = false;
    });
    await once(socket, "connect");
    for (const piece of pieces) socket.write(piece);
    await wait(200);
    const result = { heard, isOpen };
    socket.destroy();
    return result;
  }

  it.each(["aes-128-gcm", "2022-blake3-aes-128-gcm"])(
    "with %s stays silent to strangers and keeps reading",
    async (method) => {
      const port = await startServer(method);
      const noise = Uint8Array.from({ length: 500 }, (_, i) => i * 31);
      const silence = { heard: 0, isOpen: true };
      for (const length of [0, 1, 15, 16, 17, 33, 34, 50, 200, 500]) {
        expect(await probe(port, [noise.subarray(0, length), noise])).toEqual(silence);
      }
      expect(server!.stats().refused.bad_credentials).toBe(10);
      await expectEcho({ via: [url(method, port)] });
      // A wrong password counts as a stranger.
      const wrong = METHODS[method].is2022 ? Buffer.alloc(16, "w").toString("base64") : "wrong";
      const stream = await openWay(url(method, port, undefined, wrong)).connect(
        makeAddress("127.0.0.1", 3456)!,
      );
      stream.write("x");
      const answer = once(stream, "data").then(() => "data");
      expect(await Promise.race([answer, wait(200, "silence")])).toBe("silence");
      stream.destroy();
      answer.catch(() => {});
    },
  );

  it("stays silent to a recording and to its own answers sent back", async () => {
    const port = await startServer("aes-128-gcm", undefined, { ssRelay: "direct" });
    const method = METHODS["aes-128-gcm"];
    const key = passwordKey(PASSWORD, method.keyBytes);
    const salt = new Uint8Array(16).fill(9);
    const direction = new ReferenceDirection(method, key, salt);
    const target = makeAddress("127.0.0.1", echoPort())!;
    const request = concat(salt, direction.chunk(concat(target, Buffer.from("hello"))));
    const socket = connect(port, "127.0.0.1");
    socket.write(request);
    const [answer] = (await once(socket, "data")) as [Buffer];
    expect(answer.length).toBe(16 + 18 + 5 + 16);
    socket.destroy();
    const silence = { heard: 0, isOpen: true };
    expect(await probe(port, [request])).toEqual(silence);
    expect(await probe(port, [answer])).toEqual(silence);
    expect(server!.stats().refused.replay).toBe(2);
  });

  it("closes the oldest stranger above its limit and still serves clients", async () => {
    const port = await startServer("aes-128-gcm", undefined, { maxHalfOpen: 4 });
    const strangers = Array.from({ length: 6 }, () => connect(port, "127.0.0.1").on("error", () => {}));
    const gone = Promise.all(strangers.slice(0, 2).map((socket) => once(socket.resume(), "close")));
    for (const socket of strangers) await once(socket, "connect").catch(() => {});
    await gone;
    await expectEcho({ via: [url("aes-128-gcm", port)] });
    expect(server!.stats().refused.half_open_limit).toBeGreaterThanOrEqual(2);
    for (const socket of strangers) socket.destroy();
  });

  it("passes on half-closes and resets", async () => {
    const port = await startServer("aes-128-gcm", undefined, { ssRelay: "direct" });
    const way = openWay(url("aes-128-gcm", port));
    const stream = await way.connect(makeAddress("127.0.0.1", echoPort())!);
    stream.end("question");
    let text = "";
    for await (const data of stream) text += data;
    expect(text).toBe("question");
    const resetter = createServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
    resetter.listen(0, "127.0.0.1");
    await once(resetter, "listening");
    const other = await way.connect(makeAddress("127.0.0.1", (resetter.address() as AddressInfo).port)!);
    other.write("x");
    other.resume();
    await new Promise((done) => other.once("close", done));
    expect((other.errored as NodeJS.ErrnoException | null)?.code).toBe("ECONNRESET");
    resetter.close();
  });
});

describe("a session through shadowsocks", () => {
  /** Bytes of one direction after which a connection is damaged, beyond its handshakes. */
  const HARMED_AT = 5_000;

  /** Relays to `port` and damages the first connection once, in one direction. */
  async function startHarmer(port: number, direction: "up" | "down", harm: "flip" | "cut"): Promise<Server> {
    let isHarmed = false;
    const relay = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        const isHarming = !isHarmed && (from === near) === (direction === "up");
        let passed = 0;
        from.on("error", () => {});
        from.once("close", () => to.destroy());
        from.on("data", (data) => {
          const at = HARMED_AT - passed;
          passed += data.length;
          const isHere = isHarming && at >= 0 && at < data.length && data.length > 20;
          if (isHere) isHarmed = true;
          // Not in the head of a TLS record, whose minor version is not checked.
          if (isHere && harm === "flip") data[Math.max(at, 20)] ^= 0x10;
          to.write(isHere && harm === "cut" ? data.subarray(0, at) : data);
          if (isHere && harm === "cut") near.destroy();
        });
      }
    });
    relay.listen(0, "127.0.0.1");
    await once(relay, "listening");
    return relay;
  }

  it.each([
    ["aes-256-gcm", undefined, "up", "flip"],
    ["chacha20-ietf-poly1305", undefined, "down", "flip"],
    ["aes-128-gcm", "http", "down", "flip"],
    ["aes-128-gcm", "tls", "up", "flip"],
    ["2022-blake3-aes-128-gcm", undefined, "up", "flip"],
    ["2022-blake3-chacha20-poly1305", "tls", "down", "flip"],
    ["aes-256-gcm", undefined, "down", "cut"],
    ["2022-blake3-aes-256-gcm", "http", "up", "cut"],
  ] as const)(
    "delivers no wrong byte and resumes: %s, obfs %s, %s, %s",
    async (method, obfs, direction, harm) => {
      const port = await startServer(method, obfs, { heartbeatMs: 200 });
      const relay = await startHarmer(port, direction, harm);
      const via = url(method, (relay.address() as AddressInfo).port, obfs && `obfs-local;obfs=${obfs}`);
      const local = await startUdpLocal({
        psk: KEY,
        via: [via],
        lanes: 1,
        heartbeatMs: 200,
        forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
      });
      const app = createSocket("udp4");
      let sent = 0;
      const send = () => {
        const payload = Buffer.alloc(100 + (sent % 400), sent & 255);
        payload.writeUInt32BE(sent++);
        app.send(payload, Number(local.address.forwards[0].listen.split(":")[1]), "127.0.0.1");
      };
      const sender = setInterval(send, 5);
      try {
        const wrong: Buffer[] = [];
        let heard = 0;
        app.on("message", (data) => {
          heard++;
          const number = data.readUInt32BE();
          const expected = Buffer.alloc(100 + (number % 400), number & 255);
          expected.writeUInt32BE(number);
          if (!data.equals(expected)) wrong.push(data);
        });
        await new Promise((done) => local.once("session-resumed", done));
        const before = heard;
        while (heard < before + 10) await once(app, "message");
        expect(wrong).toEqual([]);
      } finally {
        clearInterval(sender);
        app.close();
        await local.close();
        relay.close();
      }
    },
  );
});
