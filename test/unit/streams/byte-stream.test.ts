import { execFileSync } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { TLSSocket } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { StreamCoding } from "../../../src/core/stream-coding.ts";
import type { ByteStream } from "../../../src/host/stream/byte-stream.ts";
import { CodedByteStream } from "../../../src/host/stream/byte-stream-coded.ts";
import { DescriptorStream } from "../../../src/host/stream/byte-stream-native.ts";
import { ByteStreamDuplex, toDuplex } from "../../../src/node/io/byte-stream-duplex.ts";
import { PlainStream } from "../../../src/node/io/byte-stream-plain.ts";
import { nodeLoop } from "../../../src/node/system.ts";
import { nodeErrors } from "../../../src/node/system-text.ts";
import { Listener, native, openPair, TCPS } from "./open-stream.ts";

/** More than the system accepts at once while nothing reads. */
const MUCH_BYTES = 64 * 1024 * 1024;
const IDENTITY: StreamCoding = {
  hasStarted: true,
  mayEnd: true,
  encode: (bytes) => bytes.slice(),
  decode: (bytes, offset, end, deliver) => void deliver(bytes.slice(offset, end), 0, end - offset),
};
const WRAPS: [string, (stream: ByteStream) => ByteStream][] = [
  ["", (stream) => stream],
  ["coded ", (stream) => new CodedByteStream(nodeLoop, stream, IDENTITY)],
  ["adapted ", (stream) => new PlainStream(new ByteStreamDuplex(stream))],
];
const KINDS = TCPS.flatMap(([kind, tcp]) => WRAPS.map(([how, wrap]) => [how + kind, tcp, wrap] as const));
const text = (value: string) => new TextEncoder().encode(value);

describe.each(KINDS)("a stream of bytes, %s", (kind, tcp, wrap) => {
  const isAdapted = kind.startsWith("adapted");
  let peer: Socket;
  let stream: ByteStream;
  let heard: Listener;

  beforeEach(async () => {
    const pair = await openPair(tcp);
    peer = pair.peer;
    stream = wrap(pair.stream);
    heard = new Listener();
  });

  afterEach(() => {
    stream.destroy();
    peer.destroy();
  });

  /** Everything that the peer reads up to the end of the stream. */
  async function readByPeer(): Promise<Buffer> {
    const pieces: Buffer[] = [];
    peer.on("data", (data) => void pieces.push(data)).resume();
    await once(peer, "end");
    return Buffer.concat(pieces);
  }

  it.skipIf(isAdapted)("knows its addresses", () => {
    expect([stream.localIp, stream.remoteIp, stream.remotePort]).toEqual([
      "127.0.0.1",
      "127.0.0.1",
      peer.localPort,
    ]);
  });

  it("delivers bytes that arrived before it was started, and those that follow", async () => {
    peer.write("before ");
    await pause(20);
    expect(heard.events).toEqual([]);
    stream.start(heard);
    await heard.has("bytes");
    peer.end("after");
    await heard.has("end");
    expect(heard.text).toBe("before after");
  });

  it("borrows bytes until the system has accepted them, then reports that; the peer gets all of them", async () => {
    stream.start(heard);
    const bytes = new Uint8Array(MUCH_BYTES);
    for (let i = 0; i < bytes.length; i += 4096) bytes[i] = i >> 12;
    expect(stream.write(bytes)).toBe(false);
    const read = readByPeer();
    await heard.has("written");
    stream.end();
    expect(Buffer.compare(await read, bytes)).toBe(0);
  });

  it("copies what it does not accept at once from memory that changes", async () => {
    stream.start(heard);
    const bytes = new Uint8Array(MUCH_BYTES).fill(7);
    expect(stream.write(bytes, false, true)).toBe(false);
    bytes.fill(8);
    const read = readByPeer();
    await heard.has("written");
    stream.end();
    const got = await read;
    expect(got.length).toBe(MUCH_BYTES);
    expect(got.indexOf(8)).toBe(-1);
  });

  it("makes the other end wait while it is paused, then delivers everything in order", async () => {
    stream.start(heard);
    stream.pause();
    const sent = Buffer.alloc(MUCH_BYTES);
    for (let i = 0; i < sent.length; i += 1000) sent[i] = i % 251;
    let isSent = false;
    peer.end(sent, () => {
      isSent = true;
    });
    await pause(100);
    expect(isSent).toBe(false);
    expect(heard.events).toEqual([]);
    stream.resume();
    await heard.has("end");
    expect(Buffer.compare(Buffer.concat(heard.pieces), sent)).toBe(0);
  });

  it("delivers nothing, not even the end, once it was paused within an event", async () => {
    const onBytes = heard.onBytes.bind(heard);
    heard.onBytes = (chunk, length) => {
      stream.pause();
      onBytes(chunk, length);
    };
    stream.start(heard);
    peer.write("one");
    await heard.has("bytes");
    peer.end("two");
    await pause(20);
    expect(heard.events).toEqual(["bytes"]);
    stream.resume();
    await heard.until(() => heard.pieces.length === 2);
    await pause(20);
    expect(heard.events).toEqual(["bytes", "bytes"]);
    stream.resume();
    await heard.has("end");
    expect(heard.text).toBe("onetwo");
  });

  it("gives unread bytes to the next owner before those that follow; the former listener gets nothing more", async () => {
    const next = new Listener();
    heard.onBytes = (chunk, length) => {
      expect(Buffer.from(chunk).toString("utf8", 0, length)).toBe("headbody");
      stream.unread(chunk.subarray(4, length));
      stream.handTo(next);
    };
    stream.start(heard);
    peer.write("headbody");
    await pause(20);
    expect(next.events).toEqual([]);
    stream.resume();
    expect(next.text).toBe("body");
    peer.end(" and more");
    await next.has("end");
    expect(next.text).toBe("body and more");
    stream.end();
    await next.has("close");
    expect(heard.events).toEqual([]);
  });

  it("reports the end that one listener has received to the next one too, and the close", async () => {
    const [next, last] = [new Listener(), new Listener()];
    stream.start(heard);
    peer.end();
    await heard.has("end");
    stream.start(next);
    expect(next.events).toEqual(["end"]);
    stream.end();
    await next.has("close");
    stream.start(last);
    expect(last.events).toEqual([]);
    await last.has("close");
    expect(last.error).toBe(undefined);
    expect(next.events).toEqual(["end", "close"]);
  });

  it("is closed when both ends have ended", async () => {
    stream.start(heard);
    expect(stream.write(text("last"))).toBe(true);
    stream.end();
    expect(stream.isClosed).toBe(true);
    expect((await readByPeer()).toString()).toBe("last");
    peer.end();
    await heard.has("close");
    expect(heard.error).toBe(undefined);
  });

  it("receives after it has ended its side", async () => {
    stream.start(heard);
    stream.end();
    await readByPeer();
    peer.end("answer");
    await heard.has("close");
    expect(heard.text).toBe("answer");
    expect(heard.error).toBe(undefined);
  });

  it("stays open for writing when the other end has ended, and closes once it has ended too", async () => {
    stream.start(heard);
    peer.end("question");
    await heard.has("end");
    expect(heard.text).toBe("question");
    expect(stream.isClosed).toBe(false);
    const read = readByPeer();
    expect(stream.write(text("answer"))).toBe(true);
    stream.end();
    expect((await read).toString()).toBe("answer");
    await heard.has("close");
    expect(heard.error).toBe(undefined);
    expect(stream.isClosed).toBe(true);
  });

  it("sends all lent bytes to an end that has ended its side and reads slowly", async () => {
    stream.start(heard);
    peer.end();
    const bytes = new Uint8Array(MUCH_BYTES).fill(7);
    expect(stream.write(bytes)).toBe(false);
    await heard.has("end");
    const read = readByPeer();
    await heard.has("written");
    stream.end();
    expect((await read).length).toBe(bytes.length);
    await heard.has("close");
    expect(heard.error).toBe(undefined);
  });

  it("is closed with an error when it writes to an end that has ended and is gone", async () => {
    stream.start(heard);
    peer.end();
    await heard.has("end");
    peer.resetAndDestroy();
    await once(peer, "close");
    const writing = setInterval(() => stream.write(Uint8Array.of(1)), 1);
    await heard.has("close");
    clearInterval(writing);
    expect(stream.isClosed).toBe(true);
    expect(heard.error?.message).toMatch(/EPIPE|ECONNRESET/);
  });

  it("is closed with an error when it writes to an end that is gone while it is paused", async () => {
    stream.start(heard);
    stream.pause();
    peer.resetAndDestroy();
    await once(peer, "close");
    const writing = setInterval(() => stream.write(Uint8Array.of(1)), 1);
    await heard.has("close");
    clearInterval(writing);
    expect(heard.error?.message).toMatch(/EPIPE|ECONNRESET/);
  });

  it("is closed with an error when the other end is gone while something is lent to it", async () => {
    stream.start(heard);
    stream.pause();
    expect(stream.write(new Uint8Array(MUCH_BYTES))).toBe(false);
    peer.resetAndDestroy();
    await heard.has("close");
    expect(heard.error?.message).toMatch(/EPIPE|ECONNRESET/);
  });

  it("reports a connection that was reset", async () => {
    stream.start(heard);
    peer.resetAndDestroy();
    await heard.has("close");
    expect(heard.error?.message).toMatch(/ECONNRESET/);
  });

  it.skipIf(isAdapted)("resets the connection, and is closed without an error", async () => {
    stream.start(heard);
    const reset = once(peer.resume(), "error").catch((error) => [error]);
    stream.reset();
    expect((await reset)[0].code).toBe("ECONNRESET");
    await heard.has("close");
    expect(heard.error).toBe(undefined);
    expect(stream.isClosed).toBe(true);
  });

  it("delivers nothing once it is destroyed, even if bytes are in flight", async () => {
    stream.start(heard);
    const gone = new Promise((done) => peer.resume().once("close", done));
    peer.write("x");
    stream.destroy();
    expect(stream.write(text("y"))).toBe(true);
    await heard.has("close");
    peer.destroy();
    await gone;
    expect(heard.events).toEqual(["close"]);
    expect(heard.error).toBe(undefined);
  });

  it("becomes a stream of Node for its libraries, with the unread bytes", async () => {
    heard.onBytes = (chunk, length) => stream.unread(chunk.subarray(0, length));
    stream.start(heard);
    peer.write("first ");
    await pause(20);
    const duplex = toDuplex(stream);
    peer.end("second");
    const pieces: Buffer[] = [];
    for await (const piece of duplex.iterator({ destroyOnReturn: false })) pieces.push(piece);
    expect(Buffer.concat(pieces).toString()).toBe("first second");
    duplex.end("answer");
    expect((await readByPeer()).toString()).toBe("answer");
  });
});

describe("a plain stream", () => {
  it("is reading when it has become a stream of Node, whose libraries may take the socket's handle", async () => {
    const { stream, peer } = await openPair(TCPS[0][1]);
    const duplex = toDuplex(stream);
    peer.write("x");
    while (duplex.readableLength === 0) await pause(1);
    duplex.destroy();
    peer.destroy();
  });

  it.each(TCPS)("over TLS, which has no reset, is closed by one, over a %s stream", async (_, tcp) => {
    const { stream: below, peer } = await openPair(tcp);
    const stream = new PlainStream(new TLSSocket(toDuplex(below)));
    const heard = new Listener();
    stream.start(heard);
    const gone = new Promise((done) => peer.resume().once("close", done).once("end", done));
    stream.reset();
    await heard.has("close");
    await gone;
    expect(heard.error).toBe(undefined);
    peer.destroy();
  });

  it("leaves a socket of the embedder alone, so that either may destroy it", async () => {
    const { stream: connected, peer } = await openPair(TCPS[0][1]);
    const socket = toDuplex(connected);
    const heard = new Listener();
    const stream = new PlainStream(socket);
    stream.start(heard);
    peer.write("through");
    await heard.has("bytes");
    socket.destroy();
    await heard.has("close");
    expect(heard.error).toBe(undefined);
    expect(heard.text).toBe("through");
    peer.destroy();
  });
});

describe.skipIf(native instanceof Error)("a stream over a descriptor", () => {
  let peer: Socket;
  let stream: DescriptorStream;

  beforeEach(async () => {
    const pair = await openPair(TCPS[1][1]);
    peer = pair.peer.resume();
    stream = pair.stream as DescriptorStream;
  });

  afterEach(() => {
    stream.destroy();
    peer.destroy();
  });

  it("gives its descriptor away open", async () => {
    const { descriptor } = stream.release()!;
    const heard = new Listener();
    const other = new DescriptorStream(native as never, descriptor, new Uint8Array(64), nodeErrors);
    other.start(heard);
    peer.write("still there");
    await heard.has("bytes");
    expect(heard.text).toBe("still there");
    other.destroy();
  });

  it.runIf(process.platform === "linux")(
    "is closed with an error by a reset while it is paused, and by one behind the other end's FIN",
    async () => {
      const heard = new Listener();
      stream.start(heard);
      stream.pause();
      peer.resetAndDestroy();
      await heard.has("close");
      expect(heard.error?.message).toMatch(/ECONNRESET/);
      const other = await openPair(TCPS[1][1]);
      const next = new Listener();
      other.stream.start(next);
      other.peer.end();
      await next.has("end");
      other.peer.resetAndDestroy();
      await next.has("close");
      expect(next.error?.message).toMatch(/EPIPE/);
    },
  );

  it("is closed with an error by a reset behind the other end's FIN while something is lent to it", async () => {
    const heard = new Listener();
    peer.pause();
    stream.start(heard);
    peer.end();
    await heard.has("end");
    expect(stream.write(new Uint8Array(MUCH_BYTES))).toBe(false);
    peer.resetAndDestroy();
    await heard.has("close");
    expect(heard.error?.message).toMatch(/EPIPE|ECONNRESET/);
  });

  it("acknowledges each message separately, unless it has more to write itself", {
    // The kernel has reasons of its own to acknowledge at once, such as a pause of the machine.
    retry: 3,
  }, async () => {
    stream.start(new Listener());
    peer.setNoDelay();
    /** Segments without data that were sent for 100 messages. */
    const acknowledgements = async (hasMore: boolean) => {
      const count = () => {
        const line = execFileSync("ss", ["-tinHO", `sport = :${peer.remotePort}`], { encoding: "utf8" });
        return Number(/ segs_out:(\d+)/.exec(line)?.[1]) - Number(/ data_segs_out:(\d+)/.exec(line)?.[1]);
      };
      stream.write(Buffer.from("own"), hasMore);
      const before = count();
      for (let i = 0; i < 100; i++) {
        peer.write("message");
        await pause(2);
      }
      return count() - before;
    };
    // The kernel acknowledges the first 16 segments of a connection at once.
    for (let i = 0; i < 20; i++) {
      peer.write("first");
      await pause(2);
    }
    expect(await acknowledgements(true)).toBeLessThan(60);
    expect(await acknowledgements(false)).toBeGreaterThan(80);
  });
});
