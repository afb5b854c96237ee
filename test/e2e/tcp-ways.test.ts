import { expect, it } from "vitest";
import { ssServer, ssUrl } from "./chain.ts";
import { describeOnTwoHosts, describeWithTun } from "./requirements.ts";
import { fetchPage, startPage } from "./targets/page.ts";
import { addAddressesBeyond, BEYOND_ROUTES, beyond } from "./transparent.ts";
import type { Program, TwoHosts } from "./two-hosts.ts";
import { makeKeyFile, tun2socks, udpLocal } from "./underpass.ts";
import { useTwoHosts } from "./use-two-hosts.ts";

const SECOND_MS = 10_000;
const OBFS = "obfs-local;obfs=http;obfs-host=example.com";

/** Two ss-servers behind obfs-server, and what blocks one of them. */
class TwoWays {
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

  /** What the log says when flows take a way. */
  isTaken(index: number): RegExp {
    return new RegExp(`"way":"[^"]*:${this.#ports[index]}[^"]*","msg":"TCP goes by another way"`);
  }

  /** Loses all that goes to one of them, or resets it. */
  async block(index: number, how: "drop" | "reject with tcp reset"): Promise<void> {
    const { client } = this.#hosts;
    await client.run(["nft", "add", "chain inet wall out { type filter hook output priority 0; }"]);
    await client.run(["nft", "add", `rule inet wall out tcp dport ${this.#ports[index]} ${how}`]);
  }

  async unblock(): Promise<void> {
    await this.#hosts.client.run(["nft", "delete", "chain inet wall out"]);
  }
}

describeOnTwoHosts("several ways for udp-local's CONNECT requests", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it("flows take the second when the first is blocked midway, and the first again when the second is", async () => {
    const { client, server } = hosts;
    const ways = await TwoWays.start(hosts);
    const pagePort = await startPage(hosts);
    const socks = `127.0.0.1:${client.port()}`;
    const service = udpLocal(hosts, makeKeyFile(hosts), [
      ...["--server", `${server.ipv4}:${server.port()}`, "--listen", socks, ...ways.options],
    ]);
    await service.start();
    const fetch = () =>
      client.run(
        ["curl", "-sS", "-m", "8", "-o", "/dev/null", "-w", "%{http_code} %{size_download}"].concat([
          ...["--socks5", socks, `http://127.0.0.1:${pagePort}/page`],
        ]),
      );
    const whole = ["200 10485760"];
    expect(await fetch()).toEqual(whole);
    const taken = (index: number) => service.program.waitForLine(ways.isTaken(index), SECOND_MS);
    await ways.block(0, "drop");
    expect(await Promise.all([fetch(), fetch(), fetch()])).toEqual([whole, whole, whole]);
    await taken(1);
    await ways.unblock();
    await ways.block(1, "reject with tcp reset");
    expect(await fetch()).toEqual(whole);
    await taken(0);
    await ways.unblock();
  });
});

describeWithTun("several ways for TCP of a TUN device", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it("flows take the second when the first is blocked at the start, and the first again when the second is", async () => {
    const { client } = hosts;
    await addAddressesBeyond(hosts);
    const ways = await TwoWays.start(hosts);
    const pagePort = await startPage(hosts);
    await ways.block(0, "drop");
    const device = tun2socks(client, [...ways.options, "--udp-via", "reject", ...BEYOND_ROUTES]);
    await device.start();
    const program: Program = device.program;
    await fetchPage(hosts, beyond(5).IPv4, pagePort);
    await program.waitForLine(ways.isTaken(1), SECOND_MS);
    await ways.unblock();
    await ways.block(1, "drop");
    await fetchPage(hosts, beyond(5).IPv6, pagePort);
    await program.waitForLine(ways.isTaken(0), SECOND_MS);
    await ways.unblock();
  });
});
