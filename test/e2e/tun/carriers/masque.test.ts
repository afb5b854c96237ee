import { expect, it } from "vitest";
import { describeWithTun } from "../../network/requirements.ts";
import { addAddressesBeyond, BEYOND_NETWORKS, BEYOND_ROUTES, beyond } from "../../network/transparent.ts";
import type { TwoHosts } from "../../network/two-hosts.ts";
import { useTwoHosts } from "../../network/use-two-hosts.ts";
import { allSame, checkEcho, SIZES } from "../../programs/echo.ts";
import { masqueProxy, tun2socks } from "../../programs/underpass.ts";
import { startUdpEcho } from "../../targets/targets.ts";

const TARGET = beyond(7);

for (const [version, fragment] of [
  ["HTTP/1.1", ""],
  ["HTTP/2", "#http=2"],
] as const) {
  describeWithTun(`tun2socks with a MASQUE proxy over ${version}, where UDP is dropped`, () => {
    let hosts: TwoHosts;
    useTwoHosts((made) => {
      hosts = made;
    });
    const templateOf = (port: number) =>
      `http://${hosts.server.ipv4}:${port}/.well-known/masque/udp/{target_host}/{target_port}/${fragment}`;

    it("carries datagrams of all sizes over IPv4 and IPv6", async () => {
      const { client, server } = hosts;
      await addAddressesBeyond(hosts);
      const echoPort = await startUdpEcho(server, TARGET);
      const port = server.port();
      await masqueProxy(hosts, `${server.ipv4}:${port}`, BEYOND_NETWORKS).start();
      await tun2socks(client, ["--masque", templateOf(port), ...BEYOND_ROUTES]).start();
      // The longest does not fit a packet of the server's loopback with IPv6, and RFC 9298 forbids fragments.
      const sizes = { [TARGET.IPv4]: SIZES, [TARGET.IPv6]: SIZES.slice(0, -1) };
      for (const [host, ofHost] of Object.entries(sizes)) {
        const report = await checkEcho(client, { forward: { host, port: echoPort } }, 300, ofHost);
        expect(report.sizes).toEqual(allSame(ofHost));
        expect(report.answered).toBe(300);
      }
      expect(hosts.udpDropped()).toBe(0);
    });
  });
}
