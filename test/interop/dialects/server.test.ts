import type { Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UdpServer } from "../../../src/node/handles.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { startUdpServer } from "../../support/start.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";
import { openWay } from "../peers/open-way.ts";
import { PlainClient } from "../peers/plain-client.ts";

const UDPTUNNEL_HELLO = "7564707475 6e6e656c 20627920 6d642e 00000001 03061015 21283645 55667891";
const GNB_KEEPALIVE = "001c 6b00 000000006b0769ff 6b656570616c697665 00000000000000";
const hex = (text: string) => Buffer.from(text).toString("hex");

/** The bytes of the real programs, written by hand or captured, without any code of Underpass. */
describe("udp-server with dialects, on one port", () => {
  let server: UdpServer;
  let echo: UdpSocket;
  /** Replaces `cb007105 1e61` in the captures. */
  let address: string;
  let port: number;
  const clients: PlainClient[] = [];

  const open = (at = port) => {
    const client = new PlainClient(at);
    clients.push(client);
    return client;
  };
  const socks = async (request: string) => {
    const client = open();
    client.send("050100");
    expect(await client.take(2)).toBe("0500");
    client.send(request);
    expect(await client.take(10)).toBe("05000001000000000000");
    return client;
  };

  beforeEach(async () => {
    echo = await startUdpEcho();
    address = `7f000001${echo.address().port.toString(16).padStart(4, "0")}`;
    server = await startUdpServer({
      listen: ["127.0.0.1:0", "mullvad://127.0.0.1:0"],
      allow: ["127.0.0.1/32", "::1/128"],
      dialects: ["udptunnel,gnb", "udpgw,hev,gost,uot"],
      dialectTarget: `127.0.0.1:${echo.address().port}`,
      handshakeTimeoutMs: 1_000,
    });
    port = Number(server.address.listen[0].split(":")[1]);
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) client.socket.destroy();
    echo.close();
    await server.close();
  });

  it("serves udptunnel", async () => {
    const client = open();
    client.send(`${UDPTUNNEL_HELLO} 0005 68656c6c6f`);
    expect(await client.take(7)).toBe("000568656c6c6f");
  });

  it("serves gnb and answers its keepalives", async () => {
    const client = open();
    client.send(`${GNB_KEEPALIVE} 0009 6f00 68656c6c6f 0004 6f00`);
    const keepalive = await client.take(28);
    expect(keepalive.slice(0, 8)).toBe("001c6b00");
    expect(keepalive.slice(24)).toBe(`${hex("keepalive echo")}0000`);
    expect(await client.take(13)).toBe("00096f0068656c6c6f00046f00");
  });

  it("serves udpgw", async () => {
    const client = open();
    client.send(`0e00 02 0000 ${address} 68656c6c6f 0300 01 0000`);
    expect(await client.take(16)).toBe(`0e00000000${address}68656c6c6f`);
    client.send(`0a00 02 0100 ${address} 61 0a00 00 0000 ${address} 62`);
    expect([await client.take(12), await client.take(12)].sort()).toEqual([
      `0a00000000${address}62`,
      `0a00000100${address}61`,
    ]);
  });

  it("serves hev", async () => {
    const client = await socks("05050001 00000000 0000");
    client.send(`0005 0a 01 ${address} 68656c6c6f`);
    expect(await client.take(15)).toBe(`00050a01${address}68656c6c6f`);
  });

  it("serves hev with all of its messages in one piece, and to a name", async () => {
    const client = open();
    const port = address.slice(8);
    client.send(`050100 05050001 00000000 0000 0002 10 03 09 ${hex("localhost")} ${port} 6869`);
    expect(await client.take(12)).toBe("050005000001000000000000");
    expect(await client.take(12)).toBe(`00020a01${address}6869`);
  });

  it("serves gost", async () => {
    const client = await socks("05f30001 00000000 0000");
    client.send(`0005 ff 01 ${address} 68656c6c6f`);
    expect(await client.take(15)).toBe(`0005ff01${address}68656c6c6f`);
  });

  it("serves gost's client, which offers TLS inside SOCKS5, without sending it an empty datagram", async () => {
    const client = open();
    client.send("05020080");
    expect(await client.take(2)).toBe("0500");
    client.send("05f30001 00000000 0000");
    expect(await client.take(10)).toBe("05000001000000000000");
    client.send(`0000 ff 01 ${address} 0005 ff 01 ${address} 616761696e`);
    expect(await client.take(15)).toBe(`0005ff01${address}616761696e`);
    expect(server.stats().drops.too_long).toBe(1);
  });

  it("serves UDP over TCP of sing-box to a name, with request and datagram in one segment", async () => {
    const client = await socks(`05010003 17 ${hex("sp.v2.udp-over-tcp.arpa")} 0000`);
    const name = `09 ${hex("localhost")} ${address.slice(8)}`;
    client.send(`00 03 ${name} 02 ${name} 0005 68656c6c6f`);
    expect(await client.take(14)).toBe(`00${address}000568656c6c6f`);
  });

  it("serves UDP over TCP of sing-box, versions 1 and 2, connected and not", async () => {
    const one = "sp.udp-over-tcp.arpa";
    const two = "sp.v2.udp-over-tcp.arpa";
    const connect = (name: string) => `05010003 ${name.length.toString(16)} ${hex(name)} 0000`;
    const first = await socks(connect(one));
    first.send(`00 ${address} 0002 6869`);
    expect(await first.take(11)).toBe(`00${address}00026869`);
    const second = await socks(connect(two));
    second.send(`00 01 ${address} 00 ${address} 0002 6869`);
    expect(await second.take(11)).toBe(`00${address}00026869`);
    const connected = await socks(connect(two));
    connected.send(`01 01 ${address} 0002 6869`);
    expect(await connected.take(4)).toBe("00026869");
  });

  it("serves UDP over TCP of sing-box on ss://, where the password authenticates the client", async () => {
    const password = "chacha20-ietf-poly1305:secret";
    const shadow = await startUdpServer({
      listen: [`ss://${password}@127.0.0.1:0`],
      dialects: ["uot"],
      allow: ["127.0.0.1/32"],
    });
    const way = openWay(`ss://${password}@${shadow.address.listen[0].replace(/^ss:\/\//, "")}`);
    const name = makeAddress("sp.v2.udp-over-tcp.arpa", 1)!;
    const stream = await way.connect(name);
    stream.write(Buffer.from(`0101${address}00026869`, "hex"));
    const [answer] = await once(stream, "data");
    expect(answer.toString("hex")).toBe("00026869");
    stream.destroy();
    await way.close();
    await shadow.close();
  });

  it("serves mullvad on its own listener", async () => {
    const client = open(Number(server.address.listen[1].split(":")[2]));
    client.send("0005 68656c6c6f 0000");
    expect(await client.take(9)).toBe("000568656c6c6f0000");
  });

  it("still accepts tunnels, and answers strangers over HTTP", async () => {
    const client = open();
    expect(await client.request(`/.well-known/masque/udp/127.0.0.1/${echo.address().port}/`)).toMatch(
      /^HTTP\/1.1 101 /,
    );
    const stranger = open();
    stranger.socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    await stranger.until(() => stranger.received.includes("404"));
  });

  it("accepts first bytes one at a time, and closes at the deadline when no more follow", async () => {
    const slow = open();
    for (const byte of UDPTUNNEL_HELLO.replaceAll(" ", "").match(/../g)!) {
      slow.send(byte);
      await new Promise((done) => setImmediate(done));
    }
    const silent = open();
    silent.send("75647074");
    slow.send("0001 61");
    expect(await slow.take(3)).toBe("000161");
    await silent.until(() => silent.socket.readableEnded || silent.received.length > 0).catch(() => {});
    expect(silent.received.toString()).toMatch(/^$|^HTTP\/1.1 4/);
  });

  it("sends nothing to denied targets in any dialect", async () => {
    const denied = "7f00000206ff";
    const client = await socks("05050001 00000000 0000");
    client.send(`0001 0a 01 ${denied} 61 0001 0a 01 a9fea9fe 0050 61 0001 0a 01 ${address} 62`);
    expect(await client.take(11)).toBe(`00010a01${address}62`);
    expect(server.stats().drops.refused_target).toBe(2);
  });

  it("closes a connection with malformed frames, and no other", async () => {
    const good = await socks("05050001 00000000 0000");
    const bad = await socks("05050001 00000000 0000");
    bad.send("0001 0b 01 00000000 0000 61");
    await bad.ended();
    const short = open();
    short.send(`${GNB_KEEPALIVE} 0003 6f00`);
    await short.ended();
    good.send(`0001 0a 01 ${address} 61`);
    expect(await good.take(11)).toBe(`00010a01${address}61`);
    expect(server.stats().refused.protocol_error).toBe(2);
  });

  it("refuses SOCKS5 requests that no dialect uses", async () => {
    for (const request of ["05010001 7f000001 0050", "05030001 00000000 0000"]) {
      const client = open();
      client.send(`050100 ${request}`);
      expect(await client.take(12)).toBe("050005070001000000000000");
      await client.ended();
    }
  });
});
