// How a tunnel's connection comes from the near host to its server: over the link itself, or through shadowsocks.
import { bound, stop } from "../processes.mjs";
import { freeTcpPort } from "../subjects.mjs";
import { ADDRESS, FAR, NEAR, startProgram } from "./hosts.mjs";

/** @typedef {{ address: string, port: number }} Endpoint */
/**
 * `lead`: where a local end connects to, to reach a TCP port of the far host.
 *
 * @typedef {object} Way
 * @property {(port: number) => Promise<Endpoint>} lead
 * @property {() => number[]} pids  of what is between
 * @property {() => Promise<void>} stop
 */
/** @typedef {"direct" | "ss"} WayName */

const METHOD = "chacha20-ietf-poly1305";
const PASSWORD = "bench";

/** @type {Record<WayName, () => Promise<Way>>} */
export const WAYS = {
  direct: async () => ({
    lead: async (port) => ({ address: ADDRESS.far, port }),
    pids: () => [],
    stop: async () => {},
  }),
  ss: async () => {
    const port = await freeTcpPort();
    const common = ["-p", port, "-k", PASSWORD, "-m", METHOD, "--no-delay"];
    const server = startProgram(FAR, ["ss-server", "-s", ADDRESS.far, ...common]);
    server.stdout.resume();
    await bound(port, server);
    const processes = [server];
    return {
      lead: async (target) => {
        const own = await freeTcpPort();
        const local = ["-b", "127.0.0.1", "-l", own, "-L", `${ADDRESS.far}:${target}`];
        const tunnel = startProgram(NEAR, ["ss-tunnel", "-s", ADDRESS.far, ...local, ...common]);
        tunnel.stdout.resume();
        processes.push(tunnel);
        await bound(own, tunnel);
        return { address: "127.0.0.1", port: own };
      },
      pids: () => processes.map(({ pid }) => Number(pid)),
      stop: () => stop(processes),
    };
  },
};
