import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { programCommand } from "../support/hosts.ts";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { startUdpEcho } from "./targets/targets.ts";

const CLIENT = fileURLToPath(new URL("peers/connect-udp-sizes.py", import.meta.url));
const MTU = 1300;

describeOnTwoHosts("a tunnel of RFC 9298 over a link of 1,300 bytes", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it.each([
    ["127.0.0.1", MTU - 28],
    ["::1", MTU - 48],
  ])(
    "carries datagrams to %s that fit into a packet, and drops those that would have to be fragmented",
    async (target, largest) => {
      const { server } = hosts;
      await server.run(["ip", "link", "set", "lo", "mtu", String(MTU)]);
      const echo = await startUdpEcho(server);
      const port = server.port();
      const argv = [...programCommand("udp-server"), "--log-format", "json"];
      const allow = ["--allow", "127.0.0.0/8", "--allow", "::1/128"];
      const started = server.spawn([...argv, "--listen", `127.0.0.1:${port}`, ...allow]);
      await started.waitForLine(/"ready":"udp-server"/);
      const sizes = [100, largest, largest + 1, largest, 5_000, 100];
      const [heard] = await server.run([
        "python3",
        CLIENT,
        `${port}`,
        target,
        `${echo}`,
        ...sizes.map(String),
      ]);
      expect(heard.split(" ").map(Number)).toEqual(sizes.filter((size) => size <= largest));
    },
  );
});
