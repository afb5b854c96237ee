import { expect, it } from "vitest";
import { describeWithTun } from "../../network/requirements.ts";
import {
  addAddressesBeyond,
  BEYOND_ROUTES,
  beyond,
  FAMILIES,
  startSocksWay,
} from "../../network/transparent.ts";
import type { TwoHosts } from "../../network/two-hosts.ts";
import { useTwoHosts } from "../../network/use-two-hosts.ts";
import { plainSsLocal, plainSsServer } from "../../programs/chain.ts";
import { allSame, checkEcho, SIZES, waitForEcho } from "../../programs/echo.ts";
import { makeKeyFile, tun2socks, udpLocal, udpServer } from "../../programs/underpass.ts";
import { expectHalfClosesAndResets } from "../../targets/half-close.ts";
import { fetchPage, startPage } from "../../targets/page.ts";
import { startDns, startUdpEcho } from "../../targets/targets.ts";

const TARGET = beyond(5);

describeWithTun("the ways that tun2socks sends UDP and TCP", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it("udp-local's own connection enters a TUN device, whose tun2socks carries it through ss-local", async () => {
    await addAddressesBeyond(hosts);
    const echoPort = await startUdpEcho(hosts.server);
    const keyFile = makeKeyFile(hosts);
    const listen = `${TARGET.IPv4}:${hosts.server.port()}`;
    await udpServer(hosts, listen, keyFile).start();
    const { url } = await startSocksWay(hosts);
    const tcpVia = ["--tcp-via", url, "--udp-via", "reject"];
    await tun2socks(hosts.client, [...tcpVia, ...BEYOND_ROUTES]).start();
    const forwardPort = hosts.client.port();
    const forward = ["--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`];
    await udpLocal(hosts, keyFile, ["--server", listen, ...forward]).start();
    await waitForEcho(hosts.client, "127.0.0.1", forwardPort);
    const report = await checkEcho(hosts.client, { forward: { host: "127.0.0.1", port: forwardPort } }, 100);
    expect(report.sizes).toEqual(allSame(SIZES));
    expect(report.sources).toHaveLength(1);
    expect(hosts.udpDropped()).toBe(0);
  });

  it("TCP goes through an ss-local for only TCP, UDP through another for only UDP", async () => {
    await addAddressesBeyond(hosts);
    const echoPort = await startUdpEcho(hosts.server, TARGET);
    const pagePort = await startPage(hosts);
    // A second link, on which UDP is not lost.
    const [client, server] = [hosts.client.namespace, hosts.server.namespace];
    const link = ["link", "add", "veth1", "type", "veth", "peer", "name", "veth1", "netns", server];
    await hosts.client.run(["ip", ...link]);
    for (const [namespace, address] of [
      [client, "10.78.0.1/24"],
      [server, "10.78.0.2/24"],
    ]) {
      await hosts.client.run(["ip", "-n", namespace, "addr", "add", address, "dev", "veth1"]);
      await hosts.client.run(["ip", "-n", namespace, "link", "set", "veth1", "up"]);
    }
    const remotes = [hosts.server.port(), hosts.server.port()].map((port) => ({
      address: "10.78.0.2",
      port,
    }));
    const [tcpPort, udpPort] = [hosts.client.port(), hosts.client.port()];
    await plainSsServer(hosts.server, remotes[0].address, remotes[0].port, []).start();
    await plainSsServer(hosts.server, remotes[1].address, remotes[1].port, ["-U"]).start();
    await plainSsLocal(hosts.client, remotes[0], tcpPort, []).start();
    await plainSsLocal(hosts.client, remotes[1], udpPort, ["-U"]).start();
    const [first, second] = remotes.map(({ port }) => port);
    await hosts.server.run([
      "nft",
      `table inet count {
        counter to0 { }
        counter to1 { }
        chain arriving {
          type filter hook input priority 0
          th dport ${first} counter name to0
          th dport ${second} counter name to1
        }
      }`,
    ]);
    const bytesTo = async (index: number): Promise<number> => {
      const lines = await hosts.server.run(["nft", "list", "counter", "inet", "count", `to${index}`]);
      return Number(/bytes (\d+)/.exec(lines.join())![1]);
    };
    const ways = [
      ...["--tcp-via", `socks5://127.0.0.1:${tcpPort}`],
      ...["--udp-via", `socks5-udp://127.0.0.1:${udpPort}`],
    ];
    await tun2socks(hosts.client, [...ways, ...BEYOND_ROUTES]).start();

    // Shadowsocks does not fragment.
    const sizes = [1, 1200, 1400];
    const report = await checkEcho(
      hosts.client,
      { forward: { host: TARGET.IPv4, port: echoPort } },
      100,
      sizes,
    );
    expect(report.sizes).toEqual(allSame(sizes));
    expect(report.answered).toBe(100);
    expect(await bytesTo(1)).toBeGreaterThan(2601);
    expect(await bytesTo(0)).toBe(0);
    const before = await bytesTo(1);
    await fetchPage(hosts, TARGET.IPv6, pagePort);
    expect(await bytesTo(0)).toBeGreaterThan(1000);
    expect(await bytesTo(1)).toBe(before);
  });

  it("direct TCP leaves through the given interface, and UDP that a rule rejects fails at once", async () => {
    await addAddressesBeyond(hosts);
    const pagePort = await startPage(hosts);
    // This route applies only to sockets bound to the interface; for all others the device's route comes first.
    const route = ["203.0.113.0/24", "via", hosts.server.ipv4, "metric", "5000"];
    await hosts.client.run(["ip", "route", "add", ...route]);
    const ways = ["--tcp-via", "direct", "--out-interface", "veth0", "--rule", "udp *:53 reject"];
    await tun2socks(hosts.client, [...ways, ...BEYOND_ROUTES]).start();
    await fetchPage(hosts, TARGET.IPv4, pagePort);
    const dig = hosts.client.spawn(["dig", `@${TARGET.IPv4}`, "+tries=1", "+time=10", "example.test"]);
    await dig.exit(5_000);
    expect(dig.lines.map(({ text }) => text).join("\n")).toMatch(/connection refused/);
  });

  it("half-closes and resets of TCP get through, directly and by udp-local's SOCKS5 server", async () => {
    const { client, server } = hosts;
    await addAddressesBeyond(hosts);
    for (const [network, address] of [
      ["203.0.113.0/24", server.ipv4],
      ["2001:db8:5::/48", server.ipv6],
    ]) {
      await client.run(["ip", "route", "replace", network, "via", address, "metric", "5000"]);
    }
    const keyFile = makeKeyFile(hosts);
    const out = ["--out-interface", "veth0"];
    const socks = `127.0.0.1:${client.port()}`;
    const tunnel = ["--server", `${server.ipv4}:${server.port()}`];
    await udpLocal(hosts, keyFile, [...tunnel, "--listen", socks, ...out]).start();
    for (const way of ["direct", `socks5://${socks}`]) {
      const device = tun2socks(client, ["--tcp-via", way, "--udp-via", "reject", ...out, ...BEYOND_ROUTES]);
      await device.start();
      for (const family of FAMILIES) {
        await expectHalfClosesAndResets(hosts, TARGET[family], `${way} ${family}`);
      }
      await device.kill();
    }
  });

  it("with --dns tcp, UDP queries are answered although no UDP gets out", async () => {
    await addAddressesBeyond(hosts);
    const port = await startDns(hosts.server, TARGET.IPv4, 53);
    expect(port).toBe(53);
    const { url } = await startSocksWay(hosts);
    const ways = ["--tcp-via", url, "--udp-via", "reject", "--dns", "tcp"];
    await tun2socks(hosts.client, [...ways, ...BEYOND_ROUTES]).start();
    const server = [`@${TARGET.IPv4}`, "+tries=1", "+time=5"];
    expect(await hosts.client.run(["dig", ...server, "+short", "example.test"])).toEqual(["192.0.2.7"]);
    const ask = (size: number) =>
      hosts.client.run(["dig", ...server, "+ignore", `+bufsize=${size}`, "TXT", "big.test"]);
    expect((await ask(4096)).join()).not.toMatch(/flags:[^;]* tc/);
    expect((await ask(1232)).join()).toMatch(/flags:[^;]* tc/);
  });
});
