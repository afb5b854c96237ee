import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { METHODS } from "../../../src/core/shadowsocks/method.ts";
import type { StreamCoding } from "../../../src/core/stream-coding.ts";
import { Cancellation } from "../../../src/host/cancellation.ts";
import { tcpWay } from "../../../src/host/carriers/carrier-chain.ts";
import type { ByteStream } from "../../../src/host/stream/byte-stream.ts";
import { CodedByteStream } from "../../../src/host/stream/byte-stream-coded.ts";
import { relayTcp } from "../../../src/host/stream/tcp-relay.ts";
import { plainUdpIo } from "../../../src/node/io/udp-io-plain.ts";
import { nodeLoop, nodeSystem } from "../../../src/node/system.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { concat } from "../cuts.ts";
import { passwordKey, ReferenceDirection } from "../shadowsocks-reference.ts";
import { Listener, native, openPair, TCPS } from "./open-stream.ts";

const METHOD = METHODS["aes-128-gcm"];
const KEY = passwordKey("p", METHOD.keyBytes);
const SALT = new Uint8Array(METHOD.keyBytes).fill(5);

describe.each(TCPS)("a stream through a shadowsocks server, %s", (_, tcp) => {
  let server: Server;
  let peer: Socket;
  let stream: ByteStream;
  let heard: Listener;
  let answer: ReferenceDirection;

  beforeEach(async () => {
    server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const { port } = server.address() as AddressInfo;
    const io = {
      tcp,
      udp: plainUdpIo,
      native: native instanceof Error ? undefined : native,
      latency: "balanced",
    } as const;
    const way = tcpWay(`ss://aes-128-gcm:p@127.0.0.1:${port}`, nodeSystem(io));
    stream = await way.connect(makeAddress("a.test", 9)!, new Cancellation());
    [peer] = await accepted;
    peer.on("error", () => {});
    answer = new ReferenceDirection(METHOD, KEY, SALT);
    heard = new Listener();
  });

  afterEach(() => {
    stream.destroy();
    peer.destroy();
    server.close();
  });

  const failure = async () => {
    stream.start(heard);
    await heard.has("close");
    return heard.error as (Error & { code: string }) | undefined;
  };

  it("fails, and ends the connection, when the server sends bytes that are not sealed", async () => {
    peer.write(new Uint8Array(100));
    expect((await failure())?.code).toBe("ERR_SHADOWSOCKS_TAG");
    await new Promise((done) => peer.resume().once("end", done).once("close", done));
  });

  it("fails when the server ends within a chunk", async () => {
    const chunk = answer.chunk(Buffer.from("hello"));
    peer.end(concat(SALT, chunk.subarray(0, -1)));
    expect((await failure())?.code).toBe("ERR_CONNECTION_LOST");
  });

  it("ends when the server ends between two chunks, and later writes still arrive", async () => {
    peer.end(concat(SALT, answer.chunk(Buffer.from("hello"))));
    stream.start(heard);
    await heard.has("end");
    expect(heard.text).toBe("hello");
    const pieces: Buffer[] = [];
    peer.on("data", (data) => pieces.push(data));
    stream.write(Buffer.from("bye"));
    stream.end();
    await once(peer, "end");
    const bytes = Buffer.concat(pieces);
    const own = new ReferenceDirection(METHOD, KEY, bytes.subarray(0, METHOD.keyBytes));
    const chunks = own.openChunks(bytes.subarray(METHOD.keyBytes));
    expect(Buffer.concat(chunks).toString("latin1")).toMatch(/a\.test\0\tbye$/);
  });

  it("sends the bytes before any data if it ends without data", async () => {
    stream.start(heard);
    stream.end();
    const pieces: Buffer[] = [];
    peer.on("data", (data) => pieces.push(data));
    await once(peer, "end");
    expect(Buffer.concat(pieces).length).toBeGreaterThan(METHOD.keyBytes);
  });

  it("stops reading from the server when nobody reads from it", async () => {
    const payload = Buffer.alloc(16_000, "x");
    let [sent, isBlocked] = [0, false];
    stream.handTo(heard);
    peer.write(SALT);
    while (!isBlocked && sent < 100_000_000) {
      isBlocked = !peer.write(answer.chunk(payload));
      sent += payload.length;
      if (isBlocked) await Promise.race([once(peer, "drain"), new Promise((done) => setTimeout(done, 200))]);
      isBlocked = peer.writableNeedDrain;
    }
    expect(isBlocked).toBe(true);
    stream.resume();
    const length = () => heard.pieces.reduce((sum, { length }) => sum + length, 0);
    await heard.until(() => length() >= sent);
    expect(length()).toBe(sent);
  });

  it("is reset by a relay whose other end was reset", async () => {
    const { stream: near, peer: app } = await openPair(tcp);
    relayTcp(near, stream, nodeLoop);
    peer.resume();
    const reset = new Promise((done) => peer.once("close", done)).then(
      () => peer.errored as NodeJS.ErrnoException | null,
    );
    app.resetAndDestroy();
    expect((await reset)?.code).toBe("ECONNRESET");
  });
});

describe("a coded stream whose opening is not accepted at once", () => {
  it("sends bytes written meanwhile, and the end, after it", async () => {
    const { stream: inner, peer } = await openPair(TCPS[0][1]);
    const opening = Buffer.alloc(32 * 1024 * 1024, "o");
    let hasStarted = false;
    const coding: StreamCoding = {
      get hasStarted() {
        return hasStarted;
      },
      mayEnd: true,
      encode: (bytes) => {
        if (hasStarted) return bytes;
        hasStarted = true;
        return concat(opening, bytes);
      },
      decode: () => undefined,
    };
    const stream = new CodedByteStream(nodeLoop, inner, coding);
    const heard = new Listener();
    stream.start(heard);
    // The time in which data may be sent together with the preceding bytes.
    await new Promise((done) => setTimeout(done, 60));
    const data = Buffer.from("data");
    expect(stream.write(data, false, true)).toBe(false);
    data.fill("x");
    const pieces: Buffer[] = [];
    peer.on("data", (piece) => pieces.push(piece)).resume();
    await heard.has("written");
    stream.end();
    await once(peer, "end");
    const got = Buffer.concat(pieces);
    expect(got.length).toBe(opening.length + 4);
    expect(got.toString("latin1", opening.length)).toBe("data");
    stream.destroy();
    peer.destroy();
  });
});
