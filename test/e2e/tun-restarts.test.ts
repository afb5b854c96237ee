import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { describeWithTun } from "./requirements.ts";
import { fetchPage, startPage } from "./targets/page.ts";
import { startUdpEcho } from "./targets/targets.ts";
import { addAddressesBeyond, beyond, startTransparent } from "./transparent.ts";
import { type Line, monotonicMs, type Program, type TwoHosts } from "./two-hosts.ts";
import { useTwoHosts } from "./use-two-hosts.ts";

const RESUME_MS = 6000;
const OUTAGE_MS = 600;
const PROBER = fileURLToPath(new URL("prober.mjs", import.meta.url));

const TARGET = beyond(5);

describeWithTun("when a part of the transparent chain dies", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  interface Echo {
    readonly sentAtMs: number;
    readonly receivedAtMs: number;
  }

  function echoSince(prober: Program, sinceMs: number, timeoutMs: number): Promise<Echo> {
    const wanted = ({ text }: Line): Echo | undefined => {
      const echo = JSON.parse(text) as Echo;
      return echo.sentAtMs >= sinceMs ? echo : undefined;
    };
    return prober.waitFor(wanted, timeoutMs, "answer to a probe");
  }

  it("UDP goes on within 6 s after each was killed, and its device goes with tun2socks", async () => {
    await addAddressesBeyond(hosts);
    const [echoPort, pagePort] = [await startUdpEcho(hosts.server, TARGET), await startPage(hosts)];
    const chain = await startTransparent(hosts);
    const argv = [process.execPath, PROBER, `${echoPort}`, TARGET.IPv4];
    const prober = hosts.client.spawn(argv);
    await echoSince(prober, 0, RESUME_MS);
    const device = ["sh", "-c", "ip link show underpass0 >/dev/null 2>&1; echo $?"];
    for (const part of [chain.udpServer, chain.tun2socks, chain.ssTunnel, chain.ssServer]) {
      await part.kill();
      const goneAtMs = monotonicMs();
      expect(await hosts.client.run(device)).toEqual([part === chain.tun2socks ? "1" : "0"]);
      await delay(OUTAGE_MS);
      await part.start();
      const returnedAtMs = monotonicMs();
      const echo = await echoSince(prober, goneAtMs, RESUME_MS + 2000);
      expect(echo.receivedAtMs - returnedAtMs, "ms from the return to the first answer").toBeLessThanOrEqual(
        RESUME_MS,
      );
    }
    await fetchPage(hosts, TARGET.IPv4, pagePort);
  });
});
