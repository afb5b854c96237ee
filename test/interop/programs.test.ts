import type { ChildProcess } from "node:child_process";
import { spawn, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import type { ProgramName } from "../support/hosts.ts";
import { programCommand, programFile } from "../support/hosts.ts";

const folder = mkdtempSync(join(tmpdir(), "underpass-programs-"));
const children = new Set<ChildProcess>();

afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  children.clear();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Starts a program in its own terminal and closes the terminal once the program is ready. */
const IN_A_TERMINAL = `
import os, pty, re, sys
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
output = b""
while not (port := re.search(rb"127.0.0.1:([0-9]+)\\D", output)): output += os.read(terminal, 4096)
os.close(terminal)
print(pid, port[1].decode(), flush=True)
os.waitpid(pid, 0)
`;

function start(program: ProgramName, args: readonly string[], env: Record<string, string> = {}) {
  const [command, ...first] = programCommand(program);
  const child = spawn(command, [...first, ...args], {
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  children.add(child);
  const output = { stdout: "", stderr: "", ready: "" };
  child.stdout?.on("data", (data) => {
    output.stdout += data;
  });
  child.stderr?.on("data", (data) => {
    output.stderr += data;
  });
  (child.stdio[3] as NodeJS.ReadableStream).on("data", (data) => {
    output.ready += data;
  });
  return { child, output };
}

async function run(program: ProgramName, args: readonly string[]) {
  const { child, output } = start(program, args);
  const [code] = await once(child, "close");
  return { code, ...output };
}

async function until(isDone: () => boolean, child: ChildProcess, output: { stderr: string }): Promise<void> {
  while (!isDone()) {
    if (child.exitCode !== null) throw new Error(`ended: ${output.stderr}`);
    await Promise.race([once(child.stderr!, "data"), once(child, "exit")]);
  }
}

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

describe("bad options exit with 2 and one line:", () => {
  it.each([
    ["udp-server", ["--listen", "0.0.0.0:0"], /0\.0\.0\.0:0.*(psk|key|insecure)/],
    ["udp-server", ["--allow", "10.0.0.0/99"], /10\.0\.0\.0\/99/],
    ["udp-server", ["--filtering", "none"], /none/],
    ["udp-server", ["--no-such-option"], /no-such-option/],
    ["udp-local", ["secret"], /too many arguments.* got 1; see --help/],
    ["udp-local", ["--lanes", "99"], /99/],
    ["udp-local", ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"], /--listen/],
    ["udp-local", ["--forward", "127.0.0.1:0"], /forward/],
    ["udp-local", ["--forward", "127.0.0.1:0=host"], /host/],
    ["udp-local", ["--via", "ftp://u:secret@127.0.0.1:1"], /ftp/],
    ["udp-local", ["--server", "nowhere"], /nowhere/],
    ["udp-local", ["--server", "unix:/run/a", "--via", "socks5://127.0.0.1:1"], /--server: .*--via/],
    ["udp-local", ["--via", "http://u:secret@127.0.0.1:0"], /--via/],
    ["udp-local", ["--via", "tls://?ca=/nonexistent/ca.pem"], /ca\.pem/],
  ] as const)("%s refuses %j", async (program, args, pattern) => {
    const { code, stderr, stdout } = await run(program, args);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(pattern);
    expect(stderr).not.toContain("secret");
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });

  it.each([
    ["udp-server", ["--psk-file", "/does/not/exist"]],
    ["udp-server", ["--ss-config", "/does/not/exist"]],
    ["udp-server", ["--config", "/does/not/exist"]],
    ["udp-server", ["--decoy", "/does/not/exist"]],
    ["udp-local", ["--psk-file", "/does/not/exist"]],
    ["udp-local", ["--socks-auth-file", "/does/not/exist"]],
    ["udp-local", ["--ss-config", "/does/not/exist"]],
    ["udp-local", ["--config", "/does/not/exist"]],
    ["udp-local", ["--way", "tls://?ca=/does/not/exist 127.0.0.1:1"]],
  ] as const)("%s names the file that cannot be read: %j", async (program, args) => {
    const { code, stderr } = await run(program, args);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(stderr).toContain("/does/not/exist");
    expect(code).toBe(2);
  });

  it("a key of 15 bytes is refused and not shown", async () => {
    const { code, stderr } = await run("udp-local", ["--psk-file", file("short", "fifteen bytes..\n")]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/16/);
    expect(stderr).not.toContain("fifteen");
  });

  it("a wrong field of a config file is reported with its line and column", async () => {
    const config = file("bad.json", JSON.stringify({ "age-budget-ms": "soon" }));
    const { code, stderr } = await run("udp-local", ["--config", config]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/bad\.json:1:18: age-budget-ms: /);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});

it("a config file with a byte-order mark, CRLF and comments works from any folder", async () => {
  file("key", "\ufeff0123456789abcdef\r\n\r\n");
  const text =
    '\ufeff{\r\n  // On loopback.\r\n  "listen": "unix:socket", "psk-file": "key", /* one */\r\n}\r\n';
  const { child, output } = start("udp-server", [
    "--config",
    file("udp-server.json", text),
    "--log-format",
    "json",
  ]);
  await until(() => output.stderr.includes("\n"), child, output);
  const [ready] = output.stderr.split("\n");
  expect(JSON.parse(ready)).toEqual({ ready: "udp-server", listen: [`unix:${join(folder, "socket")}`] });
  child.kill("SIGTERM");
  expect((await once(child, "close"))[0]).toBe(0);
});

describe("a program", () => {
  it("prints its version and its options", async () => {
    expect((await run("udp-local", ["--version"])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    const cut = spawnSync(
      "sh",
      ["-c", '"$@" --help | head -c 1 >/dev/null', "sh", ...programCommand("udp-server")],
      {
        encoding: "utf8",
      },
    );
    expect([cut.status, cut.stderr]).toEqual([0, ""]);
    const help = await run("udp-server", ["--help"]);
    expect(help.code).toBe(0);
    expect(help.stdout).toMatch(/Examples:/);
  });

  it("exits with 1 and one reason when its address is in use", async () => {
    const squatter = createServer().listen(0, "127.0.0.1");
    await once(squatter, "listening");
    const { port } = squatter.address() as AddressInfo;
    const { code, stderr } = await run("udp-server", ["--listen", `127.0.0.1:${port}`]);
    squatter.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`127.0.0.1:${port}.*in use|EADDRINUSE`));
  });

  it.each([
    [["--io", "plain"], /EADDRINUSE|in use/],
    [[], /EADDRINUSE|in use/],
  ])("exits with 1 and one reason when the address of a forward is in use %j", async (io, pattern) => {
    const squatter = createSocket("udp4").bind(0, "127.0.0.1");
    await once(squatter, "listening");
    const { port } = squatter.address();
    const { code, stderr } = await run("udp-local", [...io, "--forward", `127.0.0.1:${port}=192.0.2.1:53`]);
    squatter.close();
    expect(code).toBe(1);
    const lines = stderr.trimEnd().split("\n");
    expect(lines.at(-1)).toMatch(new RegExp(`^udp-local: cannot listen: .*127.0.0.1:${port}`));
    expect(lines.at(-1)).toMatch(pattern);
  });

  it.each([
    [
      ["--listen", "ss://aes-256-gcm:p@127.0.0.1:0", "--workers", "2"],
      "workers: has no effect: a server with ss://",
    ],
    [
      ["--listen", "127.0.0.1:0", "--egress", `unix:${join(folder, "packets")}`, "--workers", "2"],
      "workers: has no effect",
    ],
    [
      ["--listen", "127.0.0.1:0", "--ws-path", "/t", "--workers", "2"],
      "the listening thread serves sessions over WebSockets",
    ],
    [
      ["--listen", "127.0.0.1:0", "--io", "plain", "--workers", "2"],
      "workers: has no effect: a program without native I/O has one thread",
    ],
  ])("warns when threads were asked for in vain: %j", async (args, message) => {
    const { child, output } = start("udp-server", args);
    await until(() => output.stderr.includes("udp-server ready"), child, output);
    expect(output.stderr).toContain(message);
  });

  it("with plain I/O, has one thread by default, without a warning", async () => {
    const { child, output } = start("udp-server", ["--listen", "127.0.0.1:0", "--io", "plain"]);
    await until(() => output.stderr.includes("udp-server ready"), child, output);
    expect(output.stderr).not.toContain("workers");
  });

  it.each(["SIGTERM", "SIGINT"] as const)(
    "exits with 0, and is never ready, when %s arrives before it has started",
    async (signal) => {
      // Its last handler before the start is that of SIGHUP.
      const preload = file(
        `${signal}.cjs`,
        `process.on("newListener", (name) => name === "SIGHUP" && process.kill(process.pid, "${signal}"));`,
      );
      const argv = ["--require", preload, programFile("udp-server"), "--listen", "127.0.0.1:0"];
      const child = spawn(process.execPath, argv, { stdio: ["ignore", "ignore", "pipe"] });
      children.add(child);
      let stderr = "";
      child.stderr.on("data", (data) => {
        stderr += data;
      });
      const [code] = await once(child, "close");
      expect({ code, isReady: stderr.includes("ready") }).toEqual({ code: 0, isReady: false });
      expect(stderr).toContain("closing");
    },
  );

  it.each(["udp-local", "udp-server", "tun2socks"] as const)(
    "%s exits with 0 when SIGTERM arrives while its modules load",
    async (program) => {
      // The signal comes when the program's first file imports another.
      const hooks = `export const resolve = (specifier, context, next) => {
        const isFirst = context.parentURL?.endsWith("/${program}.js") && specifier.startsWith("./");
        if (isFirst) process.kill(process.pid, "SIGTERM");
        return next(specifier, context);
      };`;
      const toUrl = (source: string) => `data:text/javascript,${encodeURIComponent(source)}`;
      const preload = toUrl(
        `import { register } from "node:module"; register(${JSON.stringify(toUrl(hooks))});`,
      );
      const argv = ["--import", preload, programFile(program), "--listen", "127.0.0.1:0"];
      const child = spawn(process.execPath, argv, { stdio: "ignore" });
      children.add(child);
      expect(await once(child, "close")).toEqual([0, null]);
    },
  );

  it.each([
    ["udp-local", "psk-file"],
    ["udp-server", "keys"],
    ["tun2socks", "config"],
  ] as const)("%s ends on SIGTERM while it waits for what a pipe has for --%s", async (program, flag) => {
    const pipe = join(folder, `${program}-pipe`);
    expect(spawnSync("mkfifo", [pipe]).status).toBe(0);
    const { child } = start(program, [`--${flag}`, pipe]);
    const writer = await open(pipe, "w");
    child.kill("SIGTERM");
    expect(await once(child, "close")).toEqual([null, "SIGTERM"]);
    await writer.close();
  });

  it("does not report an unreachable server when it is stopped", async () => {
    const server = start("udp-server", ["--listen", "127.0.0.1:0", "--ready-fd", "3"]);
    await once(server.child.stdio[3]!, "end");
    const [address] = JSON.parse(server.output.ready).listen;
    const local = start("udp-local", ["--server", address, "--listen", "127.0.0.1:0"]);
    await until(() => local.output.stderr.includes("session up"), local.child, local.output);
    local.child.kill("SIGTERM");
    expect((await once(local.child, "close"))[0]).toBe(0);
    expect(local.output.stderr).toContain("closing");
    expect(local.output.stderr).not.toContain("cannot reach");
  });

  it("reports that the server shuts down if the server announced it", async () => {
    const server = start("udp-server", ["--listen", "127.0.0.1:0", "--ready-fd", "3"]);
    await once(server.child.stdio[3]!, "end");
    const [address] = JSON.parse(server.output.ready).listen;
    const local = start("udp-local", ["--server", address, "--listen", "127.0.0.1:0"]);
    await until(() => local.output.stderr.includes("session up"), local.child, local.output);
    server.child.kill("SIGTERM");
    await until(() => local.output.stderr.includes("session down"), local.child, local.output);
    const [beforeDown] = local.output.stderr.split("session down");
    expect(beforeDown).toContain("the server has ended the connection; trying again");
    expect(beforeDown).toContain("the peer shut down the tunnel: the server is shutting down");
    expect(beforeDown).not.toContain("cannot reach");
  });

  it("reports its actual addresses on stderr and --ready-fd when it is ready, and exits with 0 on SIGTERM", async () => {
    const { child, output } = start("udp-server", [
      "--listen",
      "127.0.0.1:0",
      "--log-format",
      "json",
      "--ready-fd",
      "3",
    ]);
    await until(() => output.stderr.includes("\n"), child, output);
    const ready = JSON.parse(output.stderr.split("\n")[0]);
    expect(ready).toMatchObject({ ready: "udp-server" });
    expect(ready.listen[0]).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    child.kill("SIGTERM");
    const [code] = await once(child, "close");
    expect(code).toBe(0);
    expect(JSON.parse(output.ready)).toEqual(ready);
  });

  it("ignores SIGHUP and logs it", async () => {
    const { child, output } = start("udp-local", ["--server", "127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    await until(() => output.stderr.includes("ready"), child, output);
    child.kill("SIGHUP");
    await until(() => output.stderr.includes("nothing to reload on SIGHUP"), child, output);
    child.kill("SIGTERM");
    expect((await once(child, "close"))[0]).toBe(0);
  });

  it.each(["pretty", "json"])(
    "continues when the terminal that it logs to (%s) is closed",
    async (format) => {
      const args = ["--listen", "127.0.0.1:0", "--log-format", format, "--log-level", "debug"];
      const terminal = spawn("python3", ["-c", IN_A_TERMINAL, ...programCommand("udp-server"), ...args]);
      children.add(terminal);
      const lines = createInterface({ input: terminal.stdout })[Symbol.asyncIterator]();
      const [pid, port] = String((await lines.next()).value)
        .split(" ")
        .map(Number);
      try {
        // The server logs each refused connection.
        for (let i = 0; i < 3; i++) {
          const socket = connect(port, "127.0.0.1");
          socket.write("no HTTP\r\n\r\n");
          const [answer] = await once(socket, "data");
          expect(String(answer)).toMatch(/^HTTP\/1.1 404 /);
          socket.destroy();
        }
      } finally {
        process.kill(pid, "SIGKILL");
      }
    },
  );

  it("reports once why it has no connection, and again when the reason changes", async () => {
    const socket = createServer().listen(0, "127.0.0.1");
    await once(socket, "listening");
    const { port } = socket.address() as AddressInfo;
    socket.close();
    await once(socket, "close");
    const { child, output } = start("udp-local", [
      "--server",
      `127.0.0.1:${port}`,
      "--listen",
      "127.0.0.1:0",
    ]);
    await until(() => output.stderr.includes("ECONNREFUSED"), child, output);
    // Ends each connection; udp-local reconnects.
    socket.on("connection", (connection) => connection.resume().end()).listen(port, "127.0.0.1");
    await until(() => output.stderr.includes("closed by the other end"), child, output);
    socket.close();
    expect(output.stderr.split("ECONNREFUSED")).toHaveLength(2);
  });

  it("names the doctor once if there is no session for a while", { timeout: 30_000 }, async () => {
    const args = ["--server", "127.0.0.1:1", "--listen", "127.0.0.1:0"];
    const advice = '"udp-local doctor" with the same options finds the cause';
    const { child, output } = start("udp-local", args);
    await until(() => output.stderr.includes(advice), child, output);
    child.kill("SIGTERM");
    await once(child, "close");
    expect(output.stderr.split(advice)).toHaveLength(2);
  });

  it("reports no session with a server in another dialect, which it connects to when a datagram comes", async () => {
    const args = ["--dialect", "hev", "--server", "127.0.0.1:1", "--listen", "127.0.0.1:0"];
    const { child, output } = start("udp-local", args);
    await until(() => output.stderr.includes("udp-local ready"), child, output);
    child.kill("SIGTERM");
    await once(child, "close");
    expect(output.stderr).toContain("connecting when a datagram comes");
    expect(output.stderr).not.toContain("session up");
  });

  it("tells tun2socks with plain I/O that its device needs the other kind", async () => {
    const { code, stderr } = await run("tun2socks", ["--io", "plain"]);
    expect(stderr).toMatch(/tun:underpass0 needs native I\/O: do not choose plain I\/O\n$/);
    expect(code).toBe(1);
  });

  it("says in plain words that the server's name has no address", async () => {
    const { child, output } = start("udp-local", ["--server", "no.invalid:1", "--listen", "127.0.0.1:0"]);
    await until(() => output.stderr.includes("cannot connect"), child, output);
    expect(output.stderr).toMatch(
      /cannot connect: no\.invalid:1: no\.invalid: (no such name|no name server answers) \(EAI_/,
    );
  });

  it("reports once at startup that the server is unreachable, and continues", async () => {
    const { child, output } = start("udp-local", ["--server", "127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    await until(() => output.stderr.includes("ECONNREFUSED"), child, output);
    expect(output.stderr).toMatch(/udp-local ready: socks5 127\.0\.0\.1:\d+, server 127\.0\.0\.1:1/);
    child.kill("SIGINT");
    expect((await once(child, "close"))[0]).toBe(0);
  });

  it("takes its options from a file and lets flags override them", async () => {
    const config = file("good.json", JSON.stringify({ listen: "127.0.0.1:1", "log-format": "json" }));
    const { child, output } = start("udp-local", ["--config", config, "--listen", "127.0.0.1:0"]);
    await until(() => output.stderr.includes("\n"), child, output);
    expect(JSON.parse(output.stderr.split("\n")[0]).socks5).toMatch(/^127\.0\.0\.1:[1-9]\d+$/);
  });

  it("notifies systemd when it is ready, if systemd-notify is installed", async () => {
    const path = join(folder, "notify");
    const listener = spawn("python3", [
      "-c",
      `import socket,sys
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.bind(sys.argv[1]); print("bound",flush=True)
s.settimeout(20)
while True:
    m=s.recv(4096).decode()
    if "READY=1" in m: print("ready",flush=True); break`,
      path,
    ]);
    children.add(listener);
    const lines = createInterface({ input: listener.stdout })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe("bound");
    start("udp-server", ["--listen", "127.0.0.1:0"], { NOTIFY_SOCKET: path });
    expect((await lines.next()).value).toBe("ready");
  });

  it("prints rates with --stats-interval, and drops only if there are any", async () => {
    const { child, output } = start("udp-server", ["--listen", "127.0.0.1:0", "--stats-interval", "1"]);
    await until(() => output.stderr.split("\n").length > 2, child, output);
    expect(output.stderr.split("\n")[1]).toMatch(/\/s/);
  });
});
