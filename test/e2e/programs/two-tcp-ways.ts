import type { TwoHosts } from "../network/two-hosts.ts";
import { ssServer, ssUrl } from "./chain.ts";

const OBFS = "obfs-local;obfs=http;obfs-host=example.com";

/** Two ss-servers behind obfs-server, and functions that block one of them. */
export class TwoWays {
  readonly #hosts: TwoHosts;
  readonly #ports: readonly number[];

  private constructor(hosts: TwoHosts, ports: readonly number[]) {
    this.#hosts = hosts;
    this.#ports = ports;
  }

  static async start(hosts: TwoHosts): Promise<TwoWays> {
    const { server, client } = hosts;
    const ports = [server.port(), server.port()];
    for (const port of ports) await ssServer(hosts, server.ipv4, port).start();
    await client.run(["nft", "add", "table inet wall"]);
    return new TwoWays(hosts, ports);
  }

  get options(): string[] {
    return this.#ports.flatMap((port) => ["--tcp-via", ssUrl(this.#hosts.server.ipv4, port, OBFS)]);
  }

  /** The log line when flows take a way. */
  isTaken(index: number): RegExp {
    return new RegExp(`"way":"[^"]*:${this.#ports[index]}[^"]*","msg":"TCP takes another way"`);
  }

  /** Drops all packets to one of them, or resets its connections. */
  async block(index: number, how: "drop" | "reject with tcp reset"): Promise<void> {
    const { client } = this.#hosts;
    await client.run(["nft", "add", "chain inet wall out { type filter hook output priority 0; }"]);
    await client.run(["nft", "add", `rule inet wall out tcp dport ${this.#ports[index]} ${how}`]);
  }

  async unblock(): Promise<void> {
    await this.#hosts.client.run(["nft", "delete", "chain inet wall out"]);
  }
}
