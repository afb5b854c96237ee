import { spawnSync } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { AddressInfo, Server } from "node:net";
import { createServer } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { METHODS } from "../../src/core/shadowsocks/method.ts";
import type { UdpServer } from "../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../src/node/options/udp-local.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";
import { startUdpLocal, startUdpServer } from "../support/start.ts";
import { expectTunnelEchoes, startUdpEcho } from "../support/udp-echo.ts";
import { openWay } from "./peers/open-way.ts";
import type { PeerProgram } from "./peers/peer-program.ts";
import { describeWith, freePort, startPeer } from "./peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");
const PASSWORD = "pä:ss/w@rd";
/** The methods of ss-server. */
const STOCK_METHODS = Object.keys(METHODS).filter((name) => !METHODS[name].is2022);

/** Child processes of a process. */
function childrenOf(parent: number): { pid: number; name: string }[] {
  const { stdout } = spawnSync("ps", ["-o", "pid=,comm=", "--ppid", String(parent)], { encoding: "utf8" });
  return stdout
    .split("\n")
    .filter((line) => line !== "" && !line.includes("<defunct>"))
    .map((line) => {
      const [pid, name] = line.trim().split(/\s+/);
      return { pid: Number(pid), name };
    });
}

function environmentOf(pid: number): Record<string, string> {
  const lines = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
}

describeWith(["ss-server", "obfs-server", "ss-v2ray-plugin"], "ss:// to a server that is not ours", () => {
  const peers: PeerProgram[] = [];
  let server: UdpServer;
  let echo: UdpSocket;
  let echoTcp: Server;
  /** Sends first, like a mail server. */
  let greeter: Server;
  const portOf = (listener: Server) => (listener.address() as AddressInfo).port;

  /** Starts ss-server. @returns its port */
  async function startServer(method: string, options?: string, plugin = "obfs-server"): Promise<number> {
    const port = await freePort();
    const args = ["-s", "127.0.0.1", "-p", String(port), "-k", PASSWORD, "-m", method, "--no-delay"];
    if (options !== undefined) args.push("--plugin", plugin, "--plugin-opts", options);
    peers.push(await startPeer("ss-server", args, port));
    return port;
  }

  function url(method: string, port: number, plugin?: string, password = PASSWORD): string {
    const pair = Buffer.from(`${method}:${password}`).toString("base64url");
    const query = plugin === undefined ? "" : `/?plugin=${encodeURIComponent(plugin)}`;
    return `ss://${pair}@127.0.0.1:${port}${query}#a%20name`;
  }

  const expectEcho = (options: UdpLocalOptions) =>
    expectTunnelEchoes(
      echo,
      { psk: KEY, server: server.address.listen[0], ...options },
      [1, 1_200, 9_000, 60_000, 1_200],
    );

  const target = (listener: Server) => makeAddress("127.0.0.1", portOf(listener))!;

  beforeAll(async () => {
    echo = await startUdpEcho();
    server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: KEY, allow: ["127.0.0.1/32"] });
    echoTcp = createServer((socket) => socket.pipe(socket).on("error", () => {})).listen(0, "127.0.0.1");
    greeter = createServer((socket) => socket.on("error", () => {}).end("220 hello\r\n")).listen(
      0,
      "127.0.0.1",
    );
    await Promise.all([once(echoTcp, "listening"), once(greeter, "listening")]);
  });

  afterAll(async () => {
    // On SIGKILL, ss-server would leave its plugins running.
    for (const { child } of peers) child.kill();
    await Promise.all(peers.map(({ child }) => child.exitCode ?? child.signalCode ?? once(child, "exit")));
    await server?.close();
    echo?.close();
    echoTcp?.close();
    greeter?.close();
  });

  it.each(STOCK_METHODS)("carries lanes with %s", async (method) => {
    await expectEcho({ via: [url(method, await startServer(method))] });
  });

  it.each(["http", "tls"])("carries lanes with built-in obfs=%s", async (kind) => {
    const port = await startServer("chacha20-ietf-poly1305", `obfs=${kind}`);
    const plugin = `obfs-local;obfs=${kind};obfs-host=example.com`;
    await expectEcho({ via: [url("chacha20-ietf-poly1305", port, plugin)] });
  });

  it.each(["http", "tls", undefined])(
    "carries 30 MB of TCP both ways with obfs=%s, unchanged",
    async (kind) => {
      const options = kind === undefined ? undefined : `obfs=${kind}`;
      const port = await startServer("aes-256-gcm", options);
      const via = url("aes-256-gcm", port, options && `obfs-local;${options}`);
      const stream = await openWay(via).connect(target(echoTcp));
      const total = 30_000_000;
      let [sent, heard] = [0, 0];
      const write = () => {
        while (sent < total) {
          const piece = Buffer.alloc(Math.min(1 + (sent % 77_777), total - sent));
          for (let i = 0; i < piece.length; i++) piece[i] = (sent + i) % 251;
          sent += piece.length;
          if (!stream.write(piece)) return void stream.once("drain", write);
        }
      };
      write();
      for await (const data of stream) {
        for (let i = 0; i < data.length; i++)
          if (data[i] !== (heard + i) % 251) throw new Error(`at ${heard + i}`);
        heard += data.length;
        if (heard === total) break;
      }
      expect(heard).toBe(total);
    },
  );

  it.each([undefined, "obfs=http", "obfs=tls"])(
    "receives from a target that sends first, with %s",
    async (options) => {
      const port = await startServer("aes-128-gcm", options);
      const via = url("aes-128-gcm", port, options && `obfs-local;${options}`);
      const stream = await openWay(via).connect(target(greeter));
      let text = "";
      for await (const data of stream) text += data;
      expect(text).toBe("220 hello\r\n");
    },
  );

  it("starts any other plugin once for all lanes, restarts it when it ends, and stops it", async () => {
    const port = await startServer("aes-256-gcm", "obfs=tls");
    // Given as a path, it is an external program.
    const via = url("aes-256-gcm", port, "/usr/bin/obfs-local;obfs=tls;obfs-host=a\\;b.test");
    const local = await startUdpLocal({
      psk: KEY,
      server: server.address.listen[0],
      listen: "127.0.0.1:0",
      lanes: 2,
      via: [via],
      tcpVia: via,
    });
    const plugins = () => childrenOf(process.pid).filter(({ name }) => name === "obfs-local");
    try {
      await once(local, "session-up");
      const [first, ...others] = plugins();
      expect(others).toEqual([]);
      expect(environmentOf(first.pid)).toMatchObject({
        SS_REMOTE_HOST: "127.0.0.1",
        SS_REMOTE_PORT: String(port),
        SS_LOCAL_HOST: "127.0.0.1",
        SS_PLUGIN_OPTIONS: "obfs=tls;obfs-host=a\\;b.test",
      });
      const upAgain = new Promise((done) => local.once("session-up", done));
      process.kill(first.pid, "SIGKILL");
      await upAgain;
      expect(plugins().length).toBe(1);
      expect(plugins()[0].pid).not.toBe(first.pid);
    } finally {
      await local.close();
    }
    expect(plugins()).toEqual([]);
  });

  it("carries lanes and TCP by v2ray-plugin in WebSocket", async () => {
    const port = await startServer("aes-256-gcm", "server;path=/a", "ss-v2ray-plugin");
    const via = url("aes-256-gcm", port, "ss-v2ray-plugin;path=/a;host=b.test");
    await expectEcho({ via: [via] });
    const way = openWay(via);
    const stream = await way.connect(target(greeter));
    let text = "";
    for await (const data of stream) text += data;
    expect(text).toBe("220 hello\r\n");
    await way.close();
  });

  it.each([
    [
      "that is not there",
      "/nowhere/plugin;x=1",
      /9: plugin \/nowhere\/plugin: no such file or directory \(ENOENT\)$/,
    ],
    ["that ends at once", "/bin/false", /plugin \/bin\/false: it ended \(1\)/],
  ])("reports a plugin %s", async (_, plugin, message) => {
    const way = openWay(url("aes-256-gcm", 9, plugin));
    const failures = await Promise.allSettled([1, 2].map(() => way.connect(target(echoTcp))));
    for (const failure of failures) {
      expect((failure as PromiseRejectedResult).reason.message).toMatch(message);
    }
    await way.close();
  });

  it("carries lanes as the second and as the first of two hops", async () => {
    const first = await startServer("aes-256-gcm");
    const second = await startServer("aes-128-gcm", "obfs=http");
    const [near, far] = [url("aes-256-gcm", first), url("aes-128-gcm", second, "obfs-local;obfs=http")];
    await expectEcho({ via: [near, far] });
    await expectEcho({ via: [far, near] });
    await expectEcho({ ways: [`${near} ${far}`] });
  });

  it("carries TCP through two hops", async () => {
    const first = await startServer("aes-256-gcm", "obfs=tls");
    const near = url("aes-256-gcm", first, "obfs-local;obfs=tls");
    const way = openWay(`${near} ${url("aes-128-gcm", await startServer("aes-128-gcm"))}`);
    const stream = await way.connect(target(greeter));
    let text = "";
    for await (const data of stream) text += data;
    expect(text).toBe("220 hello\r\n");
    await way.close();
  });

  it("fails with a wrong password and names the server without it", async () => {
    const port = await startServer("aes-256-gcm");
    const stream = await openWay(url("aes-256-gcm", port, undefined, "wrong")).connect(target(echoTcp));
    stream.write("hello");
    const outcome = await Promise.race([
      once(stream, "data").then(() => "data"),
      new Promise((done) => setTimeout(done, 500, "silence")),
    ]);
    stream.destroy();
    expect(outcome).toBe("silence");
  });
});
