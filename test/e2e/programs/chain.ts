import { readFileSync } from "node:fs";
import type { Host, Program, TwoHosts } from "../network/two-hosts.ts";

const [PASSWORD, METHOD] = ["not a secret: loopback only", "chacha20-ietf-poly1305"];
const CIPHER = ["-k", PASSWORD, "-m", METHOD];
const OBFS_LOCAL = ["--plugin", "obfs-local", "--plugin-opts", "obfs=http;obfs-host=example.com"];

/** A program that can be killed and restarted with the same command line. */
export class Service {
  readonly #host: Host;
  readonly #argv: readonly string[];
  readonly #ready: (program: Program) => Promise<unknown>;
  #program: Program | undefined;

  constructor(host: Host, argv: readonly string[], ready: (program: Program) => Promise<unknown>) {
    this.#host = host;
    this.#argv = argv;
    this.#ready = ready;
  }

  /** The most recently started process. */
  get program(): Program {
    if (this.#program === undefined) throw new Error(`not started: ${this.#argv[0]}`);
    return this.#program;
  }

  /** Resolves when the program is ready. */
  async start(): Promise<void> {
    this.#program = this.#host.spawn(this.#argv);
    await this.#ready(this.#program);
  }

  /** Kills it with SIGKILL, including its plugins. */
  async kill(): Promise<void> {
    await this.program.kill();
  }

  /** Kills only the programs that it started, with SIGKILL. */
  killPlugin(): void {
    const { pid } = this.program;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
    if (children === "") throw new Error(`no plugin of ${this.#argv[0]}`);
    for (const child of children.split(" ")) process.kill(Number(child), "SIGKILL");
  }
}

/** ss-server behind obfs-server, on `address` and `port` of the server host. */
export function ssServer(hosts: TwoHosts, address: string, port: number, obfs = "http"): Service {
  const plugin = ["--plugin", "obfs-server", "--plugin-opts", `obfs=${obfs}`];
  const argv = ["ss-server", "-s", address, "-p", `${port}`, ...CIPHER, ...plugin];
  return new Service(hosts.server, argv, () => hosts.server.waitForTcp(address, port));
}

/** The same server as a URL, for our client or our listener. @param plugin  with its options; undefined for none */
export function ssUrl(address: string, port: number, plugin: string | undefined): string {
  const query = plugin === undefined ? "" : `/?plugin=${encodeURIComponent(plugin)}`;
  return `ss://${METHOD}:${encodeURIComponent(PASSWORD)}@${address}:${port}${query}`;
}

/** ss-tunnel behind obfs-local: its `port` on the client's loopback leads to `target` as the server host sees it. */
export function ssTunnel(
  hosts: TwoHosts,
  remote: { address: string; port: number },
  port: number,
  target: string,
): Service {
  const via = ["-s", remote.address, "-p", `${remote.port}`, ...CIPHER, ...OBFS_LOCAL];
  const argv = ["ss-tunnel", ...via, "-b", "127.0.0.1", "-l", `${port}`, "-L", target];
  return new Service(hosts.client, argv, () => hosts.client.waitForTcp("127.0.0.1", port));
}

/** ss-local behind obfs-local: a SOCKS5 server on `port` of the client's loopback. */
export function ssLocal(hosts: TwoHosts, remote: { address: string; port: number }, port: number): Service {
  const via = ["-s", remote.address, "-p", `${remote.port}`, ...CIPHER, ...OBFS_LOCAL];
  const argv = ["ss-local", ...via, "-b", "127.0.0.1", "-l", `${port}`];
  return new Service(hosts.client, argv, () => hosts.client.waitForTcp("127.0.0.1", port));
}

/** ss-server without a plugin, for TCP and UDP. @param mode  none for TCP alone, `-u` for both, `-U` for UDP alone */
export function plainSsServer(host: Host, address: string, port: number, mode: readonly string[]): Service {
  const argv = ["ss-server", "-s", address, "-p", `${port}`, ...CIPHER, ...mode];
  return new Service(host, argv, (program) => program.waitForLine(/(tcp|udp) server listening at/));
}

/** ss-local without a plugin on a port of the host's loopback; `mode` as above. */
export function plainSsLocal(
  host: Host,
  remote: { address: string; port: number },
  port: number,
  mode: readonly string[],
): Service {
  const via = ["-s", remote.address, "-p", `${remote.port}`, ...CIPHER];
  const argv = ["ss-local", ...via, "-b", "127.0.0.1", "-l", `${port}`, ...mode];
  return new Service(host, argv, (program) => program.waitForLine(/listening at|running from root user/));
}
