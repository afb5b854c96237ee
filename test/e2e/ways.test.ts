import { expect, it } from "vitest";
import { describeOnTwoHosts } from "./network/requirements.ts";
import type { Host, Program, TwoHosts } from "./network/two-hosts.ts";
import { monotonicMs } from "./network/two-hosts.ts";
import { useTwoHosts } from "./network/use-two-hosts.ts";
import { ssServer, ssUrl } from "./programs/chain.ts";
import { echoSince, PROBER } from "./programs/prober.ts";
import { makeKeyFile, udpLocal, udpServer } from "./programs/underpass.ts";
import { startUdpEcho } from "./targets/targets.ts";

const SECOND_MS = 15_000;

/** Silently drops all TCP to a port, leaving or entering a host, as some networks do. */
async function block(host: Host, hook: "input" | "output", port: number): Promise<void> {
  await host.run(["nft", "add", `chain inet fence blocked { type filter hook ${hook} priority filter; }`]);
  await host.run(["nft", "add", `rule inet fence blocked tcp dport ${port} drop`]);
}

async function unblock(host: Host): Promise<void> {
  await host.run(["nft", "delete", "chain inet fence blocked"]);
}

describeOnTwoHosts("several ways to the server", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  /** Starts udp-local with these options, and a prober behind it. */
  async function startLocal(
    echoPort: number,
    options: readonly string[],
  ): Promise<{ local: Program; prober: Program }> {
    const forwardPort = hosts.client.port();
    const service = udpLocal(hosts, `${hosts.directory}/psk`, [
      ...options,
      ...["--heartbeat-ms", "500", "--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`],
    ]);
    await service.start();
    const prober = hosts.client.spawn([process.execPath, PROBER, `${forwardPort}`]);
    return { local: service.program, prober };
  }

  const upBy = (local: Program, kind: string) =>
    local.waitFor(
      ({ text }) => {
        const { msg, way } = JSON.parse(text) as { msg?: string; way?: string };
        return msg === kind ? (way ?? "") : undefined;
      },
      SECOND_MS,
      kind,
    );

  it.each([1, "auto"])(
    "the session resumes through shadowsocks when the direct way is blocked midway (lanes %s)",
    async (lanes) => {
      const { client, server } = hosts;
      const echoPort = await startUdpEcho(server);
      const keyFile = makeKeyFile(hosts);
      const [port, ssPort] = [server.port(), server.port()];
      await ssServer(hosts, server.ipv4, ssPort).start();
      await udpServer(hosts, `0.0.0.0:${port}`, keyFile).start();
      const url = ssUrl(server.ipv4, ssPort, "obfs-local;obfs=http;obfs-host=example.com");
      const { local, prober } = await startLocal(echoPort, [
        ...["--way", `${server.ipv4}:${port}`, "--way", `${url} 127.0.0.1:${port}`],
        ...["--lanes", `${lanes}`],
      ]);
      expect(await upBy(local, "session up")).toBe(`${server.ipv4}:${port}`);
      const before = await echoSince(prober, 0, SECOND_MS);
      await block(client, "output", port);
      try {
        const blockedAtMs = monotonicMs();
        expect(await upBy(local, "session resumed")).toContain(` via ss ${server.ipv4}:${ssPort}`);
        const after = await echoSince(prober, blockedAtMs + 1_000, SECOND_MS);
        expect(after.source, "the source port that the target sees").toBe(before.source);
      } finally {
        await unblock(client);
      }
    },
  );

  it("a way that connects but never answers, and one that is dropped, are skipped at the start", async () => {
    const { client, server } = hosts;
    const echoPort = await startUdpEcho(server);
    const keyFile = makeKeyFile(hosts);
    const [mute, dropped, port] = [server.port(), server.port(), server.port()];
    server.spawn(["socat", "-u", `TCP4-LISTEN:${mute},bind=${server.ipv4},fork`, "OPEN:/dev/null"]);
    await client.waitForTcp(server.ipv4, mute);
    await block(server, "input", dropped);
    try {
      await udpServer(hosts, `${server.ipv4}:${port}`, keyFile).start();
      const way = (at: number) => ["--way", `${server.ipv4}:${at}`];
      const { local, prober } = await startLocal(echoPort, [...way(mute), ...way(dropped), ...way(port)]);
      expect(await upBy(local, "session up")).toBe(`${server.ipv4}:${port}`);
      await echoSince(prober, 0, SECOND_MS);
    } finally {
      await unblock(server);
    }
  });

  it("the client moves to another server, with a new session, when the first is gone, and back when the other is gone", async () => {
    const { server } = hosts;
    const echoPort = await startUdpEcho(server);
    const keyFile = makeKeyFile(hosts);
    const [one, other] = [server.port(), server.port()].map((port) => `${server.ipv4}:${port}`);
    const first = udpServer(hosts, one, keyFile);
    const second = udpServer(hosts, other, keyFile);
    await Promise.all([first.start(), second.start()]);
    const { local, prober } = await startLocal(echoPort, ["--server", one, "--server", other]);
    expect(await upBy(local, "session up")).toBe(one);
    const before = await echoSince(prober, 0, SECOND_MS);
    await first.kill();
    const goneAtMs = monotonicMs();
    const after = await echoSince(prober, goneAtMs, SECOND_MS);
    expect(after.source).not.toBe(before.source);
    await first.start();
    await second.kill();
    await echoSince(prober, monotonicMs(), SECOND_MS);
    const ways = local.lines.map(({ text }) => JSON.parse(text) as { msg?: string; way?: string });
    expect(ways.flatMap(({ msg, way }) => (msg === "session up" ? [way] : []))).toEqual([one, other, one]);
    expect(ways.some(({ msg }) => msg === "session resumed")).toBe(false);
  });
});
