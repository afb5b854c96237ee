// The ways that are compared: udp-local, udp-server, and what is between them.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bound, startIn, stop } from "../processes.mjs";
import { freeTcpPort, ready } from "../subjects.mjs";

/** @typedef {import("node:child_process").ChildProcess} ChildProcess */
/** @typedef {"http" | "tls" | undefined} Obfs */
/** `via`: udp-local's options; `server`: what udp-server listens on besides. @typedef {{ via: string[], server: string[] }} Ends */
/** @typedef {{ port: number, local: number[], server: number[], relays: number[], stop: () => Promise<void> }} Running  pids */
/**
 * @typedef {object} Way
 * @property {string} name
 * @property {string} method  of shadowsocks; empty for none
 * @property {string[]} needs  programs that have to be installed
 * @property {(target: number, extra?: string[]) => Promise<Running>} start  towards a UDP port, with more options for both ends
 */

export const METHODS = ["chacha20-ietf-poly1305", "aes-256-gcm", "aes-128-gcm"];
export const METHODS_2022 = [
  "2022-blake3-chacha20-poly1305",
  "2022-blake3-aes-256-gcm",
  "2022-blake3-aes-128-gcm",
];
const CHACHA = METHODS[0];
/** Of the run: nothing but loopback is encrypted with it. The 2022 edition wants a key of the method's length. */
const PASSWORD = { 16: "MDEyMzQ1Njc4OWFiY2RlZg==", 32: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" };
const HOST = "127.0.0.1";

/** @param {string} method */
function password(method) {
  return PASSWORD[method.includes("128") ? 16 : 32];
}

/** @param {string} method @param {number} port @param {"obfs-local" | "obfs-server"} plugin @param {Obfs} obfs */
function url(method, port, plugin, obfs) {
  const query = obfs === undefined ? "" : `/?plugin=${encodeURIComponent(`${plugin};obfs=${obfs}`)}`;
  return `ss://${method}:${encodeURIComponent(password(method))}@${HOST}:${port}${query}`;
}

/** @param {string} program @param {(string | number)[]} options @param {string} method @param {Obfs} obfs @param {boolean} isPrompt */
async function stock(program, options, method, obfs, isPrompt) {
  const plugin = program === "ss-server" ? "obfs-server" : "obfs-local";
  const plugged = obfs === undefined ? [] : ["--plugin", plugin, "--plugin-opts", `obfs=${obfs}`];
  const prompt = isPrompt ? ["--no-delay"] : [];
  const child = startIn(undefined, [
    program,
    ...options,
    ...["-k", password(method), "-m", method],
    ...prompt,
    ...plugged,
  ]);
  child.stdout.resume();
  return child;
}

/** ss-server, with obfs-server before it. @param {string} method @param {Obfs} obfs @param {boolean} isPrompt */
async function stockServer(method, obfs, isPrompt) {
  const port = await freeTcpPort();
  const child = await stock("ss-server", ["-s", HOST, "-p", port], method, obfs, isPrompt);
  await bound(port, child);
  return { port, child };
}

/**
 * Both ends of ours.
 *
 * @param {number} target @param {string[]} listen  what udp-server listens on @param {string[]} options  of udp-server
 * @param {(address: string) => Promise<{ options: string[], relays: ChildProcess[] }>} lead  to the first address
 * @param {string[]} [extra]  of both ends
 * @returns {Promise<Running>}
 */
async function ours(target, listen, options, lead, extra = []) {
  const common = ["--log-format", "json", "--log-level", "warn", ...extra];
  const server = startIn(undefined, [
    process.execPath,
    "dist/cli/udp-server.js",
    ...listen.flatMap((address) => ["--listen", address]),
    ...["--allow", "127.0.0.0/8", ...options, ...common],
  ]);
  const { listen: addresses } = await ready(server);
  const { options: way, relays } = await lead(addresses[0]);
  const local = startIn(undefined, [
    process.execPath,
    "dist/cli/udp-local.js",
    ...["--forward", `${HOST}:0=${HOST}:${target}`, ...way, ...common],
  ]);
  const { forwards } = await ready(local);
  const pid = (/** @type {ChildProcess} */ child) => Number(child.pid);
  return {
    port: Number(forwards[0].listen.split(":")[1]),
    local: [pid(local)],
    server: [pid(server)],
    relays: relays.map(pid),
    stop: () => stop([local, ...relays, server]),
  };
}

/** @type {Way} */
const DIRECT = {
  name: "direct TCP",
  method: "",
  needs: [],
  start: (target, extra) =>
    ours(
      target,
      [`${HOST}:0`],
      [],
      async (address) => ({ options: ["--server", address], relays: [] }),
      extra,
    ),
};

/** The stock programs at both ends, between ours. @param {Obfs} obfs @param {boolean} isPrompt @returns {Way} */
function chain(obfs, isPrompt) {
  const count = obfs === undefined ? "two" : "four";
  const delay = isPrompt ? "" : ", without --no-delay";
  return {
    name: `${count} stock programs${obfs === undefined ? "" : `, obfs=${obfs}`}${delay}`,
    method: CHACHA,
    needs: ["ss-server", "ss-tunnel", ...(obfs === undefined ? [] : ["obfs-local", "obfs-server"])],
    start: (target, extra) =>
      ours(
        target,
        [`${HOST}:0`],
        [],
        async (address) => {
          const far = await stockServer(CHACHA, obfs, isPrompt);
          const port = await freeTcpPort();
          const options = ["-s", HOST, "-p", far.port, "-b", HOST, "-l", port, "-L", address];
          const near = await stock("ss-tunnel", options, CHACHA, obfs, isPrompt);
          await bound(port, near);
          return { options: ["--server", `${HOST}:${port}`], relays: [far.child, near] };
        },
        extra,
      ),
  };
}

/** ss:// to the stock programs of the server. @param {Obfs} obfs @param {string} [method] @returns {Way} */
function toStock(obfs, method = CHACHA) {
  const behind = obfs === undefined ? "ss-server" : `obfs-server (${obfs}) and ss-server`;
  return {
    name: `ss:// to ${behind}`,
    method,
    needs: ["ss-server", ...(obfs === undefined ? [] : ["obfs-server"])],
    start: (target, extra) =>
      ours(
        target,
        [`${HOST}:0`],
        [],
        async (address) => {
          const far = await stockServer(method, obfs, true);
          const via = url(method, far.port, "obfs-local", obfs);
          return { options: ["--via", via, "--server", address], relays: [far.child] };
        },
        extra,
      ),
  };
}

/** ss:// at both ends. @param {Obfs} obfs @param {string} [method] @returns {Way} */
function bothEnds(obfs, method = CHACHA) {
  return {
    name: `ss:// at both ends${obfs === undefined ? "" : `, obfs=${obfs}`}`,
    method,
    needs: [],
    start: async (target, extra) => {
      const port = await freeTcpPort();
      return ours(
        target,
        [url(method, port, "obfs-server", obfs)],
        [],
        async () => ({
          options: ["--via", url(method, port, "obfs-local", obfs)],
          relays: [],
        }),
        extra,
      );
    },
  };
}

/** @type {Way} */
const WS = {
  name: "ws://",
  method: "",
  needs: [],
  start: (target, extra) =>
    ours(
      target,
      [`${HOST}:0`],
      ["--ws-path", "/tunnel"],
      async (address) => ({
        options: ["--via", `ws://${address}/tunnel`],
        relays: [],
      }),
      extra,
    ),
};

/** @type {Way} */
const WSS = {
  name: "wss:// through nginx",
  method: "",
  needs: ["nginx", "openssl"],
  start: async (target, extra) => {
    const folder = mkdtempSync(join(tmpdir(), "underpass-bench-"));
    const port = await freeTcpPort();
    const [certificate, key] = ["c.pem", "k.pem"].map((name) => join(folder, name));
    const subject = ["-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test"];
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    const files = ["-keyout", key, "-out", certificate];
    spawnSync("openssl", ["req", "-x509", "-nodes", "-days", "2", ...curve, ...subject, ...files]);
    const running = await ours(
      target,
      [`${HOST}:0`],
      ["--ws-path", "/tunnel"],
      async (address) => {
        const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
          .map((name) => `${name}_temp_path ${folder}/${name};`)
          .join(" ");
        writeFileSync(
          join(folder, "nginx.conf"),
          `daemon off; master_process off; pid ${folder}/pid; events {} http { access_log off; ${temporary}
          server { listen ${HOST}:${port} ssl; ssl_certificate ${certificate}; ssl_certificate_key ${key};
            location / { proxy_pass http://${address}; proxy_http_version 1.1;
              proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; } } }`,
        );
        const nginx = startIn(undefined, [
          "nginx",
          "-c",
          join(folder, "nginx.conf"),
          "-e",
          join(folder, "log"),
        ]);
        nginx.stdout.resume();
        await bound(port, nginx);
        const via = `wss://${HOST}:${port}/tunnel?sni=bench.test&ca=${certificate}`;
        return { options: ["--via", via, "--server", address], relays: [nginx] };
      },
      extra,
    );
    return {
      ...running,
      stop: async () => {
        await running.stop();
        rmSync(folder, { recursive: true });
      },
    };
  },
};

/** Standard MASQUE, with udp-server as the proxy. @param {"1.1" | "2"} version @returns {Way} */
function masque(version) {
  const template = (/** @type {string} */ address) =>
    `http://${address}/.well-known/masque/udp/{target_host}/{target_port}/#http=${version}`;
  return {
    name: `--masque, HTTP/${version}`,
    method: "",
    needs: [],
    start: (target, extra) =>
      ours(
        target,
        [`${HOST}:0`],
        [],
        async (address) => ({
          options: ["--masque", template(address)],
          relays: [],
        }),
        extra,
      ),
  };
}

/** What is compared by its latency. @type {Way[]} */
export const WAYS = [
  DIRECT,
  chain("http", false),
  chain("http", true),
  chain(undefined, true),
  toStock(undefined),
  toStock("http"),
  toStock("tls"),
  bothEnds(undefined),
  bothEnds("http"),
  bothEnds("tls"),
  bothEnds(undefined, METHODS_2022[2]),
  WS,
  WSS,
  masque("1.1"),
  masque("2"),
];

/** What is compared by its throughput. @type {Way[]} */
export const METHOD_WAYS = [
  DIRECT,
  ...METHODS.map((method) => toStock(undefined, method)),
  ...[...METHODS, ...METHODS_2022].map((method) => bothEnds(undefined, method)),
  WS,
  masque("1.1"),
  masque("2"),
];

/** ss-tunnel to our ss:// listener. @param {Obfs} obfs @returns {Way} */
function fromStock(obfs) {
  const method = METHODS[1];
  return {
    name: `ss-tunnel${obfs === undefined ? "" : ` and obfs-local (${obfs})`} to ss://`,
    method,
    needs: ["ss-tunnel", ...(obfs === undefined ? [] : ["obfs-local"])],
    start: async (target, extra) => {
      const far = await freeTcpPort();
      const listen = [`${HOST}:0`, url(method, far, "obfs-server", obfs)];
      return ours(
        target,
        listen,
        [],
        async (address) => {
          const port = await freeTcpPort();
          const options = ["-s", HOST, "-p", far, "-b", HOST, "-l", port, "-L", address];
          const near = await stock("ss-tunnel", options, method, obfs, true);
          await bound(port, near);
          return { options: ["--server", `${HOST}:${port}`], relays: [near] };
        },
        extra,
      );
    },
  };
}

const AES_192 = "aes-192-gcm";
const OBFS = /** @type {const} */ (["http", "tls"]);

/** What carries the bytes that are compared. @type {Way[]} */
export const INTEGRITY_WAYS = [
  DIRECT,
  WS,
  WSS,
  masque("1.1"),
  masque("2"),
  ...[...METHODS, AES_192].map((method) => toStock(undefined, method)),
  ...[CHACHA, METHODS[2]].flatMap((method) => OBFS.map((obfs) => toStock(obfs, method))),
  ...[...METHODS, AES_192, ...METHODS_2022].map((method) => bothEnds(undefined, method)),
  ...[METHODS[2], METHODS_2022[2]].flatMap((method) => OBFS.map((obfs) => bothEnds(obfs, method))),
  ...[undefined, ...OBFS].map(fromStock),
];
