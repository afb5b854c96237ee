import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { plainSsLocal, plainSsServer, type Service, ssLocal, ssServer, ssTunnel } from "./chain.ts";
import { describeWithTun } from "./requirements.ts";
import { startDns, startUdpEcho } from "./targets/targets.ts";
import { type Host, type Line, monotonicMs, type Program, type TwoHosts } from "./two-hosts.ts";
import { makeKeyFile, programFile, tun2socks, udpServer } from "./underpass.ts";
import { useTwoHosts } from "./use-two-hosts.ts";

/** Addresses of the server host that the client reaches through the TUN device alone. */
const TARGET = { IPv4: "203.0.113.5", IPv6: "2001:db8:5::5" };
const NETWORKS = ["203.0.113.0/24", "2001:db8:5::/48"];
const ROUTES = NETWORKS.flatMap((network) => ["--route", network]);
/** The last is the longest UDP payload over IPv4; both last ones come in fragments. */
const SIZES = [0, 1, 1200, 1472, 9000, 65_507];
const PAGE_BYTES = 10 * 1024 * 1024;
const RESUME_MS = 6000;
const OUTAGE_MS = 600;
const ECHO_CHECK = fileURLToPath(new URL("echo-check.mjs", import.meta.url));
const PROBER = fileURLToPath(new URL("prober.mjs", import.meta.url));

interface Chain {
  readonly tunnel: Service;
  readonly server: Service;
  readonly ssServer: Service;
  readonly ssTunnel: Service;
  readonly ssLocal: Service;
  readonly echoPort: number;
  readonly pagePort: number;
}

async function addTargets(hosts: TwoHosts): Promise<void> {
  await hosts.server.run(["ip", "addr", "replace", `${TARGET.IPv4}/32`, "dev", "lo"]);
  await hosts.server.run(["ip", "addr", "replace", `${TARGET.IPv6}/128`, "dev", "lo"]);
}

/** A web server for one page of {@link PAGE_BYTES} on all addresses; its port. */
async function startPage(hosts: TwoHosts): Promise<number> {
  const port = hosts.server.port();
  const page = Buffer.alloc(PAGE_BYTES, "0123456789abcdef-");
  writeFileSync(join(hosts.directory, "page"), page);
  const argv = ["python3", "-m", "http.server", "--bind", "::", "--directory", hosts.directory, `${port}`];
  hosts.server.spawn(argv);
  await hosts.server.waitForTcp(TARGET.IPv4, port);
  return port;
}

/**
 * tun2socks ─► udp-local within ─► ss-tunnel ─► obfs ═ obfs ─► ss-server ─► udp-server; TCP by an ss-local of its own.
 *
 * @param serverOptions  of udp-server, more
 */
async function startChain(hosts: TwoHosts, serverOptions: readonly string[] = []): Promise<Chain> {
  const echoPort = await startUdpEcho(hosts.server);
  const pagePort = await startPage(hosts);
  const keyFile = makeKeyFile(hosts);
  const listen = `127.0.0.1:${hosts.server.port()}`;
  const server = udpServer(hosts, listen, keyFile, NETWORKS, serverOptions);
  const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
  const far = ssServer(hosts, remote.address, remote.port);
  await Promise.all([server.start(), far.start()]);
  const [tunnelPort, socksPort] = [hosts.client.port(), hosts.client.port()];
  const near = ssTunnel(hosts, remote, tunnelPort, listen);
  const socks = ssLocal(hosts, remote, socksPort);
  await Promise.all([near.start(), socks.start()]);
  const tunnel = tun2socks(hosts.client, [
    ...["--server", `127.0.0.1:${tunnelPort}`, "--psk-file", keyFile],
    ...["--tcp-via", `socks5://127.0.0.1:${socksPort}`],
    ...ROUTES,
  ]);
  await tunnel.start();
  return { tunnel, server, ssServer: far, ssTunnel: near, ssLocal: socks, echoPort, pagePort };
}

/** Asks until there is an answer: the first datagram may find the session not yet up. */
async function waitForEcho(host: Host, port: number): Promise<void> {
  const ask = `until printf whoami | socat -t 0.2 - UDP4:${TARGET.IPv4}:${port} | grep -q .; do :; done`;
  await host.run(["sh", "-c", ask], { timeoutMs: 10_000 });
}

function allSame(sizes: readonly number[]): Record<string, string> {
  return Object.fromEntries(sizes.map((size) => [size, "same"]));
}

async function checkEcho(host: Host, address: string, port: number, repeat: number, sizes = SIZES) {
  const argument = JSON.stringify({ forward: { host: address, port }, sizes, repeat });
  const lines = await host.run([process.execPath, ECHO_CHECK, argument], { timeoutMs: 40_000 });
  return JSON.parse(lines.at(-1)!) as {
    sizes: Record<string, string>;
    answered: number;
    sources: readonly string[];
  };
}

/** Gets the page and compares it, byte by byte. */
async function fetchPage(hosts: TwoHosts, address: string, port: number): Promise<void> {
  const host = address.includes(":") ? `[${address}]` : address;
  const fetch = `curl -sS -m 30 http://${host}:${port}/page | cmp - ${join(hosts.directory, "page")}`;
  await hosts.client.run(["sh", "-c", fetch], { timeoutMs: 40_000 });
}

describeWithTun("tun2socks", () => {
  describe("UDP through ss-tunnel and udp-server, TCP through ss-local", () => {
    let hosts: TwoHosts;
    useTwoHosts(
      (made) => {
        hosts = made;
      },
      { keepPrograms: true },
    );
    let chain: Chain;

    beforeAll(async () => {
      await addTargets(hosts);
      chain = await startChain(hosts);
      await waitForEcho(hosts.client, chain.echoPort);
    });

    it.each(["IPv4", "IPv6"] as const)(
      "0 to 65,507 bytes over %s come back unchanged, from one source",
      async (family) => {
        const report = await checkEcho(hosts.client, TARGET[family], chain.echoPort, 200);
        expect(report.sizes).toEqual(allSame(SIZES));
        expect(report.answered).toBe(200);
        expect(report.sources).toHaveLength(1);
      },
    );

    it("a page of 10 MB over IPv4 and IPv6 and UDP get through at once", async () => {
      const [report] = await Promise.all([
        checkEcho(hosts.client, TARGET.IPv4, chain.echoPort, 500),
        fetchPage(hosts, TARGET.IPv4, chain.pagePort),
        fetchPage(hosts, TARGET.IPv6, chain.pagePort),
      ]);
      expect(report.sizes).toEqual(allSame(SIZES));
      expect(report.answered).toBe(500);
    });

    it("dig gets its answer", async () => {
      const port = await startDns(hosts.server, TARGET.IPv4);
      const server = [`@${TARGET.IPv4}`, "-p", `${port}`, "+tries=1", "+time=3", "+short"];
      expect(await hosts.client.run(["dig", ...server, "example.test"])).toEqual(["192.0.2.7"]);
    });

    it("ping is answered over IPv4 and IPv6", async () => {
      for (const address of Object.values(TARGET)) {
        await hosts.client.run(["ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", address]);
      }
    });

    it("traceroute names the device's peer address first, and ends", async () => {
      const lines = await hosts.client.run([
        ...["traceroute", "-n", "-q", "1", "-w", "0.3", "-m", "4", TARGET.IPv4],
      ]);
      expect(lines[1]).toMatch(/^ 1 {2}198\.18\.0\.2 /);
    });

    // What ss-local does with a target that refuses: it says "succeeded", then ends the connection.
    it("a connection to a port where nobody listens ends at once", async () => {
      const program = hosts.client.spawn(["curl", "-sS", "-m", "10", `http://${TARGET.IPv4}:9/`]);
      expect(await program.exit(5_000)).not.toBe(0);
      expect(program.lines.at(-1)?.text).toMatch(/reset by peer|Empty reply/);
    });

    it("without its SOCKS server, a connection is reset at once", async () => {
      await chain.ssLocal.kill();
      const program = hosts.client.spawn([
        ...["curl", "-sS", "-m", "10", `http://${TARGET.IPv4}:${chain.pagePort}/page`],
      ]);
      expect(await program.exit(5_000)).not.toBe(0);
      expect(program.lines.at(-1)?.text).toMatch(/reset by peer|Failed to connect/);
      await chain.ssLocal.start();
      await fetchPage(hosts, TARGET.IPv4, chain.pagePort);
    });

    it("and no UDP packet ever tried to cross from host to host", () => {
      expect(hosts.udpDropped()).toBe(0);
    });
  });

  describe("when a part dies", () => {
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
      await addTargets(hosts);
      const chain = await startChain(hosts);
      const argv = [process.execPath, PROBER, `${chain.echoPort}`, TARGET.IPv4];
      const prober = hosts.client.spawn(argv);
      await echoSince(prober, 0, RESUME_MS);
      const device = ["sh", "-c", "ip link show underpass0 >/dev/null 2>&1; echo $?"];
      for (const part of [chain.server, chain.tunnel, chain.ssTunnel, chain.ssServer]) {
        await part.kill();
        const goneAtMs = monotonicMs();
        expect(await hosts.client.run(device)).toEqual([part === chain.tunnel ? "1" : "0"]);
        await delay(OUTAGE_MS);
        await part.start();
        const returnedAtMs = monotonicMs();
        const echo = await echoSince(prober, goneAtMs, RESUME_MS + 2000);
        expect(
          echo.receivedAtMs - returnedAtMs,
          "ms from the return to the first answer",
        ).toBeLessThanOrEqual(RESUME_MS);
      }
      await fetchPage(hosts, TARGET.IPv4, chain.pagePort);
    });
  });

  describe("beyond udp-server, a second tun2socks and a second shadowsocks", () => {
    let hosts: TwoHosts;
    useTwoHosts((made) => {
      hosts = made;
    });
    /** shadowsocks-libev relays no empty datagram, and none of more than twice 1,397 bytes. */
    const sizes = [1, 1200, 1472, 2500];

    /** A second ss-local and ss-server for UDP, within the server host; the SOCKS5 port. */
    async function startSecondShadowsocks(): Promise<number> {
      const remote = { address: "127.0.0.1", port: hosts.server.port() };
      const port = hosts.server.port();
      await plainSsServer(hosts.server, remote.address, remote.port, ["-u"]).start();
      await plainSsLocal(hosts.server, remote, port, ["-u"]).start();
      await hosts.server.waitForTcp("127.0.0.1", port);
      return port;
    }

    interface Way {
      readonly egress: string;
      /** What runs beside udp-server. */
      readonly beside: Service | undefined;
    }

    it.each<[string, (socks: string) => Way]>([
      [
        "unix: to a tun2socks that listens",
        (socks) => {
          const device = `unix:${join(hosts.directory, "packets")}`;
          return {
            egress: device,
            beside: tun2socks(hosts.server, ["--device", device, "--udp-via", socks]),
          };
        },
      ],
      [
        "exec: of a tun2socks on its standard input and output",
        (socks) => {
          const program = [process.execPath, programFile("tun2socks")];
          const argv = [...program, "--device", "pipe:", "--udp-via", socks, "--log-format", "json"];
          return { egress: `exec:${argv.join(" ")}`, beside: undefined };
        },
      ],
      ["tun2socks: in the same process", (socks) => ({ egress: `tun2socks:${socks}`, beside: undefined })],
      ["socks5://", (socks) => ({ egress: socks, beside: undefined })],
    ])("the whole chain carries UDP over IPv4 and IPv6 with --egress %s", async (_, makeWay) => {
      await addTargets(hosts);
      const { egress, beside } = makeWay(`socks5://127.0.0.1:${await startSecondShadowsocks()}`);
      await beside?.start();
      const chain = await startChain(hosts, ["--egress", egress]);
      await waitForEcho(hosts.client, chain.echoPort);
      for (const address of Object.values(TARGET)) {
        const report = await checkEcho(hosts.client, address, chain.echoPort, 100, sizes);
        expect(report.sizes).toEqual(allSame(sizes));
        expect(report.answered).toBe(100);
        expect(report.sources).toHaveLength(1);
      }
      if (beside === undefined) return;
      await beside.kill();
      await delay(OUTAGE_MS);
      await beside.start();
      await waitForEcho(hosts.client, chain.echoPort);
    });

    it("--egress tun2socks: without a way sends from sockets, 0 to 65,507 bytes", async () => {
      await addTargets(hosts);
      const chain = await startChain(hosts, ["--egress", "tun2socks:"]);
      await waitForEcho(hosts.client, chain.echoPort);
      const report = await checkEcho(hosts.client, TARGET.IPv4, chain.echoPort, 100);
      expect(report.sizes).toEqual(allSame(SIZES));
      expect(report.sources).toHaveLength(1);
    });
  });
});
