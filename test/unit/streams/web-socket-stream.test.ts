import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";
import { Cancellation } from "../../../src/host/cancellation.ts";
import { silentLogger } from "../../../src/host/log.ts";
import type { ByteStream } from "../../../src/host/stream/byte-stream.ts";
import { WebSocketByteStream } from "../../../src/host/web-socket/byte-stream-web-socket.ts";
import { openWebSocket } from "../../../src/host/web-socket/open.ts";
import { PlainStream } from "../../../src/node/io/byte-stream-plain.ts";
import { chooseIo } from "../../../src/node/io/io.ts";
import { nodeSystem } from "../../../src/node/system.ts";
import { Listener } from "./open-stream.ts";

/** More than the system accepts at once while nothing reads. */
const MUCH_BYTES = 64 * 1024 * 1024;

const system = nodeSystem(chooseIo("plain", "balanced", silentLogger));
let tcp: ReturnType<typeof createServer>;
let stream: ByteStream;
/** The other end. */
let peer: WebSocket;
let peerSocket: Socket;

beforeEach(async () => {
  const { createServer: createHttpServer } = await import("node:http");
  const http = createHttpServer();
  const server = new WebSocketServer({ server: http, maxPayload: 2 * MUCH_BYTES });
  http.listen(0, "127.0.0.1");
  tcp = http;
  await once(http, "listening");
  const socket = connect((http.address() as AddressInfo).port, "127.0.0.1");
  await once(socket, "connect");
  const connected = once(server, "connection");
  const request = { path: "/", host: "a", fields: [], tls: undefined };
  stream = await openWebSocket(system, new PlainStream(socket), request, new Cancellation());
  const [webSocket, incoming] = await connected;
  peer = webSocket;
  peerSocket = incoming.socket;
});

afterEach(async () => {
  stream.destroy();
  peer.terminate();
  await new Promise((done) => tcp.close(done));
});

describe("a WebSocket as a byte stream", () => {
  function open() {
    const bytes = stream;
    const heard = new Listener();
    bytes.start(heard);
    return { bytes, heard };
  }

  it("is one, and knows its local IP", () => {
    const { bytes } = open();
    expect(bytes).toBeInstanceOf(WebSocketByteStream);
    expect(bytes.localIp).toBe("127.0.0.1");
  });

  it("sends each write as one binary message", async () => {
    const { bytes } = open();
    expect(bytes.write(Buffer.from("first"))).toBe(true);
    expect(bytes.write(Buffer.from("second"))).toBe(true);
    const messages: [string, boolean][] = [];
    await new Promise<void>((done) =>
      peer.on("message", (data, isBinary) => {
        messages.push([String(data), isBinary]);
        if (messages.length === 2) done();
      }),
    );
    expect(messages).toEqual([
      ["first", true],
      ["second", true],
    ]);
  });

  it("delivers bytes that arrived before it was started, then those that follow, then the end", async () => {
    peer.send(Buffer.from("before "));
    await new Promise((done) => setTimeout(done, 20));
    const { bytes, heard } = open();
    peer.send(Buffer.from("after"));
    peer.close();
    await heard.has("end");
    expect(heard.text).toBe("before after");
    expect(bytes.isClosed).toBe(false);
    expect(bytes.write(Buffer.from("lost"))).toBe(true);
    bytes.end();
    await heard.has("close");
    expect(heard.error).toBe(undefined);
  });

  it("borrows bytes until the system has accepted them, then reports that; the peer gets all of them", async () => {
    const { bytes, heard } = open();
    peerSocket.pause();
    const much = Buffer.alloc(MUCH_BYTES);
    for (let i = 0; i < much.length; i += 4096) much[i] = i >> 12;
    expect(bytes.write(much)).toBe(false);
    // In messages of a size that any peer accepts.
    const got: Buffer[] = [];
    const whole = new Promise<void>((done) => {
      peer.on("message", (data: Buffer) => {
        got.push(data);
        if (got.length * 262_144 === MUCH_BYTES) done();
      });
    });
    peerSocket.resume();
    await heard.has("written");
    await whole;
    expect(Buffer.compare(Buffer.concat(got), much)).toBe(0);
  });

  it("ends with code 1000 once sent bytes have arrived, and is closed without an error", async () => {
    const { bytes, heard } = open();
    bytes.write(Buffer.from("last"));
    const ended = Promise.all([once(peer, "message"), once(peer, "close")]);
    bytes.end();
    expect(bytes.isClosed).toBe(true);
    const [[data], [code]] = await ended;
    expect([String(data), code]).toEqual(["last", 1000]);
    await heard.has("close");
    expect(heard.events).toEqual(["end", "close"]);
    expect(heard.error).toBe(undefined);
  });

  it("delivers nothing once it is destroyed", async () => {
    const { bytes, heard } = open();
    peer.send(Buffer.from("late"));
    bytes.destroy();
    await heard.has("close");
    expect(heard.events).toEqual(["close"]);
    expect(heard.error).toBe(undefined);
  });

  it.each([
    ["a reset", () => peerSocket.resetAndDestroy(), /ECONNRESET/],
    ["an end without a close frame", () => peerSocket.end(), /code 1006/],
    ["an error's code", () => peer.close(1011), /code 1011/],
    ["text", () => peer.send("text"), /sends text/],
    ["a message over the limit", () => peer.send(Buffer.alloc(1_048_577)), /payload size/i],
  ])("reports %s", async (_, act, message) => {
    const { heard } = open();
    act();
    await heard.has("close");
    expect(heard.error?.message).toMatch(message);
  });

  it("makes the peer wait while it is paused, then delivers everything", async () => {
    const chunk = Buffer.alloc(1_000_000, "c");
    const count = MUCH_BYTES / 2 ** 20;
    let isWaiting = true;
    const sent = new Promise<void>((done) => {
      let left = count;
      for (let i = 0; i < count; i++)
        peer.send(chunk, () => {
          if (--left > 0) return;
          isWaiting = false;
          done();
        });
    });
    // As much as the system's buffers hold.
    await new Promise((done) => setTimeout(done, 300));
    expect(isWaiting).toBe(true);
    const { heard } = open();
    await sent;
    peer.close();
    await heard.has("end");
    expect(heard.pieces.reduce((sum, { length }) => sum + length, 0)).toBe(count * chunk.length);
  });
});

describe("opening a WebSocket", () => {
  it("stops when it is cancelled, and destroys the stream", async () => {
    const silent = createServer(() => {}).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const raw = connect((silent.address() as AddressInfo).port, "127.0.0.1");
    await once(raw, "connect");
    const cancellation = new Cancellation();
    const request = { path: "/", host: "a", fields: [], tls: undefined };
    const opening = openWebSocket(system, new PlainStream(raw), request, cancellation);
    setTimeout(() => cancellation.cancel(), 20);
    await expect(opening).rejects.toThrow("the attempt was cancelled");
    expect(raw.destroyed).toBe(true);
    silent.close();
  });
});
