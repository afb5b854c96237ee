import { expect, it } from "vitest";
import { LATENCY_CLASSES } from "../../../src/wire/latency-class.ts";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, BEYOND_NETWORKS, BEYOND_ROUTES, beyond } from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { allSame, checkEcho, SIZES, waitForEcho } from "../programs/echo.ts";
import { makeKeyFile, tun2socks, udpLocal, udpServer } from "../programs/underpass.ts";
import { startUdpEcho } from "../targets/targets.ts";

const TARGET = beyond(5);

describeWithTun("latency classes", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it.each([
    ...LATENCY_CLASSES.map((latency) => [latency, ["--latency", latency], ["--latency", latency]] as const),
    [
      "bulk or interactive by rules",
      ["--latency-rule", "bulk:203.0.113.0/24", "--latency", "interactive"],
      [],
    ],
  ] as const)(
    "0 to 65,507 bytes come back unchanged when both ends are %s",
    async (_, atClient, atServer) => {
      await addAddressesBeyond(hosts);
      const echoPort = await startUdpEcho(hosts.server, TARGET);
      const keyFile = makeKeyFile(hosts);
      const server = `${hosts.server.ipv4}:${hosts.server.port()}`;
      await udpServer(hosts, server, keyFile, BEYOND_NETWORKS, atServer).start();
      const tunnel = ["--server", server, "--psk-file", keyFile, "--tcp-via", "reject", ...BEYOND_ROUTES];
      await tun2socks(hosts.client, [...tunnel, ...atClient]).start();
      const port = hosts.client.port();
      const forward = ["--forward", `127.0.0.1:${port}=${TARGET.IPv4}:${echoPort}`];
      await udpLocal(hosts, keyFile, ["--server", server, ...forward, ...atClient]).start();
      for (const [host, at] of [
        ["127.0.0.1", port],
        [TARGET.IPv4, echoPort],
      ] as const) {
        await waitForEcho(hosts.client, host, at);
        const report = await checkEcho(hosts.client, { forward: { host, port: at } }, 50);
        expect(report.sizes).toEqual(allSame(SIZES));
        expect(report.answered).toBe(50);
      }
    },
  );
});
