// The tunnels that are compared: how each is started between a forward's port and a target's.
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";

/** @typedef {{ port: number, pids: { local: number, server: number }, stop: () => Promise<void> }} Running */

/** @type {Set<import("node:child_process").ChildProcess>} */
const children = new Set();
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));

/** @param {string} command @param {string[]} args */
export function start(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  child.once("exit", () => children.delete(child));
  child.once("error", (error) => {
    throw error;
  });
  child.stderr.resume();
  return child;
}

/** @param {import("node:child_process").ChildProcess[]} processes */
async function stop(processes) {
  for (const child of processes) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

/** @param {import("node:child_process").ChildProcess} child @returns {Promise<any>} */
async function ready(child) {
  for await (const line of createInterface({ input: /** @type {any} */ (child.stderr) })) {
    const message = JSON.parse(line);
    if (message.ready !== undefined) {
      child.stderr?.resume();
      return message;
    }
  }
  throw new Error("ended before it was ready");
}

async function freeTcpPort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  server.close();
  await once(server, "close");
  return port;
}

async function freeUdpPort() {
  const socket = createSocket("udp4").bind(0, "127.0.0.1");
  await once(socket, "listening");
  const { port } = socket.address();
  socket.close();
  return port;
}

/** @param {string[]} extra  more options of both ends */
function underpass(extra = []) {
  /** @param {number} target @returns {Promise<Running>} */
  return async (target) => {
    const options = ["--log-format", "json", "--log-level", "warn", ...extra];
    const server = start(process.execPath, [
      "dist/cli/udp-server.js",
      ...["--listen", "127.0.0.1:0", "--allow", "127.0.0.0/8"],
      ...options,
    ]);
    const { listen } = await ready(server);
    const local = start(process.execPath, [
      "dist/cli/udp-local.js",
      ...["--server", listen[0], "--forward", `127.0.0.1:0=127.0.0.1:${target}`],
      ...options,
    ]);
    const { forwards } = await ready(local);
    const port = Number(forwards[0].listen.split(":")[1]);
    return {
      port,
      pids: { local: Number(local.pid), server: Number(server.pid) },
      stop: () => stop([local, server]),
    };
  };
}

/** Debian's udptunnel (Columbia University's): one way only. @param {number} target @returns {Promise<Running>} */
async function debianUdptunnel(target) {
  const [tcp, port] = [await freeTcpPort(), await freeUdpPort()];
  const server = start("udptunnel", ["-s", String(tcp), `127.0.0.1/${target}`]);
  await new Promise((done) => setTimeout(done, 300));
  // It takes one client for its life, so its readiness cannot be tried by connecting.
  const local = start("udptunnel", ["-c", `127.0.0.1/${tcp}`, `127.0.0.1/${port}`]);
  await new Promise((done) => setTimeout(done, 300));
  if (local.exitCode !== null) throw new Error("udptunnel does not start");
  return {
    port,
    pids: { local: Number(local.pid), server: Number(server.pid) },
    stop: () => stop([local, server]),
  };
}

/** Each: its name, whether answers come back, and how to start it towards a UDP port. */
export const SUBJECTS = {
  underpass: { isTwoWay: true, start: underpass() },
  udptunnel: { isTwoWay: false, start: debianUdptunnel },
};
