import { expect, it } from "vitest";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { monotonicMs } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { echoSince, PROBER } from "./programs/prober.ts";
import { masqueLocal, masqueProxy } from "./programs/underpass.ts";
import { startUdpEcho } from "./targets/targets.ts";

const SECOND_MS = 15_000;

for (const [version, fragment] of [
  ["HTTP/1.1", ""],
  ["HTTP/2", "#http=2"],
] as const) {
  describeOnTwoHosts(`standard MASQUE over ${version} where UDP is dropped`, () => {
    let hosts: TwoHosts;
    useTwoHosts((made) => {
      hosts = made;
    });
    const templateOf = (port: number) =>
      `http://${hosts.server.ipv4}:${port}/.well-known/masque/udp/{target_host}/{target_port}/${fragment}`;

    it("a forward continues from another source port after the proxy was killed and restarted", async () => {
      const { client, server } = hosts;
      const echoPort = await startUdpEcho(server);
      const [port, forwardPort] = [server.port(), client.port()];
      const proxy = masqueProxy(hosts, `${server.ipv4}:${port}`, ["127.0.0.0/8"]);
      await proxy.start();
      const forward = ["--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`];
      await masqueLocal(hosts, templateOf(port), forward).start();
      const prober = client.spawn([process.execPath, PROBER, `${forwardPort}`]);
      const before = await echoSince(prober, 0, SECOND_MS);
      await proxy.kill();
      await proxy.start();
      const after = await echoSince(prober, monotonicMs(), SECOND_MS);
      expect(after.source).not.toBe(before.source);
    });
  });
}
