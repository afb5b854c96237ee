import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { describeWithTun } from "./requirements.ts";
import { addAddressesBeyond, beyond, startTransparent } from "./transparent.ts";
import type { TwoHosts } from "./two-hosts.ts";
import { useTwoHosts } from "./use-two-hosts.ts";

/** What turnutils_natdiscovery says of each of udp-server's modes. */
const VERDICTS = {
  "endpoint-independent": "NAT with Endpoint Independent Filtering!",
  "address-dependent": "NAT with Address Dependent Filtering!",
  "address-and-port-dependent": "NAT with Address and Port Dependent Filtering!",
};
const MAPPING_VERDICT = "NAT with Endpoint Independent Mapping!";
/** Each question that is not answered, as filtering has it, costs some seconds. */
const DISCOVERY_MS = 30_000;

/** A STUN server on two addresses and two ports, as RFC 5780 wants it, for each family; its first port. */
async function startStun({ server, directory }: TwoHosts): Promise<number> {
  const port = server.port();
  const listen = [1, 2].flatMap((number) => Object.values(beyond(number))).flatMap((ip) => ["-L", ip]);
  server.spawn([
    ...["turnserver", "--stun-only", "--no-cli", "--no-tls", "--no-dtls", "-c", "/dev/null"],
    ...["--listening-port", `${port}`, "--alt-listening-port", `${server.port()}`, ...listen],
    ...["--log-file", "stdout", "--pidfile", join(directory, "turnserver.pid")],
  ]);
  await Promise.all(Object.values(beyond(2)).map((address) => server.waitForTcp(address, port)));
  return port;
}

describeWithTun("what a STUN client learns of the NAT", () => {
  describe.each(Object.entries(VERDICTS))("with --filtering %s", (filtering, verdict) => {
    let hosts: TwoHosts;
    useTwoHosts(
      (made) => {
        hosts = made;
      },
      { keepPrograms: true },
    );
    let port: number;

    beforeAll(async () => {
      await addAddressesBeyond(hosts);
      port = await startStun(hosts);
      await startTransparent(hosts, { udpServer: ["--filtering", filtering] });
    });

    async function discover(behaviour: "-m" | "-f", address: string): Promise<string | undefined> {
      const argv = ["turnutils_natdiscovery", behaviour, "-p", `${port}`, address];
      const lines = await hosts.client.run(argv, { timeoutMs: DISCOVERY_MS });
      return lines.find((line) => line.startsWith("NAT with"));
    }

    it.each(["IPv4", "IPv6"] as const)("over %s", async (family) => {
      const address = beyond(1)[family];
      const both = [discover("-m", address), discover("-f", address)];
      expect(await Promise.all(both)).toEqual([MAPPING_VERDICT, verdict]);
      expect(hosts.udpDropped()).toBe(0);
    });
  });
});
