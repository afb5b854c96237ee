import { once } from "node:events";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { METHODS } from "../../src/core/shadowsocks/method.ts";
import { tcpWay } from "../../src/node/carrier-chain.ts";
import type { TcpStream } from "../../src/node/coded-stream.ts";
import { relayTcp } from "../../src/node/tcp-relay.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";
import { concat } from "./cuts.ts";
import { passwordKey, ReferenceDirection } from "./shadowsocks-reference.ts";

const METHOD = METHODS["aes-128-gcm"];
const KEY = passwordKey("p", METHOD.keyBytes);
const SALT = new Uint8Array(METHOD.keyBytes).fill(5);

describe("a stream through a shadowsocks server", () => {
  let server: Server;
  let peer: Socket;
  let stream: TcpStream;
  let answer: ReferenceDirection;

  beforeEach(async () => {
    server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const { port } = server.address() as AddressInfo;
    const url = `ss://aes-128-gcm:p@127.0.0.1:${port}`;
    stream = await tcpWay(url).connect(makeAddress("a.test", 9)!, new AbortController().signal);
    [peer] = await accepted;
    peer.on("error", () => {});
    answer = new ReferenceDirection(METHOD, KEY, SALT);
  });

  afterEach(() => {
    stream.destroy();
    peer.destroy();
    server.close();
  });

  /** As `once` rejects where there is an error. */
  const closed = (of: TcpStream) => new Promise((done) => of.once("close", done));
  const failure = async () => {
    stream.resume();
    await closed(stream);
    return stream.errored as (Error & { code: string }) | null;
  };

  it("fails, and so ends the connection, when the server sends what it did not seal", async () => {
    peer.write(new Uint8Array(100));
    expect((await failure())?.code).toBe("ERR_SHADOWSOCKS_TAG");
    peer.resume();
    await once(peer, "end");
  });

  it("fails when the server ends within a chunk", async () => {
    const chunk = answer.chunk(Buffer.from("hello"));
    peer.end(concat(SALT, chunk.subarray(0, -1)));
    expect((await failure())?.code).toBe("ERR_CONNECTION_LOST");
  });

  it("ends when the server ends between two chunks, and what it writes then still arrives", async () => {
    peer.end(concat(SALT, answer.chunk(Buffer.from("hello"))));
    const text: Buffer[] = [];
    stream.on("data", (data) => text.push(data));
    await once(stream, "end");
    expect(Buffer.concat(text).toString()).toBe("hello");
    const heard: Buffer[] = [];
    peer.on("data", (data) => heard.push(data));
    stream.end("bye");
    await once(peer, "end");
    const bytes = Buffer.concat(heard);
    const own = new ReferenceDirection(METHOD, KEY, bytes.subarray(0, METHOD.keyBytes));
    const chunks = own.openChunks(bytes.subarray(METHOD.keyBytes));
    expect(Buffer.concat(chunks).toString("latin1")).toMatch(/a\.test\0\tbye$/);
  });

  it("stops reading from the server when nobody reads from it", async () => {
    const payload = Buffer.alloc(16_000, "x");
    let [sent, isBlocked] = [0, false];
    peer.write(SALT);
    while (!isBlocked && sent < 100_000_000) {
      isBlocked = !peer.write(answer.chunk(payload));
      sent += payload.length;
      if (isBlocked) await Promise.race([once(peer, "drain"), new Promise((done) => setTimeout(done, 200))]);
      isBlocked = peer.writableNeedDrain;
    }
    expect(isBlocked).toBe(true);
    let heard = 0;
    stream.on("data", (data) => {
      heard += data.length;
      if (heard === sent) stream.destroy();
    });
    await once(stream, "close");
    expect(heard).toBe(sent);
  });

  it("is reset by a relay whose other end was reset", async () => {
    const near = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
    await once(near, "listening");
    const accepted = once(near, "connection") as Promise<[Socket]>;
    const app = connect((near.address() as AddressInfo).port, "127.0.0.1");
    const [socket] = await accepted;
    relayTcp(socket, stream);
    peer.resume();
    const reset = closed(peer).then(() => peer.errored as NodeJS.ErrnoException | null);
    app.resetAndDestroy();
    expect((await reset)?.code).toBe("ECONNRESET");
    near.close();
  });
});
