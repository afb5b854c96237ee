import { expect, it } from "vitest";
import { describeWithTun } from "../../network/requirements.ts";
import { addAddressesBeyond, BEYOND_NETWORKS, beyond } from "../../network/transparent.ts";
import type { TwoHosts } from "../../network/two-hosts.ts";
import { useTwoHosts } from "../../network/use-two-hosts.ts";
import { plainSsServer, ssServer, ssUrl } from "../../programs/chain.ts";
import { allSame, checkEcho, SIZES } from "../../programs/echo.ts";
import { makeKeyFile, tun2socks, udpServer } from "../../programs/underpass.ts";
import { fetchPage, startPage } from "../../targets/page.ts";
import { startUdpEcho } from "../../targets/targets.ts";

const TARGET = beyond(5);

describeWithTun("tun2socks as the only program of the client", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it.each([
    ["ss-server and udp-server", undefined, false],
    ["ss-server behind obfs-server, and udp-server", "http", false],
    ["ss-server behind obfs-server, and udp-server", "tls", false],
    ["udp-server alone", undefined, true],
    ["udp-server alone", "tls", true],
  ])(
    "carries all UDP, and eight pages of 10 MB at the same time, through %s (obfs %s)",
    async (_, obfs, isOurs) => {
      const { client, server } = hosts;
      await addAddressesBeyond(hosts);
      const [echoPort, pagePort] = [await startUdpEcho(server, TARGET), await startPage(hosts)];
      const keyFile = makeKeyFile(hosts);
      const port = server.port();
      if (isOurs) {
        const listen = ssUrl(server.ipv4, port, obfs && `obfs-server;obfs=${obfs}`);
        await udpServer(hosts, listen, keyFile, BEYOND_NETWORKS, ["--ss-relay", "direct"]).start();
      } else {
        if (obfs === undefined) await plainSsServer(server, server.ipv4, port, []).start();
        else await ssServer(hosts, server.ipv4, port, obfs).start();
        await udpServer(hosts, "127.0.0.1:3456", keyFile, BEYOND_NETWORKS).start();
      }
      const url = ssUrl(server.ipv4, port, obfs && `obfs-local;obfs=${obfs};obfs-host=example.com`);
      const device = tun2socks(client, [
        ...["--via", url, "--tcp-via", url, "--psk-file", keyFile],
        ...["--out-interface", "veth0", "--route", "0.0.0.0/0", "--route", "::/0"],
      ]);
      await device.start();
      await device.program.waitForLine(/"msg":"session up"/);
      const running = await server.run(["ip", "netns", "pids", client.namespace]);
      expect(running, "processes of the client").toEqual([`${device.program.pid}`]);
      const pages = Array.from({ length: 4 }, () => [TARGET.IPv4, TARGET.IPv6]).flat();
      const [report] = await Promise.all([
        checkEcho(client, { forward: { host: TARGET.IPv4, port: echoPort } }, 300),
        ...pages.map((host) => fetchPage(hosts, host, pagePort)),
      ]);
      expect(report.sizes).toEqual(allSame(SIZES));
      expect(report.answered).toBe(300);
      expect(hosts.udpDropped()).toBe(0);
    },
  );
});
