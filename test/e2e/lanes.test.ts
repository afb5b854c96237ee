import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { itOnOwnHosts } from "./network/own-hosts.ts";
import { describeOnOwnHosts } from "./network/requirements.ts";
import { monotonicMs, type Program, type TwoHosts } from "./network/two-hosts.ts";
import type { Service } from "./programs/chain.ts";
import { echoSince, PROBER } from "./programs/prober.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startUdpEcho } from "./targets/targets.ts";

const RELAY = fileURLToPath(new URL("peers/lane-relay.mjs", import.meta.url));
const FLOWS = fileURLToPath(new URL("peers/flows.mjs", import.meta.url));
/** One-way delay of the path. */
const DELAY_MS = 20;
const PATIENCE_MS = 20_000;

interface Counted {
  readonly sent: number;
  readonly answered: number;
  readonly twice: number;
}

describeOnOwnHosts("a session of several lanes", () => {
  interface Tunnel {
    readonly server: Service;
    readonly local: Service;
    readonly relay: Program;
    readonly forwardPort: number;
  }

  async function startTunnel(
    hosts: TwoHosts,
    lanes: string,
    commands: readonly string[] = [],
  ): Promise<Tunnel> {
    const echoPort = await startUdpEcho(hosts.server);
    const keyFile = makeKeyFile(hosts);
    const [serverPort, relayPort, forwardPort] = [
      hosts.server.port(),
      hosts.client.port(),
      hosts.client.port(),
    ];
    const server = udpServer(hosts, `${hosts.server.ipv4}:${serverPort}`, keyFile);
    await server.start();
    const target = [hosts.server.ipv4, `${serverPort}`, `${DELAY_MS}`];
    const relay = hosts.client.spawn([process.execPath, RELAY, `${relayPort}`, ...target]);
    await relay.waitForLine(/^listens/);
    for (const command of commands) await order(relay, command);
    const local = udpLocal(hosts, keyFile, [
      ...["--server", `127.0.0.1:${relayPort}`, "--lanes", lanes, "--stats-interval", "1"],
      ...["--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`],
    ]);
    await local.start();
    return { server, local, relay, forwardPort };
  }

  async function order(relay: Program, command: string): Promise<void> {
    relay.stdin.write(`${command}\n`);
    await relay.waitForLine(new RegExp(`^done ${command}`));
  }

  async function expectAnswers(hosts: TwoHosts, { forwardPort }: Tunnel): Promise<Program> {
    const prober = hosts.client.spawn([process.execPath, PROBER, `${forwardPort}`]);
    await echoSince(prober, 0, PATIENCE_MS);
    return prober;
  }

  /** The first statistics of udp-local for which it holds. */
  function statsWith({ local }: Tunnel, pattern: RegExp): Promise<unknown> {
    return local.program.waitForLine(pattern, PATIENCE_MS);
  }

  itOnOwnHosts.for<[string, string, number]>([
    ["stalls for ten seconds", "stall busiest", 22_000],
    ["dies", "kill busiest", 10_000],
    ["is throttled to 100 kbit/s", "throttle busiest 12500", 14_000],
  ])("loses little when the busiest of 8 lanes %s", async ([, command, durationMs], { hosts }) => {
    const tunnel = await startTunnel(hosts, "8");
    await statsWith(tunnel, /"lanes":8/);
    const flows = hosts.client.spawn([process.execPath, FLOWS, `${tunnel.forwardPort}`, `${durationMs}`]);
    await flows.waitForLine(/^half/, durationMs);
    await order(tunnel.relay, command);
    const { text } = await flows.waitForLine(/^\{/, durationMs + PATIENCE_MS);
    const { call, bulk } = JSON.parse(text) as { call: Counted; bulk: Counted };
    // A single lane would lose half of everything. The stalled lane held a few hundred datagrams at most.
    expect(call.answered).toBeGreaterThan(0.95 * call.sent);
    expect(bulk.answered).toBeGreaterThan(0.85 * bulk.sent);
    expect([call.twice, bulk.twice]).toEqual([0, 0]);
  });

  itOnOwnHosts.for(["server", "local"] as const)(
    "continues after kill -9 of udp-%s",
    async (end, { hosts }) => {
      const tunnel = await startTunnel(hosts, "8");
      const prober = await expectAnswers(hosts, tunnel);
      await statsWith(tunnel, /"lanes":8/);
      await tunnel[end].kill();
      await tunnel[end].start();
      await echoSince(prober, monotonicMs(), PATIENCE_MS);
      await statsWith(tunnel, /"lanes":8/);
    },
  );

  itOnOwnHosts("has as many lanes as the carrier lets through, with --lanes auto", async ({ hosts }) => {
    const tunnel = await startTunnel(hosts, "auto", ["most 3"]);
    const prober = await expectAnswers(hosts, tunnel);
    // The local address turns out to lead far away: a second session begins, with receipts.
    await statsWith(tunnel, /"lanes":[23].*"spread":\{"modes":\{"(start|delay)":1\}/);
    await tunnel.relay.waitForLine(/^refused/, PATIENCE_MS);
    await echoSince(prober, monotonicMs(), PATIENCE_MS);
  });

  itOnOwnHosts("pins associations to lanes at a server that has no receipts", async ({ hosts }) => {
    const tunnel = await startTunnel(hosts, "4", ["strip"]);
    const prober = await expectAnswers(hosts, tunnel);
    await statsWith(tunnel, /"lanes":4/);
    expect(tunnel.local.program.lines.some(({ text }) => text.includes('"spread"'))).toBe(false);
    expect(prober.lines.length).toBeGreaterThan(0);
  });
});
