import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ConnectHandshake } from "../../../../src/core/handshakes/connect-handshake.ts";
import { HttpConnect } from "../../../../src/core/handshakes/http-connect.ts";
import { Socks5Client } from "../../../../src/core/handshakes/socks5-client.ts";
import { encodeBase64 } from "../../../../src/wire/base64.ts";
import { asciiBytes, MAX_HEAD_BYTES, utf8Bytes } from "../../../../src/wire/http/http-head.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { encodeGreeting, encodeMessage, encodeUserPassword } from "../../../../src/wire/socks5.ts";
import { concat, cut, cutLengths } from "../../cuts.ts";
import { mutate, seededRandom } from "../../random.ts";

const CREDENTIALS = { user: "alice", password: "pässword" };
const target = makeAddress("a.test", 443)!;
const bound = makeAddress("192.0.2.1", 5)!;

interface Outcome {
  /** The bytes that the handshake wrote. */
  readonly written: Uint8Array;
  /** `need`, `connected` or the code of the failure. */
  readonly end: string;
  /** The bytes for the target, none of which may be lost. */
  readonly behind: Uint8Array;
}

/** Passes pieces in as a host does: empty ones after each write, none after the end. */
function shake(handshake: ConnectHandshake, pieces: readonly Uint8Array[]): Outcome {
  const written = [handshake.start()];
  for (const [index, piece] of pieces.entries()) {
    let result = handshake.handleStream(piece);
    while (result instanceof Uint8Array) {
      written.push(result);
      result = handshake.handleStream(new Uint8Array(0));
    }
    if (result === "need") continue;
    if (result.kind === "failed") {
      return { written: concat(...written), end: result.error.code, behind: new Uint8Array(0) };
    }
    const behind = concat(result.surplus, ...pieces.slice(index + 1));
    return { written: concat(...written), end: "connected", behind };
  }
  return { written: concat(...written), end: "need", behind: new Uint8Array(0) };
}

/** Good answers of a proxy, and mutants of them, must give the same result however they are cut. */
function expectSameHoweverCut(
  make: () => ConnectHandshake,
  answers: readonly Uint8Array[],
  seed: number,
): void {
  const random = seededRandom(seed);
  fc.assert(
    fc.property(fc.constantFrom(...answers), fc.boolean(), cutLengths, (answer, isMutant, lengths) => {
      const stream = isMutant ? mutate(random, answer) : answer;
      expect(shake(make(), cut(stream, lengths))).toEqual(shake(make(), [stream]));
    }),
    { seed, numRuns: 2_000 },
  );
}

describe("Socks5Client", () => {
  const open = () => new Socks5Client(target, undefined);
  const withPassword = () => new Socks5Client(target, CREDENTIALS);
  const granted = concat(encodeMessage(0, bound), asciiBytes("hello"));

  it("connects without a password, and hands over the bytes after the reply", () => {
    expect(shake(open(), [concat(Uint8Array.of(5, 0), granted)])).toEqual({
      written: concat(encodeGreeting([0]), encodeMessage(1, target)),
      end: "connected",
      behind: asciiBytes("hello"),
    });
  });

  it("sends its password only when asked for it", () => {
    const password = encodeUserPassword(utf8Bytes(CREDENTIALS.user), utf8Bytes(CREDENTIALS.password));
    expect(shake(withPassword(), [Uint8Array.of(5, 2), Uint8Array.of(1, 0), granted])).toEqual({
      written: concat(encodeGreeting([0, 2]), password, encodeMessage(1, target)),
      end: "connected",
      behind: asciiBytes("hello"),
    });
    expect(shake(withPassword(), [Uint8Array.of(5, 0), granted])).toEqual({
      written: concat(encodeGreeting([0, 2]), encodeMessage(1, target)),
      end: "connected",
      behind: asciiBytes("hello"),
    });
  });

  it.each([
    ["HTTP", [...asciiBytes("HTTP/1.1 400")], "ERR_SOCKS_VERSION"],
    ["SOCKS4", [0, 90], "ERR_SOCKS_VERSION"],
    ["no method that it offered", [5, 255], "ERR_SOCKS_METHOD"],
    ["GSSAPI", [5, 1], "ERR_SOCKS_METHOD"],
    ["a wrong password", [5, 2, 1, 1], "ERR_SOCKS_AUTH"],
    ["connection refused", [5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0], "ERR_SOCKS_REPLY"],
    ["an unknown reply", [5, 0, 5, 99, 0, 1, 0, 0, 0, 0, 0, 0], "ERR_SOCKS_REPLY"],
    ["a reply of version 4", [5, 0, 4], "ERR_SOCKS_MALFORMED"],
    ["a reply with an unknown address type", [5, 0, 5, 0, 0, 9], "ERR_SOCKS_MALFORMED"],
    ["a reply with an empty name", [5, 0, 5, 0, 0, 3, 0], "ERR_SOCKS_MALFORMED"],
  ])("fails at %s", (_, answer, code) => {
    expect(shake(withPassword(), [Uint8Array.from(answer)]).end).toBe(code);
  });

  it("fails if it is asked for a password and has none", () => {
    expect(shake(open(), [Uint8Array.of(5, 2)]).end).toBe("ERR_SOCKS_METHOD");
  });

  it("gives the same result however the proxy's bytes are cut", () => {
    const replies = ["192.0.2.1", "2001:db8::1", "b.test"].map((host) =>
      concat(encodeMessage(0, makeAddress(host, 5)!), asciiBytes("hello")),
    );
    const answers = [...replies, encodeMessage(5, bound)].flatMap((reply) => [
      concat(Uint8Array.of(5, 0), reply),
      concat(Uint8Array.of(5, 2, 1, 0), reply),
      concat(Uint8Array.of(5, 2, 1, 1), reply),
    ]);
    expectSameHoweverCut(withPassword, answers, 61);
  });
});

describe("HttpConnect", () => {
  const open = () => new HttpConnect("[2001:db8::1]:443", undefined);
  const answer = (text: string) => asciiBytes(text.replaceAll("\n", "\r\n"));

  it("requests the authority, with credentials in UTF-8 if it has any", () => {
    expect(open().start()).toEqual(answer("CONNECT [2001:db8::1]:443 HTTP/1.1\nHost: [2001:db8::1]:443\n\n"));
    const pair = encodeBase64(utf8Bytes("alice:pässword"));
    expect(new HttpConnect("a:1", CREDENTIALS).start()).toEqual(
      answer(`CONNECT a:1 HTTP/1.1\nHost: a:1\nProxy-Authorization: Basic ${pair}\n\n`),
    );
  });

  it("adds the given fields, in UTF-8", () => {
    const fields = [
      ["User-Agent", "a"],
      ["X", "ä"],
    ] as const;
    expect(new HttpConnect("a:1", undefined, fields).start()).toEqual(
      utf8Bytes("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nUser-Agent: a\r\nX: ä\r\n\r\n"),
    );
  });

  it.each([
    "HTTP/1.1 200 OK\nVia: x\n\n",
    "HTTP/1.0 200 Connection established\n\n",
    "HTTP/1.1 204\n\n",
    "HTTP/1.1 200 \xd6K\nX: \xe9\n\n",
    "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\nHTTP/1.1 200 OK\n\n",
  ])("connects after %j, and hands over the bytes after it", (head) => {
    expect(shake(open(), [concat(answer(head), asciiBytes("\r\n\r\nhello"))])).toMatchObject({
      end: "connected",
      behind: asciiBytes("\r\n\r\nhello"),
    });
  });

  it("accepts lines that end with only LF", () => {
    const head = "\nHTTP/1.0 200 OK\nVia: x\n\n";
    expect(shake(open(), [asciiBytes(`${head}\n\nhello`)])).toMatchObject({
      end: "connected",
      behind: asciiBytes("\n\nhello"),
    });
  });

  it("skips 16 interim responses, and fails at one more", () => {
    const interim = (count: number) => answer(`${"HTTP/1.1 103 x\n\n".repeat(count)}HTTP/1.1 200 OK\n\n`);
    expect(shake(open(), [interim(16)]).end).toBe("connected");
    expect(shake(open(), [interim(17)]).end).toBe("ERR_HEAD_TOO_LARGE");
  });

  it.each([
    [undefined, "", "status 407: the proxy wants credentials: use http://USER:PASSWORD@HOST:PORT"],
    [
      undefined,
      'Negotiate\nProxy-Authenticate: Basic realm="a"',
      "status 407: the proxy wants credentials (Negotiate, Basic): use http://USER:PASSWORD@HOST:PORT",
    ],
    [CREDENTIALS, 'Basic realm="a"', "status 407: the proxy refused the user and password (Basic)"],
    [
      CREDENTIALS,
      "NTLM",
      "status 407: the proxy does not accept Basic credentials (NTLM): use http://HOST:PORT?header=Proxy-Authorization:%20...",
    ],
  ])("reports a 407 for credentials %j with schemes %j, and what to use", (credentials, challenge, text) => {
    const handshake = new HttpConnect("a:1", credentials);
    handshake.start();
    const head = `HTTP/1.1 407 x\nProxy-Authenticate: ${challenge}\n\n`;
    const result = handshake.handleStream(answer(head));
    expect(result).toMatchObject({ kind: "failed", error: { message: expect.stringContaining(text) } });
  });

  it.each([
    ["HTTP/1.1 407 Proxy Authentication Required\n\n", "ERR_PROXY_REFUSED"],
    ["HTTP/1.1 302 Found\nLocation: /\n\n", "ERR_PROXY_REFUSED"],
    ["HTTP/1.1 101 Switching Protocols\n\n", "ERR_PROXY_REFUSED"],
    ["HTTP/1.1 100 Continue\n\nHTTP/1.1 403 No\n\n", "ERR_PROXY_REFUSED"],
    ["HTTP/1.1 100 Continue\n\n", "need"],
    ["HTTP/2 200\n\n", "ERR_HEAD_MALFORMED"],
    ["ICY 200 OK\n\n", "ERR_HEAD_MALFORMED"],
    ["HTTP/1.1 20\n\n", "ERR_HEAD_MALFORMED"],
    ["HTTP/1.1 200 OK\nno field\n\n", "ERR_HEAD_MALFORMED"],
    ["HTTP/1.1 200 OK\n", "need"],
  ])("answers %j with %s", (head, end) => {
    expect(shake(open(), [answer(head)]).end).toBe(end);
  });

  it("accepts a head of 8 KiB, and fails on a longer one before its end, also in pieces", () => {
    const start = "HTTP/1.1 200 OK\r\nX: ";
    const head = (length: number) => `${start}${"x".repeat(length - start.length - 4)}\r\n\r\n`;
    for (const lengths of [[], [1000]]) {
      const fits = cut(asciiBytes(head(MAX_HEAD_BYTES)), lengths);
      expect(shake(open(), fits).end).toBe("connected");
      const endless = cut(asciiBytes(head(MAX_HEAD_BYTES + 1).slice(0, MAX_HEAD_BYTES)), lengths);
      expect(shake(open(), endless).end).toBe("ERR_HEAD_TOO_LARGE");
    }
  });

  it("gives the same result however the proxy's bytes are cut", () => {
    const answers = [
      "HTTP/1.1 200 OK\nVia: a\n\nhello",
      "HTTP/1.0 200\n\n\n\nhello",
      "HTTP/1.1 403 No\nContent-Length: 2\n\nno",
      "\n\nHTTP/1.1 100 Continue\n\nHTTP/1.1 103 x\nA: b\n c\n\nHTTP/1.1 200 OK\n\nhello",
      "\n\n",
    ].map(answer);
    expectSameHoweverCut(open, answers, 62);
  });
});
