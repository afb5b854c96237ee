import type { ChildProcess } from "node:child_process";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:net";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, describe } from "vitest";

/** Debian packages of programs and Python modules. */
const PACKAGES: Readonly<Record<string, string>> = {
  danted: "dante-server",
  microsocks: "microsocks",
  tinyproxy: "tinyproxy",
  "ss-server": "shadowsocks-libev",
  "ss-local": "shadowsocks-libev",
  "ss-tunnel": "shadowsocks-libev",
  "obfs-local": "simple-obfs",
  "obfs-server": "simple-obfs",
  "ss-v2ray-plugin": "shadowsocks-v2ray-plugin",
  curl: "curl",
  nc: "netcat-openbsd",
  nginx: "nginx-light",
  openssl: "openssl",
  socat: "socat",
  promtool: "prometheus",
  "/usr/bin/python3": "python3-socks",
  "python:h11": "python3-h11",
  "python:h2": "python3-h2",
  "python:websockets": "python3-websockets",
};

/** Whether a program is installed, or with `python:MODULE` a module of Debian's Python. */
function isPresent(program: string): boolean {
  const [, module] = /^python:(.+)$/.exec(program) ?? [];
  const [command, args] =
    module === undefined
      ? ["sh", ["-c", 'command -v "$1"', "sh", program]]
      : ["/usr/bin/python3", ["-c", `import ${module}`]];
  return spawnSync(command, args).status === 0;
}

/**
 * `describe` for tests with requirements on this machine. Without them the suite is skipped with the reason in its name; under CI
 * it runs and fails.
 *
 * @param lack  the missing requirement and how to install it; undefined if nothing is missing
 */
export function describeUnless(lack: string | undefined, name: string, body: () => void): void {
  if (lack === undefined || process.env.CI !== undefined) describe(name, body);
  else describe.skip(`${name}: ${lack}`, body);
}

/** {@link describeUnless} a foreign program is missing. */
export function describeWith(programs: readonly string[], name: string, body: () => void): void {
  const missing = programs.filter((program) => !isPresent(program));
  const wanted = missing.map((program) => `${program} (apt-get install ${PACKAGES[program] ?? program})`);
  describeUnless(missing.length === 0 ? undefined : `this machine lacks ${wanted.join(", ")}`, name, body);
}

/** A free TCP port of 127.0.0.1. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

export interface PeerProgram {
  readonly child: ChildProcess;
  stop(): Promise<void>;
}

const running = new Set<PeerProgram>();
/** Stops the programs of tests that failed before they could. */
afterAll(async () => {
  await Promise.all([...running].map((peer) => peer.stop()));
});

/** Starts a program and waits until `port` accepts. */
export async function startPeer(
  program: string,
  args: readonly string[],
  port: number,
): Promise<PeerProgram> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => {
      output += data;
    });
  }
  const exited = once(child, "exit");
  const stop = async () => {
    running.delete(peer);
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await exited;
  };
  const peer = { child, stop };
  running.add(peer);
  for (let tries = 0; tries < 250; tries++) {
    if (child.exitCode !== null) throw new Error(`${program} ended: ${output}`);
    const probe = connect(port, "127.0.0.1");
    const isOpen = await new Promise<boolean>((done) => {
      probe.once("connect", () => done(true));
      probe.once("error", () => done(false));
    });
    probe.destroy();
    if (isOpen) return peer;
    await wait(20);
  }
  await stop();
  throw new Error(`${program} does not listen on ${port}: ${output}`);
}

/** Runs a program to its end. @returns its output. @throws Error with its standard error */
export async function run(program: string, args: readonly string[]): Promise<string> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let [output, complaints] = ["", ""];
  child.stdout.on("data", (data) => {
    output += data;
  });
  child.stderr.on("data", (data) => {
    complaints += data;
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${program} exits with ${code}: ${complaints}${output}`);
  return output;
}
