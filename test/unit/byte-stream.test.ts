import { execFileSync } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { StreamCoding } from "../../src/core/stream-coding.ts";
import type { Io } from "../../src/host/io/io.ts";
import type { ByteStream, ByteStreamEvents } from "../../src/node/byte-stream.ts";
import { CodedByteStream } from "../../src/node/byte-stream-coded.ts";
import { DescriptorStream } from "../../src/node/byte-stream-native.ts";
import { CodedStream } from "../../src/node/coded-stream.ts";
import { loadNativeModule } from "../../src/node/load-native-module.ts";
import { openByteStream } from "../../src/node/open-byte-stream.ts";
import { plainUdpIo } from "../../src/node/udp-io-plain.ts";

/** More than the system takes at once while nobody reads. */
const MUCH_BYTES = 64 * 1024 * 1024;
const native = loadNativeModule();
const IDENTITY: StreamCoding = {
  hasStarted: true,
  mayEnd: true,
  encode: (bytes) => bytes.slice(),
  decode: (bytes, offset, end, deliver) => void deliver(bytes.slice(offset, end), 0, end - offset),
};
const PLAIN: Io = { udp: plainUdpIo, native: undefined, latency: "balanced" };
const NATIVE = { udp: plainUdpIo, latency: "balanced" } as const;
const KINDS: [string, Io, StreamCoding | undefined][] = [
  ["plain", PLAIN, undefined],
  ["coded plain", PLAIN, IDENTITY],
];
if (!(native instanceof Error)) {
  KINDS.push(["native", { ...NATIVE, native }, undefined]);
  KINDS.push(["coded native", { ...NATIVE, native }, IDENTITY]);
} else if (process.env.CI !== undefined) throw native;

describe.each(KINDS)("a %s byte stream", (kind, io, coding) => {
  let server: Server;
  let peer: Socket;
  let own: Socket;
  let stream: ByteStream;
  let heard: Buffer[];
  let closed: Promise<Error | undefined>;
  let written: Promise<void>;
  let peerEnded: Promise<void>;

  beforeEach(async () => {
    server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    own = connect((server.address() as AddressInfo).port, "127.0.0.1");
    [[peer]] = (await Promise.all([once(server, "connection"), once(own, "connect")])) as [[Socket], unknown];
    peer.on("error", () => {});
    heard = [];
  });

  afterEach(async () => {
    stream.destroy();
    own.destroy();
    peer.destroy();
    await new Promise((done) => server.close(done));
  });

  function start(isOurs = true): void {
    const connected = coding === undefined ? own : new CodedStream(own, coding);
    stream = openByteStream({ stream: connected, onread: false, isOurs }, io, 5_000, new Uint8Array(65_536));
    const events = {} as { -readonly [Name in keyof ByteStreamEvents]: ByteStreamEvents[Name] };
    peerEnded = new Promise((done) => {
      events.onEnd = done;
    });
    closed = new Promise((done) => {
      events.onClose = done;
    });
    written = new Promise((done) => {
      events.onWritten = done;
    });
    events.onBytes = (chunk, length) => void heard.push(Buffer.from(chunk.slice(0, length)));
    stream.start(events);
  }

  it(`is one of its kind, and knows its local IP`, () => {
    start();
    expect(stream instanceof DescriptorStream).toBe(kind === "native");
    expect(stream instanceof CodedByteStream).toBe(coding !== undefined);
    expect(stream.localIp).toBe("127.0.0.1");
  });

  it("leaves a socket of the embedder alone, so that either may destroy it", async () => {
    start(false);
    peer.write("through");
    await once(own, "data");
    expect(own.destroyed).toBe(false);
    own.destroy();
    expect(await closed).toBe(undefined);
    expect(Buffer.concat(heard).toString()).toBe("through");
  });

  it("delivers what was read before it took the socket over, then what follows", async () => {
    own.pause();
    peer.write("before ");
    await once(own, "readable");
    start();
    peer.end("after");
    await peerEnded;
    expect(Buffer.concat(heard).toString()).toBe("before after");
  });

  it.skipIf(kind === "plain" || kind === "coded plain")(
    "acknowledges each message by itself, but not where it has more to write itself",
    // The kernel has reasons of its own to acknowledge at once, such as a pause of the machine.
    { retry: 3 },
    async () => {
      start();
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
    },
  );

  it("borrows bytes until the system has taken them, then reports it; the peer gets them whole", async () => {
    start();
    peer.pause();
    const bytes = new Uint8Array(MUCH_BYTES);
    for (let i = 0; i < bytes.length; i += 4096) bytes[i] = i >> 12;
    expect(stream.write(bytes)).toBe(false);
    const taken: Buffer[] = [];
    peer.on("data", (chunk) => void taken.push(chunk)).resume();
    await written;
    stream.end();
    await once(peer, "end");
    expect(Buffer.compare(Buffer.concat(taken), bytes)).toBe(0);
  });

  it("is closed when both ends have ended", async () => {
    start();
    expect(stream.write(new TextEncoder().encode("last"))).toBe(true);
    stream.end();
    expect(stream.isClosed).toBe(true);
    const [data] = await once(peer, "data");
    expect(data.toString()).toBe("last");
    peer.end();
    expect(await closed).toBe(undefined);
  });

  it("stays open for writing when the other end has ended, and closes once it has ended as well", async () => {
    start();
    peer.allowHalfOpen = true;
    peer.end("question");
    await peerEnded;
    expect(Buffer.concat(heard).toString()).toBe("question");
    expect(stream.isClosed).toBe(false);
    const answer: Buffer[] = [];
    peer.on("data", (data) => void answer.push(data));
    expect(stream.write(new TextEncoder().encode("answer"))).toBe(true);
    stream.end();
    await once(peer, "end");
    expect(Buffer.concat(answer).toString()).toBe("answer");
    expect(await closed).toBe(undefined);
    expect(stream.isClosed).toBe(true);
  });

  it("gives all that is lent to an end that has ended and reads slowly", async () => {
    start();
    peer.allowHalfOpen = true;
    peer.pause();
    peer.end();
    const bytes = new Uint8Array(MUCH_BYTES).fill(7);
    expect(stream.write(bytes)).toBe(false);
    await peerEnded;
    let length = 0;
    peer.on("data", (chunk) => {
      length += chunk.length;
    });
    peer.resume();
    await written;
    stream.end();
    await once(peer, "end");
    expect(length).toBe(bytes.length);
    expect(await closed).toBe(undefined);
  });

  it("is closed when it writes to an end that has ended and is gone", async () => {
    start();
    peer.end();
    await peerEnded;
    peer.resetAndDestroy();
    await once(peer, "close");
    const writing = setInterval(() => stream.write(Uint8Array.of(1)), 1);
    await closed;
    clearInterval(writing);
    expect(stream.isClosed).toBe(true);
  });

  it("reports a connection that was reset", async () => {
    start();
    peer.resetAndDestroy();
    expect((await closed)?.message).toMatch(/ECONNRESET/);
  });

  it("is closed by a reset that arrives right behind bytes", async () => {
    start();
    peer.write("last words");
    peer.resetAndDestroy();
    // libuv reports an end where it finds both at once.
    void peerEnded.then(() => stream.end());
    await closed;
    expect(stream.isClosed).toBe(true);
  });

  it("delivers nothing once it is destroyed, even if bytes are on their way", async () => {
    start();
    const gone = new Promise((done) => peer.resume().once("close", done));
    peer.write("x");
    stream.destroy();
    expect(await closed).toBe(undefined);
    await gone;
    expect(heard).toEqual([]);
  });

  it.runIf(kind === "native")("gives its descriptor away open", async () => {
    start();
    const descriptor = (stream as DescriptorStream).release()!;
    const other = new DescriptorStream(native as never, descriptor, new Uint8Array(64), 5_000, undefined);
    const got = new Promise<string>((done) =>
      other.start({
        onBytes: (chunk, length) => done(Buffer.from(chunk.slice(0, length)).toString()),
        onEnd: () => {},
        onWritten: () => {},
        onClose: () => {},
      }),
    );
    peer.write("still there");
    expect(await got).toBe("still there");
    other.destroy();
  });
});
