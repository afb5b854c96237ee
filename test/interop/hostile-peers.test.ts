import { spawn } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import type { UdpLocal, UdpServer } from "../../src/node/handles.ts";
import {
  datagramHeaderLength,
  encodeAssociationOpen,
  encodeCompressionAck,
  encodeCompressionClose,
  encodeContextAssign,
  encodeShutdown,
  writeDatagramHeader,
} from "../../src/wire/capsule.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";
import { programCommand } from "../support/hosts.ts";
import { residentBytes, startUdpLocal, startUdpServer } from "../support/start.ts";
import { startUdpEcho } from "../support/udp-echo.ts";

const KEY = Buffer.alloc(32, "k");

/** A tunnel with an honest user, beside each hostile peer. */
describe("other traffic continues beside a hostile peer", () => {
  let server: UdpServer;
  let local: UdpLocal;
  let echo: UdpSocket;
  let app: UdpSocket;
  const hostile = new Set<Socket>();

  beforeEach(async () => {
    echo = await startUdpEcho();
    server = await startUdpServer({
      listen: ["127.0.0.1:0"],
      psk: KEY,
      allow: ["127.0.0.1/32"],
      handshakeTimeoutMs: 500,
      maxHalfOpen: 64,
    });
    local = await startUdpLocal({
      server: server.address.listen[0],
      psk: KEY,
      forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
    });
    await once(local, "session-up");
    app = createSocket("udp4");
    app.bind(0, "127.0.0.1");
    await once(app, "listening");
  });

  afterEach(async () => {
    for (const socket of hostile) socket.destroy();
    hostile.clear();
    app.close();
    echo.close();
    await local.close();
    await server.close();
  });

  function attack(): Socket {
    const socket = connect(Number(server.address.listen[0].split(":")[1]), "127.0.0.1");
    socket.on("error", () => {});
    hostile.add(socket);
    return socket;
  }

  /** Expects an echo of the honest user's datagram. */
  async function expectFlow(text: string): Promise<void> {
    const answer = once(app, "message");
    const retry = setInterval(
      () => app.send(text, Number(local.address.forwards[0].listen.split(":")[1])),
      50,
    );
    app.send(text, Number(local.address.forwards[0].listen.split(":")[1]), "127.0.0.1");
    const [data] = await answer;
    clearInterval(retry);
    expect(data.toString()).toBe(text);
  }

  it("that sends its head one byte at a time until it is closed at the deadline", async () => {
    const socket = attack();
    const drip = setInterval(() => socket.write("G"), 20);
    const ended = closed(socket);
    await expectFlow("while it drips");
    await ended;
    clearInterval(drip);
    expect(server.stats().refused.handshake_timeout).toBeGreaterThan(0);
  });

  it("that sends an endless head until it gets 400 at 8 KiB", async () => {
    const socket = attack();
    let answer = "";
    socket.on("data", (data) => {
      answer += data;
    });
    socket.write(`GET / HTTP/1.1\r\nX: ${"a".repeat(20_000)}`);
    await closed(socket);
    expect(answer).toMatch(/^HTTP\/1.1 400 /);
    await expectFlow("after an endless head");
  });

  it("that does not speak HTTP or asks for another page, and gets a web server's answer", async () => {
    for (const [request, status] of [
      ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404],
      ["GET /.well-known/masque/udp/%2A/%2A/ HTTP/1.1\r\nHost: a\r\n\r\n", 404],
      ["POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 404],
    ] as const) {
      const socket = attack();
      let answer = "";
      socket.on("data", (data) => {
        answer += data;
      });
      socket.write(request, "latin1");
      await closed(socket);
      expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
      expect(answer).not.toMatch(/masque|connect-udp|underpass/i);
    }
    await expectFlow("after strangers");
  });

  it("that opens 10,000 connections, of which the oldest are closed, with bounded memory", async () => {
    const before = residentBytes(server);
    for (let i = 0; i < 10_000; i += 100) {
      const batch = Array.from({ length: 100 }, () => {
        const socket = attack();
        return once(socket, "connect").catch(() => {});
      });
      await Promise.all(batch);
      for (const socket of hostile) {
        if (socket.destroyed) hostile.delete(socket);
      }
      if (i % 1000 === 0) await expectFlow(`at ${i}`);
    }
    await expectFlow("after 10,000");
    await vi.waitFor(
      () => {
        const { half_open_limit, handshake_timeout } = server.stats().refused;
        expect(half_open_limit + handshake_timeout).toBeGreaterThan(9_500);
      },
      { timeout: 10_000 },
    );
    expect(residentBytes(server) - before).toBeLessThan(300 * 1024 * 1024);
  });
});

/** Upgrades a connection to a server without a key, with a request time after the server's start. */
async function upgrade(socket: Socket): Promise<void> {
  const nonce = Buffer.from(`${Math.random()}`.padEnd(16).slice(0, 16)).toString("base64");
  socket.write(
    `GET /.well-known/masque/udp/%2A/%2A/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\nConnect-UDP-Bind: ?1\r\nUnderpass: v=1, n=:${nonce}:, t=${Date.now() + 1_000}, l=0\r\n\r\n`,
  );
  const [head] = await once(socket, "data");
  expect(head.toString("latin1")).toMatch(/^HTTP\/1.1 101 /);
}

describe("a peer with the key that breaks the protocol", () => {
  const sessions: { close(): Promise<void> }[] = [];
  afterEach(async () => {
    for (const one of sessions.splice(0)) await one.close();
  });

  /** An upgraded connection to a server without a key, for raw capsules. */
  async function upgraded(server: UdpServer): Promise<Socket> {
    const socket = connect(Number(server.address.listen[0].split(":")[1]), "127.0.0.1");
    socket.on("error", () => {});
    await upgrade(socket);
    return socket;
  }

  async function start(options: object): Promise<UdpServer> {
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], ...options });
    sessions.push(server);
    return server;
  }

  it.each([
    ["a capsule longer than its type allows", "00 80 01 00 10"],
    ["a context id that is odd", "80555002 02 01 00 80555004 09 01 01 01 08080808 0035"],
    ["an address that does not fill its capsule", "80555002 02 01 00 80555004 0a 02 01 01 08080808 0035 00"],
    ["a datagram without a context", "00 00"],
    ["an association with id 0", "80555002 02 00 00"],
  ])("loses its connection for %s", async (_what, hex) => {
    const server = await start({});
    const socket = await upgraded(server);
    const ended = closed(socket);
    socket.write(Buffer.from(hex.replaceAll(" ", ""), "hex"));
    socket.resume();
    await ended;
    expect(server.stats().refused.protocol_error).toBe(1);
  });

  it("registers 1,000 contexts at a limit of 100 and learns of each eviction", async () => {
    const server = await start({ maxContextsPerSession: 100 });
    const socket = await upgraded(server);
    socket.write(Buffer.from("80555002020100", "hex"));
    const ids = Array.from({ length: 1_000 }, (_, i) => 2 + 2 * i);
    const answers = Buffer.concat([
      ...ids.map(encodeCompressionAck),
      ...ids.slice(0, 900).map(encodeCompressionClose),
    ]);
    for (const id of ids) socket.write(encodeContextAssign(id, 1, makeAddress("8.8.8.8", id)!));
    let heard = Buffer.alloc(0);
    await new Promise<void>((done) => {
      socket.on("data", (data) => {
        heard = Buffer.concat([heard, data]);
        if (heard.includes(Buffer.from(encodeCompressionAck(2_000))) && heard.length >= answers.length)
          done();
      });
    });
    for (const id of ids.slice(0, 900))
      expect(heard.includes(Buffer.from(encodeCompressionClose(id)))).toBe(true);
    expect(heard.includes(Buffer.from(encodeCompressionClose(1_802)))).toBe(false);
    expect(server.stats().contexts).toBe(100);
    socket.destroy();
  });

  it("is disconnected when it never reads and 1 MiB of answers is queued", async () => {
    const server = await start({});
    const socket = await upgraded(server);
    socket.pause();
    const echoes = Buffer.concat(Array.from({ length: 4096 }, () => Buffer.from("80555000020101", "hex")));
    const ended = closed(socket);
    // A peer that does not read notices a reset only when it writes.
    const flood = setInterval(() => {
      for (let i = 0; i < 1000 && !socket.writableNeedDrain && !socket.destroyed; i++) socket.write(echoes);
    }, 10);
    await ended;
    clearInterval(flood);
    expect(server.stats().refused.protocol_error).toBe(1);
  });
});

describe.each(["127.0.0.1:0", "unix"])("a server on %s without a free descriptor", (where) => {
  it("refuses connections, and serves again when descriptors are free", async () => {
    const directory = mkdtempSync(join(tmpdir(), "underpass-"));
    const listen = where === "unix" ? `unix:${join(directory, "socket")}` : where;
    const options = ["--listen", listen, "--allow", "127.0.0.1/32", "--workers", "1", "--log-format", "json"];
    const argv = ["-c", 'ulimit -n 64; exec "$@"', "sh", ...programCommand("udp-server"), ...options];
    const child = spawn("sh", argv, { stdio: ["ignore", "ignore", "pipe"] });
    onTestFinished(() => void child.kill());
    const echo = await startUdpEcho();
    const sockets: Socket[] = [];
    try {
      const [ready] = await once(child.stderr, "data");
      child.stderr.resume();
      const address: string = JSON.parse(ready.toString().split("\n")[0]).listen[0];
      const open = () => {
        const socket = address.startsWith("unix:")
          ? connect(address.slice(5))
          : connect(Number(address.split(":")[1]), "127.0.0.1");
        socket.on("error", () => {});
        sockets.push(socket);
        return socket;
      };
      const target = makeAddress("127.0.0.1", echo.address().port)!;
      /** Opens associations and sends a datagram on each. */
      const associations = (count: number) =>
        Buffer.concat(
          Array.from({ length: count }, (_, i) => [
            encodeAssociationOpen(1 + i, undefined),
            encodeContextAssign(2 + 2 * i, 1 + i, target),
            Buffer.concat([encodeDatagramHeader(2 + 2 * i, 4), Buffer.from("here")]),
          ]).flat(),
        );
      const until = (socket: Socket, is: (heard: Buffer) => boolean) =>
        new Promise<void>((done) => {
          let heard = Buffer.alloc(0);
          socket.on("data", (data) => {
            heard = Buffer.concat([heard, data]);
            if (is(heard)) done();
          });
        });
      const mad = open();
      await upgrade(mad);
      const failed = until(mad, (heard) => heard.includes(Buffer.from("80555003", "hex")));
      mad.write(associations(100));
      await failed;
      for (let i = 0; i < 100; i++) open();
      const ended = closed(mad);
      mad.write(encodeShutdown("done"));
      await ended;
      for (const socket of sockets) socket.destroy();
      let honest = open();
      while (await Promise.race([upgrade(honest), closed(honest)])) honest = open();
      const answered = until(honest, (heard) => heard.includes("here"));
      honest.write(associations(1));
      await answered;
      expect(child.exitCode).toBe(null);
    } finally {
      for (const socket of sockets) socket.destroy();
      echo.close();
      child.kill();
      if (child.exitCode === null) await once(child, "exit");
      rmSync(directory, { recursive: true });
    }
  });
});

/** Resolves when a connection has ended or was reset; once() would reject on a reset. */
function closed(socket: Socket): Promise<true> {
  return new Promise((done) => socket.once("close", () => done(true)));
}

function encodeDatagramHeader(context: number, length: number): Uint8Array {
  const header = new Uint8Array(datagramHeaderLength(context, length));
  writeDatagramHeader(header, 0, context, length);
  return header;
}
