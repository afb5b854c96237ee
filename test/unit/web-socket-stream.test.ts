import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";
import { openWebSocket } from "../../src/node/carriers/web-socket.ts";
import { openByteStream } from "../../src/node/open-byte-stream.ts";
import { plainUdpIo } from "../../src/node/udp-io-plain.ts";
import { WebSocketByteStream } from "../../src/node/web/byte-stream-web-socket.ts";
import type { WebSocketStream } from "../../src/node/web/web-socket-stream.ts";

const IO = { udp: plainUdpIo, native: undefined, latency: "balanced" } as const;
/** More than the system takes at once while nobody reads. */
const MUCH_BYTES = 64 * 1024 * 1024;

let tcp: ReturnType<typeof createServer>;
let socket: Socket;
let stream: WebSocketStream;
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
  socket = connect((http.address() as AddressInfo).port, "127.0.0.1");
  const connected = once(server, "connection");
  const request = { path: "/", host: "a", fields: [], tls: undefined };
  stream = await openWebSocket(socket, request, new AbortController().signal);
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
    const bytes = openByteStream({ stream, onread: false, isOurs: true }, IO, 5_000, new Uint8Array(0));
    const heard: Buffer[] = [];
    const closed = new Promise<Error | undefined>((done) => {
      setImmediate(() => {});
      bytes.start({
        onBytes: (chunk, length) => void heard.push(Buffer.from(chunk.subarray(0, length))),
        onEnd: () => {},
        onWritten: () => events.onWritten(),
        onClose: done,
      });
    });
    const events = { onWritten: () => {} };
    return { bytes, heard, closed, events };
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

  it("delivers what came before it was opened, then what follows", async () => {
    stream.resume().pause();
    peer.send(Buffer.from("before "));
    await once(stream, "readable");
    const { heard, closed } = open();
    peer.send(Buffer.from("after"));
    peer.close();
    expect(await closed).toBe(undefined);
    expect(Buffer.concat(heard).toString()).toBe("before after");
  });

  it("borrows bytes until the system has taken them, then reports it; the peer gets them whole", async () => {
    const { bytes, events } = open();
    peerSocket.pause();
    const written = new Promise<void>((done) => {
      events.onWritten = done;
    });
    const much = Buffer.alloc(MUCH_BYTES);
    for (let i = 0; i < much.length; i += 4096) much[i] = i >> 12;
    expect(bytes.write(much)).toBe(false);
    const got = once(peer, "message");
    peerSocket.resume();
    await written;
    const [data] = await got;
    expect(Buffer.compare(data, much)).toBe(0);
  });

  it("ends with code 1000 once what was sent is through, and is closed without an error", async () => {
    const { bytes, closed } = open();
    bytes.write(Buffer.from("last"));
    const ended = Promise.all([once(peer, "message"), once(peer, "close")]);
    bytes.end();
    expect(bytes.isClosed).toBe(true);
    const [[data], [code]] = await ended;
    expect([String(data), code]).toEqual(["last", 1000]);
    expect(await closed).toBe(undefined);
  });

  it("delivers nothing once it is destroyed", async () => {
    const { bytes, heard, closed } = open();
    peer.send(Buffer.from("late"));
    bytes.destroy();
    expect(await closed).toBe(undefined);
    expect(heard).toEqual([]);
  });

  it.each([
    ["a reset", () => peerSocket.resetAndDestroy(), /ECONNRESET/],
    ["an end without a close frame", () => peerSocket.end(), /code 1006/],
    ["an error's code", () => peer.close(1011), /code 1011/],
    ["text", () => peer.send("text"), /sends text/],
    ["a message over the limit", () => peer.send(Buffer.alloc(1_048_577)), /payload size/i],
  ])("reports %s", async (_, act, message) => {
    const { closed } = open();
    act();
    expect((await closed)?.message).toMatch(message);
  });
});

describe("a WebSocket as a stream", () => {
  it("lets the peer wait while nobody reads, then delivers all", async () => {
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
    // As far as the system's buffers go.
    await new Promise((done) => setTimeout(done, 300));
    expect(isWaiting).toBe(true);
    expect(stream.readableLength).toBeLessThan(3_000_000);
    let length = 0;
    stream.on("data", (data: Buffer) => {
      length += data.length;
    });
    await sent;
    peer.close();
    await once(stream, "end");
    expect(length).toBe(count * chunk.length);
  });

  it("ends when the peer does, and ends the peer's when it does", async () => {
    const closed = once(peer, "close");
    stream.resume();
    stream.end(Buffer.from("last"));
    const [data] = await once(peer, "message");
    expect(String(data)).toBe("last");
    expect((await closed)[0]).toBe(1000);
    await once(stream, "close");
  });

  it("fails as the connection does", async () => {
    peerSocket.resetAndDestroy();
    stream.resume();
    const [error] = await once(stream, "error").catch((error) => [error]);
    expect((error as Error).message).toMatch(/ECONNRESET/);
  });
});

describe("opening a WebSocket", () => {
  it("is given up by its signal, and destroys the stream", async () => {
    const silent = createServer(() => {}).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const raw = connect((silent.address() as AddressInfo).port, "127.0.0.1");
    await once(raw, "connect");
    const abort = new AbortController();
    const request = { path: "/", host: "a", fields: [], tls: undefined };
    const opening = openWebSocket(raw, request, abort.signal);
    setTimeout(() => abort.abort(), 20);
    await expect(opening).rejects.toThrow("given up");
    expect(raw.destroyed).toBe(true);
    silent.close();
  });
});
