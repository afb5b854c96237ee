import { it } from "vitest";
import { describeWithTun } from "../../network/requirements.ts";
import { addAddressesBeyond, BEYOND_ROUTES, beyond } from "../../network/transparent.ts";
import type { Program, TwoHosts } from "../../network/two-hosts.ts";
import { useTwoHosts } from "../../network/use-two-hosts.ts";
import { TwoWays } from "../../programs/two-tcp-ways.ts";
import { tun2socks } from "../../programs/underpass.ts";
import { fetchPage, startPage } from "../../targets/page.ts";

const SECOND_MS = 10_000;

describeWithTun("several ways for TCP of a TUN device", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it("flows take the second when the first is blocked at the start, and the first again when the second is", async () => {
    const { client } = hosts;
    await addAddressesBeyond(hosts);
    const ways = await TwoWays.start(hosts);
    const pagePort = await startPage(hosts);
    await ways.block(0, "drop");
    const device = tun2socks(client, [...ways.options, "--udp-via", "reject", ...BEYOND_ROUTES]);
    await device.start();
    const program: Program = device.program;
    await fetchPage(hosts, beyond(5).IPv4, pagePort);
    await program.waitForLine(ways.isTaken(1), SECOND_MS);
    await ways.unblock();
    await ways.block(1, "drop");
    await fetchPage(hosts, beyond(5).IPv6, pagePort);
    await program.waitForLine(ways.isTaken(0), SECOND_MS);
    await ways.unblock();
  });
});
