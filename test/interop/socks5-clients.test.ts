import type { Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import type { Server } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { UdpLocal, UdpServer } from "../../src/node/handles.ts";
import { startUdpLocal, startUdpServer } from "../support/start.ts";
import { describeWith, freePort, run, startPeer } from "./peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");
const AUTH = { user: "jürgen", password: "p:w" };

/** Sends each size through UDP ASSOCIATE of PySocks and checks the echo and its source. */
const PYSOCKS = `
import socks, socket, sys
proxy, user, password, host, port = int(sys.argv[1]), sys.argv[2] or None, sys.argv[3] or None, sys.argv[4], int(sys.argv[5])
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, "127.0.0.1", proxy, username=user, password=password)
s.settimeout(5)
for size in (0, 1, 1200, 9000, 60000):
    payload = bytes(i % 251 for i in range(size))
    s.sendto(payload, (host, port))
    data, source = s.recvfrom(65535)
    assert data == payload, (size, len(data))
    assert source == ("127.0.0.1", port), source
print("ok")
`;

import { startUdpEcho } from "../support/udp-echo.ts";

describeWith(["curl", "/usr/bin/python3", "microsocks"], "SOCKS5 clients that are not ours", () => {
  let server: UdpServer;
  let open: UdpLocal;
  let guarded: UdpLocal;
  let echo: UdpSocket;
  let web: Server;
  let webPort: number;
  const port = (local: UdpLocal) => String(local.address.socks5).split(":")[1];

  beforeAll(async () => {
    echo = await startUdpEcho();
    web = createServer((request, response) => response.end(`hello ${request.url}`)).listen(0, "127.0.0.1");
    await once(web, "listening");
    webPort = (web.address() as AddressInfo).port;
    server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: KEY, allow: ["127.0.0.1/32"] });
    const common = { server: server.address.listen[0], psk: KEY, listen: "127.0.0.1:0" };
    open = await startUdpLocal(common);
    guarded = await startUdpLocal({ ...common, socksAuth: AUTH });
    await Promise.all([open, guarded].map((local) => local.stats().sessions || once(local, "session-up")));
  });

  afterAll(async () => {
    web.close();
    echo.close();
    await open.close();
    await guarded.close();
    await server.close();
  });

  it("PySocks gets 0 to 60,000 bytes back through UDP ASSOCIATE with an address as the target", async () => {
    const args = [port(open), "", "", "127.0.0.1", String(echo.address().port)];
    expect(await run("/usr/bin/python3", ["-c", PYSOCKS, ...args])).toBe("ok\n");
  });

  it("PySocks reaches an IPv4-mapped target and gets the IPv4 address as the source", async () => {
    const args = [port(open), "", "", "::ffff:127.0.0.1", String(echo.address().port)];
    expect(await run("/usr/bin/python3", ["-c", PYSOCKS, ...args])).toBe("ok\n");
  });

  it("PySocks gets datagrams back with user and password", async () => {
    const args = [port(guarded), AUTH.user, AUTH.password, "127.0.0.1", String(echo.address().port)];
    expect(await run("/usr/bin/python3", ["-c", PYSOCKS, ...args])).toBe("ok\n");
  });

  it("PySocks is refused with a wrong password and without one", async () => {
    for (const [user, password] of [
      ["", ""],
      [AUTH.user, "wrong"],
    ]) {
      const args = [port(guarded), user, password, "127.0.0.1", String(echo.address().port)];
      await expect(run("/usr/bin/python3", ["-c", PYSOCKS, ...args])).rejects.toThrow(/SOCKS5|auth/i);
    }
    expect(guarded.stats().refused.socks_refused).toBe(2);
  });

  it("curl's CONNECT is relayed unmodified to an address and to a name", async () => {
    for (const [flag, host] of [
      ["--socks5", "127.0.0.1"],
      ["--socks5-hostname", "localhost"],
    ]) {
      const page = await run("curl", [
        "-sS",
        flag,
        `127.0.0.1:${port(open)}`,
        `http://${host}:${webPort}/page`,
      ]);
      expect(page).toBe("hello /page");
    }
  });

  it("curl reports that nothing listens", async () => {
    const dead = await freePort();
    await expect(
      run("curl", ["-sS", "--socks5", `127.0.0.1:${port(open)}`, `http://127.0.0.1:${dead}/`]),
    ).rejects.toThrow(/exits with 97/);
  });

  it("curl's CONNECT goes through another SOCKS5 server with --tcp-via", async () => {
    const microsocksPort = await freePort();
    const microsocks = await startPeer(
      "microsocks",
      ["-i", "127.0.0.1", "-p", String(microsocksPort), "-u", "u", "-P", "p"],
      microsocksPort,
    );
    const local = await startUdpLocal({
      server: server.address.listen[0],
      psk: KEY,
      listen: "127.0.0.1:0",
      tcpVia: `socks5://u:p@127.0.0.1:${microsocksPort}`,
    });
    try {
      const url = `http://127.0.0.1:${webPort}/by-microsocks`;
      expect(await run("curl", ["-sS", "--socks5", `127.0.0.1:${port(local)}`, url])).toBe(
        "hello /by-microsocks",
      );
    } finally {
      await local.close();
      await microsocks.stop();
    }
  });
});
