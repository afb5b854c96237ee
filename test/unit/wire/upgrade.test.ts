import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asciiBytes, decodeHead, findHeadEnd } from "../../../src/wire/http/http-head.ts";
import {
  BIND_PATH,
  decodeUpgradeRequest,
  decodeUpgradeResponse,
  encodeChallengeResponse,
  encodeKeyRefusal,
  encodeRefusal,
  encodeUpgradeRequest,
  encodeUpgradeResponse,
  TEMPLATE_PREFIX,
} from "../../../src/wire/http/upgrade.ts";

const runs = { seed: 71, numRuns: 500 };
const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const maybe = (length: number) => fc.option(exactly(length), { nil: undefined });
const maybeTime = fc.option(fc.nat(2 ** 40), { nil: undefined });

/** Reads a head that stands alone, or before the body of a refusal. */
function headOf(bytes: Uint8Array) {
  return decodeHead(bytes, findHeadEnd(bytes, 0, bytes.length))!;
}

const requestOf = (text: string) => decodeUpgradeRequest(headOf(asciiBytes(text)));
const responseOf = (text: string) => decodeUpgradeResponse(headOf(asciiBytes(text)));

describe("an upgrade request", () => {
  const extension = fc.record({
    nonce: exactly(16),
    lane: fc.nat(255),
    ticket: fc.option(
      fc.record({
        bytes: fc.uint8Array({ minLength: 16, maxLength: 64 }),
        age: fc.nat(999_999_999_999_999),
      }),
      { nil: undefined },
    ),
    session: maybe(16),
    receipts: fc.boolean(),
    mac: maybe(32),
    resumeMac: maybe(32),
    keyId: maybe(8),
  });

  it("decodes to what was encoded", () => {
    const target = fc.constantFrom(
      [BIND_PATH, undefined],
      [`${TEMPLATE_PREFIX}192.0.2.1/53/`, { host: "192.0.2.1", port: 53 }],
      [`${TEMPLATE_PREFIX}2001%3Adb8%3A%3A1/65535/`, { host: "2001:db8::1", port: 65_535 }],
      [`${TEMPLATE_PREFIX}a.test/1/`, { host: "a.test", port: 1 }],
    );
    fc.assert(
      fc.property(
        target,
        fc.boolean(),
        fc.option(extension, { nil: undefined }),
        ([path, where], isBound, ours) => {
          const bind = isBound || where === undefined;
          const bytes = encodeUpgradeRequest("a.test:1", path as string, bind, ours);
          expect(decodeUpgradeRequest(headOf(bytes))).toEqual({ target: where, bind, extension: ours });
        },
      ),
      runs,
    );
  });

  const FIELDS = { Host: "a", Connection: "Upgrade", Upgrade: "connect-udp" };
  const OURS = `v=1, n=:${"A".repeat(22)}==:, l=0`;
  const write = (startLine: string, fields: object) =>
    `${startLine}\r\n${Object.entries(fields)
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join("")}\r\n`;
  const START = `GET ${TEMPLATE_PREFIX}192.0.2.1/53/ HTTP/1.1`;

  it.each([
    ["as it stands", START, FIELDS],
    ["in absolute form", START.replace("/.", "https://a.test:1/."), FIELDS],
    [
      "with names and tokens in any case",
      START,
      { hOST: "a", CONNECTION: "x, UPGRADE", upgrade: "Connect-UDP" },
    ],
    ["with unknown fields", START, { ...FIELDS, Cookie: "x", "User-Agent": "y" }],
    ["with unknown members of our field", START, { ...FIELDS, Underpass: `${OURS}, x=1` }],
    ["with the prefix of a proxy before its path", START.replace("/.", "/tunnel/a/."), FIELDS],
    ["with parameters behind the boolean", START, { ...FIELDS, "Connect-UDP-Bind": "?1;a=b" }],
  ])("is accepted %s", (_, startLine, fields) => {
    expect(requestOf(write(startLine, fields))).toMatchObject({ target: { host: "192.0.2.1", port: 53 } });
  });

  const path = (rest: string) => START.replace("192.0.2.1/53/", rest);
  it.each([
    ["with another method", START.replace("GET", "POST"), FIELDS],
    ["of HTTP/1.0", START.replace("1.1", "1.0"), FIELDS],
    ["without Host", START, { ...FIELDS, Host: undefined }],
    ["with Host twice", START, { ...FIELDS, host: "b" }],
    ["without Connection", START, { ...FIELDS, Connection: undefined }],
    ["with a Connection that names no upgrade", START, { ...FIELDS, Connection: "keep-alive" }],
    ["without Upgrade", START, { ...FIELDS, Upgrade: undefined }],
    ["to another protocol", START, { ...FIELDS, Upgrade: "websocket" }],
    ["with a length of content", START, { ...FIELDS, "Content-Length": "0" }],
    ["with content in chunks", START, { ...FIELDS, "Transfer-Encoding": "chunked" }],
    ["with a type of content", START, { ...FIELDS, "Content-Type": "text/plain" }],
    ["with port 0", path("192.0.2.1/0/"), FIELDS],
    ["with port 65536", path("192.0.2.1/65536/"), FIELDS],
    ["with port 99999", path("192.0.2.1/99999/"), FIELDS],
    ["with a port that is no number", path("192.0.2.1/5x/"), FIELDS],
    ["without a port", path("192.0.2.1//"), FIELDS],
    ["without a host", path("/53/"), FIELDS],
    ["with a half of a percent sign", path("a%2/53/"), FIELDS],
    ["with a blank in the host", path("a%20b/53/"), FIELDS],
    ["with a line break in the host", path("a%0d%0ab/53/"), FIELDS],
    ["with any target but no Connect-UDP-Bind", path("*/*/"), FIELDS],
    ["with any target and Connect-UDP-Bind: ?0", path("*/*/"), { ...FIELDS, "Connect-UDP-Bind": "?0" }],
    ["with any host and a port", path("*/53/"), { ...FIELDS, "Connect-UDP-Bind": "?1" }],
    ["with a host and any port", path("192.0.2.1/*/"), { ...FIELDS, "Connect-UDP-Bind": "?1" }],
    ["with an encoded asterisk as its host alone", path("%2A/53/"), { ...FIELDS, "Connect-UDP-Bind": "?1" }],
  ])("is malformed %s", (_, startLine, fields) => {
    const present = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
    expect(requestOf(write(startLine, present))).toBe("malformed");
  });

  it.each([
    ["with another path", "GET / HTTP/1.1", FIELDS],
    ["with a path without its last slash", path("192.0.2.1/53"), FIELDS],
    ["with a query", path("192.0.2.1/53/?a"), FIELDS],
    ["with a word behind its version", `${START} x`, FIELDS],
    ["with our field in another version", START, { ...FIELDS, Underpass: OURS.replace("v=1", "v=2") }],
    ["with our field without a version", START, { ...FIELDS, Underpass: OURS.replace("v=1, ", "") }],
    ["with a nonce of 15 bytes", START, { ...FIELDS, Underpass: OURS.replace("AA==", "A===") }],
    ["with a nonce of 18 bytes", START, { ...FIELDS, Underpass: OURS.replace("==", "AA") }],
    ["without a nonce", START, { ...FIELDS, Underpass: "v=1, l=0" }],
    ["without a lane", START, { ...FIELDS, Underpass: OURS.replace(", l=0", "") }],
    ["with a lane below 0", START, { ...FIELDS, Underpass: OURS.replace("l=0", "l=-5") }],
    ["with lane 256", START, { ...FIELDS, Underpass: OURS.replace("l=0", "l=256") }],
    ["with our field empty", START, { ...FIELDS, Underpass: "" }],
    ["with our field in no order", START, { ...FIELDS, Underpass: `${OURS},` }],
  ])("is unknown %s", (_, startLine, fields) => {
    expect(requestOf(write(startLine, fields))).toBeUndefined();
  });

  const TICKET = `c=:${"A".repeat(32)}:`;
  it.each([
    ["without an age", TICKET],
    ["with an age below 0", `${TICKET}, t=-5`],
    ["with an age of 16 digits", `${TICKET}, t=${"5".repeat(16)}`],
    ["of 15 bytes", `c=:${"A".repeat(20)}:, t=5`],
    ["of 66 bytes", `c=:${"A".repeat(88)}:, t=5`],
  ])("shows no ticket if it is one %s", (_, members) => {
    const request = requestOf(write(START, { ...FIELDS, Underpass: `${OURS}, ${members}` }));
    expect(request).toMatchObject({ extension: { lane: 0, ticket: undefined } });
  });
});

describe("an upgrade response", () => {
  const extension = fc.record({
    nonce: exactly(16),
    session: exactly(16),
    resumed: fc.boolean(),
    receipts: fc.boolean(),
    mac: maybe(32),
  });

  it("of 101 decodes to what was encoded", () => {
    const addresses = fc.constantFrom([], ["192.0.2.1:5"], ["192.0.2.1:5", "[2001:db8::1]:5"]);
    fc.assert(
      fc.property(
        fc.boolean(),
        addresses,
        fc.option(extension, { nil: undefined }),
        (bind, publicAddresses, ours) => {
          const head = headOf(encodeUpgradeResponse(bind, publicAddresses, ours));
          expect(decodeUpgradeResponse(head)).toEqual({
            status: 101,
            bind,
            extension: ours,
            challenge: undefined,
            keepsConnection: false,
          });
          const quoted = publicAddresses.map((address) => `"${address}"`).join(", ");
          expect(head.fields.get("proxy-public-address")).toEqual(quoted === "" ? undefined : [quoted]);
        },
      ),
      runs,
    );
  });

  it("401 decodes to its challenge, and keeps its connection", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 16, maxLength: 64 }),
        maybe(32),
        maybeTime,
        (ticket, mac, unixS) => {
          const head = headOf(encodeChallengeResponse({ ticket, unixS, mac }));
          expect(decodeUpgradeResponse(head)).toEqual({
            status: 401,
            bind: false,
            extension: undefined,
            challenge: { ticket, unixS, mac },
            keepsConnection: true,
          });
        },
      ),
      runs,
    );
  });

  it("403 for a client that has proved its key decodes to the cause, and any other 403 to none", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("expired" as const, "name" as const),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        (cause, mac) => {
          const head = headOf(encodeKeyRefusal({ cause, mac }));
          expect(decodeUpgradeResponse(head)).toMatchObject({ status: 403, refusal: { cause, mac } });
        },
      ),
      runs,
    );
    expect(decodeUpgradeResponse(headOf(encodeRefusal(403, undefined)))?.refusal).toBeUndefined();
  });

  it.each([
    ["Connection: close\r\nContent-Length: 0\r\n"],
    ["Content-Length: 5\r\n"],
    ["Transfer-Encoding: chunked\r\n"],
    [""],
  ])("401 that a proxy has changed to have %j keeps no connection", (fields) => {
    const ticket = `c=:${"A".repeat(32)}:`;
    const answer = responseOf(`HTTP/1.1 401 x\r\n${fields}Underpass: v=1, ${ticket}\r\n\r\n`);
    expect(answer).toMatchObject({ challenge: { ticket: new Uint8Array(24) }, keepsConnection: false });
  });

  it.each([400, 403, 404, 502, 503] as const)(
    "%d states the length of its body, and that the connection ends",
    (status) => {
      const bytes = encodeRefusal(status, "dns_error");
      const head = headOf(bytes);
      const bodyLength = bytes.length - findHeadEnd(bytes, 0, bytes.length);
      expect(head.fields.get("content-length")).toEqual([String(bodyLength)]);
      expect(head.fields.get("connection")).toEqual(["close"]);
      expect(head.fields.get("proxy-status")).toEqual(["udp; error=dns_error"]);
      expect(decodeUpgradeResponse(head)).toMatchObject({
        status,
        extension: undefined,
        challenge: undefined,
      });
    },
  );

  it.each(["HTTP/1.0 101 x", "HTTP/1.1 099 x", "HTTP/1.1 1011", "HTTP/1.1", "SSH-2.0-x"])(
    "%j is none",
    (startLine) => {
      expect(responseOf(`${startLine}\r\nUpgrade: connect-udp\r\n\r\n`)).toBeUndefined();
    },
  );

  it("of 101 for another protocol is not a success", () => {
    expect(responseOf("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n")).toBeUndefined();
    expect(responseOf("HTTP/1.1 101 x\r\n\r\n")).toBeUndefined();
  });

  const nonce = `:${"A".repeat(22)}==:`;
  it.each([
    ["without a session", `v=1, n=${nonce}`],
    ["with a short session", `v=1, n=${nonce}, s=:AAAA:`],
    ["without colons", `v=1, n=${nonce}, s=${"A".repeat(22)}==`],
    ["twice", `v=1, n=${nonce}, s=${nonce}\r\nUnderpass: v=1, n=${nonce}, s=${nonce}`],
  ])("of 101 with our field %s comes from a server without the extension", (_, field) => {
    const answer = responseOf(`HTTP/1.1 101 x\r\nUpgrade: connect-udp\r\nUnderpass: ${field}\r\n\r\n`);
    expect(answer).toMatchObject({ status: 101, bind: false, extension: undefined, challenge: undefined });
  });
});
