import type { ChildProcess } from "node:child_process";
import { spawn, spawnSync } from "node:child_process";
import type { Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo, Server, Socket as TcpSocket } from "node:net";
import { connect, createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { associate } from "../e2e/peers/socks5/socks5-udp-client.mjs";
import { describeUnless, freePort, run, startPeer } from "./peers/peer-program.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const BUILD = join(ROOT, "build/capi");
const PROGRAM = join(BUILD, "bin/underpass");
const folder = mkdtempSync(join(tmpdir(), "underpass-c-"));
const keyFile = join(folder, "psk");
const children = new Set<ChildProcess>();
let echo: Socket;

type Kind = "C" | "Node";

interface Running {
  readonly child: ChildProcess;
  readonly ready: { listen?: string[]; socks5?: string; forwards?: { listen: string }[] };
  /** Everything written to standard error. */
  log(): string;
  /** Waits for another log line that contains the text, beyond those seen by the last call. */
  logged(text: string): Promise<void>;
}

/** Starts one end and waits until it is ready. */
async function start(kind: Kind, end: "local" | "server", args: readonly string[]): Promise<Running> {
  const all = ["--psk-file", keyFile, "--log-format", "json", "--log-level", "debug", ...args];
  const child =
    kind === "C"
      ? spawn(PROGRAM, [end, ...all], { stdio: ["ignore", "ignore", "pipe"] })
      : spawn(process.execPath, [join(ROOT, `dist/cli/udp-${end}.js`), ...all], {
          stdio: ["ignore", "ignore", "pipe"],
        });
  children.add(child);
  let log = "";
  child.stderr!.on("data", (data) => {
    log += data;
  });
  let from = 0;
  const until = async (isDone: () => boolean) => {
    while (!isDone()) {
      if (child.exitCode !== null) throw new Error(`ended: ${log}`);
      await Promise.race([once(child.stderr!, "data"), once(child, "exit")]);
    }
  };
  const readyLine = () => log.split("\n").find((line) => line.startsWith('{"ready":'));
  await until(() => readyLine() !== undefined);
  return {
    child,
    ready: JSON.parse(readyLine()!),
    log: () => log,
    logged: async (text) => {
      await until(() => log.indexOf(text, from) >= 0);
      from = log.indexOf(text, from) + text.length;
    },
  };
}

const serverArgs = (port = 0) => ["--listen", `127.0.0.1:${port}`, "--allow", "127.0.0.0/8"];

async function kill(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  child.kill(signal);
  await once(child, "exit");
  return child.exitCode;
}

/** Sends until an answer arrives, because datagrams are lost without a session. @returns the source port that the echo saw */
async function ask(socket: Socket, port: number, text: string): Promise<string> {
  const timer = setInterval(() => socket.send(text, port, "127.0.0.1"), 200);
  socket.send(text, port, "127.0.0.1");
  try {
    for (;;) {
      const [answer] = (await once(socket, "message")) as [Buffer];
      const [source, payload] = answer.toString().split(" ", 2);
      if (payload === text) return source;
    }
  } finally {
    clearInterval(timer);
  }
}

const portOf = (address: string) => Number(address.split(":").at(-1));

beforeAll(async () => {
  writeFileSync(keyFile, "a key of more than sixteen bytes\n", { mode: 0o600 });
  // Answers with the sender's port and the payload.
  echo = createSocket("udp4").bind(0, "127.0.0.1");
  await once(echo, "listening");
  echo.on("message", (data, { port, address }) => echo.send(`${port} ${data}`, port, address));
});
afterEach(async () => {
  for (const child of children) await kill(child, "SIGKILL");
  children.clear();
});
afterAll(() => {
  echo.close();
  rmSync(folder, { recursive: true, force: true });
});

const lack = existsSync(PROGRAM) ? undefined : "it is not built (npm run build:capi)";

describeUnless(lack, "the C library", () => {
  const forward = () => ["--forward", `127.0.0.1:0=127.0.0.1:${echo.address().port}`];

  describe.each<[Kind, Kind]>([
    ["C", "Node"],
    ["Node", "C"],
    ["C", "C"],
  ])("udp-local in %s, udp-server in %s", (localKind, serverKind) => {
    it("carry datagrams of every size over one lane and over several", async () => {
      const server = await start(serverKind, "server", serverArgs());
      for (const lanes of ["1", "4"]) {
        const args = ["--server", server.ready.listen![0], "--lanes", lanes, ...forward()];
        const local = await start(localKind, "local", args);
        const port = portOf(local.ready.forwards![0].listen);
        const socket = createSocket("udp4").bind(0, "127.0.0.1");
        await ask(socket, port, "first");
        for (const length of [0, 1, 1200, 9000, 65_000]) await ask(socket, port, "x".repeat(length));
        socket.close();
        expect(await kill(local.child, "SIGTERM")).toBe(0);
      }
      expect(await kill(server.child, "SIGTERM")).toBe(0);
    });

    it("resume the session with the same source port when the connection is cut", async () => {
      const server = await start(serverKind, "server", serverArgs());
      const through = await relay(portOf(server.ready.listen![0]));
      const local = await start(localKind, "local", [
        ...["--server", `127.0.0.1:${through.port}`, "--lanes", "1"],
        ...forward(),
      ]);
      const port = portOf(local.ready.forwards![0].listen);
      const socket = createSocket("udp4").bind(0, "127.0.0.1");
      const source = await ask(socket, port, "before");
      await local.logged("session up");
      through.cut();
      await local.logged("session resumed");
      expect(await ask(socket, port, "after")).toBe(source);
      socket.close();
      through.close();
    });

    it("reconnect after the server was killed", async () => {
      const first = await start(serverKind, "server", serverArgs());
      const serverPort = portOf(first.ready.listen![0]);
      const local = await start(localKind, "local", ["--server", `127.0.0.1:${serverPort}`, ...forward()]);
      const port = portOf(local.ready.forwards![0].listen);
      const socket = createSocket("udp4").bind(0, "127.0.0.1");
      await ask(socket, port, "before");
      await kill(first.child, "SIGKILL");
      await start(serverKind, "server", serverArgs(serverPort));
      await ask(socket, port, "after");
      socket.close();
    });

    it("serve SOCKS5: UDP ASSOCIATE and CONNECT", async () => {
      const server = await start(serverKind, "server", serverArgs());
      const local = await start(localKind, "local", [
        ...["--server", server.ready.listen![0], "--listen", "127.0.0.1:0"],
      ]);
      const proxy = { host: "127.0.0.1", port: portOf(local.ready.socks5!) };
      const answers: string[] = [];
      let wake: () => void = () => {};
      const association = await associate(proxy, (payload: Buffer) => {
        answers.push(payload.toString());
        wake();
      });
      const target = { host: "127.0.0.1", port: echo.address().port };
      const timer = setInterval(() => association.send(Buffer.from("by SOCKS5"), target), 200);
      await new Promise<void>((done) => {
        wake = done;
      });
      clearInterval(timer);
      expect(answers[0]).toMatch(/^\d+ by SOCKS5$/);
      association.close();

      const web = createHttpServer((_request, response) => response.end("hello")).listen(0, "127.0.0.1");
      await once(web, "listening");
      const { port } = web.address() as AddressInfo;
      const page = await run("curl", [
        ...["--silent", "--proxy", `socks5h://127.0.0.1:${proxy.port}`, `http://127.0.0.1:${port}/`],
      ]);
      expect(page).toBe("hello");
      web.close();
    });
  });

  describe("udp-local in C goes through", () => {
    /** @returns the files of the key and the certificate */
    async function makeCertificate(): Promise<string[]> {
      const files = ["tls.key", "tls.crt"].map((name) => join(folder, name));
      await run("openssl", [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
        ...["-subj", "/CN=server", "-addext", "subjectAltName=DNS:server.test,IP:127.0.0.1"],
        ...["-keyout", files[0], "-out", files[1]],
      ]);
      return files;
    }

    /** TLS in front of a udp-server. */
    async function startTerminator(files: readonly string[], server: Running): Promise<Server> {
      const [key, cert] = files.map((file) => readFileSync(file));
      const terminator = createTlsServer({ key, cert }, (socket) => {
        const to = connect(portOf(server.ready.listen![0]), "127.0.0.1");
        socket.pipe(to).pipe(socket);
        socket.on("error", () => to.destroy());
        to.on("error", () => socket.destroy());
        socket.once("close", () => to.destroy());
      }).listen(0, "127.0.0.1");
      terminator.on("tlsClientError", () => {});
      await once(terminator, "listening");
      return terminator;
    }

    it("TLS, and only to a server with the right certificate", async () => {
      const files = await makeCertificate();
      const server = await start("Node", "server", serverArgs());
      const proxy = await startTerminator(files, server);
      const { port } = proxy.address() as AddressInfo;
      const args = (query: string) => [
        ...["--via", `tls://127.0.0.1:${port}?${query}`, "--server", "127.0.0.1:1"],
        ...forward(),
      ];
      const ca = `ca=${files[1]}`;
      for (const query of [`${ca}&servername=server.test`, ca, "insecure=1"]) {
        const local = await start("C", "local", args(query));
        await local.logged("session up");
        const socket = createSocket("udp4").bind(0, "127.0.0.1");
        const to = portOf(local.ready.forwards![0].listen);
        for (const length of [1, 1200, 60_000]) await ask(socket, to, "x".repeat(length));
        socket.close();
        await kill(local.child, "SIGTERM");
      }
      for (const [query, reason] of [
        [`${ca}&servername=other.test`, "not for other.test"],
        ["servername=server.test", "not correctly signed by the trusted CA"],
      ]) {
        const local = await start("C", "local", args(query));
        await local.logged(reason);
        expect(local.log()).not.toContain("session up");
        await kill(local.child, "SIGTERM");
      }
      proxy.close();
      const { status, stderr } = spawnSync(PROGRAM, ["local", ...args(`ca=${keyFile}`)], {
        encoding: "utf8",
      });
      expect([status, stderr]).toEqual([2, expect.stringMatching(/psk: X509/)]);
    });

    it("TLS on many threads of one process at once", async () => {
      const files = await makeCertificate();
      const server = await start("Node", "server", serverArgs());
      const terminator = await startTerminator(files, server);
      const { port } = terminator.address() as AddressInfo;
      const via = `tls://127.0.0.1:${port}?ca=${files[1]}`;
      const config = JSON.stringify({ server: "127.0.0.1:1", via, "psk-file": keyFile, lanes: 1 });
      const library = `UNDERPASS_LIBRARY=${join(BUILD, "libunderpass.so")}`;
      await run("env", [
        library,
        "python3",
        join(ROOT, "test/interop/peers/many-locals.py"),
        "24",
        "3",
        config,
      ]);
      terminator.close();
    });

    it("the server of a shadowsocks config.json, and udp-server in C acts as that server", async () => {
      const port = await freePort();
      const config = join(folder, "config.json");
      const members = { server: "127.0.0.1", server_port: port, method: "aes-256-gcm", password: "secret" };
      writeFileSync(config, JSON.stringify(members));
      const server = await start("C", "server", [...serverArgs(), "--ss-config", config]);
      const peer = ["--server", server.ready.listen![0], ...forward()];
      for (const kind of ["C", "Node"] as const) {
        const local = await start(kind, "local", ["--ss-config", config, ...peer]);
        const socket = createSocket("udp4").bind(0, "127.0.0.1");
        await ask(socket, portOf(local.ready.forwards![0].listen), "through-shadowsocks");
        socket.close();
        await kill(local.child, "SIGTERM");
      }
      writeFileSync(config, JSON.stringify({ ...members, server_port: undefined }));
      const { status, stderr } = spawnSync(PROGRAM, ["local", "--ss-config", config], { encoding: "utf8" });
      expect([status, stderr]).toEqual([2, expect.stringMatching(/config\.json:1:1: server_port: /)]);
      expect(stderr).not.toContain("secret");
    });

    it.each(["aes-128-gcm", "aes-256-gcm", "chacha20-ietf-poly1305"])(
      "a shadowsocks server (%s), and udp-server as a shadowsocks server",
      async (method) => {
        const port = await freePort();
        const peer = await startPeer(
          "ss-server",
          ["-s", "127.0.0.1", "-p", `${port}`, "-k", "secret", "-m", method],
          port,
        );
        const ownPort = await freePort();
        const server = await start("C", "server", [
          ...[...serverArgs(), "--listen", `ss://${method}:secret@127.0.0.1:${ownPort}`],
        ]);
        for (const [kind, shadowsocksPort] of [
          ["C", port],
          ["C", ownPort],
          ["Node", ownPort],
        ] as const) {
          const local = await start(kind, "local", [
            ...["--via", `ss://${method}:secret@127.0.0.1:${shadowsocksPort}`],
            ...["--server", server.ready.listen![0], ...forward()],
          ]);
          const socket = createSocket("udp4").bind(0, "127.0.0.1");
          const to = portOf(local.ready.forwards![0].listen);
          for (const length of [1, 1200, 60_000]) await ask(socket, to, "x".repeat(length));
          socket.close();
          await kill(local.child, "SIGTERM");
        }
        await peer.stop();
      },
    );
  });

  it.each([
    [["local", "--no-such-option", "1"], /no-such-option/],
    [["local", "--forward", "nonsense"], /nonsense/],
    [["local", "--masque", "https://proxy.example/"], /target_host/],
    [["local", "--workers", "2", "--forward", "127.0.0.1:0=127.0.0.1:9"], /workers/],
    [["server", "--decoy", "/tmp"], /web server/],
    [["server", "--listen", "0.0.0.0:0"], /psk/],
    [["local", "--psk-file", "/nowhere/psk", "--forward", "127.0.0.1:0=127.0.0.1:9"], /nowhere/],
    [["neither"], /local, server or tun2socks/],
  ])("exits with 2 and one line for %j", (args, reason) => {
    const { status, stderr } = spawnSync(PROGRAM, args, { encoding: "utf8" });
    expect(status).toBe(2);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(reason);
  });

  it("exits with 1 when the port is taken", async () => {
    const server = await start("C", "server", serverArgs());
    const args = ["server", "--psk-file", keyFile, "--listen", server.ready.listen![0]];
    const { status, stderr } = spawnSync(PROGRAM, args, { encoding: "utf8" });
    expect(status).toBe(1);
    expect(stderr).toContain("address already in use");
  });

  it("reads a config file with comments and resolves relative paths against its folder", async () => {
    const server = await start("C", "server", serverArgs());
    const config = join(folder, "local.json");
    const { port } = echo.address();
    writeFileSync(
      config,
      `{ // to the server\n"server": "${server.ready.listen![0]}", "psk-file": "psk", "forward": "127.0.0.1:0=127.0.0.1:${port}", }`,
    );
    const child = spawn(PROGRAM, ["local", "--config", config, "--log-format", "json"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    children.add(child);
    let log = "";
    child.stderr.on("data", (data) => {
      log += data;
    });
    while (!log.includes("session up")) {
      if (child.exitCode !== null) throw new Error(log);
      await Promise.race([once(child.stderr, "data"), once(child, "exit")]);
    }
  });

  it("takes less than 16 MiB in either role after a thousand associations", async () => {
    const server = await start("C", "server", serverArgs());
    const local = await start("C", "local", ["--server", server.ready.listen![0], ...forward()]);
    const port = portOf(local.ready.forwards![0].listen);
    for (let i = 0; i < 1000; i++) {
      const socket = createSocket("udp4").bind(0, "127.0.0.1");
      await ask(socket, port, `${i}`);
      socket.close();
    }
    for (const { child } of [server, local]) {
      const [, kib] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))!;
      expect(Number(kib)).toBeLessThan(16 * 1024);
    }
  });

  it("installs: the examples build with pkg-config and with find_package, and one runs in Python", async () => {
    const prefix = join(folder, "installed");
    const check = (command: string, args: readonly string[], env: Record<string, string> = {}) => {
      const { status, stdout, stderr } = spawnSync(command, args, {
        encoding: "utf8",
        env: { ...process.env, ...env },
      });
      if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stdout}${stderr}`);
      return stdout.trim();
    };
    check("cmake", ["--install", BUILD, "--prefix", prefix]);
    const words = check("pkg-config", ["--cflags", "--libs", "underpass"], {
      PKG_CONFIG_PATH: join(prefix, "lib/pkgconfig"),
    });
    const build = (name: string) => {
      const built = join(folder, name);
      const source = join(ROOT, `examples/c/${name}.c`);
      check("cc", ["-std=gnu99", "-pthread", "-Wall", "-Werror", source, "-o", built, ...words.split(/\s+/)]);
      return built;
    };
    const example = join(ROOT, "examples/c/forward.c");
    build("packets");

    const project = join(folder, "project");
    check("cmake", ["-E", "make_directory", project]);
    writeFileSync(
      join(project, "CMakeLists.txt"),
      `cmake_minimum_required(VERSION 3.16)\nproject(example C)\nfind_package(underpass REQUIRED)\n` +
        `add_executable(forward ${example})\ntarget_link_libraries(forward underpass::static)\n`,
    );
    check("cmake", ["-S", project, "-B", join(project, "build"), `-DCMAKE_PREFIX_PATH=${prefix}`]);
    check("cmake", ["--build", join(project, "build")]);

    const server = await start("C", "server", serverArgs());
    const key = readFileSync(keyFile, "utf8").trim();
    const env = { ...process.env, LD_LIBRARY_PATH: join(prefix, "lib") };
    for (const program of [build("forward"), build("stream"), join(project, "build/forward")]) {
      const target = `127.0.0.1:0=127.0.0.1:${echo.address().port}`;
      const child = spawn(program, [server.ready.listen![0], key, target], {
        stdio: ["pipe", "pipe", "inherit"],
        env,
      });
      children.add(child);
      const [line] = (await once(child.stdout, "data")) as [Buffer];
      const socket = createSocket("udp4").bind(0, "127.0.0.1");
      await ask(socket, portOf(line.toString().trim()), "example");
      socket.close();
      child.stdin.end("\n");
      const [code] = await once(child, "exit");
      expect(code).toBe(0);
    }
    const target = `127.0.0.1:${echo.address().port}`;
    const paths = `LD_LIBRARY_PATH=${join(prefix, "lib")}`;
    const asked = await run("env", [
      paths,
      build("association"),
      server.ready.listen![0],
      key,
      target,
      target,
    ]);
    expect(asked).toMatch(new RegExp(`^(\\d+ bytes from ${target}\n){2}$`));
    const script = join(ROOT, "examples/python/association.py");
    const library = `UNDERPASS_LIBRARY=${join(prefix, "lib/libunderpass.so")}`;
    const answer = await run("env", [
      library,
      "python3",
      script,
      server.ready.listen![0],
      key,
      target,
      "by ctypes",
    ]);
    expect(answer).toMatch(new RegExp(`^${target} \\d+ by ctypes\n$`));
  });

  const own = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address;

  describeUnless(own === undefined ? "this machine has no address" : undefined, "udp-server in C", () => {
    it.each(["exec:", "unix:", "tun2socks:"])(
      "sends packets to a tun2socks in C: --egress %s",
      async (kind) => {
        const target = createSocket("udp4").bind(0, own);
        await once(target, "listening");
        target.on("message", (data, { port, address }) => target.send(`${port} ${data}`, port, address));
        const path = join(folder, "packets.sock");
        const way = [PROGRAM, "tun2socks", "--udp-via", "direct", "--log-level", "error"];
        if (kind === "unix:") {
          const args = [...way.slice(1), "--device", `unix:${path}`];
          const child = spawn(PROGRAM, args, { stdio: ["ignore", "ignore", "pipe"] });
          children.add(child);
          await once(child.stderr, "data");
        }
        const argv = JSON.stringify([...way, "--device", "pipe:"]);
        const egress = { "exec:": argv, "unix:": path, "tun2socks:": "direct" }[kind];
        const allow = ["--allow", `${own}/32`, "--egress", `${kind}${egress}`];
        const server = await start("C", "server", ["--listen", "127.0.0.1:0", ...allow]);
        const args = ["--forward", `127.0.0.1:0=${own}:${target.address().port}`];
        const local = await start("C", "local", ["--server", server.ready.listen![0], ...args]);
        const socket = createSocket("udp4").bind(0, "127.0.0.1");
        await ask(socket, portOf(local.ready.forwards![0].listen), "by-packets");
        expect(await kill(server.child, "SIGTERM")).toBe(0);
        socket.close();
        target.close();
      },
    );
  });
});

/** A TCP relay that a test can cut. */
async function relay(to: number): Promise<{ readonly port: number; cut(): void; close(): void }> {
  const sockets = new Set<TcpSocket>();
  const server: Server = createServer((socket) => {
    const other = connect(to, "127.0.0.1");
    for (const [a, b] of [
      [socket, other],
      [other, socket],
    ]) {
      sockets.add(a);
      a.on("error", () => {});
      a.on("close", () => {
        sockets.delete(a);
        b.destroy();
      });
      a.pipe(b);
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    close: () => {
      server.close();
      cut();
    },
  };
}
