import { spawnSync } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { duplexPair } from "node:stream";
import type { Server as TlsServer } from "node:tls";
import { createServer as createTlsServer } from "node:tls";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { UdpServer } from "../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../src/node/options/udp-local.ts";
import { startUdpLocal, startUdpServer } from "../support/start.ts";
import { expectTunnelEchoes, startUdpEcho } from "../support/udp-echo.ts";
import { startDanted } from "./peers/danted.ts";
import type { PeerProgram } from "./peers/peer-program.ts";
import { describeWith, freePort, startPeer } from "./peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");

describeWith(["danted", "microsocks", "tinyproxy", "openssl"], "carriers that are not ours", () => {
  const folder = mkdtempSync(join(tmpdir(), "underpass-carriers-"));
  const peers: PeerProgram[] = [];
  const inFolder = (name: string) => join(folder, name);
  let server: UdpServer;
  let echo: UdpSocket;
  let tls: TlsServer;
  let mutualTls: TlsServer;
  let serverPort: string;
  const ports = { danted: 0, microsocks: 0, tinyproxy: 0 };

  const expectEcho = (options: UdpLocalOptions) => expectTunnelEchoes(echo, { psk: KEY, ...options });

  function openssl(...args: string[]): void {
    const { status, stderr } = spawnSync("openssl", args, { encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
  }

  /** A certificate for `name`, signed by the test's authority. */
  function makeCertificate(file: string, name: string): void {
    openssl(
      "req",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      inFolder(`${file}.key`),
      "-out",
      inFolder(`${file}.csr`),
      "-subj",
      `/CN=${name}`,
    );
    writeFileSync(inFolder(`${file}.ext`), `subjectAltName=DNS:${name}\n`);
    openssl(
      "x509",
      "-req",
      "-in",
      inFolder(`${file}.csr`),
      "-CA",
      inFolder("ca.pem"),
      "-CAkey",
      inFolder("ca.key"),
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      inFolder(`${file}.ext`),
      "-out",
      inFolder(`${file}.pem`),
    );
  }

  /** A TLS terminator in front of udp-server. */
  async function startTls(requestCert: boolean): Promise<TlsServer> {
    const terminator = createTlsServer(
      {
        key: readFileSync(inFolder("server.key")),
        cert: readFileSync(inFolder("server.pem")),
        ca: readFileSync(inFolder("ca.pem")),
        requestCert,
        rejectUnauthorized: requestCert,
      },
      (socket) => {
        const inner = connect(Number(serverPort), "127.0.0.1");
        for (const end of [socket, inner]) end.on("error", () => {});
        socket.pipe(inner).pipe(socket);
        socket.once("close", () => inner.destroy());
        inner.once("close", () => socket.destroy());
      },
    );
    terminator.on("tlsClientError", () => {});
    terminator.listen(0, "127.0.0.1");
    await once(terminator, "listening");
    return terminator;
  }

  const portOf = (terminator: TlsServer) => (terminator.address() as AddressInfo).port;

  beforeAll(async () => {
    echo = await startUdpEcho();
    server = await startUdpServer({
      listen: ["127.0.0.1:0", `unix:${inFolder("socket")}`],
      psk: KEY,
      allow: ["127.0.0.1/32"],
    });
    serverPort = server.address.listen[0].split(":")[1];
    openssl(
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=test authority",
      "-keyout",
      inFolder("ca.key"),
      "-out",
      inFolder("ca.pem"),
    );
    makeCertificate("server", "tunnel.test");
    makeCertificate("client", "client.test");
    tls = await startTls(false);
    mutualTls = await startTls(true);
    for (const name of ["danted", "microsocks", "tinyproxy"] as const) ports[name] = await freePort();
    writeFileSync(
      inFolder("tinyproxy.conf"),
      `Port ${ports.tinyproxy}
Listen 127.0.0.1
Timeout 600
BasicAuth user p4ss
`,
    );
    peers.push(
      await startDanted(folder, ports.danted),
      await startPeer(
        "microsocks",
        ["-i", "127.0.0.1", "-p", String(ports.microsocks), "-u", "us:er", "-P", "p@ss"],
        ports.microsocks,
      ),
      await startPeer("tinyproxy", ["-d", "-c", inFolder("tinyproxy.conf")], ports.tinyproxy),
    );
  });

  afterAll(async () => {
    for (const peer of peers) await peer.stop();
    tls.close();
    mutualTls.close();
    echo.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const direct = () => `127.0.0.1:${serverPort}`;
  const microsocks = () => `socks5://us%3Aer:p%40ss@127.0.0.1:${ports.microsocks}`;
  const ca = () => `ca=${inFolder("ca.pem")}`;

  it("danted carries the tunnel", () =>
    expectEcho({ server: direct(), via: [`socks5://127.0.0.1:${ports.danted}`] }));

  it("microsocks carries the tunnel with user and password", () =>
    expectEcho({ server: direct(), via: [microsocks()] }));

  it("microsocks reaches the server by its name", () =>
    expectEcho({ server: `localhost:${serverPort}`, via: [microsocks()] }));

  it("tinyproxy carries the tunnel through CONNECT with basic credentials", () =>
    expectEcho({ server: direct(), via: [`http://user:p4ss@127.0.0.1:${ports.tinyproxy}`] }));

  it("reaches one proxy through another", () =>
    expectEcho({ server: direct(), via: [`socks5://127.0.0.1:${ports.danted}`, microsocks()] }));

  it("a Unix socket carries the tunnel, given as server or as carrier", async () => {
    await expectEcho({ server: `unix:${inFolder("socket")}` });
    await expectEcho({ via: [`unix:${inFolder("socket")}`] });
  });

  it("TLS carries the tunnel after the certificate is verified", () =>
    expectEcho({ server: `127.0.0.1:${portOf(tls)}`, via: [`tls://?servername=tunnel.test&${ca()}`] }));

  it("TLS inside SOCKS5 carries the tunnel", () =>
    expectEcho({
      server: `127.0.0.1:${portOf(tls)}`,
      via: [microsocks(), `tls://?servername=tunnel.test&${ca()}`],
    }));

  it("TLS with a client's certificate carries the tunnel", () =>
    expectEcho({
      server: `127.0.0.1:${portOf(mutualTls)}`,
      via: [
        `tls://?servername=tunnel.test&${ca()}&cert=${inFolder("client.pem")}&key=${inFolder("client.key")}`,
      ],
    }));

  it("TLS reads PEM files saved with a byte-order mark, CRLF and trailing blanks", async () => {
    for (const name of ["ca.pem", "client.pem", "client.key"]) {
      const text = readFileSync(inFolder(name), "utf8").replaceAll("\n", "\r\n");
      writeFileSync(inFolder(`edited-${name}`), `\ufeff${text} \r\n\r\n`);
    }
    const files = `ca=${inFolder("edited-ca.pem")}&cert=${inFolder("edited-client.pem")}&key=${inFolder("edited-client.key")}`;
    await expectEcho({
      server: `127.0.0.1:${portOf(mutualTls)}`,
      via: [`tls://?servername=tunnel.test&${files}`],
    });
  });

  it("refuses TLS files at startup if they hold no certificate or do not match", async () => {
    writeFileSync(inFolder("empty.pem"), "no certificate\n");
    const pair = (cert: string, key: string) => `tls://?cert=${inFolder(cert)}&key=${inFolder(key)}`;
    const problems: [string, RegExp][] = [
      [`tls://?ca=${inFolder("empty.pem")}`, /empty\.pem: (no start line|PEM|X509)/],
      [pair("client.pem", "server.key"), /server\.key: (key values mismatch|is not the certificate's)/],
      [pair("empty.pem", "client.key"), /(client\.key|empty\.pem): (no start line|PEM|X509)/],
    ];
    for (const [via, problem] of problems) {
      await expect(startUdpLocal({ via: [via], listen: "127.0.0.1:0" })).rejects.toThrow(problem);
    }
  });

  it("a stream from the caller carries the tunnel", async () => {
    const carrier = () => {
      const [near, far] = duplexPair() as [Duplex, Duplex];
      const inner = connect(Number(serverPort), "127.0.0.1");
      for (const end of [near, far, inner]) end.on("error", () => {});
      far.pipe(inner).pipe(far);
      near.once("close", () => inner.destroy());
      return near;
    };
    await expectEcho({ carrier });
  });

  it.each([
    ["a name that the certificate is not for", () => `tls://?servername=other.test&${ca()}`, /other\.test/],
    ["an authority that is not trusted", () => "tls://?servername=tunnel.test", /certificate/],
    ["a server without TLS", () => `tls://${direct()}`, /: closed during the handshake$/],
  ])("TLS is refused for %s", async (_what, via, message) => {
    await expect(expectEcho({ server: `127.0.0.1:${portOf(tls)}`, via: [via()] })).rejects.toThrow(message);
  });

  it("TLS is refused for a web server without TLS", async () => {
    const web = createServer((connection) =>
      connection.on("error", () => {}).end("HTTP/1.1 400 Bad\r\n\r\n"),
    );
    await once(web.listen(0, "127.0.0.1"), "listening");
    const { port } = web.address() as AddressInfo;
    await expect(expectEcho({ server: direct(), via: [`tls://127.0.0.1:${port}`] })).rejects.toThrow(
      /: no TLS comes from there: (wrong version number|SSL - An invalid SSL record was received)$/,
    );
    web.close();
  });

  it("a session never comes up without the client certificate that the terminator requires", async () => {
    const via = [`tls://?servername=tunnel.test&${ca()}`];
    await expect(expectEcho({ server: `127.0.0.1:${portOf(mutualTls)}`, via })).rejects.toThrow(
      /certificate required|closed|ended|alert/i,
    );
  });

  it.each([
    ["a wrong password", () => `socks5://us%3Aer:wrong@127.0.0.1:${ports.microsocks}`, /socks5 .*refused/],
    ["a wrong HTTP password", () => `http://user:no@127.0.0.1:${ports.tinyproxy}`, /http .*status 40/],
  ])("names the step that failed for %s, without the password", async (_what, via, message) => {
    const failure = expectEcho({ server: direct(), via: [via()] });
    await expect(failure).rejects.toThrow(message);
    await expect(failure).rejects.not.toThrow(/wrong|:no@/);
  });

  it("reports that the server is down, and retries until it is up", async () => {
    const port = await freePort();
    const local = await startUdpLocal({ server: `127.0.0.1:${port}`, psk: KEY, listen: "127.0.0.1:0" });
    const [error] = await once(local, "error");
    expect(error.message).toMatch(new RegExp(`cannot connect: 127.0.0.1:${port}: .*ECONNREFUSED`));
    const late = await startUdpServer({ listen: [`127.0.0.1:${port}`], psk: KEY });
    await once(local, "session-up");
    await local.close();
    await late.close();
  });
});
