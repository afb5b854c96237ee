import { describe, expect, it } from "vitest";
import { explainRefusal } from "../../../../src/core/handshakes/refusal-hint.ts";
import { asciiBytes, decodeHead, findHeadEnd } from "../../../../src/wire/http/http-head.ts";
import { encodeRefusal } from "../../../../src/wire/http/upgrade.ts";

function hint(answer: string, { hasKey = true, isProven = false } = {}): string {
  const bytes = asciiBytes(answer);
  const head = decodeHead(bytes, findHeadEnd(bytes, 0, bytes.length))!;
  return explainRefusal(head, Number(answer.slice(9, 12)), hasKey, isProven).text;
}

/** A refusal of udp-server's, with fields that a proxy has added. */
function own(status: 400 | 404 | 503, fields = ""): string {
  return String.fromCharCode(...encodeRefusal(status, undefined)).replace("Connection: close\r\n", fields);
}

const other = (status: number, fields = "") =>
  `HTTP/1.1 ${status} x\r\nContent-Type: text/html\r\nContent-Length: 153\r\n${fields}\r\n`;
const NGINX = "Server: nginx/1.22.1\r\n";

describe("the hint for a refusal", () => {
  it.each([
    ["its key, for the server's own 404", own(404), {}, "the server has another key"],
    ["that a key is wanted, where there was none", own(404), { hasKey: false }, "the server requires a key"],
    [
      "a repeated request, where the key is proven",
      own(404),
      { isProven: true },
      "the server has seen this request before: does something on the way repeat requests?",
    ],
    ["its key, for the server's own 404 through a proxy", own(404, NGINX), {}, "the server has another key"],
    [
      "the server's limits, for its own 503",
      own(503, NGINX),
      {},
      "the server is at one of its limits, or shuts down",
    ],
    [
      "a changed request, for the server's own 400",
      own(400, NGINX),
      {},
      "nginx/1.22.1 rewrites the path, or does not pass Upgrade and Connection on",
    ],
    ["the path, for a proxy's 404", other(404, NGINX), {}, "nginx/1.22.1 has no udp-server at this path"],
    [
      "that nobody it knows answers",
      other(404),
      {},
      "the program that answers there has no udp-server at this path",
    ],
    ["that the proxy does not reach it", other(502, NGINX), {}, "nginx/1.22.1 does not reach udp-server"],
    [
      "the same for a proxy's 503",
      other(503),
      {},
      "the program that answers there does not reach udp-server",
    ],
    ["TLS, for 400", other(400, NGINX), {}, "nginx/1.22.1 rejects the request: does it expect TLS (tls://)?"],
    ["a password", other(401, "Via: 1.1 x\r\n"), {}, "1.1 x asks for a user name and a password"],
    ["that it is forbidden", other(403, NGINX), {}, "nginx/1.22.1 forbids the request"],
    [
      "a page instead of an upgrade",
      other(200, NGINX),
      {},
      "nginx/1.22.1 does not upgrade: it is not a udp-server, or does not pass Upgrade on to one",
    ],
    [
      "where it is sent",
      other(301, "Location: https://a.test/\r\n"),
      {},
      "the program that answers there redirects to https://a.test/",
    ],
    ["the upgrade, for what is left", other(426, NGINX), {}, "nginx/1.22.1 does not pass the upgrade on"],
  ])("names %s", (_, answer, circumstances, text) => {
    expect(hint(answer, circumstances)).toBe(text);
  });

  it("quotes no more than 100 characters of what a stranger sent", () => {
    expect(hint(other(502, `Server: ${"x".repeat(5_000)}\r\n`)).length).toBeLessThan(130);
    expect(hint(other(302, `Location: ${"x".repeat(5_000)}\r\n`)).length).toBeLessThan(150);
  });
});
