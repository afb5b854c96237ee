import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import {
  addAddressesBeyond,
  BEYOND_NETWORKS,
  beyond,
  FAMILIES,
  startSocksWay,
  startTransparent,
} from "../network/transparent.ts";
import { type Line, monotonicMs, type Program, type TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { echoSince, PROBER } from "../programs/prober.ts";
import { tun2socks } from "../programs/underpass.ts";
import { fetchPage, startPage } from "../targets/page.ts";
import { startTcpEcho, startUdpEcho } from "../targets/targets.ts";

const RESUME_MS = 6000;
const OUTAGE_MS = 600;
const TCP_FLOW = fileURLToPath(new URL("../peers/tun/tcp-flow.py", import.meta.url));

const TARGET = beyond(5);

describeWithTun("when a part of the transparent chain dies", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  it("UDP resumes within 6 s after each program was killed, and the device disappears with tun2socks", async () => {
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

  interface Flow {
    readonly program: Program;
    readonly address: string;
  }

  /** Opens a TCP connection to an echo that sends once, or every `intervalS`, and waits for an answer. */
  async function openFlow(address: string, port: number, intervalS?: number): Promise<Flow> {
    const interval = intervalS === undefined ? [] : [`${intervalS}`];
    const argv = ["python3", TCP_FLOW, address, `${port}`, "hello", ...interval];
    const program = hosts.client.spawn(argv);
    // Two answers may arrive as one.
    await program.waitForLine(/^received /);
    return { program, address };
  }

  /** How a flow ended, "FIN" or a system error, within 6 s. */
  async function endOf({ program }: Flow): Promise<string> {
    const { text } = await program.waitForLine(/^end /, RESUME_MS);
    return text.slice("end ".length);
  }

  async function expectAlive({ program }: Flow): Promise<void> {
    const already = program.lines.length;
    const isNew = (line: Line) => (program.lines.indexOf(line) >= already ? line : undefined);
    expect((await program.waitFor(isNew, RESUME_MS, "line")).text).toMatch(/^received /);
  }

  async function startEchoes(): Promise<{ IPv4: number; IPv6: number }> {
    const [IPv4, IPv6] = await Promise.all(
      FAMILIES.map((family) => startTcpEcho(hosts.server, TARGET[family])),
    );
    return { IPv4, IPv6 };
  }

  /** Addresses and routes of a device, except link-local ones. */
  async function describeDevice(name: string): Promise<string[]> {
    const script = `ip -br addr show dev ${name}; ip route show dev ${name}; ip -6 route show dev ${name}`;
    const lines = await hosts.client.run(["sh", "-c", script]);
    return lines.map((line) => line.replace(/fe80::[0-9a-f:]+\/\d+/g, "").trim());
  }

  it("idle TCP connections end when tun2socks restarts; others of the host do not", async () => {
    await addAddressesBeyond(hosts);
    const ports = await startEchoes();
    const chain = await startTransparent(hosts);
    const device = await describeDevice("underpass0");
    const waiting = await Promise.all([
      openFlow(TARGET.IPv4, ports.IPv4),
      openFlow(TARGET.IPv6, ports.IPv6),
      openFlow(`::ffff:${TARGET.IPv4}`, ports.IPv4),
    ]);
    const beside = await openFlow(
      hosts.server.ipv4,
      await startTcpEcho(hosts.server, hosts.server.ipv4),
      0.2,
    );
    await chain.tun2socks.kill();
    await chain.tun2socks.start();
    expect(await Promise.all(waiting.map(endOf))).toEqual(Array(3).fill("ECONNABORTED"));
    expect(await describeDevice("underpass0")).toEqual(device);
    await expectAlive(beside);
    for (const family of FAMILIES) await openFlow(TARGET[family], ports[family]);
  });

  it("a TCP connection on a persistent device is reset when it sends to the next tun2socks", async () => {
    await addAddressesBeyond(hosts);
    const ports = await startEchoes();
    const { url } = await startSocksWay(hosts);
    await hosts.client.run(["ip", "tuntap", "add", "dev", "stays0", "mode", "tun"]);
    const ways = ["--device", "tun:stays0", "--tcp-via", url, "--udp-via", "reject"];
    const service = tun2socks(hosts.client, ways);
    await service.start();
    for (const network of BEYOND_NETWORKS) {
      await hosts.client.run(["ip", "route", "add", network, "dev", "stays0"]);
    }
    const flows = await Promise.all(FAMILIES.map((family) => openFlow(TARGET[family], ports[family], 0.2)));
    await service.kill();
    await service.start();
    expect(await Promise.all(flows.map(endOf))).toEqual(["ECONNRESET", "ECONNRESET"]);
    for (const family of FAMILIES) await openFlow(TARGET[family], ports[family]);
    await hosts.client.run(["ip", "link", "del", "stays0"]);
  });

  it("a TCP connection ends within 6 s after any hop of its path was killed, and a new one works", async () => {
    await addAddressesBeyond(hosts);
    const ports = await startEchoes();
    const { ssLocal, ssServer, ssTunnel, udpServer } = await startTransparent(hosts);
    const notOnItsWay = await openFlow(TARGET.IPv4, ports.IPv4, 0.2);
    for (const service of [ssTunnel, udpServer]) {
      await service.kill();
      await expectAlive(notOnItsWay);
      await service.start();
      await expectAlive(notOnItsWay);
    }
    for (const service of [ssLocal, ssServer]) {
      for (const how of ["program", "plugin"]) {
        const flows = await Promise.all(FAMILIES.map((family) => openFlow(TARGET[family], ports[family])));
        if (how === "plugin") service.killPlugin();
        else await service.kill();
        for (const flow of flows) expect(await endOf(flow)).toMatch(/^(FIN|ECONNRESET)$/);
        await service.kill();
        await service.start();
        for (const family of FAMILIES) await openFlow(TARGET[family], ports[family]);
      }
    }
  });
});
