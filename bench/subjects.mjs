// The compared tunnels, and how each starts between a forward's port and a target's port.
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { bound, start, startIn, stop } from "./processes.mjs";

/** @typedef {{ port: number, local?: number, server?: number, stop: () => Promise<void> }} Running  port, pids */
/**
 * @typedef {object} Subject
 * @property {string} name
 * @property {string} version
 * @property {boolean} isTwoWay  answers come back; for a peer of `--peer` found by trying
 * @property {boolean} [isBuild]  Underpass of another checkout
 * @property {(target: number, associations?: number) => Promise<Running>} start  towards a UDP port
 */

/** The key of the run, for subjects that need one. */
const KEY = randomBytes(16).toString("hex");

export async function freeTcpPort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  server.close();
  await once(server, "close");
  return port;
}

export async function freeUdpPort() {
  const socket = createSocket("udp4").bind(0, "127.0.0.1");
  await once(socket, "listening");
  const { port } = socket.address();
  socket.close();
  return port;
}

/** The ready line of one of ours. @param {import("node:child_process").ChildProcess} child @returns {Promise<any>} */
export async function ready(child) {
  let last = "";
  for await (const line of createInterface({ input: /** @type {any} */ (child.stderr) })) {
    last = line;
    if (!line.startsWith("{")) continue;
    const message = JSON.parse(line);
    if (message.ready === undefined) continue;
    child.stderr?.resume();
    return message;
  }
  throw new Error(last || "ended before it was ready");
}

/** @param {string} text  commands between `;;`, words divided by spaces @returns {string[][]} */
export function commandsIn(text) {
  return text.split(";;").map((command) => command.trim().split(/\s+/));
}

/**
 * The server's command and the local end's, in the value of `--peer`.
 *
 * @param {string} name @param {string} text @returns {string[][]}
 */
export function peerCommands(name, text) {
  const [ofServer, ofLocal] = commandsIn(text);
  if (!ofServer?.[0] || !ofLocal?.[0]) {
    throw new Error(`--peer ${name}: expected NAME=SERVER COMMAND ;; LOCAL COMMAND`);
  }
  return [ofServer, ofLocal];
}

/** @param {string[]} words @param {Record<string, string | number>} values  of what stands in braces @returns {string[]} */
export function filled(words, values) {
  return words.map((word) => word.replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all)));
}

/**
 * @param {string} name @param {string[]} given  options of both ends @param {string} version
 * @param {string} root  of a checkout that is built @returns {Subject}
 */
function underpass(name, given, version, root = ".") {
  return {
    name,
    version,
    isTwoWay: true,
    start: async (target, associations) => {
      const bound = associations === undefined ? [] : ["--max-associations", String(associations)];
      const ofSession =
        associations === undefined ? [] : ["--max-associations-per-session", String(associations)];
      const options = ["--log-format", "json", "--log-level", "warn", ...given, ...bound];
      const server = start(process.execPath, [
        join(root, "dist/cli/udp-server.js"),
        ...["--listen", "127.0.0.1:0", "--allow", "127.0.0.0/8"],
        ...options,
        ...ofSession,
      ]);
      const { listen } = await ready(server);
      const local = start(process.execPath, [
        join(root, "dist/cli/udp-local.js"),
        ...["--server", listen[0], "--forward", `127.0.0.1:0=127.0.0.1:${target}`],
        ...options,
      ]);
      const { forwards } = await ready(local);
      return {
        port: Number(forwards[0].listen.split(":")[1]),
        local: local.pid,
        server: server.pid,
        stop: () => stop([local, server]),
      };
    },
  };
}

/**
 * @param {string} name @param {string} version @param {boolean} isTwoWay
 * @param {string} commands  "SERVER COMMAND ;; LOCAL COMMAND", words divided by spaces, with {tcp} {udp} {target} {key}
 * @returns {Subject}
 */
function program(name, version, isTwoWay, commands) {
  const [ofServer, ofLocal] = peerCommands(name, commands);
  return {
    name,
    version,
    isTwoWay,
    start: async (target) => {
      const [tcp, udp] = [await freeTcpPort(), await freeUdpPort()];
      const values = { tcp, udp, target, key: KEY };
      const server = startIn(undefined, filled(ofServer, values));
      await bound(tcp, server);
      const local = startIn(undefined, filled(ofLocal, values));
      await bound(udp, local);
      return { port: udp, local: local.pid, server: server.pid, stop: () => stop([local, server]) };
    },
  };
}

const PACKAGED = [
  {
    name: "udptunnel",
    package: "udptunnel",
    // Clients that send to its forward get no answers.
    isTwoWay: false,
    commands: "udptunnel -s {tcp} 127.0.0.1/{target} ;; udptunnel -c 127.0.0.1/{tcp} 127.0.0.1/{udp}",
  },
  {
    name: "shadowsocks",
    package: "shadowsocks-libev",
    isTwoWay: true,
    commands:
      "ss-server -U -s 127.0.0.1 -p {tcp} -k {key} -m aes-128-gcm ;; " +
      "ss-tunnel -U -s 127.0.0.1 -p {tcp} -b 127.0.0.1 -l {udp} -L 127.0.0.1:{target} -k {key} -m aes-128-gcm",
  },
];

/** Version of an installed package. @param {string} name */
export function debianVersion(name) {
  const query = ["-W", "-f", "$" + "{Version}", name];
  const { status, stdout } = spawnSync("dpkg-query", query, { encoding: "utf8" });
  return status === 0 && stdout !== "" ? stdout : undefined;
}

/** No tunnel: the limit of the generator and the target. @type {Subject} */
export const BARE = {
  name: "bare",
  version: "loopback",
  isTwoWay: true,
  start: async (target) => ({ port: target, stop: async () => {} }),
};

/** @param {string} text  NAME=REST @param {string} option @returns {[name: string, rest: string]} */
export function named(text, option) {
  const [, name, rest] = /^([\w.-]+)=(.*)$/s.exec(text) ?? [];
  if (name === undefined) throw new Error(`${option}: expected NAME=..., got ${text}`);
  return [name, rest];
}

/** The short commit hash of a checkout. @param {string} root */
export function commitOf(root) {
  const { stdout } = spawnSync("git", ["-C", root, "rev-parse", "--short", "HEAD"], { encoding: "utf8" });
  return stdout.trim() || "unknown";
}

/** @param {string} text  NAME=FOLDER [OPTIONS] @returns {{ name: string, root: string, options: string, version: string }} */
export function buildIn(text) {
  const [name, rest] = named(text, "--build");
  const [, root, options = ""] = /^(\S+)\s*(.*)$/s.exec(rest.trim()) ?? [];
  if (root === undefined || !existsSync(join(root, "dist/cli/udp-local.js"))) {
    throw new Error(`--build ${name}: expected the folder of a checkout that is built, got ${rest}`);
  }
  return { name, root: resolve(root), options, version: `${commitOf(root)} ${options}`.trim() };
}

/**
 * Ours, ours with other options given as `NAME=OPTIONS`, ours of another checkout given as `NAME=FOLDER [OPTIONS]`, the
 * packaged ones that are installed, and those given as `NAME=SERVER COMMAND ;; LOCAL COMMAND`.
 *
 * @param {string[]} variants @param {string[]} builds @param {string[]} peers @param {string} version  ours
 * @returns {Subject[]}
 */
export function subjects(variants, builds, peers, version) {
  const packaged = PACKAGED.flatMap(({ name, package: from, isTwoWay, commands }) => {
    const installed = debianVersion(from);
    return installed === undefined ? [] : [program(name, installed, isTwoWay, commands)];
  });
  const given = peers.map((peer) => {
    const [name, commands] = named(peer, "--peer");
    return program(name, "given", true, commands);
  });
  const others = variants.map((variant) => {
    const [name, text] = named(variant, "--variant");
    return underpass(`underpass-${name}`, text.trim().split(/\s+/), `${version} ${text}`);
  });
  return [
    underpass("underpass", ["--io", "native"], version),
    underpass("underpass-plain", ["--io", "plain"], version),
    ...others,
    ...builds.map((build) => {
      const { name, root, options, version: ofBuild } = buildIn(build);
      if (/^(underpass|bare$)/.test(name)) {
        throw new Error(
          `--build ${name}: expected a name that does not begin with underpass, and is not bare`,
        );
      }
      const given = ["--io", "native", ...options.split(/\s+/).filter(Boolean)];
      return { ...underpass(name, given, ofBuild, root), isBuild: true };
    }),
    ...packaged,
    ...given,
  ];
}
