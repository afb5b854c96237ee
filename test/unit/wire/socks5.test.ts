import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import type { Decoded } from "../../../src/wire/socks5.ts";
import {
  decodeGreeting,
  decodeMessage,
  decodeMethod,
  decodeUserPassword,
  decodeUserPasswordStatus,
  encodeGreeting,
  encodeMessage,
  encodeUserPassword,
  UDP_HEADER_FRAGMENT,
  UDP_HEADER_MALFORMED,
  UdpHeader,
  writeUdpHeader,
} from "../../../src/wire/socks5.ts";

const bytes = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength });
const port = fc.nat(65_535);
const address = fc
  .oneof(
    fc.tuple(fc.ipV4(), port),
    fc.tuple(fc.ipV6(), port),
    fc.tuple(fc.string({ unit: fc.constantFrom(..."a-.9"), minLength: 1, maxLength: 254 }), port),
  )
  .map(
    ([host, number]) => makeAddress(host.includes(":") || /^\d+\./.test(host) ? host : `x${host}`, number)!,
  )
  .filter((made) => made !== undefined);

/**
 * Checks a decoder for every prefix of a message: it never asks for more than is missing, and finally returns the value without the bytes
 * that follow.
 */
function expectWhole<Value>(
  decode: (bytes: Uint8Array, end: number) => Decoded<Value>,
  message: Uint8Array,
  value: Value,
): void {
  const followed = Uint8Array.of(...message, 5, 1, 0);
  for (let end = 0; end < message.length; end++) {
    const result = decode(followed, end);
    if (result === "malformed" || !("need" in result)) throw new Error(`${end} bytes are ${String(result)}`);
    if (result.need < 1 || result.need > message.length - end) throw new Error(`needs ${result.need}`);
  }
  expect(decode(followed, followed.length)).toEqual({ value, length: message.length });
}

describe("a SOCKS5 decoder returns what was encoded and waits for the end of", () => {
  const runs = { seed: 41, numRuns: 200 };

  it("greetings", () => {
    fc.assert(
      fc.property(bytes(1, 255), (methods) => {
        expectWhole(decodeGreeting, encodeGreeting([...methods]), [...methods]);
      }),
      runs,
    );
  });

  it("methods and statuses", () => {
    fc.assert(
      fc.property(fc.nat(255), (code) => {
        expectWhole(decodeMethod, Uint8Array.of(5, code), code);
        expectWhole(decodeUserPasswordStatus, Uint8Array.of(1, code), code);
      }),
      runs,
    );
  });

  it("users and passwords", () => {
    fc.assert(
      fc.property(bytes(0, 255), bytes(0, 255), (user, password) => {
        expectWhole(decodeUserPassword, encodeUserPassword(user, password), { user, password });
      }),
      runs,
    );
  });

  it("requests and replies with every kind of address", () => {
    fc.assert(
      fc.property(fc.nat(255), address, (code, where) => {
        expectWhole(decodeMessage, encodeMessage(code, where), { code, address: where });
      }),
      runs,
    );
  });
});

describe("a SOCKS5 decoder refuses", () => {
  it.each([
    ["a greeting of version 4", decodeGreeting, [4]],
    ["a greeting without methods", decodeGreeting, [5, 0]],
    ["a method of another version", decodeMethod, [4]],
    ["a user under another version than 1", decodeUserPassword, [5]],
    ["a message of another version", decodeMessage, [4]],
    ["a message with address type 0", decodeMessage, [5, 1, 0, 0]],
    ["a message with address type 2", decodeMessage, [5, 1, 0, 2]],
    ["a message with an empty name", decodeMessage, [5, 1, 0, 3, 0]],
  ] as const)("%s, as soon as it is recognisable", (_, decode, start) => {
    const message = Uint8Array.from(start);
    expect(decode(message, message.length)).toBe("malformed");
    expect(decode(message, message.length - 1)).toHaveProperty("need");
  });
});

describe("a UDP header", () => {
  const header = new UdpHeader();

  it("contains the address that was written, anywhere in a buffer, and ends where the payload begins", () => {
    fc.assert(
      fc.property(fc.nat(20), address, bytes(0, 20), (offset, where, payload) => {
        const buffer = new Uint8Array(offset + 3 + where.length + payload.length);
        const headerEnd = writeUdpHeader(buffer, offset, where);
        buffer.set(payload, headerEnd);
        const length = header.read(buffer, offset, buffer.length);
        expect(offset + length).toBe(headerEnd);
        const { addresses, addressOffset: at, addressLength } = header;
        expect(addresses.slice(at, at + addressLength)).toEqual(where);
      }),
      { seed: 42, numRuns: 500 },
    );
  });

  it("is malformed if truncated anywhere", () => {
    for (const host of ["192.0.2.1", "2001:db8::1", "a.test"]) {
      const datagram = new Uint8Array(40);
      const end = writeUdpHeader(datagram, 0, makeAddress(host, 53)!);
      for (let at = 0; at < end; at++) expect(header.read(datagram, 0, at)).toBe(UDP_HEADER_MALFORMED);
      expect(header.read(datagram, 0, end)).toBe(end);
    }
  });

  it("is malformed with an unknown address type, and reported as a fragment when FRAG is set", () => {
    expect(header.read(Uint8Array.of(0, 0, 0, 2, 0, 0, 0, 0, 0, 0), 0, 10)).toBe(UDP_HEADER_MALFORMED);
    expect(header.read(Uint8Array.of(0, 0, 1, 1, 0, 0, 0, 0, 0, 0), 0, 10)).toBe(UDP_HEADER_FRAGMENT);
    expect(header.read(Uint8Array.of(0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0), 0, 10)).toBe(UDP_HEADER_FRAGMENT);
  });
});
