import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { plainSsLocal, plainSsServer, type Service, ssLocal, ssServer, ssTunnel } from "./chain.ts";
import { describeWithTun } from "./requirements.ts";
import { startDns, startUdpEcho } from "./targets/targets.ts";
import { type Host, type Line, monotonicMs, type Program, type TwoHosts } from "./two-hosts.ts";
import { makeKeyFile, programFile, tun2socks, udpLocal, udpServer } from "./underpass.ts";
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
const PORT_STORM = fileURLToPath(new URL("port-storm.mjs", import.meta.url));
const WITH_TUN = fileURLToPath(new URL("with-tun-descriptor.py", import.meta.url));
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

    it("dig gets its answer, and one of nearly 4,096 bytes over UDP", async () => {
      const port = await startDns(hosts.server, TARGET.IPv4);
      const server = [`@${TARGET.IPv4}`, "-p", `${port}`, "+tries=1", "+time=3"];
      expect(await hosts.client.run(["dig", ...server, "+short", "example.test"])).toEqual(["192.0.2.7"]);
      const lines = await hosts.client.run(["dig", ...server, "+ignore", "+bufsize=4096", "TXT", "big.test"]);
      const size = lines.find((line) => line.startsWith(";; MSG SIZE"))?.replace(/\D+/, "");
      expect(Number(size)).toBeGreaterThan(3_600);
    });

    it.each([
      ["TCP, eight streams", ["-P", "8"]],
      ["TCP, eight streams back", ["-P", "8", "-R"]],
      ["UDP at 20 Mbit/s", ["-u", "-b", "20M", "-l", "1200"]],
      ["UDP at 20 Mbit/s back", ["-u", "-b", "20M", "-l", "1200", "-R"]],
    ])("iperf3 gets through: %s", async (_, options) => {
      const port = hosts.server.port();
      const server = hosts.server.spawn([
        "iperf3",
        "-s",
        "-1",
        "--forceflush",
        "-B",
        TARGET.IPv4,
        "-p",
        `${port}`,
      ]);
      await server.waitForLine(/Server listening/);
      const argv = ["iperf3", "-c", TARGET.IPv4, "-p", `${port}`, "-t", "1", "-J", ...options];
      const report = JSON.parse((await hosts.client.run(argv)).join("\n"));
      const { sum_received: received, sum } = report.end;
      expect(received?.bytes ?? sum.bytes).toBeGreaterThan(1_000_000);
      await server.kill();
    });

    it("a flow goes on from the same source while 30,000 others come, of which the unanswered give way", async () => {
      const argv = [process.execPath, PROBER, `${chain.echoPort}`, TARGET.IPv4];
      const prober = hosts.client.spawn(argv);
      const sources = () =>
        new Set(prober.lines.map(({ text }) => (JSON.parse(text) as { source: string }).source));
      await prober.waitForLine(/source/);
      const answersBefore = prober.lines.length;
      const storm = [process.execPath, PORT_STORM, TARGET.IPv4, "9", "30000"];
      expect(await hosts.client.run(storm, { timeoutMs: 60_000 })).toEqual(['{"sent":30000}']);
      const stormEndedAtMs = monotonicMs();
      await prober.waitFor(
        ({ text }) =>
          (JSON.parse(text) as { sentAtMs: number }).sentAtMs > stormEndedAtMs ? true : undefined,
        RESUME_MS,
        "answer after the storm",
      );
      expect(prober.lines.length).toBeGreaterThan(answersBefore + 10);
      expect(sources().size).toBe(1);
      await prober.kill();
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

  describe("other ways", () => {
    let hosts: TwoHosts;
    useTwoHosts((made) => {
      hosts = made;
    });

    it("udp-local's own connection enters a TUN device, whose tun2socks carries it by ss-local", async () => {
      await addTargets(hosts);
      const echoPort = await startUdpEcho(hosts.server);
      const keyFile = makeKeyFile(hosts);
      const listen = `${TARGET.IPv4}:${hosts.server.port()}`;
      await udpServer(hosts, listen, keyFile).start();
      const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
      const socksPort = hosts.client.port();
      await ssServer(hosts, remote.address, remote.port).start();
      await ssLocal(hosts, remote, socksPort).start();
      const tcpVia = ["--tcp-via", `socks5://127.0.0.1:${socksPort}`, "--udp-via", "reject"];
      await tun2socks(hosts.client, [...tcpVia, ...ROUTES]).start();
      const forwardPort = hosts.client.port();
      const forward = ["--forward", `127.0.0.1:${forwardPort}=127.0.0.1:${echoPort}`];
      await udpLocal(hosts, keyFile, ["--server", listen, ...forward]).start();
      const ask = `until printf whoami | socat -t 0.2 - UDP4:127.0.0.1:${forwardPort} | grep -q .; do :; done`;
      await hosts.client.run(["sh", "-c", ask], { timeoutMs: 10_000 });
      const report = await checkEcho(hosts.client, "127.0.0.1", forwardPort, 100);
      expect(report.sizes).toEqual(allSame(SIZES));
      expect(report.sources).toHaveLength(1);
      expect(hosts.udpDropped()).toBe(0);
    });

    it("TCP goes by an ss-local for TCP alone, UDP by another one for UDP alone", async () => {
      await addTargets(hosts);
      const echoPort = await startUdpEcho(hosts.server);
      const pagePort = await startPage(hosts);
      // A second link, on which UDP is not lost.
      const [client, server] = [hosts.client.namespace, hosts.server.namespace];
      const link = ["link", "add", "veth1", "type", "veth", "peer", "name", "veth1", "netns", server];
      await hosts.client.run(["ip", ...link]);
      for (const [namespace, address] of [
        [client, "10.78.0.1/24"],
        [server, "10.78.0.2/24"],
      ]) {
        await hosts.client.run(["ip", "-n", namespace, "addr", "add", address, "dev", "veth1"]);
        await hosts.client.run(["ip", "-n", namespace, "link", "set", "veth1", "up"]);
      }
      const remotes = [hosts.server.port(), hosts.server.port()].map((port) => ({
        address: "10.78.0.2",
        port,
      }));
      const [tcpPort, udpPort] = [hosts.client.port(), hosts.client.port()];
      await plainSsServer(hosts.server, remotes[0].address, remotes[0].port, []).start();
      await plainSsServer(hosts.server, remotes[1].address, remotes[1].port, ["-U"]).start();
      await plainSsLocal(hosts.client, remotes[0], tcpPort, []).start();
      await plainSsLocal(hosts.client, remotes[1], udpPort, ["-U"]).start();
      const [first, second] = remotes.map(({ port }) => port);
      await hosts.server.run([
        "nft",
        `table inet count {
          counter to0 { }
          counter to1 { }
          chain arriving {
            type filter hook input priority 0
            th dport ${first} counter name to0
            th dport ${second} counter name to1
          }
        }`,
      ]);
      const bytesTo = async (index: number): Promise<number> => {
        const lines = await hosts.server.run(["nft", "list", "counter", "inet", "count", `to${index}`]);
        return Number(/bytes (\d+)/.exec(lines.join())![1]);
      };
      const ways = [
        ...["--tcp-via", `socks5://127.0.0.1:${tcpPort}`],
        ...["--udp-via", `socks5-udp://127.0.0.1:${udpPort}`],
      ];
      await tun2socks(hosts.client, [...ways, ...ROUTES]).start();

      // Shadowsocks does not fragment.
      const sizes = [1, 1200, 1400];
      const report = await checkEcho(hosts.client, TARGET.IPv4, echoPort, 100, sizes);
      expect(report.sizes).toEqual(allSame(sizes));
      expect(report.answered).toBe(100);
      expect(await bytesTo(1)).toBeGreaterThan(2601);
      expect(await bytesTo(0)).toBe(0);
      const before = await bytesTo(1);
      await fetchPage(hosts, TARGET.IPv6, pagePort);
      expect(await bytesTo(0)).toBeGreaterThan(1000);
      expect(await bytesTo(1)).toBe(before);
    });

    it("direct TCP leaves by the interface that is given, and UDP that a rule rejects fails at once", async () => {
      await addTargets(hosts);
      const pagePort = await startPage(hosts);
      // Found by sockets that are bound to the interface alone: the device's route comes first for all others.
      const route = ["203.0.113.0/24", "via", hosts.server.ipv4, "metric", "5000"];
      await hosts.client.run(["ip", "route", "add", ...route]);
      const ways = ["--tcp-via", "direct", "--out-interface", "veth0", "--rule", "udp *:53 reject"];
      await tun2socks(hosts.client, [...ways, ...ROUTES]).start();
      await fetchPage(hosts, TARGET.IPv4, pagePort);
      const dig = hosts.client.spawn(["dig", `@${TARGET.IPv4}`, "+tries=1", "+time=10", "example.test"]);
      await dig.exit(5_000);
      expect(dig.lines.map(({ text }) => text).join("\n")).toMatch(/connection refused/);
    });

    it("with --dns tcp, queries over UDP are answered although no UDP gets out", async () => {
      await addTargets(hosts);
      const port = await startDns(hosts.server, TARGET.IPv4, 53);
      expect(port).toBe(53);
      const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
      const socksPort = hosts.client.port();
      await ssServer(hosts, remote.address, remote.port).start();
      await ssLocal(hosts, remote, socksPort).start();
      const ways = ["--tcp-via", `socks5://127.0.0.1:${socksPort}`, "--udp-via", "reject", "--dns", "tcp"];
      await tun2socks(hosts.client, [...ways, ...ROUTES]).start();
      const server = [`@${TARGET.IPv4}`, "+tries=1", "+time=5"];
      expect(await hosts.client.run(["dig", ...server, "+short", "example.test"])).toEqual(["192.0.2.7"]);
      const ask = (size: number) =>
        hosts.client.run(["dig", ...server, "+ignore", `+bufsize=${size}`, "TXT", "big.test"]);
      expect((await ask(4096)).join()).not.toMatch(/flags:[^;]* tc/);
      expect((await ask(1232)).join()).toMatch(/flags:[^;]* tc/);
    });

    it.each([
      ["plain", []],
      ["family", ["--family-header"]],
    ])("a device that another program opened is taken as fd:9, %s", async (format, options) => {
      await addTargets(hosts);
      const [echoPort, pagePort] = [await startUdpEcho(hosts.server), await startPage(hosts)];
      const keyFile = makeKeyFile(hosts);
      const listen = `${hosts.server.ipv4}:${hosts.server.port()}`;
      await udpServer(hosts, listen, keyFile, NETWORKS).start();
      const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
      const socksPort = hosts.client.port();
      await ssServer(hosts, remote.address, remote.port).start();
      await ssLocal(hosts, remote, socksPort).start();
      const program = hosts.client.spawn([
        ...["python3", WITH_TUN, format, process.execPath, programFile("tun2socks"), "--log-format", "json"],
        ...["--device", "fd:9", "--server", listen, "--psk-file", keyFile, ...options],
        ...["--tcp-via", `socks5://127.0.0.1:${socksPort}`],
      ]);
      await program.waitForLine(/"ready":"tun2socks"/);
      await waitForEcho(hosts.client, echoPort);
      for (const address of Object.values(TARGET)) {
        expect((await checkEcho(hosts.client, address, echoPort, 0)).sizes).toEqual(allSame(SIZES));
        await fetchPage(hosts, address, pagePort);
      }
    });

    it("--dry-run says what would be done, and makes no device", async () => {
      const argv = [process.execPath, programFile("tun2socks"), "--dry-run", ...ROUTES];
      expect(await hosts.client.run(argv)).toContain("route 203.0.113.0/24");
      await expect(hosts.client.run(["ip", "link", "show", "underpass0"])).rejects.toThrow("does not exist");
    });

    it("the names of badvpn-tun2socks open a device that is there, and leave it there", async () => {
      await addTargets(hosts);
      const pagePort = await startPage(hosts);
      const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
      const socksPort = hosts.client.port();
      await ssServer(hosts, remote.address, remote.port).start();
      await ssLocal(hosts, remote, socksPort).start();
      for (const command of [
        "tuntap add dev tun9 mode tun",
        "addr add 10.9.0.1/24 dev tun9",
        "link set tun9 up",
        "route add 203.0.113.0/24 dev tun9",
      ]) {
        await hosts.client.run(["ip", ...command.split(" ")]);
      }
      const program = tun2socks(hosts.client, [
        ...["--tundev", "tun9", "--netif-ipaddr", "10.9.0.2", "--netif-netmask", "255.255.255.0"],
        ...["--socks-server-addr", `127.0.0.1:${socksPort}`],
      ]);
      await program.start();
      await fetchPage(hosts, TARGET.IPv4, pagePort);
      await program.kill();
      await hosts.client.run(["ip", "link", "del", "tun9"]);
    });
  });
});
