import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { programCommand } from "../../support/hosts.ts";
import { describeWithTun } from "../network/requirements.ts";
import {
  addAddressesBeyond,
  BEYOND_NETWORKS,
  BEYOND_ROUTES,
  beyond,
  startSocksWay,
} from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { allSame, checkEcho, SIZES, waitForEcho } from "../programs/echo.ts";
import { makeKeyFile, tun2socks, udpServer } from "../programs/underpass.ts";
import { fetchPage, startPage } from "../targets/page.ts";
import { startUdpEcho } from "../targets/targets.ts";

const WITH_TUN = fileURLToPath(new URL("../peers/tun/with-tun-descriptor.py", import.meta.url));

const TARGET = beyond(5);

describeWithTun("devices of tun2socks", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it.each([
    ["plain", []],
    ["family", ["--family-header"]],
  ])("a device that another program opened is taken as fd:9, %s", async (format, options) => {
    await addAddressesBeyond(hosts);
    const [echoPort, pagePort] = [await startUdpEcho(hosts.server, TARGET), await startPage(hosts)];
    const keyFile = makeKeyFile(hosts);
    const listen = `${hosts.server.ipv4}:${hosts.server.port()}`;
    await udpServer(hosts, listen, keyFile, BEYOND_NETWORKS).start();
    const { url } = await startSocksWay(hosts);
    const program = hosts.client.spawn([
      ...["python3", WITH_TUN, format, ...programCommand("tun2socks"), "--log-format", "json"],
      ...["--device", "fd:9", "--server", listen, "--psk-file", keyFile, ...options],
      ...["--tcp-via", url],
    ]);
    await program.waitForLine(/"ready":"tun2socks"/);
    await waitForEcho(hosts.client, TARGET.IPv4, echoPort);
    for (const address of Object.values(TARGET)) {
      expect(
        (await checkEcho(hosts.client, { forward: { host: address, port: echoPort } }, 0)).sizes,
      ).toEqual(allSame(SIZES));
      await fetchPage(hosts, address, pagePort);
    }
  });

  it("--dry-run prints what tun2socks would do, and creates no device", async () => {
    const argv = [...programCommand("tun2socks"), "--dry-run", ...BEYOND_ROUTES];
    expect(await hosts.client.run(argv)).toContain("route 203.0.113.0/24");
    await expect(hosts.client.run(["ip", "link", "show", "underpass0"])).rejects.toThrow("does not exist");
  });

  it("the options of badvpn-tun2socks use an existing device, and leave it", async () => {
    await addAddressesBeyond(hosts);
    const pagePort = await startPage(hosts);
    const { url } = await startSocksWay(hosts);
    for (const command of [
      "tuntap add dev tun9 mode tun",
      "addr add 10.9.0.1/24 dev tun9",
      "link set tun9 up",
      "route add 203.0.113.0/24 dev tun9",
    ]) {
      await hosts.client.run(["ip", ...command.split(" ")]);
    }
    const program = tun2socks(hosts.client, [
      ...["--tundev", "tun9", "--netif-ipaddr", "10.9.0.2", "--netif-netmask", "255.255.255.0"],
      ...["--socks-server-addr", new URL(url).host],
    ]);
    await program.start();
    await fetchPage(hosts, TARGET.IPv4, pagePort);
    await program.kill();
    const addresses = await hosts.client.run(["ip", "-br", "-4", "addr", "show", "dev", "tun9"]);
    expect(addresses.join()).toMatch(/^tun9 .* 10\.9\.0\.1\/24 *$/);
    await hosts.client.run(["ip", "link", "del", "tun9"]);
  });
});
