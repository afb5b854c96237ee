import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { itOnOwnHosts } from "./network/own-hosts.ts";
import { describeOnOwnHosts } from "./network/requirements.ts";
import { type Line, monotonicMs, type Program, type TwoHosts } from "./network/two-hosts.ts";
import type { Service } from "./programs/chain.ts";
import { echoSince, PROBER } from "./programs/prober.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startUdpEcho } from "./targets/targets.ts";

const RELAY = fileURLToPath(new URL("peers/lane-relay.mjs", import.meta.url));
const FLOWS = fileURLToPath(new URL("peers/flows.mjs", import.meta.url));
/** One-way delay of the path. */
const DELAY_MS = 20;
const PATIENCE_MS = 20_000;
const FLOWS_MS = 100_000;
/** Of a flow. A lane that is not recognized as late takes 25 or more. */
const MOST_LOST = 10;

interface Counted {
  /** Not answered, or long after later ones. */
  readonly lost: number;
  /** Answered more than once. */
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

  /** The first statistics of udp-local since `sinceMs` that match. */
  function statsWith({ local }: Tunnel, pattern: RegExp, sinceMs = 0): Promise<unknown> {
    const wanted = ({ text, atMs }: Line) => (atMs >= sinceMs && pattern.test(text) ? text : undefined);
    return local.program.waitFor(wanted, PATIENCE_MS, `line ${pattern}`);
  }

  itOnOwnHosts.for<[string, string, number]>([
    // At most 200 a second: this takes ten seconds or more.
    ["stalls for ten seconds", "stall busiest", 2_000],
    ["dies", "kill busiest", 1_000],
    ["is throttled to 100 kbit/s", "throttle busiest 12500", 1_400],
  ])("loses little when the busiest of 8 lanes %s", async ([, command, count], { hosts }) => {
    const tunnel = await startTunnel(hosts, "8");
    await statsWith(tunnel, /"lanes":8/);
    const argv = [process.execPath, FLOWS, `${tunnel.forwardPort}`, "500", `${count}`];
    const flows = hosts.client.spawn(argv);
    await flows.waitForLine(/^begun/, FLOWS_MS);
    await order(tunnel.relay, command);
    const { text } = await flows.waitForLine(/^\{/, FLOWS_MS);
    const { call, bulk } = JSON.parse(text) as { call: Counted; bulk: Counted };
    // What the lane holds is copied to others. With a single lane, nothing more would be answered.
    expect(Math.max(call.lost, bulk.lost), text).toBeLessThanOrEqual(MOST_LOST);
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
      const returnedAtMs = monotonicMs();
      await echoSince(prober, returnedAtMs, PATIENCE_MS);
      await statsWith(tunnel, /"lanes":8/, returnedAtMs);
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
