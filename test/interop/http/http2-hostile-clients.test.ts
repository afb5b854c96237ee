import { createSocket } from "node:dgram";
import { once } from "node:events";
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { connect, constants } from "node:http2";
import { connect as connectTcp } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { UdpServerOptions } from "../../../src/host/options/udp-server.ts";
import type { UdpServer } from "../../../src/node/handles.ts";
import { startUdpServer } from "../../support/start.ts";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADERS = 1;
const FRAME_RST_STREAM = 3;
const FRAME_SETTINGS = 4;
const FRAME_PING = 6;
const FLAG_ACK = 1;
const FLAG_END_STREAM = 1;
const FLAG_END_HEADERS = 4;

/** A frame of RFC 9113 §4.1. */
function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Type and flags of each frame that has arrived. */
function heads(bytes: Buffer): { type: number; flags: number }[] {
  const found: { type: number; flags: number }[] = [];
  for (let at = 0; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3)) {
    found.push({ type: bytes[at + 3], flags: bytes[at + 4] });
  }
  return found;
}

function types(bytes: Buffer): number[] {
  return heads(bytes).map(({ type }) => type);
}

function hasPong(bytes: Buffer): boolean {
  return heads(bytes).some(({ type, flags }) => type === FRAME_PING && flags === FLAG_ACK);
}

/** A request's fields as literals that are not indexed, without Huffman coding (RFC 7541 §6.2.2). */
function literals(fields: Readonly<Record<string, string>>): Buffer {
  const all = { ":method": "GET", ":scheme": "http", ":authority": "server.example", ...fields };
  const text = (value: string) => Buffer.concat([Buffer.of(value.length), Buffer.from(value, "latin1")]);
  return Buffer.concat(
    Object.entries(all).flatMap(([name, value]) => [Buffer.of(0), text(name), text(value)]),
  );
}

describe("hostile clients of HTTP/2", () => {
  const cleanups: (() => unknown)[] = [];

  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function serve(options: UdpServerOptions = {}): Promise<{ server: UdpServer; port: number }> {
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: ["127.0.0.1/32"], ...options });
    cleanups.push(() => server.close());
    return { server, port: Number(server.address.listen[0].split(":")[1]) };
  }

  async function target(onMessage: (data: Buffer, answer: (data: Buffer) => void) => void): Promise<number> {
    const socket = createSocket("udp4");
    socket.on("message", (data, remote) =>
      onMessage(data, (answer) => socket.send(answer, remote.port, remote.address)),
    );
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    cleanups.push(() => socket.close());
    return socket.address().port;
  }

  async function session(port: number, settings = {}): Promise<ClientHttp2Session> {
    const client = connect(`http://127.0.0.1:${port}`, { settings });
    client.on("error", () => {});
    cleanups.push(() => client.destroy());
    await once(client, "remoteSettings");
    return client;
  }

  function ask(client: ClientHttp2Session, target: number | string): ClientHttp2Stream {
    const stream = client.request(
      {
        ":method": "CONNECT",
        ":protocol": "connect-udp",
        ":path": `/.well-known/masque/udp/127.0.0.1/${target}/`,
      },
      { endStream: false },
    );
    stream.on("error", () => {});
    return stream;
  }

  async function tunnel(client: ClientHttp2Session, target: number): Promise<ClientHttp2Stream> {
    const stream = ask(client, target);
    const [headers] = await once(stream, "response");
    expect(headers[":status"]).toBe(200);
    return stream;
  }

  async function echoes(stream: ClientHttp2Stream, text: string): Promise<void> {
    const payload = Buffer.from(text);
    stream.write(Buffer.concat([Buffer.of(0, payload.length + 1, 0), payload]));
    let received = Buffer.alloc(0);
    while (!received.includes(payload)) {
      const [data] = (await once(stream, "data")) as [Buffer];
      received = Buffer.concat([received, data]);
    }
  }

  it("a client that does not read one stream loses datagrams of that stream, counted, and no other stream waits", async () => {
    const { server, port } = await serve({ queueBytes: 131_072 });
    const echo = await target((data, answer) => answer(data));
    const flood = await target((_, answer) => {
      for (let i = 0; i < 400; i++) answer(Buffer.alloc(1200));
    });
    const client = await session(port, { initialWindowSize: 65_535 });
    const slow = await tunnel(client, flood);
    slow.pause();
    const quick = await tunnel(client, echo);
    const dropped = () => server.stats().drops.queue_full + server.stats().drops.age;
    for (let round = 0; dropped() < 1_000; round++) {
      slow.write(Buffer.of(0, 2, 0, round & 255));
      await echoes(quick, `round ${round}`);
    }
    expect(dropped()).toBeGreaterThanOrEqual(1_000);
  });

  it("a client that resets requests as fast as it makes them loses its connection, while others continue", async () => {
    const { server, port } = await serve();
    const echo = await target((data, answer) => answer(data));
    const other = await tunnel(await session(port), echo);
    const hostile = await session(port);
    const closed = new Promise((done) => hostile.once("close", done));
    let made = 0;
    while (!hostile.destroyed && !hostile.closed) {
      for (let i = 0; i < 100 && !hostile.closed; i++, made++)
        ask(hostile, 9).close(constants.NGHTTP2_CANCEL);
      await new Promise((done) => setImmediate(done));
    }
    await closed;
    expect(made).toBeLessThan(10_000);
    await echoes(other, "still here");
    expect(server.stats().lanes).toBe(1);
  });

  it.each([
    ["a HEAD", { ":method": "HEAD" }],
    ["a HEAD for a tunnel's path", { ":method": "HEAD", ":path": "/.well-known/masque/udp/127.0.0.1/9/" }],
    ["a GET", { ":method": "GET" }],
    ["a field that HTTP/1.1 could not carry", { "capsule-protocol": "\u00ff" }],
  ])("%s that is reset before it is read is not answered, and others continue", async (_, fields) => {
    const { server, port } = await serve();
    const echo = await target((data, answer) => answer(data));
    const other = await tunnel(await session(port), echo);
    for (const code of [constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_CANCEL]) {
      const socket = connectTcp(port, "127.0.0.1");
      cleanups.push(() => socket.destroy());
      const reset = Buffer.alloc(4);
      reset.writeUInt32BE(code);
      const flags = FLAG_END_STREAM | FLAG_END_HEADERS;
      socket.write(
        Buffer.concat([
          Buffer.from(PREFACE),
          frame(FRAME_SETTINGS, 0, 0, Buffer.alloc(0)),
          frame(FRAME_HEADERS, flags, 1, literals({ ":path": "/", ...fields })),
          frame(FRAME_RST_STREAM, 0, 1, reset),
          frame(FRAME_PING, 0, 0, Buffer.alloc(8)),
        ]),
      );
      // The answer to the PING shows that everything before it was handled.
      for (let received = Buffer.alloc(0); !hasPong(received); ) {
        const [data] = (await once(socket, "data")) as [Buffer];
        received = Buffer.concat([received, data]);
        expect(types(received)).not.toContain(FRAME_HEADERS);
      }
    }
    await echoes(other, "still here");
    expect(server.stats().lanes).toBe(1);
  });

  it.each([
    ["PING", frame(FRAME_PING, 0, 0, Buffer.alloc(8))],
    ["SETTINGS", frame(FRAME_SETTINGS, 0, 0, Buffer.alloc(0))],
  ])("a flood of %s with unread answers ends its own connection", async (_, flood) => {
    const { port } = await serve();
    const echo = await target((data, answer) => answer(data));
    const other = await tunnel(await session(port), echo);
    const socket = connectTcp(port, "127.0.0.1");
    cleanups.push(() => socket.destroy());
    socket.on("error", () => {});
    socket.pause();
    socket.write(Buffer.concat([Buffer.from(PREFACE), frame(FRAME_SETTINGS, 0, 0, Buffer.alloc(0))]));
    const many = Buffer.concat(Array.from({ length: 4_096 }, () => flood));
    const closed = new Promise((done) => socket.once("close", done));
    const write = (error?: Error | null) => {
      if (error === undefined || error === null) socket.write(many, write);
    };
    write();
    await closed;
    await echoes(other, "still here");
  });

  it("a client that starts HTTP/2 but makes no request is closed at the handshake deadline", async () => {
    const { server, port } = await serve({ handshakeTimeoutMs: 200 });
    for (const bytes of [PREFACE, PREFACE.slice(0, 18)]) {
      const socket = connectTcp(port, "127.0.0.1", () => socket.write(bytes));
      cleanups.push(() => socket.destroy());
      socket.resume();
      await once(socket, "close");
    }
    expect(server.stats().refused.handshake_timeout).toBe(2);
  });

  it("connections without a request are bounded, and the oldest is closed", async () => {
    const { server, port } = await serve({ maxHalfOpen: 4 });
    const first = await session(port);
    const closed = new Promise((done) => first.once("close", done));
    for (let i = 0; i < 4; i++) await session(port);
    await closed;
    expect(server.stats().refused.half_open_limit).toBe(1);
  });

  it("a head above 8 KiB, as HTTP/2 counts it, ends only its request", async () => {
    const { port } = await serve();
    const echo = await target((data, answer) => answer(data));
    const client = await session(port);
    const stream = client.request({ ":path": "/", "x-long": "a".repeat(9_000) });
    stream.on("error", () => {});
    await new Promise((done) => stream.once("close", done));
    expect(stream.rstCode).not.toBe(constants.NGHTTP2_NO_ERROR);
    await echoes(await tunnel(client, echo), "still here");
  });

  it.each([
    ["a key", { psk: new TextEncoder().encode("sixteen byte key") }],
    ["a decoy", { decoy: "test/interop" }],
  ])("a server with %s does not speak HTTP/2", async (_, options) => {
    const { port } = await serve(options);
    const socket = connectTcp(port, "127.0.0.1", () => socket.write(PREFACE));
    cleanups.push(() => socket.destroy());
    const [answer] = (await once(socket, "data")) as [Buffer];
    expect(answer.toString("latin1")).toMatch(/^HTTP\/1\.1 4\d\d /);
  });
});
