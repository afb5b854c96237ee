import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import {
  addAddressesBeyond,
  BEYOND_NETWORKS,
  BEYOND_ROUTES,
  beyond,
  FAMILIES,
} from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { makeKeyFile, tun2socks, udpServer } from "../programs/underpass.ts";
import { startUdpEcho } from "../targets/targets.ts";

const PEER = fileURLToPath(new URL("../peers/tun/packet-order.py", import.meta.url));
const TARGET = beyond(5);
const SEED = "20261127";

describeWithTun("a flow through a device, most of whose packets native I/O carries by itself", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  /** Starts a tunnel with one lane, and targets behind it. @returns the echo's port */
  async function start(offload: string): Promise<number> {
    await addAddressesBeyond(hosts);
    const echoPort = await startUdpEcho(hosts.server, TARGET);
    const keyFile = makeKeyFile(hosts);
    const server = `${hosts.server.ipv4}:${hosts.server.port()}`;
    await udpServer(hosts, server, keyFile, BEYOND_NETWORKS).start();
    const device = tun2socks(hosts.client, [
      ...["--server", server, "--psk-file", keyFile, "--tcp-via", "reject", "--lanes", "1"],
      ...["--offload", offload, ...BEYOND_ROUTES],
    ]);
    await device.start();
    await device.program.waitForLine(/"msg":"session up"/);
    return echoPort;
  }

  it.each(["on", "off"])("arrives in order, without what is not valid, with offload %s", async (offload) => {
    const echoPort = await start(offload);
    const target = hosts.server.spawn(["python3", PEER, "target", TARGET.IPv4]);
    const { text } = await target.waitForLine(/^port \d+$/);
    const argv = ["underpass0", TARGET.IPv4, text.slice("port ".length), `${echoPort}`, SEED];
    const [expected] = await hosts.client.run(["python3", PEER, "packets", ...argv], { timeoutMs: 60_000 });
    const heard = await target.waitForLine(/^\[/);
    expect(JSON.parse(heard.text)).toEqual(JSON.parse(expected));
  });

  it.each(["on", "off"])("is answered in order, whatever the sizes, with offload %s", async (offload) => {
    const echoPort = await start(offload);
    for (const family of FAMILIES) {
      const argv = ["python3", PEER, "answers", TARGET[family], `${echoPort}`, SEED];
      const [line] = await hosts.client.run(argv, { timeoutMs: 60_000 });
      expect(JSON.parse(line)).toMatchObject({ same: true });
    }
  });
});
