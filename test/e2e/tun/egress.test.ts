import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { programCommand } from "../../support/hosts.ts";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, beyond, startTransparent } from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { plainSsLocal, plainSsServer, type Service } from "../programs/chain.ts";
import { allSame, checkEcho, SIZES, waitForEcho } from "../programs/echo.ts";
import { tun2socks } from "../programs/underpass.ts";
import { startUdpEcho } from "../targets/targets.ts";

const OUTAGE_MS = 600;

const TARGET = beyond(5);

describeWithTun("beyond udp-server, a second tun2socks and a second shadowsocks", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  /** shadowsocks-libev relays no empty datagrams, and none longer than twice 1,397 bytes. */
  const sizes = [1, 1200, 1472, 2500];

  /** Starts a second ss-local and ss-server for UDP within the server host. @returns the SOCKS5 port */
  async function startSecondShadowsocks(): Promise<number> {
    const remote = { address: "127.0.0.1", port: hosts.server.port() };
    const port = hosts.server.port();
    await plainSsServer(hosts.server, remote.address, remote.port, ["-u"]).start();
    await plainSsLocal(hosts.server, remote, port, ["-u"]).start();
    await hosts.server.waitForTcp("127.0.0.1", port);
    return port;
  }

  interface Way {
    readonly egress: string;
    /** The programs that run beside udp-server. */
    readonly beside: Service | undefined;
  }

  it.each<[string, (socks: string) => Way]>([
    [
      "unix: to a tun2socks that listens",
      (socks) => {
        const device = `unix:${join(hosts.directory, "packets")}`;
        return {
          egress: device,
          beside: tun2socks(hosts.server, ["--device", device, "--udp-via", socks]),
        };
      },
    ],
    [
      "exec: of a tun2socks on its standard input and output",
      (socks) => {
        const program = [...programCommand("tun2socks")];
        const argv = [...program, "--device", "pipe:", "--udp-via", socks, "--log-format", "json"];
        return { egress: `exec:${argv.join(" ")}`, beside: undefined };
      },
    ],
    ["tun2socks: in the same process", (socks) => ({ egress: `tun2socks:${socks}`, beside: undefined })],
    ["socks5://", (socks) => ({ egress: socks, beside: undefined })],
  ])("the whole chain carries UDP over IPv4 and IPv6 with --egress %s", async (_, makeWay) => {
    await addAddressesBeyond(hosts);
    const { egress, beside } = makeWay(`socks5://127.0.0.1:${await startSecondShadowsocks()}`);
    await beside?.start();
    const echoPort = await startUdpEcho(hosts.server, TARGET);
    await startTransparent(hosts, { udpServer: ["--egress", egress] });
    await waitForEcho(hosts.client, TARGET.IPv4, echoPort);
    for (const address of Object.values(TARGET)) {
      const report = await checkEcho(
        hosts.client,
        { forward: { host: address, port: echoPort } },
        100,
        sizes,
      );
      expect(report.sizes).toEqual(allSame(sizes));
      expect(report.answered).toBe(100);
      expect(report.sources).toHaveLength(1);
    }
    if (beside === undefined) return;
    await beside.kill();
    await delay(OUTAGE_MS);
    await beside.start();
    await waitForEcho(hosts.client, TARGET.IPv4, echoPort);
  });

  it("--egress tun2socks: without a way sends from sockets, 0 to 65,507 bytes", async () => {
    await addAddressesBeyond(hosts);
    const echoPort = await startUdpEcho(hosts.server, TARGET);
    await startTransparent(hosts, { udpServer: ["--egress", "tun2socks:"] });
    await waitForEcho(hosts.client, TARGET.IPv4, echoPort);
    const report = await checkEcho(hosts.client, { forward: { host: TARGET.IPv4, port: echoPort } }, 100);
    expect(report.sizes).toEqual(allSame(SIZES));
    expect(report.sources).toHaveLength(1);
  });
});
