import type { Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import type { Server } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { UdpLocal, UdpServer } from "../../src/node/handles.ts";
import { associate } from "../e2e/peers/socks5/socks5-udp-client.mjs";
import { startUdpLocal, startUdpServer } from "../support/start.ts";
import { startUdpEcho } from "../support/udp-echo.ts";
import { describeWith, run } from "./peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");
const LOOPBACKS = ["127.0.0.1", "::1"];
const bracketed = (host: string) => (host.includes(":") ? `[${host}]` : host);

describeWith(["curl", "socat"], "listening on [::]", () => {
  let echo: UdpSocket;
  let web: Server;
  const closing: (UdpLocal | UdpServer)[] = [];
  const associations: { close(): void }[] = [];

  beforeAll(async () => {
    echo = await startUdpEcho();
    web = createServer((_, response) => response.end("by TCP")).listen(0, "127.0.0.1");
    await once(web, "listening");
  });

  afterEach(async () => {
    for (const association of associations.splice(0)) association.close();
    for (const each of closing.splice(0).toReversed()) await each.close();
  });

  afterAll(() => {
    echo.close();
    web.close();
  });

  async function startServer(listen: readonly string[], ipv6Only = false): Promise<UdpServer> {
    const server = await startUdpServer({ listen, ipv6Only, psk: KEY, allow: ["127.0.0.1/32"] });
    closing.push(server);
    return server;
  }

  async function startLocal(options: Parameters<typeof startUdpLocal>[0]): Promise<UdpLocal> {
    const local = await startUdpLocal({ psk: KEY, ...options });
    closing.push(local);
    if (local.stats().sessions === 0) await once(local, "session-up");
    return local;
  }

  const portOf = (address: string | undefined) => Number(/:(\d+)$/.exec(address ?? "")?.[1]);

  /** Whether a connection is accepted, or the system's error. */
  async function probe(host: string, port: number): Promise<string> {
    const socket = connect(port, host);
    const result = await new Promise<string>((done) => {
      socket.once("connect", () => done("accepts"));
      socket.once("error", (error: NodeJS.ErrnoException) => done(String(error.code)));
    });
    socket.destroy();
    return result;
  }

  it("udp-server accepts tunnels over IPv4 and IPv6 on one port", async () => {
    const server = await startServer(["[::]:0"]);
    expect(server.address.listen).toEqual([expect.stringMatching(/^\[::\]:[1-9]\d*$/)]);
    for (const host of LOOPBACKS) {
      await startLocal({
        server: `${bracketed(host)}:${portOf(server.address.listen[0])}`,
        listen: "127.0.0.1:0",
      });
    }
    expect(server.stats().sessions).toBe(2);
  });

  it("udp-server with ipv6Only takes no IPv4, and leaves IPv4 to 0.0.0.0 if that is listed too", async () => {
    const alone = portOf((await startServer(["[::]:0"], true)).address.listen[0]);
    expect([await probe("::1", alone), await probe("127.0.0.1", alone)]).toEqual(["accepts", "ECONNREFUSED"]);
    const port = portOf((await startServer(["0.0.0.0:0"])).address.listen[0]);
    await closing.pop()?.close();
    const { address } = await startServer([`0.0.0.0:${port}`, `[::]:${port}`]);
    expect(address.listen).toEqual([`0.0.0.0:${port}`, `[::]:${port}`]);
    expect([await probe("::1", port), await probe("127.0.0.1", port)]).toEqual(["accepts", "accepts"]);
  });

  it("forwards and the SOCKS5 server accept both: socat, curl and a SOCKS5 UDP client get answers", async () => {
    const server = await startServer(["127.0.0.1:0"]);
    const target = { host: "127.0.0.1", port: echo.address().port };
    const local = await startLocal({
      server: server.address.listen[0],
      listen: "[::]:0",
      forwards: [{ listen: "[::]:0", target: `127.0.0.1:${target.port}` }],
    });
    const [forward] = local.address.forwards;
    expect(forward.listen).toMatch(/^\[::\]:[1-9]\d*$/);
    expect(local.address.socks5).toMatch(/^\[::\]:[1-9]\d*$/);
    const socks = portOf(local.address.socks5);
    for (const host of LOOPBACKS) {
      const udp = `UDP${host === "::1" ? 6 : 4}:${bracketed(host)}:${portOf(forward.listen)}`;
      expect(await run("sh", ["-c", `echo hello | socat -t 1 - ${udp}`])).toBe("hello\n");
      const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/`;
      const proxy = `${bracketed(host)}:${socks}`;
      expect(await run("curl", ["-sS", "--socks5", proxy, url])).toBe("by TCP");
      let answer = (_: string) => {};
      const answered = new Promise<string>((done) => {
        answer = done;
      });
      const association = await associate({ host, port: socks }, (payload: Buffer) => answer(`${payload}`));
      associations.push(association);
      association.send(Buffer.from("by UDP"), target);
      expect(await answered).toBe("by UDP");
    }
  });
});
