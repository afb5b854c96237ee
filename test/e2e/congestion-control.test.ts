import { expect, it } from "vitest";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { Host, TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { PROBER } from "./programs/prober.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startUdpEcho } from "./targets/targets.ts";

const ANSWER_MS = 15_000;
/** More than it takes until native I/O carries a flow by itself. */
const SOME_ANSWERS = 100;

async function available(host: Host): Promise<string[]> {
  const [names] = await host.run(["sysctl", "-n", "net.ipv4.tcp_available_congestion_control"]);
  return names.split(/\s+/);
}

/** Those of the known algorithms that the established connections to a port use. */
async function algorithms(host: Host, port: number, known: readonly string[]): Promise<string[]> {
  const lines = await host.run(["ss", "-Htino", "state", "established", "dport", "=", `:${port}`]);
  return lines.flatMap((line) => line.split(/\s+/).filter((word) => known.includes(word)));
}

describeOnTwoHosts("the congestion control of a tunnel's connections", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it("is the system's between hosts, and Reno's within one as soon as native I/O carries datagrams by itself", async (context) => {
    const { client, server } = hosts;
    const known = await available(client);
    const other = known.find((name) => name !== "reno");
    if (other === undefined) return context.skip("the kernel has only Reno");
    await client.run(["sysctl", "-qw", `net.ipv4.tcp_congestion_control=${other}`]);
    const echoPort = await startUdpEcho(server);
    const keyFile = makeKeyFile(hosts);
    const [port, relayPort] = [server.port(), client.port()];
    await udpServer(hosts, `${server.ipv4}:${port}`, keyFile).start();
    client.spawn(["socat", `TCP4-LISTEN:${relayPort},bind=127.0.0.1,fork`, `TCP4:${server.ipv4}:${port}`]);
    await client.waitForTcp("127.0.0.1", relayPort);
    for (const [way, at, expected] of [
      [`${server.ipv4}:${port}`, port, other],
      [`127.0.0.1:${relayPort}`, relayPort, "reno"],
    ] as const) {
      const forwardPort = client.port();
      const forward = ["--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`];
      const local = udpLocal(hosts, keyFile, ["--server", way, "--lanes", "1", ...forward]);
      await local.start();
      const prober = client.spawn([process.execPath, PROBER, `${forwardPort}`]);
      await prober.waitFor(() => prober.lines[SOME_ANSWERS], ANSWER_MS, `${SOME_ANSWERS} answers`);
      await expect.poll(() => algorithms(client, at, known), { timeout: ANSWER_MS }).toEqual([expected]);
      await prober.kill();
      await local.kill();
    }
  });
});
