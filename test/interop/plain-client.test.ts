import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UdpServer } from "../../src/node/handles.ts";
import { startUdpServer } from "../support/start.ts";
import { startUdpEcho } from "../support/udp-echo.ts";
import { PlainClient } from "./peers/plain-client.ts";

describe("a foreign client of RFC 9298", () => {
  let server: UdpServer;
  let echo: UdpSocket;
  let client: PlainClient;
  let portHex: string;

  beforeEach(async () => {
    echo = await startUdpEcho();
    portHex = echo.address().port.toString(16).padStart(4, "0");
    server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: ["127.0.0.1/32", "::1/128"] });
    client = new PlainClient(Number(server.address.listen[0].split(":")[1]));
  });

  afterEach(async () => {
    client.socket.destroy();
    echo.close();
    await server.close();
  });

  it("reaches one target on context 0", async () => {
    const head = await client.request(`/.well-known/masque/udp/127.0.0.1/${echo.address().port}/`);
    expect(head).toMatch(/^HTTP\/1.1 101 .*\r\n/);
    expect(head).toMatch(/\r\nupgrade: connect-udp\r\n/i);
    expect(head).toMatch(/\r\ncapsule-protocol: \?1\r\n/i);
    expect(head).not.toMatch(/underpass/i);
    client.send("00 03 00 68 69");
    expect(await client.take(5)).toBe("0003006869");
  });

  it("reaches a name that the server resolves", async () => {
    const head = await client.request(`/.well-known/masque/udp/localhost/${echo.address().port}/`);
    expect(head).toMatch(/^HTTP\/1.1 101 /);
    client.send("00 03 00 68 69");
    expect(await client.take(5)).toBe("0003006869");
  });

  it("reaches an IPv4-mapped target as an IPv4 address, in the path and in datagrams", async () => {
    const path = `/.well-known/masque/udp/%3A%3Affff%3A127.0.0.1/${echo.address().port}/`;
    expect(await client.request(path, ["Connect-UDP-Bind: ?1"])).toMatch(/^HTTP\/1.1 101 /);
    client.send("00 03 00 68 69");
    expect(await client.take(5)).toBe("0003006869");
    const mapped = "00000000000000000000ffff7f000001";
    const bound = new PlainClient(Number(server.address.listen[0].split(":")[1]));
    await bound.request("/.well-known/masque/udp/%2A/%2A/", ["Connect-UDP-Bind: ?1"]);
    bound.send("11 02 02 00");
    expect(await bound.take(3)).toBe("120102");
    bound.send(`00 16 02 06 ${mapped} ${portHex} 68 69`);
    expect(await bound.take(12)).toBe(`000a02047f000001${portHex}6869`);
    bound.send(`11 14 04 06 ${mapped} ${portHex}`);
    expect(await bound.take(3)).toBe("120104");
    bound.send("00 03 04 68 6f");
    expect(await bound.take(5)).toBe("000304686f");
    bound.socket.destroy();
  });

  it("may send capsules of unknown types; the server skips them", async () => {
    await client.request(`/.well-known/masque/udp/127.0.0.1/${echo.address().port}/`);
    client.send("17 04 ff ff ff ff 80 55 50 00 02 00 00 00 03 00 68 69");
    expect(await client.take(5)).toBe("0003006869");
  });

  it("binds one socket for several targets, uncompressed and compressed, and gets the public address", async () => {
    const head = await client.request("/.well-known/masque/udp/%2A/%2A/", ["Connect-UDP-Bind: ?1"]);
    expect(head).toMatch(/^HTTP\/1.1 101 /);
    expect(head).toMatch(/\r\nconnect-udp-bind: \?1\r\n/i);
    const publicAddress = /\r\nproxy-public-address: "127\.0\.0\.1:(\d+)", "\[::1\]:(\d+)"\r\n/i.exec(head);
    expect(publicAddress).not.toBeNull();
    client.send("11 02 02 00");
    expect(await client.take(3)).toBe("120102");
    client.send(`00 0a 02 04 7f000001 ${portHex} 68 69`);
    expect(await client.take(12)).toBe(`000a02047f000001${portHex}6869`);
    client.send(`11 08 04 04 7f000001 ${portHex}`);
    expect(await client.take(3)).toBe("120104");
    const [[, source]] = await Promise.all([
      once(echo, "message"),
      (async () => {
        client.send("00 03 04 68 6f");
        expect(await client.take(5)).toBe("000304686f");
      })(),
    ]);
    expect(source.port).toBe(Number(publicAddress![1]));
  });

  it("receives from strangers on both public addresses while its uncompressed context is open", async () => {
    const head = await client.request("/.well-known/masque/udp/%2A/%2A/", ["Connect-UDP-Bind: ?1"]);
    const [, port4, port6] = /"127\.0\.0\.1:(\d+)", "\[::1\]:(\d+)"/.exec(head)!;
    client.send("11 02 02 00");
    expect(await client.take(3)).toBe("120102");
    echo.send("hi", Number(port4), "127.0.0.1");
    expect(await client.take(12)).toBe(`000a02047f000001${portHex}6869`);
    const stranger = createSocket("udp6").bind(0, "::1");
    await once(stranger, "listening");
    stranger.send("ho", Number(port6), "::1");
    const portHex6 = stranger.address().port.toString(16).padStart(4, "0");
    expect(await client.take(24)).toBe(`0016020600000000000000000000000000000001${portHex6}686f`);
    stranger.close();
  });

  it("gets the server's configured public addresses, one of each family", async () => {
    const other = await startUdpServer({
      listen: ["127.0.0.1:0"],
      publicAddress: ["2001:db8::7", "192.0.2.7"],
    });
    const guest = new PlainClient(Number(other.address.listen[0].split(":")[1]));
    const head = await guest.request("/.well-known/masque/udp/%2A/%2A/", ["Connect-UDP-Bind: ?1"]);
    expect(head).toMatch(/\r\nproxy-public-address: "\[2001:db8::7\]:\d+", "192\.0\.2\.7:\d+"\r\n/i);
    guest.socket.destroy();
    await other.close();
  });

  it("cannot bind if datagrams leave through an egress, and gets a tunnel to its target instead", async () => {
    const other = await startUdpServer({
      listen: ["127.0.0.1:0"],
      allow: ["127.0.0.1/32"],
      egress: "socks5-udp://127.0.0.1:9",
    });
    const port = Number(other.address.listen[0].split(":")[1]);
    const guests = [new PlainClient(port), new PlainClient(port)];
    const bind = ["Connect-UDP-Bind: ?1"];
    expect(await guests[0].request("/.well-known/masque/udp/%2A/%2A/", bind)).toMatch(/^HTTP\/1.1 501 /);
    const head = await guests[1].request("/.well-known/masque/udp/127.0.0.1/53/", bind);
    expect(head).toMatch(/^HTTP\/1.1 101 /);
    expect(head).not.toMatch(/connect-udp-bind|proxy-public-address/i);
    for (const guest of guests) guest.socket.destroy();
    await other.close();
  });

  it("gets its answers after it has sent a FIN", async () => {
    await client.request(`/.well-known/masque/udp/127.0.0.1/${echo.address().port}/`);
    client.send("00 03 00 68 69");
    client.socket.end();
    expect(await client.take(5)).toBe("0003006869");
  });

  it.each([
    ["the 101", "192.0.2.1/53", 101],
    ["a refusal", "192.0.2.1/0", 400],
    ["the refusal of a name", "nowhere.invalid/53", 502],
  ])("gets %s although it ended its side after its request", async (_, target, status) => {
    const answer = client.request(`/.well-known/masque/udp/${target}/`);
    client.socket.end();
    expect(await answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  });

  it("is disconnected if it sends a FIN inside a capsule", async () => {
    await client.request(`/.well-known/masque/udp/127.0.0.1/${echo.address().port}/`);
    client.send("00 03 00 68");
    client.socket.end();
    await client.ended();
  });

  it("is disconnected if it uses context 0 in a bound tunnel without fallback", async () => {
    await client.request("/.well-known/masque/udp/%2A/%2A/", ["Connect-UDP-Bind: ?1"]);
    client.send("00 03 00 68 69");
    await client.ended();
  });

  it("gets a refusal with Proxy-Status for a denied target or a name without an address", async () => {
    expect(await client.request("/.well-known/masque/udp/127.0.0.2/53/")).toMatch(
      /^HTTP\/1.1 403 [\s\S]*proxy-status: [^\r]*error=destination_ip_prohibited/i,
    );
    const second = new PlainClient(Number(server.address.listen[0].split(":")[1]));
    expect(await second.request("/.well-known/masque/udp/nowhere.invalid/53/")).toMatch(
      /^HTTP\/1.1 502 [\s\S]*proxy-status: [^\r]*error=dns_error/i,
    );
    second.socket.destroy();
  });

  it.each([
    ["any host with a port", "%2A/53"],
    ["a host with any port", "192.0.2.1/%2A"],
    ["any host and any port, but does not ask to bind", "%2A/%2A", []],
    ["port 0", "192.0.2.1/0"],
    ["port 99999", "192.0.2.1/99999"],
    ["no host", "/53"],
    ["an IPv6 address with a zone", "fe80%3A%3A1%25eth0/53"],
    ["a request with content", "192.0.2.1/53", ["Content-Length: 5"]],
  ])("gets 400 for %s", async (_, target, fields: string[] = ["Connect-UDP-Bind: ?1"]) => {
    expect(await client.request(`/.well-known/masque/udp/${target}/`, fields)).toMatch(/^HTTP\/1.1 400 /);
    await client.ended();
  });

  it("gets 400 for a capsule before the 101, which RFC 9931 forbids, and none reaches the target", async () => {
    const heard: Buffer[] = [];
    echo.on("message", (data) => heard.push(data));
    const path = `/.well-known/masque/udp/127.0.0.1/${echo.address().port}/`;
    expect(await client.request(path, [], "00 03 00 68 69")).toMatch(/^HTTP\/1.1 400 /);
    await client.ended();
    expect(heard).toEqual([]);
  });

  it("gets 404, as from any web server, if the server has a key", async () => {
    const closed = await startUdpServer({ listen: ["127.0.0.1:0"], psk: Buffer.alloc(32, "k") });
    const stranger = new PlainClient(Number(closed.address.listen[0].split(":")[1]));
    const head = await stranger.request(`/.well-known/masque/udp/127.0.0.1/${echo.address().port}/`);
    expect(head).toMatch(/^HTTP\/1.1 404 Not Found\r\n/);
    expect(head).not.toMatch(/masque|udp|capsule|underpass|proxy/i);
    stranger.socket.destroy();
    const clumsy = new PlainClient(Number(closed.address.listen[0].split(":")[1]));
    expect(await clumsy.request("/.well-known/masque/udp/%2A/0/")).toBe(head);
    clumsy.socket.destroy();
    await closed.close();
  });
});
