// How datagrams and connections of the near host reach the target: Underpass and peers, each in its setting.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { bound, startIn, stop } from "../processes.mjs";
import { commandsIn, filled, named } from "../subjects.mjs";
import { DEVICE, FAR, folder, LINK, makeDevice, NEAR, NETWORK, startOurs, TARGET } from "./hosts.mjs";

/** @typedef {import("../processes.mjs").ChildProcess} ChildProcess */
/** @typedef {{ local: number, server?: number, proxy?: number }} Pids */
/** @typedef {{ pids: Pids, target: (port: number) => string, stop: () => Promise<void> }} Running  where a datagram to a port of the target is sent to */
/** @typedef {{ name: string, start: () => Promise<Running> }} Way */

const MTU = 1500;
const PROXY_PORT = 1080;
const UDPGW_PORT = 7300;
/** @param {number} port */
const direct = (port) => `${TARGET}:${port}`;

const toDevice = ["--device", `tun:${DEVICE.name}`, "--route", `${NETWORK}/24`, "--mtu", `${MTU}`];

function startServer() {
  return startOurs(FAR, "udp-server", ["--listen", `${LINK.far}:0`, "--allow", `${NETWORK}/24`]);
}

/** @param {ChildProcess} child */
const pidOf = (child) => Number(child.pid);

/** The same tunnel, with and without a TUN device. @type {Way[]} */
export const TUNNEL_WAYS = [
  {
    name: "SOCKS5",
    start: async () => {
      const server = await startServer();
      const options = ["--server", server.ready.listen[0], "--listen", "127.0.0.1:0"];
      const local = await startOurs(NEAR, "udp-local", options);
      const socks = String(local.ready.socks5).split(":").at(-1);
      return {
        pids: { local: pidOf(local.child), server: pidOf(server.child) },
        target: (port) => `${direct(port)}@${socks}`,
        stop: () => stop([local.child, server.child]),
      };
    },
  },
  {
    name: "TUN",
    start: async () => {
      const server = await startServer();
      const options = ["--server", server.ready.listen[0], ...toDevice];
      const local = await startOurs(NEAR, "tun2socks", options);
      return {
        pids: { local: pidOf(local.child), server: pidOf(server.child) },
        target: direct,
        stop: () => stop([local.child, server.child]),
      };
    },
  },
];

/** A SOCKS5 server on the far host that is not a subject and is no bottleneck, such as microsocks. */
async function startProxy() {
  const config = join(folder, "danted.conf");
  writeFileSync(
    config,
    `errorlog: /dev/null
internal: ${LINK.far} port = ${PROXY_PORT}
external: ${LINK.far}
clientmethod: none
socksmethod: none
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
`,
  );
  const proxy = startIn(FAR, ["danted", "-f", config, "-p", join(folder, "danted.pid")]);
  await bound(PROXY_PORT, proxy);
  return proxy;
}

/** Ours, all of it by the proxy: TCP, and the tunnel's own connection. @param {string} name @param {string[]} given @returns {Way} */
function ours(name, given) {
  return {
    name,
    start: async () => {
      const proxy = await startProxy();
      const server = await startServer();
      const url = `socks5://${LINK.far}:${PROXY_PORT}`;
      const ways = ["--server", server.ready.listen[0], "--via", url, "--tcp-via", url];
      const local = await startOurs(NEAR, "tun2socks", [...ways, ...toDevice, ...given]);
      return {
        pids: { local: pidOf(local.child), server: pidOf(server.child), proxy: pidOf(proxy) },
        target: direct,
        stop: () => stop([local.child, server.child, proxy]),
      };
    },
  };
}

/** @param {string} text  NAME=LOCAL COMMAND, or NAME=SERVER COMMAND ;; LOCAL COMMAND @returns {Way} */
function peer(text) {
  const [name, rest] = named(text, "--peer");
  const commands = commandsIn(rest);
  if (commands.length > 2 || commands.some(([command]) => command === "")) {
    throw new Error(`--peer ${name}: expected NAME=[SERVER COMMAND ;;] LOCAL COMMAND`);
  }
  const values = {
    device: DEVICE.name,
    address: DEVICE.own,
    gateway: DEVICE.peer,
    netmask: DEVICE.mask,
    socks: `${LINK.far}:${PROXY_PORT}`,
    udpgw: `${LINK.far}:${UDPGW_PORT}`,
  };
  return {
    name,
    start: async () => {
      const removeDevice = makeDevice(MTU);
      const proxy = await startProxy();
      const [local, server] = commands
        .map((words, index) => startIn(index === commands.length - 1 ? NEAR : FAR, filled(words, values)))
        .reverse();
      for (const child of [local, server]) child?.stdout.resume();
      if (server !== undefined) await bound(UDPGW_PORT, server);
      return {
        pids: { local: pidOf(local), ...(server && { server: pidOf(server) }), proxy: pidOf(proxy) },
        target: direct,
        stop: async () => {
          await stop([local, ...(server === undefined ? [] : [server]), proxy]);
          removeDevice();
        },
      };
    },
  };
}

/** tun2socks programs behind one SOCKS5 server. @param {string[]} peers @returns {Way[]} */
export function proxiedWays(peers) {
  return [ours("underpass", []), ours("underpass, no offload", ["--offload", "off"]), ...peers.map(peer)];
}
