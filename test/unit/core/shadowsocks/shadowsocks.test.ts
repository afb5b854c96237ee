import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShadowsocksClient } from "../../../../src/core/shadowsocks/client.ts";
import { ShadowsocksClient2022 } from "../../../../src/core/shadowsocks/client-2022.ts";
import type { ShadowsocksCryptography } from "../../../../src/core/shadowsocks/cryptography.ts";
import { masterKey } from "../../../../src/core/shadowsocks/keys.ts";
import { METHODS } from "../../../../src/core/shadowsocks/method.ts";
import { Nonce } from "../../../../src/core/shadowsocks/nonce.ts";
import type { StreamCoding } from "../../../../src/core/stream-coding.ts";
import { shadowsocksCryptography } from "../../../../src/node/shadowsocks-cryptography.ts";
import { asciiBytes } from "../../../../src/wire/http/http-head.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { concat, cut, cutLengths } from "../../cuts.ts";
import { mutate, randomBytes, seededRandom } from "../../random.ts";
import { passwordKey, ReferenceDirection, typeAndTime, uint16 } from "../../shadowsocks-reference.ts";

const NOW = 1_800_000_000;
const target = makeAddress("target.test", 443)!;
const EMPTY = new Uint8Array(0);
const OF_2017 = Object.keys(METHODS).filter((name) => !METHODS[name].is2022);
const OF_2022 = Object.keys(METHODS).filter((name) => METHODS[name].is2022);

/** The host's ciphers, with random bytes from a seed and a stopped clock. */
function crypto(seed: number, unixSeconds = NOW): ShadowsocksCryptography {
  const random = seededRandom(seed);
  return {
    ...shadowsocksCryptography,
    random: (length) => randomBytes(random, length),
    unixSeconds: () => unixSeconds,
  };
}

function bytesOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8));
}

function makeClient(name: string, seed = 1): { client: StreamCoding; key: Uint8Array; salt: Uint8Array } {
  const method = METHODS[name];
  const key = bytesOf(method.keyBytes);
  // The client generates its salt first.
  const salt = crypto(seed).random(method.keyBytes);
  const Client = method.is2022 ? ShadowsocksClient2022 : ShadowsocksClient;
  return { client: new Client(crypto(seed), method, key, target), key, salt };
}

interface Decoded {
  readonly bytes: Uint8Array;
  readonly error: string | undefined;
}

/** Decodes pieces as they arrive; the memory of each is overwritten afterwards, like a reader's buffer. */
function decodeAll(coding: StreamCoding, pieces: readonly Uint8Array[]): Decoded {
  const runs: Uint8Array[] = [];
  let error: string | undefined;
  for (const piece of pieces) {
    const buffer = concat(Uint8Array.of(1, 2, 3), piece, Uint8Array.of(4));
    const found = coding.decode(buffer, 3, 3 + piece.length, (bytes, offset, end) =>
      runs.push(bytes.subarray(offset, end)),
    );
    buffer.fill(0xee);
    error = found?.code;
    if (error !== undefined) break;
  }
  return { bytes: concat(...runs), error };
}

/** A server's answer, and its length up to the first chunk. */
function answer(name: string, key: Uint8Array, requestSalt: Uint8Array, payloads: Uint8Array[]): Uint8Array {
  const method = METHODS[name];
  const salt = bytesOf(method.keyBytes).reverse();
  const direction = new ReferenceDirection(method, key, salt);
  if (!method.is2022) return concat(salt, ...payloads.map((payload) => direction.chunk(payload)));
  const [first, ...rest] = payloads;
  const head = concat(typeAndTime(1, NOW), requestSalt, uint16(first.length));
  return concat(
    salt,
    direction.seal(head),
    direction.seal(first),
    ...rest.map((payload) => direction.chunk(payload)),
  );
}

describe("masterKey", () => {
  it.each(["a", "pässword", "x".repeat(100)])("derives the key of %j as EVP_BytesToKey does", (password) => {
    for (const name of OF_2017) {
      const { keyBytes } = METHODS[name];
      expect(masterKey(shadowsocksCryptography, METHODS[name], password)).toEqual(
        passwordKey(password, keyBytes),
      );
    }
  });

  it("accepts a base64 key for the 2022 edition, and none of another length", () => {
    for (const name of OF_2022) {
      const { keyBytes } = METHODS[name];
      const of = (length: number) => Buffer.from(bytesOf(length)).toString("base64");
      expect(masterKey(shadowsocksCryptography, METHODS[name], of(keyBytes))).toEqual(bytesOf(keyBytes));
      for (const wrong of [
        "",
        "password",
        of(keyBytes - 1),
        of(keyBytes + 1),
        `${of(keyBytes)}:${of(keyBytes)}`,
      ]) {
        expect(masterKey(shadowsocksCryptography, METHODS[name], wrong)).toBe(undefined);
      }
    }
  });

  it("derives keys with BLAKE3 as its published vectors do", () => {
    const context = "BLAKE3 2019-12-27 16:29:52 test vectors context";
    const derived = shadowsocksCryptography.blake3DeriveKey(context, EMPTY, 32);
    expect(Buffer.from(derived).toString("hex")).toBe(
      "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d",
    );
  });
});

describe("ShadowsocksClient", () => {
  it.each(OF_2017)("with %s sends its target before the first data, in one piece", (name) => {
    const { client, key, salt } = makeClient(name);
    expect(client.hasStarted).toBe(false);
    const first = client.encode(asciiBytes("hello")).slice();
    expect(client.hasStarted).toBe(true);
    const second = client.encode(asciiBytes("world"));
    expect(first.subarray(0, salt.length)).toEqual(salt);
    const direction = new ReferenceDirection(METHODS[name], key, salt);
    expect(direction.openChunks(first.subarray(salt.length))).toEqual([concat(target, asciiBytes("hello"))]);
    expect(direction.openChunks(second)).toEqual([asciiBytes("world")]);
  });

  it("sends only its target if there is no data, and then nothing for an empty write", () => {
    const { client, key, salt } = makeClient("aes-256-gcm");
    const first = client.encode(EMPTY).slice();
    expect(client.encode(EMPTY).length).toBe(0);
    const direction = new ReferenceDirection(METHODS["aes-256-gcm"], key, salt);
    expect(direction.openChunks(first.subarray(salt.length))).toEqual([target]);
  });
});

describe("ShadowsocksClient2022", () => {
  /** Opens the head of a request. */
  function openRequest(name: string, key: Uint8Array, bytes: Uint8Array) {
    const { keyBytes } = METHODS[name];
    const direction = new ReferenceDirection(METHODS[name], key, bytes.subarray(0, keyBytes));
    const fixed = direction.open(bytes.subarray(keyBytes, keyBytes + 27));
    const end = keyBytes + 27 + ((fixed[9] << 8) | fixed[10]) + 16;
    const variable = direction.open(bytes.subarray(keyBytes + 27, end));
    const padding = (variable[target.length] << 8) | variable[target.length + 1];
    return {
      direction,
      typeAndTime: fixed.subarray(0, 9),
      target: variable.subarray(0, target.length),
      padding,
      payload: variable.subarray(target.length + 2 + padding),
      rest: bytes.subarray(end),
    };
  }

  it.each(OF_2022)("with %s sends the first data in its head, without padding", (name) => {
    const { client, key } = makeClient(name);
    const data = bytesOf(10_000);
    const request = openRequest(name, key, client.encode(data).slice());
    expect(request).toMatchObject({ typeAndTime: new Uint8Array(typeAndTime(0, NOW)), target, padding: 0 });
    const chunks = request.direction.openChunks(request.rest);
    expect(concat(request.payload, ...chunks)).toEqual(data);
    expect(request.direction.openChunks(client.encode(asciiBytes("more")))).toEqual([asciiBytes("more")]);
  });

  it("pads a head without data with 1 to 900 bytes", () => {
    const paddings = Array.from({ length: 200 }, (_, seed) => {
      const { client, key } = makeClient("2022-blake3-aes-128-gcm", seed + 1);
      const { padding, payload, rest } = openRequest("2022-blake3-aes-128-gcm", key, client.encode(EMPTY));
      expect([payload.length, rest.length]).toEqual([0, 0]);
      return padding;
    });
    expect(Math.min(...paddings)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...paddings)).toBeLessThanOrEqual(900);
    expect(new Set(paddings).size).toBeGreaterThan(50);
  });

  it.each([
    ["of a client", typeAndTime(0, NOW), true],
    ["31 s in the future", typeAndTime(1, NOW + 31), true],
    ["31 s ago", typeAndTime(1, NOW - 31), true],
    ["for another request", typeAndTime(1, NOW), false],
  ])("refuses an answer %s", (_, start, isForThis) => {
    const name = "2022-blake3-aes-256-gcm";
    const { client, key, salt } = makeClient(name);
    const direction = new ReferenceDirection(METHODS[name], key, salt.toReversed());
    const head = concat(start, isForThis ? salt : salt.toReversed(), uint16(5));
    const bytes = concat(salt.toReversed(), direction.seal(head), direction.seal(asciiBytes("hello")));
    expect(decodeAll(client, [bytes])).toEqual({ bytes: EMPTY, error: "ERR_SHADOWSOCKS_MALFORMED" });
  });

  it.each([NOW - 30, NOW + 30])("accepts an answer whose clock differs by 30 s (%s)", (time) => {
    const name = "2022-blake3-aes-256-gcm";
    const { client, key, salt } = makeClient(name);
    const direction = new ReferenceDirection(METHODS[name], key, salt.toReversed());
    const head = concat(typeAndTime(1, time), salt, uint16(5));
    const bytes = concat(salt.toReversed(), direction.seal(head), direction.seal(asciiBytes("hello")));
    expect(decodeAll(client, [bytes])).toEqual({ bytes: asciiBytes("hello"), error: undefined });
  });
});

describe.each(Object.keys(METHODS))("a client with %s", (name) => {
  it("cuts long batches into chunks of at most 16,383 bytes and short ones of at most 4,096", () => {
    for (const [length, most] of [
      [16_384, 4_096],
      [100_000, 16_383],
    ]) {
      const { client, key, salt } = makeClient(name);
      const direction = new ReferenceDirection(METHODS[name], key, salt);
      client.encode(asciiBytes("x"));
      // In either edition, the key was used twice before it.
      for (let i = 0; i < 2; i++) direction.seal(EMPTY);
      const chunks = direction.openChunks(client.encode(bytesOf(length)));
      expect(Math.max(...chunks.map((chunk) => chunk.length))).toBe(most);
      expect(concat(...chunks)).toEqual(bytesOf(length));
    }
  });

  it("reads hundreds of chunks, up to the longest, however they are cut", () => {
    const { client, key, salt } = makeClient(name);
    const payloads = Array.from({ length: 400 }, (_, i) => bytesOf(i % 5));
    payloads[7] = bytesOf(METHODS[name].is2022 ? 65_535 : 16_383);
    const bytes = answer(name, key, salt, payloads);
    const decoded = decodeAll(client, cut(bytes, [1, 4_000, 37, 2_048]));
    expect(decoded.error).toBe(undefined);
    expect(Buffer.compare(decoded.bytes, concat(...payloads))).toBe(0);
    expect(client.mayEnd).toBe(true);
  });

  it("gives the same result for an answer and for mutants of it, however they are cut", () => {
    const { key, salt } = makeClient(name);
    const bytes = answer(name, key, salt, [asciiBytes("hello"), bytesOf(90), EMPTY, bytesOf(3)]);
    const random = seededRandom(63);
    fc.assert(
      fc.property(fc.boolean(), cutLengths, (isMutant, lengths) => {
        const stream = isMutant ? mutate(random, bytes) : bytes;
        const [whole, pieces] = [makeClient(name).client, makeClient(name).client];
        expect(decodeAll(pieces, cut(stream, lengths))).toEqual(decodeAll(whole, [stream]));
        expect(pieces.mayEnd).toBe(whole.mayEnd);
        if (!isMutant) expect(whole.mayEnd).toBe(true);
      }),
      { seed: 64, numRuns: 300 },
    );
  });

  it("delivers only what the server has sent, whatever is changed, and fails permanently", () => {
    const { key, salt } = makeClient(name);
    const sent = concat(asciiBytes("hello"), bytesOf(90));
    const bytes = answer(name, key, salt, [sent.subarray(0, 5), sent.subarray(5)]);
    for (let at = 0; at < bytes.length; at++) {
      const { client } = makeClient(name);
      const changed = bytes.slice();
      changed[at] ^= 1 << (at & 7);
      const { bytes: delivered, error } = decodeAll(client, [changed]);
      // A changed length of a chunk fails as well, since it is authenticated.
      expect(error).toBe("ERR_SHADOWSOCKS_TAG");
      expect(delivered).toEqual(sent.subarray(0, delivered.length));
      expect(decodeAll(client, [bytes])).toEqual({ bytes: EMPTY, error });
    }
  });

  it("knows where a stream may end: nowhere within a chunk", () => {
    const { key, salt } = makeClient(name);
    const payloads = [asciiBytes("hello"), bytesOf(20)];
    const whole = answer(name, key, salt, payloads);
    const first = answer(name, key, salt, payloads.slice(0, 1));
    for (let length = 0; length <= whole.length; length++) {
      const { client } = makeClient(name);
      decodeAll(client, [whole.subarray(0, length)]);
      // Without data, a server of SIP004 may send only its salt.
      const isSaltAlone = length === METHODS[name].keyBytes && !METHODS[name].is2022;
      const mayEnd = isSaltAlone || [0, first.length, whole.length].includes(length);
      expect([length, client.mayEnd]).toEqual([length, mayEnd]);
    }
  });

  it("refuses random bytes", () => {
    const random = seededRandom(65);
    for (let i = 0; i < 200; i++) {
      const { client } = makeClient(name);
      const noise = randomBytes(random, 200);
      expect(decodeAll(client, cut(noise, [1 + (i % 50)]))).toEqual({
        bytes: EMPTY,
        error: "ERR_SHADOWSOCKS_TAG",
      });
    }
  });
});

describe("Nonce", () => {
  it("counts with the least significant byte first, past 65,536", () => {
    const nonce = new Nonce();
    for (let i = 0; i < 65_536 + 258; i++) nonce.advance();
    expect(nonce.bytes).toEqual(Uint8Array.of(2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  });
});

describe("an answer with a chunk of 16,384 bytes", () => {
  it("is refused by SIP004, and accepted by the 2022 edition", () => {
    for (const name of ["aes-128-gcm", "2022-blake3-aes-128-gcm"]) {
      const { client, key, salt } = makeClient(name);
      const bytes = answer(name, key, salt, [asciiBytes("x"), bytesOf(16_384)]);
      const { error } = decodeAll(client, [bytes]);
      expect(error).toBe(METHODS[name].is2022 ? undefined : "ERR_SHADOWSOCKS_MALFORMED");
    }
  });
});
