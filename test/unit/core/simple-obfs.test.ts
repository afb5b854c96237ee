import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ObfsHttpClient } from "../../../src/core/simple-obfs/client-http.ts";
import { ObfsTlsClient } from "../../../src/core/simple-obfs/client-tls.ts";
import { asciiBytes, MAX_HEAD_BYTES } from "../../../src/wire/http/http-head.ts";
import { concat, cut, cutLengths, decodeAll } from "../cuts.ts";
import { mutate, randomBytes, seededRandom } from "../random.ts";

const EMPTY = new Uint8Array(0);
const zeros = (length: number) => new Uint8Array(length);
const hex = (text: string) => new Uint8Array(Buffer.from(text.replaceAll(/\s/g, ""), "hex"));
const http = (authority = "example.com:17001") =>
  new ObfsHttpClient({ authority, method: "GET", path: "/" }, zeros);
const tls = () => new ObfsTlsClient("example.com", zeros, () => 0x0102_0304);

/** A server's captured answer, followed by `hello`. */
const HTTP_ANSWER = asciiBytes(
  "HTTP/1.1 101 Switching Protocols\r\nServer: nginx/1.10.9\r\nDate: Wed, 25 Nov 2026 23:41:36 GMT\r\n" +
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\nhello",
);
const TLS_ANSWER = concat(
  hex("16 0301 005b 02 000057 0303 01020304"),
  zeros(28),
  hex("20"),
  zeros(32),
  hex("cca8 00 0000 ff01 0001 00 0017 0000 000b 0002 0100 14 0303 0001 01 16 0303 0003"),
  asciiBytes("hel"),
  hex("17 0303 0002"),
  asciiBytes("lo"),
);

describe("ObfsHttpClient", () => {
  it("puts the head of a WebSocket handshake before the first bytes, and nothing before others", () => {
    const client = http();
    expect([client.encode(EMPTY), client.hasStarted]).toEqual([EMPTY, false]);
    expect(Buffer.from(client.encode(asciiBytes("13 bytes here"))).toString()).toBe(
      "GET / HTTP/1.1\r\nHost: example.com:17001\r\nUser-Agent: curl/7.0.0\r\nUpgrade: websocket\r\n" +
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 13\r\n\r\n13 bytes here",
    );
    expect(client.encode(asciiBytes("more"))).toEqual(asciiBytes("more"));
  });

  it.each([
    ["HTTP/1.1 200 OK\r\n\r\n"],
    ["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"],
    ["SSH-2.0-x\r\n\r\n"],
    ["x".repeat(MAX_HEAD_BYTES)],
  ])("refuses %j for good", (text) => {
    const client = http();
    expect(decodeAll(client, [asciiBytes(text)])).toEqual({ bytes: EMPTY, error: "ERR_OBFS_MALFORMED" });
    expect(decodeAll(client, [HTTP_ANSWER])).toEqual({ bytes: EMPTY, error: "ERR_OBFS_MALFORMED" });
  });
});

describe("ObfsTlsClient", () => {
  it("puts the first bytes into the session ticket of a ClientHello, as obfs-local does", () => {
    const hello = concat(
      hex("16 0301 00ec 01 0000e8 0303 01020304"),
      zeros(28),
      hex("20"),
      zeros(32),
      hex("0038 c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039"),
      hex("c009c0130033009d009c003d003c0035002f00ff 01 00 0067 0023 000d"),
      asciiBytes("13 bytes here"),
      hex("0000 0010 000e 00 000b"),
      asciiBytes("example.com"),
      hex("000b 0004 03000102 000a 000a 0008 001d001700190018 000d 0020 001e"),
      hex("060106020603050105020503040104020403030103020303020102020203 0016 0000 0017 0000"),
    );
    const client = tls();
    expect([client.encode(EMPTY), client.hasStarted]).toEqual([EMPTY, false]);
    expect(client.encode(asciiBytes("13 bytes here")).slice()).toEqual(hello);
    expect(client.encode(asciiBytes("more"))).toEqual(concat(hex("17 0303 0004"), asciiBytes("more")));
  });

  it("puts at most 1,024 bytes into the ticket, and at most 16,384 into a record", () => {
    const client = tls();
    const first = client.encode(new Uint8Array(1_500)).slice();
    const hello = 5 + 0xec - 13 + 1_024;
    expect(first.length).toBe(hello + 5 + 476);
    expect(first.subarray(hello, hello + 5)).toEqual(hex("17 0303 01dc"));
    const records = client.encode(new Uint8Array(20_000));
    expect(records.length).toBe(20_000 + 2 * 5);
    expect(records.subarray(0, 5)).toEqual(hex("17 0303 4000"));
    expect(records.subarray(5 + 16_384, 10 + 16_384)).toEqual(hex("17 0303 0e20"));
  });

  it.each([
    ["an alert", "15 0303 0002 0228"],
    ["data without a ServerHello", "17 0303 0001 00"],
    ["HTTP", "48 5454 502f"],
    ["two ServerHellos", "16 0303 0001 02 16 0303 0001 02"],
    ["data of another version", "16 0303 0000 14 0303 0000 16 0303 0000 17 0403 0001 00"],
    ["a handshake among the data", "16 0303 0000 14 0303 0000 16 0303 0000 16 0303 0001 00"],
  ])("refuses %s for good", (_, text) => {
    const client = tls();
    expect(decodeAll(client, [hex(text)])).toEqual({ bytes: EMPTY, error: "ERR_OBFS_MALFORMED" });
    expect(decodeAll(client, [TLS_ANSWER])).toEqual({ bytes: EMPTY, error: "ERR_OBFS_MALFORMED" });
  });
});

describe.each([
  ["ObfsHttpClient", http, HTTP_ANSWER],
  ["ObfsTlsClient", tls, TLS_ANSWER],
] as const)("%s", (_, make, answer) => {
  it("reads a recorded answer, and may end after it", () => {
    const client = make();
    expect(decodeAll(client, [answer])).toEqual({ bytes: asciiBytes("hello"), error: undefined });
    expect(client.mayEnd).toBe(true);
    const partial = make();
    decodeAll(partial, [answer.subarray(0, 20)]);
    expect(partial.mayEnd).toBe(false);
  });

  it("gives the same result for an answer and for mutants of it, however they are cut", () => {
    const random = seededRandom(71);
    fc.assert(
      fc.property(fc.boolean(), cutLengths, (isMutant, lengths) => {
        const stream = isMutant ? mutate(random, answer) : answer;
        const [whole, pieces] = [make(), make()];
        expect(decodeAll(pieces, cut(stream, lengths))).toEqual(decodeAll(whole, [stream]));
      }),
      { seed: 72, numRuns: 2_000 },
    );
  });

  it("never delivers more than it was given, whatever that is", () => {
    const random = seededRandom(73);
    for (let i = 0; i < 500; i++) {
      const noise = randomBytes(random, 300);
      expect(decodeAll(make(), cut(noise, [1 + (i % 90)])).bytes.length).toBeLessThanOrEqual(300);
    }
  });
});
