import { beforeAll, expect, it } from "vitest";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startDns, startUdpEcho } from "./targets/targets.ts";

/** Second addresses of the client host. */
const SECOND = { IPv4: "10.77.0.11", IPv6: "fd77::11" };

describeOnTwoHosts("a fixed forward bound to any address", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );

  let dnsPort = 0;
  let echoPort = 0;

  beforeAll(async () => {
    const { client, server } = hosts;
    await client.run(["ip", "addr", "add", `${SECOND.IPv4}/24`, "dev", "veth0"]);
    await client.run(["ip", "addr", "add", `${SECOND.IPv6}/64`, "dev", "veth0", "nodad"]);
    const targets = { dns: await startDns(server), echo: await startUdpEcho(server) };
    [dnsPort, echoPort] = [client.port(), client.port()];
    const forwards = ["0.0.0.0", "[::]"].flatMap((any) => [
      "--forward",
      `${any}:${dnsPort}=127.0.0.1:${targets.dns}`,
      "--forward",
      `${any}:${echoPort}=127.0.0.1:${targets.echo}`,
    ]);
    const keyFile = makeKeyFile(hosts);
    const port = server.port();
    await udpServer(hosts, `${server.ipv4}:${port}`, keyFile).start();
    await udpLocal(hosts, keyFile, ["--server", `${server.ipv4}:${port}`, ...forwards]).start();
    // The session may not be up for the first datagram.
    const ask = `until printf whoami | socat -t 0.2 - UDP4:127.0.0.1:${echoPort} | grep -q .; do :; done`;
    await client.run(["sh", "-c", ask], { timeoutMs: 10_000 });
  });

  it.each(["IPv4", "IPv6"] as const)(
    "answers dig over %s from the address that it asked, although it asks from another",
    async (family) => {
      const own = family === "IPv4" ? hosts.client.ipv4 : hosts.client.ipv6;
      for (const [from, to] of [
        [own, SECOND[family]],
        [SECOND[family], own],
      ]) {
        const query = ["-b", from, `@${to}`, "-p", `${dnsPort}`, "+tries=1", "+time=3", "+short"];
        expect(await hosts.client.run(["dig", ...query, "example.test", "A"])).toEqual(["192.0.2.7"]);
      }
    },
  );

  it("answers nc from each loopback address in turn, on one port; nc accepts only the address that it asked", async () => {
    const source = `${hosts.client.port()}`;
    for (const host of ["127.0.0.2", "127.0.0.3", "127.0.0.2", SECOND.IPv4]) {
      const nc = ["nc", "-u", "-w", "1", "-s", "127.0.0.1", "-p", source, host, `${echoPort}`];
      expect(await hosts.client.run(nc, { input: `to ${host}\n` })).toEqual([`to ${host}`]);
    }
  });
});
