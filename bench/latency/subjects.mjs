// The compared tunnels, and how each starts over a way.
import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { bound, stop } from "../processes.mjs";
import {
  buildIn,
  commandsIn,
  commitOf,
  debianVersion,
  filled,
  freeTcpPort,
  freeUdpPort,
  named,
  peerCommands,
  ready,
} from "../subjects.mjs";
import { ADDRESS, FAR, folder, NEAR, startProgram } from "./hosts.mjs";

/** @typedef {import("./ways.mjs").Way} Way */
/** @typedef {import("./ways.mjs").WayName} WayName */
/**
 * `to`: ADDRESS:PORT for datagrams; `socks`: port of its SOCKS5 server for TCP; pids.
 *
 * @typedef {{ to: string, socks?: number, local?: number, server?: number, stop: () => Promise<void> }} Running
 */
/**
 * `isTwoWay`: answers to a forward's datagrams return to their sender. `hasTcp`: it carries TCP, too, on request.
 *
 * @typedef {object} Subject
 * @property {string} name
 * @property {string} version
 * @property {boolean} isTwoWay
 * @property {boolean} [hasTcp]
 * @property {WayName[]} ways
 * @property {(way: Way, target: number, wantsTcp: boolean) => Promise<Running>} start  towards a UDP port of the far host
 */

/** The key of the run, for subjects that need one. */
const KEY = randomBytes(16).toString("hex");

/** No tunnel: bare datagrams over the link. @type {Subject} */
export const BARE = {
  name: "bare",
  version: "UDP",
  isTwoWay: true,
  ways: ["direct"],
  start: async (_way, target) => ({ to: `${ADDRESS.far}:${target}`, stop: async () => {} }),
};

/**
 * @param {string} name @param {string} version @param {string} root  of a checkout that is built
 * @param {string[]} ofLocal @param {string[]} ofServer  options @returns {Subject}
 */
function underpass(name, version, root, ofLocal, ofServer) {
  const program = (/** @type {string} */ file) => [process.execPath, join(root, "dist/cli", file)];
  return {
    name,
    version,
    isTwoWay: true,
    hasTcp: true,
    ways: ["direct", "ss", "ss-local"],
    start: async (way, target, wantsTcp) => {
      const common = ["--psk-file", join(folder, "psk"), "--log-format", "json", "--log-level", "warn"];
      const server = startProgram(FAR, [
        ...program("udp-server.js"),
        ...["--listen", `${ADDRESS.far}:0`, "--allow", `${ADDRESS.far}/32`],
        ...[...common, ...ofServer],
      ]);
      const { listen } = await ready(server);
      const { address, port } = await way.lead(Number(listen[0].split(":").at(-1)));
      const proxy = wantsTcp ? await way.proxy() : undefined;
      const local = startProgram(NEAR, [
        ...program("udp-local.js"),
        ...(wantsTcp ? ["--listen", "127.0.0.1:0"] : []),
        ...(proxy === undefined ? [] : ["--tcp-via", proxy]),
        ...["--server", `${address}:${port}`, "--forward", `127.0.0.1:0=${ADDRESS.far}:${target}`],
        ...[...common, ...ofLocal],
      ]);
      const { forwards, socks5 } = await ready(local);
      return {
        to: forwards[0].listen,
        ...(wantsTcp && { socks: Number(socks5.split(":").at(-1)) }),
        ...{ local: local.pid, server: server.pid },
        stop: () => stop([local, server]),
      };
    },
  };
}

/**
 * @param {string} name @param {string} version @param {boolean} isTwoWay
 * @param {string} commands  "SERVER COMMAND ;; LOCAL COMMAND", words divided by spaces, with {address} {tcp} {far} {key}
 *   {target} {udp} @returns {Subject}
 */
function program(name, version, isTwoWay, commands) {
  const [ofServer, ofLocal] = peerCommands(name, commands);
  return {
    name,
    version,
    isTwoWay,
    ways: ["direct", "ss"],
    start: async (way, target) => {
      const [tcp, udp] = [await freeTcpPort(), await freeUdpPort()];
      const values = { far: ADDRESS.far, target, udp, key: KEY };
      const server = startProgram(FAR, filled(ofServer, { ...values, address: ADDRESS.far, tcp }));
      server.stdout.resume();
      await bound(tcp, server);
      const { address, port } = await way.lead(tcp);
      const local = startProgram(NEAR, filled(ofLocal, { ...values, address, tcp: port }));
      local.stdout.resume();
      await bound(udp, local);
      return {
        to: `127.0.0.1:${udp}`,
        ...{ local: local.pid, server: server.pid },
        stop: () => stop([local, server]),
      };
    },
  };
}

/** @param {string} text  LOCAL OPTIONS [;; SERVER OPTIONS] */
function optionsIn(text) {
  const [ofLocal = [], ofServer = []] = commandsIn(text).map((words) => words.filter(Boolean));
  return { ofLocal, ofServer };
}

/**
 * Bare UDP, ours of this checkout with one lane and with four, ours with other options given as
 * `NAME=LOCAL OPTIONS ;; SERVER OPTIONS`, ours of another checkout given as `NAME=FOLDER LOCAL OPTIONS ;; SERVER OPTIONS`,
 * Debian's udptunnel where it is installed, and those given as `NAME=SERVER COMMAND ;; LOCAL COMMAND`.
 *
 * @param {string[]} variants @param {string[]} builds @param {string[]} peers @returns {Subject[]}
 */
export function subjects(variants, builds, peers) {
  const here = commitOf(".");
  const udptunnel = debianVersion("udptunnel");
  return [
    BARE,
    underpass("lanes-1", here, resolve("."), ["--lanes", "1"], []),
    underpass("lanes-4", here, resolve("."), ["--lanes", "4"], []),
    ...variants.map((variant) => {
      const [name, text] = named(variant, "--variant");
      const { ofLocal, ofServer } = optionsIn(text);
      return underpass(name, `${here} ${text.trim()}`, resolve("."), ofLocal, ofServer);
    }),
    ...builds.map((build) => {
      const { name, root, options, version } = buildIn(build);
      const { ofLocal, ofServer } = optionsIn(options);
      return underpass(name, version, root, ofLocal, ofServer);
    }),
    ...(udptunnel === undefined
      ? []
      : [
          program(
            "udptunnel",
            udptunnel,
            // Clients that send to its forward get no answers.
            false,
            "udptunnel -s {tcp} {far}/{target} ;; udptunnel -c {address}/{tcp} 127.0.0.1/{udp}",
          ),
        ]),
    ...peers.map((peer) => {
      const [name, commands] = named(peer, "--peer");
      return program(name, "given", true, commands);
    }),
  ];
}
