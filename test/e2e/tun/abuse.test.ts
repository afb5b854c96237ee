import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, beyond, startTransparent } from "../network/transparent.ts";
import { type Line, monotonicMs, type Program, type TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { PROBER } from "../programs/prober.ts";
import { startTcpEcho, startUdpEcho } from "../targets/targets.ts";

const TARGET = beyond(5);
const SOURCES = 100_000;
const SYNS = 50_000;
const STORM_MS = 60_000;
/** udp-server opens and closes a socket for each admitted source, which takes time. */
const ANSWER_MS = 30_000;
/** The default of tun2socks. */
const MAX_ASSOCIATIONS = 4096;
const MAX_FLOWS = 16_384;
const MAX_HALF_OPEN = 1024;
/** Peak resident memory. */
const MAX_MEMORY_MIB = 512;
const STORM = fileURLToPath(new URL("../peers/tun/storm.py", import.meta.url));
const TCP_FLOW = fileURLToPath(new URL("../peers/tun/tcp-flow.py", import.meta.url));

interface Stats {
  readonly associations: number;
  readonly flows: number;
  readonly halfOpenFlows: number;
  readonly drops: Readonly<Record<string, number>>;
  readonly refused: Readonly<Record<string, number>>;
}

function statsOf({ text }: Line): Stats | undefined {
  return text.startsWith("{") ? (JSON.parse(text) as { stats?: Stats }).stats : undefined;
}

describeWithTun("a flood of packets on a TUN device", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );
  let device: Program;
  let tcpPort: number;
  let prober: Program;
  let flow: Program;

  beforeAll(async () => {
    await addAddressesBeyond(hosts);
    const echoPort = await startUdpEcho(hosts.server, TARGET);
    tcpPort = await startTcpEcho(hosts.server, TARGET.IPv4);
    const chain = await startTransparent(hosts, { tun2socks: ["--stats-interval", "1"] });
    device = chain.tun2socks.program;
    prober = hosts.client.spawn([process.execPath, PROBER, `${echoPort}`, TARGET.IPv4]);
    flow = openFlow("0.05");
    await Promise.all([prober.waitForLine(/source/), flow.waitForLine(/^received/)]);
  });

  /** A TCP connection to the echo that sends repeatedly. */
  function openFlow(intervalS: string): Program {
    return hosts.client.spawn(["python3", TCP_FLOW, TARGET.IPv4, `${tcpPort}`, "hello", intervalS]);
  }

  /** The value of `wanted` for the first line from now on for which it returns one. */
  function next<T>(program: Program, wanted: (line: Line) => T | undefined): Promise<T> {
    const already = program.lines.length;
    const isNew = (line: Line) => (program.lines.indexOf(line) >= already ? wanted(line) : undefined);
    return program.waitFor(isNew, ANSWER_MS, "line from now on");
  }

  /** The sum of a count over all intervals. */
  function counted(kind: "drops" | "refused", name: string): number {
    return device.lines.reduce((sum, line) => sum + (statsOf(line)?.[kind][name] ?? 0), 0);
  }

  /** Sends the storm while the flows continue, and checks the limits in each interval. */
  async function storm(kind: "udp" | "syn", port: number, count: number): Promise<Stats> {
    const argv = ["python3", STORM, "underpass0", kind, TARGET.IPv4, `${port}`, `${count}`];
    expect(await hosts.client.run(argv, { timeoutMs: STORM_MS })).toEqual([`{"sent": ${count}}`]);
    const endedAtMs = monotonicMs();
    const isLater = ({ text }: Line) =>
      (JSON.parse(text) as { sentAtMs: number }).sentAtMs > endedAtMs ? true : undefined;
    // They follow the whole storm.
    await Promise.all([
      prober.waitFor(isLater, ANSWER_MS, "answer after the storm"),
      next(flow, ({ text }) => (/^received/.test(text) ? text : undefined)),
    ]);
    const stats = await next(device, statsOf);
    for (const each of device.lines.flatMap((line) => statsOf(line) ?? [])) {
      expect(each.associations).toBeLessThanOrEqual(MAX_ASSOCIATIONS);
      expect(each.flows).toBeLessThanOrEqual(MAX_FLOWS);
      expect(each.halfOpenFlows).toBeLessThanOrEqual(MAX_HALF_OPEN);
    }
    const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${device.pid}/status`, "utf8"))![1];
    expect(Number(peak) / 1024).toBeLessThan(MAX_MEMORY_MIB);
    return stats;
  }

  it(`${SOURCES} UDP sources stay within the bounds, and existing flows continue from the same source`, async () => {
    const { associations } = await storm("udp", 9, SOURCES);
    expect(associations).toBe(MAX_ASSOCIATIONS);
    const seen = counted("refused", "associationsEvicted") + counted("drops", "association_limit");
    expect(seen).toBeGreaterThanOrEqual(SOURCES - MAX_ASSOCIATIONS);
    const sources = prober.lines.map(({ text }) => (JSON.parse(text) as { source: string }).source);
    expect(new Set(sources).size).toBe(1);
  });

  it(`${SYNS} SYNs stay within the bounds, existing flows continue, and a new one gets through`, async () => {
    const { halfOpenFlows } = await storm("syn", tcpPort, SYNS);
    expect(halfOpenFlows).toBe(MAX_HALF_OPEN);
    expect(counted("refused", "halfOpenEvicted")).toBeGreaterThanOrEqual(SYNS - MAX_HALF_OPEN);
    await openFlow("1").waitForLine(/^received /);
  });
});
