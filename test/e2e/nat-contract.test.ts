import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { describeWithTun } from "./network/requirements.ts";
import { addAddressesBeyond, beyond, FAMILIES, startTransparent } from "./network/transparent.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { startUdpEcho } from "./targets/targets.ts";

/** What turnutils_natdiscovery reports for each of udp-server's modes. */
const VERDICTS = {
  "endpoint-independent": "NAT with Endpoint Independent Filtering!",
  "address-dependent": "NAT with Address Dependent Filtering!",
  "address-and-port-dependent": "NAT with Address and Port Dependent Filtering!",
};
const MAPPING_VERDICT = "NAT with Endpoint Independent Mapping!";
/** The query without an earlier datagram to the server's own address, so only one kind of filtering accepts the answer. */
const HAIRPIN_VERDICT = "Received a request (maybe a successful hairpinning)";
const HAIRPIN = fileURLToPath(new URL("peers/hairpin.py", import.meta.url));
/** The server's address for targets, to which the client's route leads into the device. */
const EXTERNAL = beyond(9);
/** Each query whose answer is filtered takes some seconds. */
const DISCOVERY_MS = 30_000;

/** Starts a STUN server on two addresses and two ports for each family, as RFC 5780 requires. @returns its first port */
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
    let echoPort: number;

    beforeAll(async () => {
      await addAddressesBeyond(hosts, EXTERNAL);
      echoPort = await startUdpEcho(hosts.server, beyond(3));
      port = await startStun(hosts);
      await startTransparent(hosts, { udpServer: ["--filtering", filtering] });
    });

    async function discover(behaviour: "-m" | "-f" | "-H", address: string): Promise<string | undefined> {
      const argv = ["turnutils_natdiscovery", behaviour, "-p", `${port}`, address];
      const lines = await hosts.client.run(argv, { timeoutMs: DISCOVERY_MS });
      return lines.find((line) => line.startsWith("NAT with") || line === HAIRPIN_VERDICT);
    }

    it.each(FAMILIES)("only permitted senders get through over %s", async (family) => {
      const address = beyond(1)[family];
      const both = [discover("-m", address), discover("-f", address)];
      expect(await Promise.all(both)).toEqual([MAPPING_VERDICT, verdict]);
      expect(hosts.udpDropped()).toBe(0);
    });

    it.each(FAMILIES)(
      "two associations reach each other by their external addresses over %s (REQ-9)",
      async (family) => {
        const argv = ["python3", HAIRPIN, beyond(3)[family], `${echoPort}`];
        const [line] = await hosts.client.run(argv, { timeoutMs: DISCOVERY_MS });
        const { external, heard } = JSON.parse(line) as Record<"external" | "heard", [string, number][]>;
        expect(external.map(([address]) => address)).toEqual([EXTERNAL[family], EXTERNAL[family]]);
        expect(heard).toEqual(external.toReversed());
        if (filtering !== "endpoint-independent") return;
        expect(await discover("-H", beyond(1)[family])).toBe(HAIRPIN_VERDICT);
      },
    );
  });
});
