import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShadowsocksClient } from "../../../../src/core/shadowsocks/client.ts";
import { ShadowsocksClient2022 } from "../../../../src/core/shadowsocks/client-2022.ts";
import type { Method } from "../../../../src/core/shadowsocks/method.ts";
import { METHODS } from "../../../../src/core/shadowsocks/method.ts";
import { SaltHistory } from "../../../../src/core/shadowsocks/salt-history.ts";
import { ShadowsocksServer } from "../../../../src/core/shadowsocks/server.ts";
import { ShadowsocksServer2022 } from "../../../../src/core/shadowsocks/server-2022.ts";
import type { ServerCoding } from "../../../../src/core/shadowsocks/server-coding.ts";
import { ObfsHttpClient } from "../../../../src/core/simple-obfs/client-http.ts";
import { ObfsTlsClient } from "../../../../src/core/simple-obfs/client-tls.ts";
import { ObfsHttpServer } from "../../../../src/core/simple-obfs/server-http.ts";
import { ObfsTlsServer } from "../../../../src/core/simple-obfs/server-tls.ts";
import { readClientHello } from "../../../../src/core/simple-obfs/tls-records.ts";
import { LayeredCoding } from "../../../../src/core/stream-coding.ts";
import { shadowsocksCryptography } from "../../../../src/node/shadowsocks-cryptography.ts";
import { asciiBytes } from "../../../../src/wire/http/http-head.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { cut, cutLengths, decodeAll } from "../../cuts.ts";
import { mutate, randomBytes, seededRandom } from "../../random.ts";
import { ReferenceDirection, typeAndTime, uint16 } from "../../shadowsocks-reference.ts";

const NOW = 1_800_000_000;
const EMPTY = new Uint8Array(0);
const crypto = { ...shadowsocksCryptography, unixSeconds: () => NOW };
const target = makeAddress("target.test", 443)!;
const OBFS = [undefined, "http", "tls"] as const;
const CASES = Object.keys(METHODS).flatMap((name) => OBFS.map((obfs) => [name, obfs] as const));

/** Like the function of cuts.ts, but fast for long arrays. */
const concat = (...parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const bytesOf = (length: number) => Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8));
const keyOf = (method: Method) => bytesOf(method.keyBytes);

function makeServer(method: Method, admit = (_: Uint8Array) => true): ServerCoding {
  const Server = method.is2022 ? ShadowsocksServer2022 : ShadowsocksServer;
  return new Server(crypto, method, keyOf(method), admit);
}

/** Both ends, and the server's end without obfs. */
function makePair(name: string, obfs: (typeof OBFS)[number]) {
  const method = METHODS[name];
  const Client = method.is2022 ? ShadowsocksClient2022 : ShadowsocksClient;
  const client = new Client(crypto, method, keyOf(method), target);
  const server = makeServer(method);
  if (obfs === undefined) return { client, server, bare: server };
  const options = { authority: "a.test", method: "GET", path: "/" };
  const [near, far] =
    obfs === "http"
      ? [new ObfsHttpClient(options, crypto.random), new ObfsHttpServer(crypto.random, () => "now")]
      : [
          new ObfsTlsClient("a.test", crypto.random, crypto.unixSeconds),
          new ObfsTlsServer(crypto.random, crypto.unixSeconds),
        ];
  return { client: new LayeredCoding(client, near), server: new LayeredCoding(server, far), bare: server };
}

describe.each(CASES)("a client and a server with %s, obfs %s", (name, obfs) => {
  it("carry both directions, however they are cut", () => {
    fc.assert(
      fc.property(
        cutLengths,
        fc.array(fc.integer({ min: 0, max: 6_000 }), { maxLength: 4 }),
        (lengths, sizes) => {
          const { client, server, bare } = makePair(name, obfs);
          const parts = [asciiBytes("first"), ...sizes.map(bytesOf), bytesOf(20_000)];
          for (const [from, to] of [
            [client, server],
            [server, client],
          ]) {
            const sent = concat(...parts.map((part) => from.encode(part).slice()));
            const pieces = lengths.length === 0 ? [sent] : cut(sent, [...lengths, 2_000]);
            const { bytes, error } = decodeAll(to, pieces);
            expect(error).toBe(undefined);
            // Much faster than toEqual.
            expect(Buffer.compare(bytes, concat(...parts))).toBe(0);
            expect(to.mayEnd).toBe(true);
          }
          expect([...bare.target!]).toEqual([...target]);
        },
      ),
      { seed: 81, numRuns: 6 },
    );
  });

  it("agree on the target without data, and on a mutant however it is cut", () => {
    const { client, server, bare } = makePair(name, obfs);
    const request = client.encode(EMPTY).slice();
    expect(decodeAll(server, [request])).toEqual({ bytes: EMPTY, error: undefined });
    expect([...bare.target!]).toEqual([...target]);
    const random = seededRandom(82);
    fc.assert(
      fc.property(cutLengths, (lengths) => {
        const mutant = mutate(random, request);
        const [whole, pieces] = [makePair(name, obfs), makePair(name, obfs)];
        expect(decodeAll(pieces.server, cut(mutant, lengths))).toEqual(decodeAll(whole.server, [mutant]));
        expect(pieces.bare.target).toEqual(whole.bare.target);
      }),
      { seed: 83, numRuns: 200 },
    );
  });
});

describe.each(Object.keys(METHODS))("a server with %s", (name) => {
  const method = METHODS[name];

  it("refuses random bytes, and does not remember their salt", () => {
    const random = seededRandom(84);
    let admitted = 0;
    for (let i = 0; i < 200; i++) {
      const server = makeServer(method, () => ++admitted > 0);
      const noise = randomBytes(random, 200);
      expect(decodeAll(server, cut(noise, [1 + (i % 50)]))).toEqual({
        bytes: EMPTY,
        error: "ERR_SHADOWSOCKS_TAG",
      });
      expect(server.target).toBe(undefined);
    }
    expect(admitted).toBe(0);
  });

  it("asks once whether a salt is new, and delivers nothing if it is not", () => {
    const { client } = makePair(name, undefined);
    const request = client.encode(asciiBytes("hello")).slice();
    const asked: Uint8Array[] = [];
    const server = makeServer(method, (salt) => {
      asked.push(salt);
      return false;
    });
    expect(decodeAll(server, [request])).toEqual({ bytes: EMPTY, error: "ERR_SHADOWSOCKS_REPLAY" });
    expect(server.target).toBe(undefined);
    expect(asked).toEqual([request.subarray(0, method.keyBytes)]);
  });
});

describe("ShadowsocksServer", () => {
  it.each([
    ["an unknown type of address", Uint8Array.of(9, 1, 2)],
    ["an empty name", Uint8Array.of(3, 0, 1, 2)],
  ])("refuses %s", (_, payload) => {
    const method = METHODS["aes-128-gcm"];
    const salt = new Uint8Array(16);
    const direction = new ReferenceDirection(method, keyOf(method), salt);
    const server = makeServer(method);
    const result = decodeAll(server, [concat(salt, direction.chunk(payload))]);
    expect(result).toEqual({ bytes: EMPTY, error: "ERR_SHADOWSOCKS_MALFORMED" });
  });

  it("reads a target that comes in chunks of one byte", () => {
    const method = METHODS["aes-128-gcm"];
    const salt = new Uint8Array(16);
    const direction = new ReferenceDirection(method, keyOf(method), salt);
    const payload = concat(target, asciiBytes("hello"));
    const server = makeServer(method);
    const chunks = [...payload].map((byte) => direction.chunk(Uint8Array.of(byte)));
    expect(decodeAll(server, [concat(salt, ...chunks)])).toEqual({
      bytes: asciiBytes("hello"),
      error: undefined,
    });
    expect([...server.target!]).toEqual([...target]);
  });
});

describe("ShadowsocksServer2022", () => {
  const method = METHODS["2022-blake3-aes-256-gcm"];
  const padded = concat(target, uint16(3), Uint8Array.of(0, 0, 0));
  const request = (fixed: Uint8Array, variable: Uint8Array) => {
    const salt = bytesOf(32);
    const direction = new ReferenceDirection(method, keyOf(method), salt);
    return concat(salt, direction.seal(concat(fixed, uint16(variable.length))), direction.seal(variable));
  };

  it.each([
    ["now", NOW],
    ["30 s ago", NOW - 30],
    ["in 30 s", NOW + 30],
  ])("accepts a head of %s, padded without payload", (_, time) => {
    const server = makeServer(method);
    expect(decodeAll(server, [request(typeAndTime(0, time), padded)]).error).toBe(undefined);
    expect([...server.target!]).toEqual([...target]);
  });

  it.each([
    ["of a server", typeAndTime(1, NOW), padded],
    ["31 s old", typeAndTime(0, NOW - 31), padded],
    ["31 s in the future", typeAndTime(0, NOW + 31), padded],
    ["of the far future", typeAndTime(0, 2 ** 52), padded],
    ["without padding and payload", typeAndTime(0, NOW), concat(target, uint16(0))],
    ["with padding beyond its end", typeAndTime(0, NOW), concat(target, uint16(4), Uint8Array.of(0, 0, 0))],
    ["without padding's length", typeAndTime(0, NOW), concat(target, Uint8Array.of(0))],
    ["with half a target", typeAndTime(0, NOW), target.subarray(0, 6)],
    ["with nothing", typeAndTime(0, NOW), EMPTY],
  ])("refuses a head %s", (_, fixed, variable) => {
    const server = makeServer(method);
    const result = decodeAll(server, [request(fixed, variable)]);
    expect(result).toEqual({ bytes: EMPTY, error: "ERR_SHADOWSOCKS_MALFORMED" });
    expect(server.target).toBe(undefined);
  });
});

describe("SaltHistory", () => {
  it("remembers at least as many salts as it is made for, and at most twice as many", () => {
    const history = new SaltHistory(4);
    const salt = (number: number) => Uint8Array.of(number, number);
    for (let i = 0; i < 20; i++) {
      expect(history.admit(salt(i))).toBe(true);
      for (let back = 0; back < 4 && back <= i; back++) expect(history.admit(salt(i - back))).toBe(false);
    }
    expect(history.admit(salt(20 - 9))).toBe(true);
  });
});

describe("readClientHello", () => {
  it("reads nothing from a hello that is cut, changed, or has no ticket, and never beyond its end", () => {
    const client = new ObfsTlsClient("a.test", crypto.random, crypto.unixSeconds);
    const hello = client.encode(asciiBytes("hello")).slice(5);
    expect(readClientHello(hello)?.ticket).toEqual(asciiBytes("hello"));
    for (let end = 0; end < hello.length; end++)
      expect(readClientHello(hello.subarray(0, end))).toBe(undefined);
    const random = seededRandom(85);
    for (let i = 0; i < 5_000; i++) {
      const mutant = mutate(random, hello);
      const read = readClientHello(mutant);
      expect((read?.ticket.length ?? 0) + (read?.sessionId.length ?? 0)).toBeLessThanOrEqual(mutant.length);
    }
  });
});
