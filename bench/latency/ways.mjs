// How a tunnel's connection and other TCP reach the far host: directly over the link, or through shadowsocks.
import { bound, stop } from "../processes.mjs";
import { freeTcpPort } from "../subjects.mjs";
import { ADDRESS, FAR, NEAR, startProgram } from "./hosts.mjs";

/** @typedef {{ address: string, port: number }} Endpoint */
/**
 * `lead`: where a local end connects to, to reach a TCP port of the far host.
 *
 * @typedef {object} Way
 * @property {(port: number) => Promise<Endpoint>} lead
 * @property {() => Promise<string | undefined>} proxy  URL of a proxy by the same way for other TCP; none: direct
 * @property {() => number[]} pids  of what is between
 * @property {() => Promise<void>} stop
 */
/** @typedef {"direct" | "ss" | "ss-local"} WayName */

const METHOD = "chacha20-ietf-poly1305";
const PASSWORD = "bench";

/**
 * Through the stock programs of shadowsocks.
 *
 * @param {boolean} hasLocal  other TCP goes through an ss-local program, too, instead of ss-server alone @returns {Promise<Way>}
 */
async function startShadowsocks(hasLocal) {
  const port = await freeTcpPort();
  const userInfo = Buffer.from(`${METHOD}:${PASSWORD}`).toString("base64url");
  const common = ["-p", port, "-k", PASSWORD, "-m", METHOD, "--no-delay"];
  const server = startProgram(FAR, ["ss-server", "-s", ADDRESS.far, ...common]);
  server.stdout.resume();
  await bound(port, server);
  const processes = [server];
  /** @param {string} program @param {string[]} options @returns where it listens */
  const startLocal = async (program, options) => {
    const own = await freeTcpPort();
    const listen = ["-s", ADDRESS.far, "-b", "127.0.0.1", "-l", own];
    const local = startProgram(NEAR, [program, ...listen, ...options, ...common]);
    local.stdout.resume();
    processes.push(local);
    await bound(own, local);
    return own;
  };
  return {
    lead: async (target) => ({
      address: "127.0.0.1",
      port: await startLocal("ss-tunnel", ["-L", `${ADDRESS.far}:${target}`]),
    }),
    proxy: async () =>
      hasLocal
        ? `socks5://127.0.0.1:${await startLocal("ss-local", [])}`
        : `ss://${userInfo}@${ADDRESS.far}:${port}`,
    pids: () => processes.map(({ pid }) => Number(pid)),
    stop: () => stop(processes),
  };
}

/** @type {Record<WayName, () => Promise<Way>>} */
export const WAYS = {
  direct: async () => ({
    lead: async (port) => ({ address: ADDRESS.far, port }),
    proxy: async () => undefined,
    pids: () => [],
    stop: async () => {},
  }),
  ss: () => startShadowsocks(false),
  "ss-local": () => startShadowsocks(true),
};
/** In the order of the tables. */
export const WAY_NAMES = /** @type {WayName[]} */ (Object.keys(WAYS));
