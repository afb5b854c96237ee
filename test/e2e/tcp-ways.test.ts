import { expect, it } from "vitest";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { TwoHosts } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { TwoWays } from "./programs/two-tcp-ways.ts";
import { makeKeyFile, udpLocal } from "./programs/underpass.ts";
import { startPage } from "./targets/page.ts";

const SECOND_MS = 10_000;

describeOnTwoHosts("several ways for udp-local's CONNECT requests", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it("flows take the second when the first is blocked midway, and the first again when the second is", async () => {
    const { client, server } = hosts;
    const ways = await TwoWays.start(hosts);
    const pagePort = await startPage(hosts);
    const socks = `127.0.0.1:${client.port()}`;
    const service = udpLocal(hosts, makeKeyFile(hosts), [
      ...["--server", `${server.ipv4}:${server.port()}`, "--listen", socks, ...ways.options],
    ]);
    await service.start();
    const fetch = () =>
      client.run(
        ["curl", "-sS", "-m", "8", "-o", "/dev/null", "-w", "%{http_code} %{size_download}"].concat([
          ...["--socks5", socks, `http://127.0.0.1:${pagePort}/page`],
        ]),
      );
    const whole = ["200 10485760"];
    expect(await fetch()).toEqual(whole);
    const taken = (index: number) => service.program.waitForLine(ways.isTaken(index), SECOND_MS);
    await ways.block(0, "drop");
    expect(await Promise.all([fetch(), fetch(), fetch()])).toEqual([whole, whole, whole]);
    await taken(1);
    await ways.unblock();
    await ways.block(1, "reject with tcp reset");
    expect(await fetch()).toEqual(whole);
    await taken(0);
    await ways.unblock();
  });
});
