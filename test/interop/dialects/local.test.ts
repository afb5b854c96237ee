import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UdpLocal, UdpServer } from "../../../src/node/handles.ts";
import { DIALECTS } from "../../../src/wire/dialects/dialects.ts";
import { startUdpLocal, startUdpServer } from "../../support/start.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";
import { PlainClient } from "../peers/plain-client.ts";

const hex = (text: string) => Buffer.from(text).toString("hex");
let echo: UdpSocket;
let target: string;
const open: { close(): unknown }[] = [];

beforeEach(async () => {
  echo = await startUdpEcho();
  target = `127.0.0.1:${echo.address().port}`;
});

afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
  echo.close();
});

async function serve(dialect: string, listen = "127.0.0.1:0"): Promise<{ server: UdpServer; at: string }> {
  const isOwn = dialect === "mullvad";
  const server = await startUdpServer({
    listen: [isOwn ? `mullvad://${listen}` : listen],
    dialects: isOwn ? [] : [dialect],
    dialectTarget: target,
    allow: ["127.0.0.1/32", "::1/128"],
  });
  return { server, at: server.address.listen[0].replace(/^.*\/\//, "") };
}

async function application(local: UdpLocal): Promise<(text: string | Buffer) => Promise<string>> {
  const socket = createSocket("udp4");
  open.push(socket);
  const [host, port] = local.address.forwards[0].listen.split(":");
  socket.connect(Number(port), host);
  await once(socket, "connect");
  return async (data) => {
    // A datagram may be lost before the server is up.
    const again = setInterval(() => socket.send(data), 200);
    socket.send(data);
    const [answer] = await once(socket, "message");
    clearInterval(again);
    return answer.toString();
  };
}

describe.each(DIALECTS.map(({ name }) => name))("udp-local --dialect %s, and udp-server", (dialect) => {
  it("carry datagrams of several applications both ways, even across a restart of the server", async () => {
    const first = await serve(dialect);
    const local = await startUdpLocal({
      server: first.at,
      dialect,
      forwards: [{ listen: "127.0.0.1:0", target }],
    });
    open.push(local);
    const asks = await Promise.all(Array.from({ length: 20 }, () => application(local)));
    const answers = await Promise.all(asks.map((ask, i) => ask(`hello ${i}`)));
    expect(answers).toEqual(asks.map((_, i) => `hello ${i}`));
    expect(await asks[0](Buffer.alloc(1_400, 0x61))).toHaveLength(1_400);
    await first.server.close();
    const second = await serve(dialect, first.at);
    open.push(second.server);
    expect(await Promise.all(asks.map((ask, i) => ask(`again ${i}`)))).toEqual(
      asks.map((_, i) => `again ${i}`),
    );
  });
});

describe.each(DIALECTS.filter(({ addresses }) => addresses !== "none").map(({ name }) => name))(
  "SOCKS5 of udp-local --dialect %s",
  (dialect) => {
    it("reaches several targets from one association, over IPv4 and IPv6", async () => {
      const { server, at } = await serve(dialect);
      open.push(server);
      const local = await startUdpLocal({ listen: "127.0.0.1:0", server: at, dialect });
      open.push(local);
      const echo6 = createSocket("udp6");
      open.push(echo6);
      echo6.on("message", (data, { port }) => echo6.send(data, port, "::1"));
      echo6.bind(0, "::1");
      await once(echo6, "listening");
      const control = new PlainClient(Number(local.address.socks5!.split(":")[1]));
      open.push({ close: () => control.socket.destroy() });
      control.send("050100 05030001 00000000 0000");
      const relay = await control.take(12);
      const socket = createSocket("udp4");
      open.push(socket);
      const port4 = echo.address().port.toString(16).padStart(4, "0");
      const port6 = echo6.address().port.toString(16).padStart(4, "0");
      for (const address of [`017f000001${port4}`, `04${"0".repeat(31)}1${port6}`]) {
        const request = Buffer.from(`000000${address}6869`, "hex");
        socket.send(request, Number.parseInt(relay.slice(-4), 16), "127.0.0.1");
        const [answer] = await once(socket, "message");
        expect(answer.toString("hex")).toBe(request.toString("hex"));
      }
    });
  },
);

describe("the SOCKS5 server of udp-local", () => {
  let client: PlainClient;
  let address: string;

  beforeEach(async () => {
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: ["127.0.0.1/32"] });
    const local = await startUdpLocal({ listen: "127.0.0.1:0", server: server.address.listen[0] });
    open.push(server, local);
    client = new PlainClient(Number(local.address.socks5!.split(":")[1]));
    open.push({ close: () => client.socket.destroy() });
    address = `7f000001${echo.address().port.toString(16).padStart(4, "0")}`;
  });

  it("takes hev's UDP in TCP into the tunnel, with all messages in one piece", async () => {
    client.send(`050100 05050001 00000000 0000 0005 0a 01 ${address} 68656c6c6f`);
    expect(await client.take(12)).toBe("050005000001000000000000");
    expect(await client.take(15)).toBe(`00050a01${address}68656c6c6f`);
  });

  it("takes hev's UDP in TCP to a name, which the server resolves", async () => {
    client.send(`050100 05050001 00000000 0000 0002 10 03 09 ${hex("localhost")} ${address.slice(8)} 6869`);
    expect(await client.take(12)).toBe("050005000001000000000000");
    expect(await client.take(12)).toBe(`00020a01${address}6869`);
  });

  it("takes gost's UDP-Tun into the tunnel", async () => {
    client.send("050100 05f30001 00000000 0000");
    expect(await client.take(12)).toBe("050005000001000000000000");
    client.send(`0005 ff 01 ${address} 68656c6c6f`);
    expect(await client.take(15)).toBe(`0005ff01${address}68656c6c6f`);
  });

  it("takes UDP over TCP of sing-box into the tunnel, versions 1 and 2", async () => {
    const name = hex("sp.v2.udp-over-tcp.arpa");
    client.send(`050100 05010003 17 ${name} 0000 01 01 ${address} 0002 6869`);
    expect(await client.take(12)).toBe("050005000001000000000000");
    expect(await client.take(4)).toBe("00026869");
  });

  it("still relays a CONNECT", async () => {
    const web = createServer((socket) => socket.on("error", () => {}).end("hello"));
    open.push(web);
    web.listen(0, "127.0.0.1");
    await once(web, "listening");
    const port = (web.address() as AddressInfo).port.toString(16).padStart(4, "0");
    client.send(`050100 05010001 7f000001 ${port}`);
    await client.take(12);
    expect(await client.take(5)).toBe(hex("hello"));
  });
});
