import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  answerOfHttp1,
  encodeRequestOfHttp2,
  extendedConnectFields,
  isHttp2Preface,
} from "../../../src/wire/http/extended-connect.ts";
import type { HttpHead } from "../../../src/wire/http/http-head.ts";
import { asciiBytes, decodeHead } from "../../../src/wire/http/http-head.ts";
import {
  decodeUpgradeRequest,
  encodeRefusal,
  encodeUpgradeResponse,
} from "../../../src/wire/http/upgrade.ts";

const PATH = "/.well-known/masque/udp/192.0.2.1/53/";

function headOf(bytes: Uint8Array | undefined): HttpHead {
  const head = bytes && decodeHead(bytes, bytes.length);
  if (head === undefined) throw new Error("no head");
  return head;
}

describe("extended CONNECT in terms of HTTP/1.1", () => {
  it.each([true, false])("our request is an upgrade to connect-udp for the same target (bind %s)", (bind) => {
    const head = headOf(encodeRequestOfHttp2(extendedConnectFields("https", "proxy.example", PATH, bind)));
    expect(decodeUpgradeRequest(head)).toEqual({
      target: { host: "192.0.2.1", port: 53 },
      bind,
      extension: undefined,
    });
  });

  it.each([
    ["another method with a protocol", { ":method": "GET", ":protocol": "connect-udp", ":path": PATH }],
    ["a line break in the path", { ":method": "CONNECT", ":protocol": "connect-udp", ":path": "/\r\nA: b" }],
    ["a blank in the authority", { ":method": "GET", ":path": "/", ":authority": "a b" }],
    [
      "a line break in a field",
      { ":method": "GET", ":path": "/", ":authority": "a", "connect-udp-bind": "?1\r\nA: b" },
    ],
    ["no method", { ":path": "/" }],
  ])("%s is refused", (_, fields) => {
    expect(encodeRequestOfHttp2(fields)).toBeUndefined();
  });

  it.each([
    ["content", { "content-length": "0" }],
    ["another protocol", { ":protocol": "websocket" }],
  ])("%s is malformed, as over HTTP/1.1", (_, fields) => {
    const request = { ...extendedConnectFields("https", "a", PATH, false), ...fields };
    expect(decodeUpgradeRequest(headOf(encodeRequestOfHttp2(request)))).toBe("malformed");
  });

  it("a 101 becomes 200, without the fields of the connection", () => {
    const head = headOf(encodeUpgradeResponse(true, ["192.0.2.1:5", "[2001:db8::1]:6"], undefined));
    expect(answerOfHttp1(head)).toEqual({
      status: 200,
      fields: {
        "capsule-protocol": "?1",
        "connect-udp-bind": "?1",
        "proxy-public-address": '"192.0.2.1:5", "[2001:db8::1]:6"',
      },
    });
  });

  it("a refusal keeps its status and its Proxy-Status", () => {
    const refusal = encodeRefusal(403, "destination_ip_prohibited");
    const text = String.fromCharCode(...refusal);
    const head = headOf(refusal.subarray(0, text.indexOf("\r\n\r\n") + 4));
    expect(answerOfHttp1(head)).toMatchObject({
      status: 403,
      fields: { "proxy-status": "udp; error=destination_ip_prohibited" },
    });
    expect(answerOfHttp1(head)?.fields).not.toHaveProperty("connection");
  });

  it("knows the preface, and nothing that resembles it", () => {
    const is = (text: string) => isHttp2Preface(headOf(asciiBytes(text)));
    expect(is("PRI * HTTP/2.0\r\n\r\n")).toBe(true);
    expect(is("PRI * HTTP/2.0\r\nHost: a\r\n\r\n")).toBe(false);
    expect(is("GET / HTTP/1.1\r\n\r\n")).toBe(false);
  });

  it("any fields give one head, without fields that were not there", () => {
    const name = fc.constantFrom(
      ":method",
      ":path",
      ":authority",
      ":protocol",
      "host",
      "underpass",
      "content-type",
    );
    const value = fc.oneof(
      fc.string(),
      fc.constantFrom("GET", "CONNECT", "connect-udp", PATH, "a\r\nb: c", "\0"),
    );
    fc.assert(
      fc.property(fc.dictionary(name, value), (fields) => {
        const bytes = encodeRequestOfHttp2(fields);
        if (bytes === undefined) return;
        const head = headOf(bytes);
        const added = ["host", "connection", "upgrade"];
        for (const field of head.fields.keys()) expect([...added, ...Object.keys(fields)]).toContain(field);
      }),
    );
  });
});
