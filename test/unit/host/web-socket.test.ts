import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WebSocketHandshake } from "../../../src/core/web-socket/client-handshake.ts";
import { MAX_MESSAGE_BYTES, WebSocketReader } from "../../../src/core/web-socket/reader.ts";
import { WebSocketWriter } from "../../../src/core/web-socket/writer.ts";
import { acceptOf } from "../../../src/host/web-socket/accept-key.ts";
import { asciiBytes, decodeHead } from "../../../src/wire/http/http-head.ts";
import { maskBytes } from "../../../src/wire/http/websocket-frame.ts";
import { encodeWebSocketAnswer, webSocketKey } from "../../../src/wire/http/websocket-upgrade.ts";

const bytesOf = (hex: string) =>
  Uint8Array.from(hex.match(/[0-9a-f]{2}/g) ?? [], (byte) => parseInt(byte, 16));
const random = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 37 + 11) & 255);

/** The payloads of everything that is read, in pieces of these lengths. */
function readAll(reader: WebSocketReader, bytes: Uint8Array, cuts: readonly number[] = []): Uint8Array {
  const payloads: Uint8Array[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = Math.min(bytes.length, at + (cuts[i] ?? bytes.length));
    const to = new Uint8Array(end - at);
    const count = reader.read(bytes.slice(at, end), end - at, to);
    payloads.push(to.subarray(0, count));
    at = end;
  }
  return joined(payloads);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** The offset at which two of them begin to differ, or -1. */
function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  return a.findIndex((byte, i) => byte !== b[i]);
}

describe("frames of WebSockets", () => {
  it("are those of RFC 6455 §5.7", () => {
    const server = new WebSocketReader(true, maskBytes);
    // A masked "Hello", as binary.
    expect(readAll(server, bytesOf("82 85 37fa213d 7f9f4d5158"))).toEqual(asciiBytes("Hello"));
    expect(readAll(server, bytesOf("89 85 37fa213d 7f9f4d5158"))).toEqual(new Uint8Array(0));
    expect(server.takePing()).toEqual(asciiBytes("Hello"));
    const client = new WebSocketReader(false, maskBytes);
    // Fragments with a ping between them.
    expect(readAll(client, bytesOf("02 03 48656c 89 00 80 02 6c6f"))).toEqual(asciiBytes("Hello"));
    expect(client.takePing()).toEqual(new Uint8Array(0));
    expect(client.takePing()).toBe(undefined);
  });

  it.each([true, false])(
    "are read back whatever their lengths and cuts, written by a server: %s",
    (isServer) => {
      fc.assert(
        fc.property(
          fc.array(fc.oneof(fc.nat(200), fc.constantFrom(0, 125, 126, 127, 65_535, 65_536)), {
            maxLength: 5,
          }),
          fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 20 }),
          (lengths, cuts) => {
            const writer = new WebSocketWriter(isServer, random, maskBytes);
            const reader = new WebSocketReader(!isServer, maskBytes);
            const sent: Uint8Array[] = [];
            const bytes: Uint8Array[] = [];
            for (const length of lengths) {
              const payload = random(length);
              sent.push(payload);
              bytes.push(writer.message(payload, 0, length).slice());
            }
            bytes.push(writer.close(1000), Uint8Array.of(1, 2, 3));
            expect(firstDifference(readAll(reader, joined(bytes), cuts), joined(sent))).toBe(-1);
            expect([reader.closeCode, reader.fault]).toEqual([1000, undefined]);
          },
        ),
        { numRuns: 60 },
      );
    },
  );

  it.each([
    ["8180 00000000", 1003],
    ["0080 00000000", 1002],
    ["0280 00000000 8280 00000000", 1002],
    ["0980 00000000", 1002],
    ["89fe 007e 00000000", 1002],
    ["8b80 00000000", 1002],
    ["c280 00000000", 1002],
    ["8200", 1002],
    ["8881 00000000 00", 1002],
    ["8882 00000000 03ed", 1002],
    ["82ff 0000000000100001 00000000", 1009],
    ["82ff ffffffffffffffff 00000000", 1009],
  ])("that break the protocol end the connection: %s with code %i", (hex, code) => {
    for (const cuts of [[], Array(40).fill(1)]) {
      const reader = new WebSocketReader(true, maskBytes);
      readAll(reader, bytesOf(hex), cuts);
      expect(reader.fault?.code).toBe(code);
      expect(reader.fault?.error.code).toBe("ERR_WEB_SOCKET_MALFORMED");
      // Nothing after it is read.
      expect(readAll(reader, bytesOf("8281 00000000 41"))).toHaveLength(0);
    }
  });

  it("bound the fragments of a message, together and in number", () => {
    const half = new WebSocketReader(false, maskBytes);
    const payload = new Uint8Array(MAX_MESSAGE_BYTES / 2);
    const header = (first: number) => bytesOf(`${first.toString(16).padStart(2, "0")} 7f 0000000000080000`);
    for (const first of [2, 0]) {
      readAll(half, header(first));
      half.read(payload, payload.length, payload);
    }
    expect(half.fault).toBe(undefined);
    readAll(half, bytesOf("80 01 00"));
    expect(half.fault?.code).toBe(1009);
    const many = new WebSocketReader(false, maskBytes);
    readAll(many, bytesOf(`02 00 ${"00 00".repeat(1_023)}`));
    expect(many.fault).toBe(undefined);
    readAll(many, bytesOf("00 00"));
    expect(many.fault?.code).toBe(1008);
  });

  it("may be unmasked in place", () => {
    const writer = new WebSocketWriter(false, random, maskBytes);
    const payload = random(1_000);
    const bytes = Uint8Array.from([
      ...writer.message(payload, 0, 300),
      ...writer.message(payload, 300, 1_000),
    ]);
    const reader = new WebSocketReader(true, maskBytes);
    expect(reader.read(bytes, bytes.length, bytes)).toBe(1_000);
    expect(bytes.subarray(0, 1_000)).toEqual(payload);
  });
});

describe("opening a WebSocket", () => {
  const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
  const open = () =>
    new WebSocketHandshake({ path: "/tunnel", host: "a", fields: [["X-A", "b"]] }, KEY, acceptOf(KEY));

  it("is the handshake of RFC 6455 §1.3", () => {
    expect(acceptOf(KEY)).toBe("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    const request = open().start();
    expect(webSocketKey(decodeHead(request, request.length)!, "/tunnel")).toBe(KEY);
    const answer = Uint8Array.from([...encodeWebSocketAnswer(acceptOf(KEY)), 0x82, 0]);
    for (const size of [1, 7, answer.length]) {
      const handshake = open();
      let result: ReturnType<typeof handshake.handleStream> = "need";
      for (let at = 0; at < answer.length && result === "need"; at += size) {
        result = handshake.handleStream(answer.slice(at, at + size));
      }
      expect(result).toMatchObject({ kind: "connected" });
    }
  });

  it.each([
    [
      "HTTP/1.1 404 Not Found\r\nServer: nginx\r\n\r\n",
      "status 404 instead of 101: nginx has no WebSocket at this path",
    ],
    [
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
      "not to this request",
    ],
    [
      `HTTP/1.1 101 A\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(KEY)}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n`,
      "not to this request",
    ],
    ["SSH-2.0-OpenSSH\r\n\r\n", "is this a web server?"],
    [`HTTP/1.1 101 ${"a".repeat(9_000)}`, "over the limit"],
  ])("is refused for %j", (answer, problem) => {
    const result = open().handleStream(asciiBytes(answer));
    expect(result).toMatchObject({ kind: "failed", error: { code: "ERR_WEB_SOCKET_REFUSED" } });
    expect((result as { error: Error }).error.message).toContain(problem);
  });
});
