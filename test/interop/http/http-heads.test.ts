import type { Socket as UdpSocket } from "node:dgram";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { UdpServer } from "../../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../../src/node/options/udp-local.ts";
import { startUdpServer } from "../../support/start.ts";
import { expectTunnelEchoes, startUdpEcho } from "../../support/udp-echo.ts";
import type { PeerProgram } from "../peers/peer-program.ts";
import { describeWith, freePort, startPeer } from "../peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");

describeWith(["haproxy", "tinyproxy", "socat"], "HTTP heads of proxies that are not ours", () => {
  const folder = mkdtempSync(join(tmpdir(), "underpass-heads-"));
  const peers: PeerProgram[] = [];
  let server: UdpServer;
  let echo: UdpSocket;
  let direct: string;
  const ports = { gate: 0, reverse: 0, tinyproxy: 0, lineFeeds: 0 };

  beforeAll(async () => {
    echo = await startUdpEcho();
    server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: KEY, allow: ["127.0.0.1/32"] });
    direct = server.address.listen[0];
    for (const name of ["gate", "reverse", "tinyproxy", "lineFeeds"] as const) ports[name] = await freePort();
    writeFileSync(
      join(folder, "tinyproxy.conf"),
      `Port ${ports.tinyproxy}
Listen 127.0.0.1
BasicAuth user p4ss
`,
    );
    // Both frontends send a 103 first, and their final answer has a byte that is not ASCII.
    const rules = `http-request early-hint Link "</a>; rel=preload"
  http-after-response set-header X-Name "caf\\xe9"`;
    writeFileSync(
      join(folder, "haproxy.conf"),
      `defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend gate
  bind 127.0.0.1:${ports.gate}
  ${rules}
  http-request return status 403 unless { req.fhdr(X-Gate) -m str "open, please" }
  default_backend tinyproxy
frontend reverse
  bind 127.0.0.1:${ports.reverse}
  ${rules}
  default_backend udp-server
backend tinyproxy
  server tinyproxy 127.0.0.1:${ports.tinyproxy}
backend udp-server
  server udp-server ${direct}
`,
    );
    const [, upstream] = direct.split(":");
    writeFileSync(
      join(folder, "proxy.sh"),
      `while read -r line && [ \${#line} -gt 1 ]; do :; done
printf 'HTTP/1.0 200 Connection established\\nVia: sh\\n\\n'
exec socat - TCP:127.0.0.1:${upstream}
`,
    );
    const listen = `TCP-LISTEN:${ports.lineFeeds},bind=127.0.0.1,reuseaddr,fork`;
    peers.push(
      await startPeer("tinyproxy", ["-d", "-c", join(folder, "tinyproxy.conf")], ports.tinyproxy),
      await startPeer("haproxy", ["-db", "-f", join(folder, "haproxy.conf")], ports.gate),
      await startPeer("socat", [listen, `EXEC:sh ${join(folder, "proxy.sh")}`], ports.lineFeeds),
    );
  });

  afterAll(async () => {
    for (const peer of peers) await peer.stop();
    echo.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const expectEcho = (options: UdpLocalOptions) => expectTunnelEchoes(echo, { psk: KEY, ...options });

  it("haproxy sends a 103 first, and a byte that is not ASCII", async () => {
    const socket = connect(ports.reverse, "127.0.0.1").setEncoding("latin1");
    socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let text = "";
    for await (const piece of socket) text += piece;
    expect(text).toMatch(/^HTTP\/1\.1 103 .*\r\n\r\nHTTP\/1\.1 404 .*\r\nx-name: caf\xe9\r\n/s);
  });

  it("haproxy carries the tunnel to tinyproxy after a 103 if the URL has the required field", () =>
    expectEcho({
      server: direct,
      via: [`http://user:p4ss@127.0.0.1:${ports.gate}?header=X-Gate:%20open,%20please&header=X-Other:%20a`],
    }));

  it("haproxy refuses the CONNECT if the URL has another value of that field", () =>
    expect(
      expectEcho({ server: direct, via: [`http://user:p4ss@127.0.0.1:${ports.gate}?header=X-Gate:%20no`] }),
    ).rejects.toThrow(/status 403$/));

  it("udp-server behind haproxy accepts the tunnel after a 103", () =>
    expectEcho({ server: `127.0.0.1:${ports.reverse}` }));

  it("a proxy that ends its lines with LF alone carries the tunnel", () =>
    expectEcho({ server: direct, via: [`http://127.0.0.1:${ports.lineFeeds}`] }));

  it("a 407 of tinyproxy is reported with a hint to set credentials", async () => {
    const failure = expectEcho({ server: direct, via: [`http://127.0.0.1:${ports.tinyproxy}`] });
    await expect(failure).rejects.toThrow(
      /status 407: the proxy wants credentials \(Basic\): use http:\/\/USER:PASSWORD@HOST:PORT$/,
    );
  });
});
