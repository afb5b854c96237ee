import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { itOnOwnHosts } from "./network/own-hosts.ts";
import { describeOnOwnHosts } from "./network/requirements.ts";
import { type Line, monotonicMs, type Program, type TwoHosts } from "./network/two-hosts.ts";
import { type CarrierName, startCarrier } from "./programs/carriers.ts";
import type { Service } from "./programs/chain.ts";
import { type Echo, echoSince, PROBER } from "./programs/prober.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startUdpEcho } from "./targets/targets.ts";

const RESUME_MS = 6000;
/** Long enough for probes to fall into the outage. */
const OUTAGE_MS = 600;
/** Long enough for the client's pause between attempts to reach its maximum. */
const LONG_OUTAGE_MS = 10_000;
const ASSOCIATIONS = 1000;
const MANY_SOURCES = fileURLToPath(new URL("peers/many-sources.mjs", import.meta.url));

describeOnOwnHosts("when a part dies", () => {
  interface Tunnel {
    readonly server: Service;
    readonly local: Service;
    /** ss-server and ss-tunnel, if the carrier has them. */
    readonly ssServer: Service | undefined;
    readonly ssTunnel: Service | undefined;
    /** Local port that leads to the UDP echo. */
    readonly forwardPort: number;
    /** Where udp-server listens. */
    readonly serverPort: number;
  }

  async function startTunnel(hosts: TwoHosts, carrierName: CarrierName): Promise<Tunnel> {
    const echoPort = await startUdpEcho(hosts.server);
    const keyFile = makeKeyFile(hosts);
    const carrier = await startCarrier(hosts, carrierName);
    const forwardPort = hosts.client.port();
    const forward = ["--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`];
    const server = udpServer(hosts, carrier.listen, keyFile);
    const local = udpLocal(hosts, keyFile, [...carrier.options, ...forward]);
    await Promise.all([server.start(), local.start()]);
    const [ssServer, ssTunnel] = carrier.hops;
    const serverPort = Number(carrier.listen.slice(carrier.listen.lastIndexOf(":") + 1));
    return { server, local, ssServer, ssTunnel, forwardPort, serverPort };
  }

  async function startProber(hosts: TwoHosts, tunnel: Tunnel): Promise<{ prober: Program; source: string }> {
    const prober = hosts.client.spawn([process.execPath, PROBER, `${tunnel.forwardPort}`]);
    const { source } = await echoSince(prober, 0, RESUME_MS);
    return { prober, source };
  }

  /**
   * Kills `parts`, waits, checks that nothing gets through, restarts them in the given order, and expects traffic within 6 s after the last
   * one has started. Returns the source that the target then sees.
   */
  async function killAndRestart(
    prober: Program,
    parts: readonly Service[],
    outageMs = OUTAGE_MS,
  ): Promise<string> {
    await Promise.all(parts.map((part) => part.kill()));
    const goneAtMs = monotonicMs();
    await delay(outageMs);
    const through = prober.lines.filter(({ text }) => (JSON.parse(text) as Echo).sentAtMs > goneAtMs);
    expect(through, "probes answered while a part was dead").toEqual([]);
    for (const [index, part] of parts.entries()) {
      if (index > 0) await delay(OUTAGE_MS);
      await part.start();
    }
    const returnedAtMs = monotonicMs();
    const echo = await echoSince(prober, goneAtMs, RESUME_MS + 2000);
    expect(echo.receivedAtMs - returnedAtMs, "ms from the return to the first answer").toBeLessThanOrEqual(
      RESUME_MS,
    );
    return echo.source;
  }

  itOnOwnHosts.for<[string, (tunnel: Tunnel) => (Service | undefined)[]]>([
    ["udp-server", ({ server }) => [server]],
    ["udp-local", ({ local }) => [local]],
    ["both, and udp-server is back first", ({ server, local }) => [server, local]],
    ["both, and udp-local is back first", ({ server, local }) => [local, server]],
    [
      "everything, back from the client's side to the server's",
      (all) => [all.local, all.ssTunnel, all.ssServer, all.server],
    ],
  ])("traffic resumes within 6 s after kill -9 of %s", async ([, choose], { hosts }) => {
    const tunnel = await startTunnel(hosts, "ss-tunnel + obfs");
    const { prober } = await startProber(hosts, tunnel);
    await killAndRestart(prober, choose(tunnel) as Service[]);
  });

  itOnOwnHosts.for<CarrierName>(["ss-tunnel + obfs", "ss:// + obfs", "TCP over IPv4"])(
    "traffic resumes within 6 s through %s after the server was down for 10 s",
    async (carrierName, { hosts }) => {
      const tunnel = await startTunnel(hosts, carrierName);
      const { prober } = await startProber(hosts, tunnel);
      await killAndRestart(prober, [tunnel.server], LONG_OUTAGE_MS);
    },
  );

  itOnOwnHosts("udp-server dies again and again, and udp-local needs no restart", async ({ hosts }) => {
    const tunnel = await startTunnel(hosts, "TCP over IPv4");
    const { prober } = await startProber(hosts, tunnel);
    for (let time = 0; time < 3; time++) await killAndRestart(prober, [tunnel.server]);
  });

  itOnOwnHosts.for<["ssTunnel" | "ssServer"]>([["ssTunnel"], ["ssServer"]])(
    "traffic resumes within 6 s and from the same source after kill -9 of %s with its plugin",
    async ([hop], { hosts }) => {
      const tunnel = await startTunnel(hosts, "ss-tunnel + obfs");
      const { prober, source } = await startProber(hosts, tunnel);
      expect(await killAndRestart(prober, [tunnel[hop]!])).toBe(source);
    },
  );

  itOnOwnHosts(
    "traffic resumes within 6 s and from the same source after ss-local was killed",
    async ({ hosts }) => {
      const tunnel = await startTunnel(hosts, "ss-local + obfs");
      const { prober, source } = await startProber(hosts, tunnel);
      expect(await killAndRestart(prober, [tunnel.ssTunnel!])).toBe(source);
    },
  );

  itOnOwnHosts(
    "the target sees the same source after each of three cuts of the TCP connection",
    async ({ hosts }) => {
      const tunnel = await startTunnel(hosts, "TCP over IPv4");
      const { prober, source } = await startProber(hosts, tunnel);
      for (let time = 0; time < 3; time++) {
        await hosts.client.cutTcp(tunnel.serverPort);
        const echo = await echoSince(prober, monotonicMs(), RESUME_MS);
        expect(echo.source).toBe(source);
      }
    },
  );

  itOnOwnHosts(
    "1,000 associations recover: with the same sources after a cut, and all answered after the server died",
    async ({ hosts }) => {
      const tunnel = await startTunnel(hosts, "TCP over IPv4");
      const argv = [process.execPath, MANY_SOURCES, `${tunnel.forwardPort}`, `${ASSOCIATIONS}`];
      const sources = hosts.client.spawn(argv);
      const askAll = async (): Promise<{ ports: (number | null)[]; atMs: number }> => {
        const linesBefore = sources.lines.length;
        sources.stdin.write("\n");
        const nextLine = (line: Line) => (sources.lines.indexOf(line) >= linesBefore ? line : undefined);
        const { text } = await sources.waitFor(nextLine, 15_000, "report of a round");
        const report = JSON.parse(text) as { ports: (number | null)[]; atMs: number };
        expect(report.ports.filter((port) => port === null).length, "sources without an answer").toBe(0);
        return report;
      };

      const first = await askAll();
      expect(new Set(first.ports).size).toBe(ASSOCIATIONS);

      await hosts.client.cutTcp(tunnel.serverPort);
      const cutAtMs = monotonicMs();
      const afterCut = await askAll();
      expect(afterCut.ports).toEqual(first.ports);
      expect(afterCut.atMs - cutAtMs, "ms from the cut to the last answer").toBeLessThanOrEqual(RESUME_MS);

      await tunnel.server.kill();
      await delay(OUTAGE_MS);
      await tunnel.server.start();
      const returnedAtMs = monotonicMs();
      const afterDeath = await askAll();
      expect(new Set(afterDeath.ports).size).toBe(ASSOCIATIONS);
      expect(afterDeath.atMs - returnedAtMs, "ms from the return to the last answer").toBeLessThanOrEqual(
        RESUME_MS,
      );
    },
  );
});
