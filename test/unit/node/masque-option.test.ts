import { describe, expect, it } from "vitest";
import { redactUrl } from "../../../src/host/carriers/hop.ts";
import {
  findMasqueProblem,
  parseMasqueProxy,
  rebaseMasqueProxy,
} from "../../../src/host/masque/masque-option.ts";
import { resolveUdpLocalOptions } from "../../../src/node/options/udp-local.ts";

const PATH = "/{target_host}/{target_port}/";

describe("--masque", () => {
  it.each([
    [`https://proxy.example${PATH}`, "proxy.example", { host: "proxy.example", port: 443 }, "negotiated"],
    [`https://proxy.example:443${PATH}`, "proxy.example", { host: "proxy.example", port: 443 }, "negotiated"],
    [
      `https://proxy.example:4443${PATH}#http=1.1`,
      "proxy.example:4443",
      { host: "proxy.example", port: 4443 },
      "1.1",
    ],
    [`http://[2001:db8::1]${PATH}`, "[2001:db8::1]", { host: "2001:db8::1", port: 80 }, "1.1"],
    [`http://192.0.2.1:8080${PATH}#http=2`, "192.0.2.1:8080", { host: "192.0.2.1", port: 8080 }, "2"],
  ])("%s leads to %s", (text, authority, endpoint, version) => {
    expect(parseMasqueProxy(text)).toMatchObject({ authority, endpoint, version });
  });

  it("sends the user as Authorization, and the fields of the options", () => {
    const { fields, tls } = parseMasqueProxy(
      `https://j%C3%BCrgen:p%3Aw@a${PATH}#header=X-One:%201&sni=b.example&insecure=1`,
    );
    expect(fields).toEqual([
      ["Authorization", `Basic ${Buffer.from("jürgen:p:w").toString("base64")}`],
      ["X-One", "1"],
    ]);
    expect(tls).toMatchObject({ serverName: "b.example", isInsecure: true });
  });

  it.each([
    ["https://a/{target_host}/", "the variable {target_port} is missing"],
    ["https://a/{#target_host}/{target_port}", "{#target_host}: RFC 9298 does not permit fragment expansion"],
    [`https://a:0${PATH}`, "expected HOST:PORT"],
    [`https://u@v@a${PATH}`, "expected USER:PASSWORD@HOST, percent-encoded"],
    [`http://a${PATH}#ca=x`, "expected no options after # but http, header"],
    [
      `https://a${PATH}#alpn=h2`,
      "expected no options after # but http, header, sni, ca, cert, key, insecure",
    ],
    [`http://a${PATH}#http=3`, "http must be 1.1 or 2"],
    [`http://a${PATH}#http=1.1&http=2`, "http is given twice"],
    [`https://a${PATH}#sni=a.example&sni=b.example`, "sni is given twice"],
    [`http://u:p@a${PATH}#header=Authorization:%20x`, "give a user or Authorization, not both"],
    [`http://a${PATH}#header=Capsule-Protocol:%20x`, "Capsule-Protocol cannot be set by a header option"],
    [`http://a${PATH}#header=X:%20%C3%BC`, "X has characters other than ASCII"],
    [`https://a${PATH}#cert=x`, "give both cert and key, or neither"],
  ])("%s is refused: %s", (text, problem) => {
    expect(findMasqueProblem(text)).toBe(problem);
  });

  it("names a missing file", () => {
    const masque = `https://a${PATH}#ca=/nowhere/ca.pem`;
    expect(() => resolveUdpLocalOptions({ masque })).toThrow("/nowhere/ca.pem");
  });

  it("paths of a config file start in its folder", () => {
    const inFolder = (path: string) => `/etc/${path}`;
    expect(rebaseMasqueProxy(`https://a${PATH}#ca=ca.pem&http=2`, inFolder)).toBe(
      `https://a${PATH}#ca=/etc/ca.pem&http=2`,
    );
    expect(rebaseMasqueProxy(`https://a${PATH}`, inFolder)).toBe(`https://a${PATH}`);
  });

  it("is shown without password and fields", () => {
    const shown = redactUrl(`https://user:secret@a${PATH}?p={target_port}#header=X:secret&http=2`);
    expect(shown).toBe(`https://***@a${PATH}?p={target_port}#header=***&http=2`);
  });

  it.each([
    ["server", "127.0.0.1:1"],
    ["psk", new Uint8Array(16)],
    ["pathPrefix", "/a"],
    ["dialect", "uot"],
    ["lanes", 2],
    ["ways", ["socks5://127.0.0.1:1"]],
  ])("cannot be combined with %s, which applies only to a udp-server", (name, value) => {
    const options = { masque: `https://a${PATH}`, [name]: value };
    expect(() => resolveUdpLocalOptions(options)).toThrow(`${name}: applies to a udp-server`);
  });
});
