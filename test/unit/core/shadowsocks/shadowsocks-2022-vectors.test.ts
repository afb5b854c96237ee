import { describe, expect, it } from "vitest";
import { ShadowsocksClient2022 } from "../../../../src/core/shadowsocks/client-2022.ts";
import { METHODS } from "../../../../src/core/shadowsocks/method.ts";
import { ShadowsocksServer2022 } from "../../../../src/core/shadowsocks/server-2022.ts";
import type { StreamCoding } from "../../../../src/core/stream-coding.ts";
import { shadowsocksCryptography } from "../../../../src/node/shadowsocks-cryptography.ts";
import { asciiBytes } from "../../../../src/wire/http/http-head.ts";
import { formatAddress, makeAddress } from "../../../../src/wire/socket-address.ts";
import { bytesOf, vectors } from "../../vectors.ts";

/** The key of a method, and the salt of the client whose request was answered. */
const pattern = (length: number) => Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8));

function decode(coding: StreamCoding, bytes: Uint8Array): string {
  let text = "";
  const error = coding.decode(bytes, 0, bytes.length, (piece, offset, end) => {
    text += Buffer.from(piece.subarray(offset, end)).toString("latin1");
  });
  expect(error).toBe(undefined);
  return text;
}

/**
 * Captured bytes of another implementation (SagerNet/sing-shadowsocks of 2023): a client that requests target.test:443, and a server's
 * answer to our client.
 */
describe("the 2022 edition, with another implementation:", () => {
  it.each(vectors("shadowsocks-2022.json"))("$name", ({ name, hex, unixSeconds, answer, answeredAt }) => {
    const method = METHODS[name];
    const key = pattern(method.keyBytes);
    const at = (seconds: unknown) => ({
      ...shadowsocksCryptography,
      random: pattern,
      unixSeconds: () => Number(seconds),
    });

    const server = new ShadowsocksServer2022(at(unixSeconds), method, key, () => true);
    expect(decode(server, bytesOf(hex))).toBe(`hello${"x".repeat(100)}`);
    expect(formatAddress(server.target!)).toBe("target.test:443");

    const client = new ShadowsocksClient2022(at(answeredAt), method, key, makeAddress("127.0.0.1", 1)!);
    client.encode(asciiBytes("hello"));
    expect(decode(client, bytesOf(answer))).toBe("you said hellobye");
  });

  it("a session's subkey is that of a test of Zmax0/urban-spork", () => {
    const key = Buffer.from("Lc3tTx0BY6ZJ/fCwOx3JvF0I/anhwJBO5p2+FA5Vce4=", "base64");
    const salt = Buffer.from("3oFO0VyLyGI4nFN0M9P+62vPND/L6v8IingaPJWTbJA=", "base64");
    const material = new Uint8Array(Buffer.concat([key, salt]));
    const subkey = shadowsocksCryptography.blake3DeriveKey("shadowsocks 2022 session subkey", material, 32);
    expect(Buffer.from(subkey).toString("base64")).toBe("EdNE+4U8dVnHT0+poAFDK2bdlwfrHT61sUNr9WYPh+E=");
  });
});
