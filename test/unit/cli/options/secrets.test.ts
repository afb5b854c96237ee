import { chmodSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isExposed, readCredentialsFile, readSecretFile } from "../../../../src/cli/secret-file.ts";
import { parseCarrierChain } from "../../../../src/host/carriers/carrier-chain.ts";
import { complaint, file, KEY, resolveLocal, resolveServer } from "./resolving.ts";

describe("secrets", () => {
  it("a key needs 16 bytes, not 15 and not a string, and is never shown", () => {
    expect(resolveServer({ psk: KEY })).toMatchObject({ psk: KEY });
    expect(complaint(() => resolveServer({ psk: KEY.subarray(1) }))).toBe(
      "psk: expected a key of at least 16 bytes",
    );
    expect(complaint(() => resolveLocal({ psk: "0123456789abcdef" }))).toBe(
      "psk: expected a key of at least 16 bytes",
    );
  });

  it("errors show neither the name nor the password of SOCKS5", () => {
    for (const socksAuth of [
      { user: "alice", password: "" },
      { user: "alice", password: "x".repeat(256) },
      "alice:x",
    ]) {
      const message = complaint(() => resolveLocal({ socksAuth }));
      expect(message).toMatch(/^socksAuth(\.password)?: expected USER:PASSWORD, each 1 to 255 bytes$/);
    }
  });

  it("errors show no password of a URL, whatever it contains and whatever else is wrong", () => {
    const secretPart = fc.string({ unit: fc.constantFrom(..."@/?#:%[] \n="), maxLength: 6 });
    const scheme = fc.constantFrom("socks5", "http", "tls", "ftp");
    fc.assert(
      fc.property(scheme, secretPart, secretPart, fc.constantFrom("h", "h:x", "h:1/"), (name, a, b, host) => {
        const url = `${name}://user:${a}hunter2${b}@${host}`;
        for (const input of [
          { via: [url] },
          { ways: [url] },
          { ways: [`${url} a.test:1`] },
          { ways: [`socks5://a.test:1 ${url}`] },
          { tcpVia: url },
          { tcpVia: `${url} socks5://a.test:1` },
          { server: url },
          { listen: url },
        ]) {
          try {
            for (const way of resolveLocal(input).ways) parseCarrierChain(way);
          } catch (error) {
            expect((error as Error).message).not.toContain("hunter2");
          }
        }
      }),
      { seed: 7, numRuns: 2_000 },
    );
  });

  it.each([
    ["0123456789abcdef", "0123456789abcdef"],
    ["0123456789abcdef\n", "0123456789abcdef"],
    ["0123456789abcdef\r\n", "0123456789abcdef"],
    ["0123456789abcdef \t\r\n\r\n \n", "0123456789abcdef"],
    ["\ufeff0123456789abcdef\r\n", "0123456789abcdef"],
    [" 01234 6789\nabcde\n", " 01234 6789\nabcde"],
    [" \r\n", ""],
  ])("a key file with %j gives the key %j", (text, key) => {
    expect(Buffer.from(readSecretFile(file("key", text))).toString()).toBe(key);
  });

  it.each([
    Buffer.from("\ufeff0123456789abcdef", "utf16le"),
    Buffer.from("\ufeff0123456789abcdef", "utf16le").swap16(),
  ])("a key file in UTF-16 is refused", (bytes) => {
    const path = file("key", bytes);
    expect(complaint(() => readSecretFile(path))).toBe(`${path}: is UTF-16: save it as UTF-8`);
  });

  it("a binary key may begin like UTF-16", () => {
    const key = Buffer.from([0xff, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    expect(readSecretFile(file("key", key))).toEqual(key);
  });

  it("a file with USER:PASSWORD loses its byte-order mark and the newlines after the password", () => {
    expect(readCredentialsFile(file("auth", "\ufeffalice:pass:word \r\n\r\n"))).toEqual({
      user: "alice",
      password: "pass:word",
    });
  });

  it("a file is exposed if anyone but its owner can read it", () => {
    const path = file("key", "0123456789abcdef");
    const exposed = [0o600, 0o400, 0o640, 0o604].map((mode) => {
      chmodSync(path, mode);
      return isExposed(path);
    });
    expect(exposed).toEqual([false, false, true, true]);
  });
});
