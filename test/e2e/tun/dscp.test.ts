import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, beyond, FAMILIES, startTransparent } from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { tun2socks } from "../programs/underpass.ts";

const DSCP = fileURLToPath(new URL("../peers/tun/dscp.py", import.meta.url));
const TARGET = beyond(5);
const EF = 0xb8;
const EF_AND_ECT = 0xb9;
const AF21 = 0x48;

describeWithTun("the DSCP of an application's packets", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it.each(["sockets", "unix:", "tun2socks:"])(
    "is that of its datagrams at the target, from the first on and when it changes, with --egress %s",
    async (kind) => {
      await addAddressesBeyond(hosts);
      const egress = kind === "unix:" ? `unix:${join(hosts.directory, "packets")}` : kind;
      if (kind === "unix:") {
        await tun2socks(hosts.server, ["--device", egress, "--udp-via", "direct"]).start();
      }
      await startTransparent(hosts, {
        tun2socks: ["--latency-rule", "interactive:dscp=46"],
        udpServer: kind === "sockets" ? [] : ["--egress", egress],
      });
      for (const family of FAMILIES) {
        const target = hosts.server.spawn(["python3", DSCP, "target", TARGET[family]]);
        const { text } = await target.waitForLine(/^port \d+$/);
        const values = [EF_AND_ECT, AF21, 0, EF].map(String);
        const argv = ["python3", DSCP, "application", TARGET[family], text.slice("port ".length), ...values];
        const [line] = await hosts.client.run(argv, { timeoutMs: 60_000 });
        expect(JSON.parse(line)).toEqual({ first: EF, last: [EF, AF21, 0, EF] });
        await target.kill();
      }
    },
  );
});
