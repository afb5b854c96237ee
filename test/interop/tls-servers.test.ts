import { spawn, spawnSync } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo, Socket } from "node:net";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket, TlsOptions } from "node:tls";
import { createServer as createTlsServer } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { UdpLocal, UdpServer } from "../../src/node/handles.ts";
import { startUdpLocal, startUdpServer } from "../support/start.ts";
import { expectForwardEchoes, startUdpEcho } from "../support/udp-echo.ts";
import { describeWith, freePort, startPeer } from "./peers/peer-program.ts";

const KEY = Buffer.alloc(32, "k");
const VERSIONS = ["TLSv1.2", "TLSv1.3"] as const;

/** A TLS server in front of udp-server. */
interface Terminator {
  readonly port: number;
  /** Accepted connections. */
  readonly connections: { readonly raw: Socket; readonly version: string | null }[];
}

describeWith(["openssl", "haproxy"], "udp-local over TLS", () => {
  const folder = mkdtempSync(join(tmpdir(), "underpass-tls-"));
  const inFolder = (name: string) => join(folder, name);
  const ends: (() => unknown)[] = [];
  let server: UdpServer;
  let serverPort: number;
  let echo: UdpSocket;

  function openssl(...args: string[]): void {
    const { status, stderr } = spawnSync("openssl", args, { encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
  }

  /** A certificate of the test's authority for tunnel.test and 127.0.0.1. @param key  options of `openssl req` */
  function makeCertificate(file: string, key: readonly string[], days = 2): void {
    const [secret, request] = [inFolder(`${file}.key`), inFolder(`${file}.csr`)];
    openssl("req", ...key, "-nodes", "-keyout", secret, "-out", request, "-subj", "/CN=tunnel.test");
    writeFileSync(inFolder("names"), "subjectAltName=DNS:tunnel.test,IP:127.0.0.1\n");
    openssl(
      ...["x509", "-req", "-in", request, "-out", inFolder(`${file}.pem`), "-extfile", inFolder("names")],
      ...["-CA", inFolder("ca.pem"), "-CAkey", inFolder("ca.key"), "-CAcreateserial", "-days", `${days}`],
    );
  }

  const ecKey = (curve: string) => ["-newkey", "ec", "-pkeyopt", `ec_paramgen_curve:${curve}`];

  /** Pipes both ways until either side ends. */
  function joinWithServer(left: NodeJS.ReadWriteStream & { destroy(): unknown }): void {
    const inner = connect(serverPort, "127.0.0.1");
    for (const end of [left, inner]) end.on("error", () => {});
    left.pipe(inner).pipe(left);
    left.once("close", () => inner.destroy());
    inner.once("close", () => left.destroy());
  }

  async function startTerminator(options: TlsOptions, certificate = "rsa"): Promise<Terminator> {
    const connections: Terminator["connections"] = [];
    const files = { key: `${certificate}.key`, cert: `${certificate}.pem`, ca: "ca.pem" };
    const read = Object.entries(files).map(([name, file]) => [name, readFileSync(inFolder(file))]);
    const terminator = createTlsServer({ ...Object.fromEntries(read), ...options });
    const sockets: Socket[] = [];
    terminator.on("connection", (socket: Socket) => sockets.push(socket));
    terminator.on("secureConnection", (socket: TLSSocket) => {
      const raw = sockets.find(({ remotePort }) => remotePort === socket.remotePort)!;
      connections.push({ raw, version: socket.getProtocol() });
      socket.setMaxSendFragment(512);
      joinWithServer(socket);
    });
    terminator.on("tlsClientError", () => {});
    terminator.listen(0, "127.0.0.1");
    await once(terminator, "listening");
    ends.push(() => {
      terminator.close();
      for (const socket of sockets) socket.destroy();
    });
    return { port: (terminator.address() as AddressInfo).port, connections };
  }

  /** `openssl s_server`, whose standard input and output are the stream inside TLS. It serves one connection at a time. */
  async function startOpenSsl(args: readonly string[], certificate = "rsa"): Promise<number> {
    const port = await freePort();
    const files = ["-cert", inFolder(`${certificate}.pem`), "-key", inFolder(`${certificate}.key`)];
    const child = spawn("openssl", ["s_server", "-quiet", "-accept", `127.0.0.1:${port}`, ...files, ...args]);
    const inner = connect(serverPort, "127.0.0.1");
    for (const stream of [inner, child.stdin]) stream.on("error", () => {});
    child.stdout.pipe(inner).pipe(child.stdin);
    let complaints = "";
    child.stderr.on("data", (data) => {
      complaints += data;
    });
    ends.push(async () => {
      inner.destroy();
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill();
      await once(child, "exit");
    });
    // It would serve a test connection, so look for its listener in the kernel's table instead.
    const listens = ` 0100007F:${port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000 0A `;
    while (!readFileSync("/proc/net/tcp", "latin1").includes(listens)) {
      if (child.exitCode !== null) throw new Error(`openssl ended: ${complaints}`);
      await new Promise((done) => setTimeout(done, 10));
    }
    return port;
  }

  async function startLocal(port: number, query = `ca=${inFolder("ca.pem")}`): Promise<UdpLocal> {
    const local = await startUdpLocal({
      server: "127.0.0.1:1",
      via: [`tls://127.0.0.1:${port}?${query}`],
      psk: KEY,
      lanes: 1,
      forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
    });
    ends.push(() => local.close());
    return local;
  }

  /** Waits for the session. @throws the reason why it does not come up */
  async function isUp(local: UdpLocal): Promise<void> {
    // Later errors do not matter.
    local.on("error", () => {});
    await once(local, "session-up");
  }

  const expectEcho = (local: UdpLocal) => expectForwardEchoes(local, [1, 1_200, 60_000]);

  beforeAll(async () => {
    echo = await startUdpEcho();
    server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: KEY, allow: ["127.0.0.1/32"] });
    serverPort = Number(server.address.listen[0].split(":")[1]);
    openssl(
      ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority"],
      ...["-keyout", inFolder("ca.key"), "-out", inFolder("ca.pem")],
    );
    makeCertificate("rsa", ["-newkey", "rsa:2048"]);
    makeCertificate("p256", ecKey("P-256"));
    makeCertificate("p384", ecKey("P-384"));
    makeCertificate("expired", ecKey("P-256"), -1);
  });

  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  afterAll(async () => {
    echo.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  describe.each(VERSIONS)("%s alone", (version) => {
    const only = { minVersion: version, maxVersion: version };

    it.each(["rsa", "p256", "p384"])(
      "carries the tunnel, in records of 512 bytes (%s)",
      async (certificate) => {
        const { port, connections } = await startTerminator(only, certificate);
        const local = await startLocal(port);
        await isUp(local);
        await expectEcho(local);
        expect(connections).toEqual([expect.objectContaining({ version })]);
      },
    );

    it.each([
      ["another name", "rsa", () => `servername=other.test&ca=${inFolder("ca.pem")}`, /other\.test/],
      ["an unknown authority", "rsa", () => "servername=tunnel.test", /certificate/],
      ["a time that is over", "expired", () => `ca=${inFolder("ca.pem")}`, /expired/],
    ])("does not connect with a certificate for %s", async (_what, certificate, query, message) => {
      const { port, connections } = await startTerminator(only, certificate);
      const failure = isUp(await startLocal(port, query()));
      await expect(failure).rejects.toMatchObject({
        code: "ERR_CONNECT",
        message: expect.stringMatching(message),
      });
      for (const { raw } of connections) if (!raw.closed) await once(raw, "close");
      expect(connections.reduce((sum, { raw }) => sum + raw.bytesRead, 0)).toBeLessThan(3_000);
    });

    it("accepts any certificate with insecure=1", async () => {
      const { port } = await startTerminator(only, "expired");
      const local = await startLocal(port, "insecure=1&servername=other.test");
      await isUp(local);
      await expectEcho(local);
    });

    it("reports the alert of a server that requires a client certificate", async () => {
      const { port } = await startTerminator({ ...only, requestCert: true, rejectUnauthorized: true });
      await expect(isUp(await startLocal(port))).rejects.toMatchObject({
        // In TLS 1.3 the client's handshake ends before the server has checked its certificate.
        code: version === "TLSv1.2" ? "ERR_CONNECT" : "ERR_CONNECTION_LOST",
        message: expect.stringMatching(/^(?!.*HTTP).*: (ssl|tls)v\d+ alert [a-z ]+$/),
      });
    });

    it.each(["end", "resetAndDestroy"] as const)(
      "resumes a session whose connection ends without close_notify (%s)",
      async (how) => {
        const { port, connections } = await startTerminator(only);
        const local = await startLocal(port);
        await isUp(local);
        await expectEcho(local);
        // events.once() would reject on the error before it.
        const resumed = new Promise((done) => local.once("session-resumed", done));
        connections[0].raw[how]();
        await resumed;
        await expectEcho(local);
        expect(connections).toHaveLength(2);
      },
    );
  });

  it.each([
    ["sends 20 tickets", ["-tls1_3", "-num_tickets", "20"], "rsa"],
    ["knows P-384 alone, and asks for it", ["-tls1_3", "-groups", "P-384"], "p384"],
    ["knows AES-256 alone", ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], "p256"],
    ["knows ChaCha20 alone", ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "p256"],
    ["sends no tickets", ["-tls1_3", "-num_tickets", "0"], "p256"],
    ["knows ChaCha20 alone, in TLS 1.2", ["-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"], "rsa"],
  ])("OpenSSL's server carries the tunnel if it %s", async (_what, args, certificate) => {
    const port = await startOpenSsl(args, certificate);
    const local = await startLocal(port);
    await isUp(local);
    await expectEcho(local);
  });

  it("HAProxy carries the tunnel with only TLS 1.3", async () => {
    const port = await freePort();
    const pem = ["p256.pem", "p256.key"].map((file) => readFileSync(inFolder(file), "utf8")).join("");
    writeFileSync(inFolder("haproxy.pem"), pem);
    writeFileSync(
      inFolder("haproxy.cfg"),
      `defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen tunnel
  bind 127.0.0.1:${port} ssl crt ${inFolder("haproxy.pem")} ssl-min-ver TLSv1.3
  server udp-server 127.0.0.1:${serverPort}
`,
    );
    const haproxy = await startPeer("haproxy", ["-db", "-f", inFolder("haproxy.cfg")], port);
    ends.push(() => haproxy.stop());
    const local = await startLocal(port);
    await isUp(local);
    await expectEcho(local);
  });
});
