import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseUdpProxyTemplate, UdpProxyTemplate } from "../../../src/wire/http/uri-template.ts";
import { formatHost, makeAddress } from "../../../src/wire/socket-address.ts";

function template(text: string): UdpProxyTemplate {
  const parsed = parseUdpProxyTemplate(text);
  if (typeof parsed === "string") throw new Error(parsed);
  return parsed;
}

describe("the URI template of a UDP proxy", () => {
  it.each([
    // The three examples of RFC 9298 §2, and the target of its §3.
    [
      "https://example.org/.well-known/masque/udp/{target_host}/{target_port}/",
      "/.well-known/masque/udp/192.0.2.6/443/",
    ],
    ["https://proxy.example.org:4443/masque?h={target_host}&p={target_port}", "/masque?h=192.0.2.6&p=443"],
    [
      "https://proxy.example.org:4443/masque{?target_host,target_port}",
      "/masque?target_host=192.0.2.6&target_port=443",
    ],
    ["http://a/x?y=z{&target_host,target_port}", "/x?y=z&target_host=192.0.2.6&target_port=443"],
    ["http://a/{target_host,target_port}", "/192.0.2.6,443"],
    ["http://a/{target_host}/{other}{target_port}{?more}", "/192.0.2.6/443"],
  ])("%s expands to %s", (text, expected) => {
    expect(template(text).expand("192.0.2.6", 443)).toBe(expected);
  });

  it("encodes the colons of IPv6, and names as UTF-8", () => {
    const { expand } = {
      expand: (host: string) => template("http://a/{target_host}/{target_port}").expand(host, 1),
    };
    expect(expand("2001:db8::1")).toBe("/2001%3Adb8%3A%3A1/1");
    expect(expand("bücher.example")).toBe("/b%C3%BCcher.example/1");
    expect(expand("a/b?c#d%e")).toBe("/a%2Fb%3Fc%23d%25e/1");
  });

  it.each([
    ["", "expected http:// or https://"],
    ["masque://a/{target_host}/{target_port}", "expected http:// or https://"],
    ["/{target_host}/{target_port}", "expected http:// or https://"],
    ["https:///{target_host}/{target_port}", "expected a host without variables behind //"],
    ["https://{target_host}/{target_port}", "expected a host without variables behind //"],
    ["https://a{?target_host,target_port}", "expected a host without variables behind //"],
    ["https://a?{target_host}{target_port}", "expected a path behind the host"],
    ["https://a/{target_host}", "the variable {target_port} is missing"],
    ["https://a/{target_port}", "the variable {target_host} is missing"],
    ["https://a/{+target_host}/{target_port}", "{+target_host}: RFC 9298 does not permit reserved expansion"],
    ["https://a/{#target_host}/{target_port}", "{#target_host}: RFC 9298 does not permit fragment expansion"],
    ["https://a/{.target_host}/{target_port}", "{.target_host}: RFC 9298 does not permit label expansion"],
    ["https://a{/target_host}/{target_port}", "expected a host without variables behind //"],
    [
      "https://a/b{/target_host}/{target_port}",
      "{/target_host}: RFC 9298 does not permit path segment expansion",
    ],
    [
      "https://a/{;target_host}/{target_port}",
      "{;target_host}: RFC 9298 does not permit path-style parameters",
    ],
    ["https://a/{target_host:3}/{target_port}", "{target_host:3}: RFC 9298 does not permit modifiers"],
    ["https://a/{target_host*}/{target_port}", "{target_host*}: RFC 9298 does not permit modifiers"],
    ["https://a/{=target_host}/{target_port}", "{=target_host}: there is no such expansion"],
    ["https://a/{target_host,}/{target_port}", "{target_host,}: expected names of variables"],
    ["https://a/{}{target_host}/{target_port}", "{}: expected names of variables"],
    ["https://a/{target_host}/{target_port", "a brace has no counterpart"],
    ["https://a/{target_host}/{target_port}}", "a brace has no counterpart"],
    ["https://a/{target_host}/{target_port}#b", "a template has no fragment"],
    ["https://a/{target_host}/%zz/{target_port}", "% without two hexadecimal digits"],
    ["https://a/<{target_host}>/{target_port}", "a character that a URI cannot have"],
    ["https://a/ü{target_host}/{target_port}", "a template has ASCII without blanks only"],
    ["https://a/{target_host} {target_port}", "a template has ASCII without blanks only"],
  ])("%s is refused: %s", (text, problem) => {
    expect(parseUdpProxyTemplate(text)).toBe(problem);
  });

  it("the expansion for any IP is a path, from which host and port can be recovered", () => {
    const ip = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => formatHost(makeAddress(text, 0)!));
    const parsed = template("http://a/udp/{target_host}/{target_port}/");
    fc.assert(
      fc.property(ip, fc.integer({ min: 1, max: 65_535 }), (host, port) => {
        const [, encoded, text] = /^\/udp\/([A-Za-z0-9%.]+)\/(\d+)\/$/.exec(parsed.expand(host, port)) ?? [];
        expect([decodeURIComponent(encoded), Number(text)]).toEqual([host, port]);
      }),
    );
  });

  it("any text is refused with one line, or expands to a path of visible ASCII", () => {
    const piece = fc.oneof(
      fc.string(),
      fc.constantFrom(
        "{target_host}",
        "{target_port}",
        "{?target_host,target_port}",
        "{",
        "}",
        "/",
        "#",
        "%41",
        "https://a/",
      ),
    );
    fc.assert(
      fc.property(fc.array(piece), (pieces) => {
        const parsed = parseUdpProxyTemplate(`https://a/{target_host}{target_port}${pieces.join("")}`);
        if (parsed instanceof UdpProxyTemplate) expect(parsed.expand("::1", 53)).toMatch(/^\/[\x21-\x7e]*$/);
        else expect(parsed).toMatch(/^[^\n]+$/);
      }),
    );
  });
});
