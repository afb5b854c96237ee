import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, beyond, FAMILIES, startTransparent } from "../network/transparent.ts";
import { type Host, monotonicMs, type Program, type TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import { startDns } from "../targets/targets.ts";

const TARGET = beyond(1);
const REJECTED = beyond(2);
const DROPPED = beyond(3);
/** TCP goes there through a SOCKS5 server that reports when a target refuses. */
const FRANK = beyond(4);
const RULES = [
  ...Object.values(REJECTED).map((address) => `any ${address} reject`),
  ...Object.values(DROPPED).map((address) => `any ${address} drop`),
  ...Object.values(FRANK).map((address) => `tcp ${address} socks:0`),
];
const PAGE_BYTES = 10 * 1024 * 1024;
const PAGE_BYTES_PER_SECOND = 5 * 1024 * 1024;
const HTTP3_PAGE_BYTES = 2 * 1024 * 1024;
const STREAMS = 8;
const IPERF_SECONDS = 2;
const MIN_BYTES = 1_000_000;
const UDP_BITS_PER_SECOND = 4_000_000;
const UDP_BYTES = 1200;
/** With fifteen such strings, the answer is as long as a resolver accepts. */
const TXT_STRINGS = 15;
const EDNS_BYTES = 4096;
const AT_ONCE_MS = 1500;
const PATIENCE_S = 3;

interface IperfReport {
  readonly end: {
    readonly sum_received: { readonly bytes: number };
    readonly streams: readonly { readonly receiver: { readonly bytes: number } }[];
    readonly sum: { readonly packets: number; readonly lost_packets: number; readonly bytes: number };
  };
}

/** Runs a program that should fail, and reports how and when. */
async function fail(program: Program): Promise<{ status: number | null; ms: number; text: string }> {
  const startedAtMs = monotonicMs();
  program.stdin.end();
  const status = await program.exit(20_000);
  const text = program.lines.map((line) => line.text).join("\n");
  return { status, ms: monotonicMs() - startedAtMs, text };
}

function hash(data: Buffer): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Waits until a program has bound a UDP port. */
async function waitForUdp(host: Host, port: number): Promise<void> {
  await host.run(["sh", "-c", `until ss -Hlun sport = :${port} | grep -q .; do sleep 0.02; done`]);
}

describeWithTun("applications through a TUN device", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );

  beforeAll(async () => {
    await addAddressesBeyond(hosts);
    const { server } = hosts;
    const frankPort = server.port();
    server.spawn(["microsocks", "-i", server.ipv4, "-p", `${frankPort}`]);
    await server.waitForTcp(server.ipv4, frankPort);
    await startTransparent(hosts, {
      tun2socks: [
        ...["--socks", `socks5://${server.ipv4}:${frankPort}`],
        ...RULES.flatMap((rule) => ["--rule", rule]),
      ],
    });
  });

  it("dig gets answers while curl downloads a page of 10 MB", async () => {
    const { client, server, directory } = hosts;
    const site = join(directory, "site");
    mkdirSync(site);
    const page = randomBytes(PAGE_BYTES);
    writeFileSync(join(site, "page"), page);
    const port = server.port();
    server.spawn(["python3", "-m", "http.server", "--bind", TARGET.IPv4, "--directory", site, `${port}`]);
    await server.waitForTcp(TARGET.IPv4, port);
    const dnsPort = await startDns(server, TARGET.IPv4);
    const got = join(directory, "got");
    const limits = ["-sS", "-m", "30", "--limit-rate", `${PAGE_BYTES_PER_SECOND}`];
    const curl = client.spawn(["curl", ...limits, "-o", got, `http://${TARGET.IPv4}:${port}/page`]);
    let status: number | null | undefined;
    const ended = curl.exit(40_000).then((exit) => {
      status = exit;
    });
    let answers = 0;
    while (status === undefined) {
      const options = ["+tries=1", "+time=3", "+short"];
      const argv = ["dig", `@${TARGET.IPv4}`, "-p", `${dnsPort}`, ...options, "example.test"];
      expect(await client.run(argv)).toEqual(["192.0.2.7"]);
      answers += 1;
    }
    await ended;
    expect(status).toBe(0);
    expect(answers).toBeGreaterThan(2);
    expect(hash(readFileSync(got))).toBe(hash(page));
  });

  describe("iperf3", () => {
    /** A new server for each test: a shared one would take a late datagram of one test for the first of the next. */
    async function iperf(address: string, options: readonly string[]): Promise<IperfReport> {
      const { client, server } = hosts;
      const port = server.port();
      // Bound to all addresses, it would answer UDP from the one that the route back prefers.
      server.spawn(["iperf3", "-s", "-B", address, "-p", `${port}`]);
      await server.waitForTcp(address, port);
      const argv = ["iperf3", "-J", "-c", address, "-p", `${port}`, "-t", `${IPERF_SECONDS}`, ...options];
      return JSON.parse((await client.run(argv, { timeoutMs: 30_000 })).join("\n")) as IperfReport;
    }

    const both = FAMILIES.flatMap((family) => [
      [family, "up", [] as string[]] as const,
      [family, "down", ["-R"]] as const,
    ]);

    it.each(both)("carries eight TCP streams over %s, %s", async (family, _, way) => {
      const { end } = await iperf(TARGET[family], ["-P", `${STREAMS}`, ...way]);
      expect(end.streams).toHaveLength(STREAMS);
      for (const { receiver } of end.streams) expect(receiver.bytes).toBeGreaterThan(0);
      expect(end.sum_received.bytes).toBeGreaterThan(MIN_BYTES);
    });

    it.each(both)("loses no UDP at 4 Mbit/s over %s, %s", async (family, _, way) => {
      const { end } = await iperf(TARGET[family], [
        ...["-u", "-b", `${UDP_BITS_PER_SECOND}`, "-l", `${UDP_BYTES}`],
        ...way,
      ]);
      expect(end.sum.lost_packets).toBe(0);
      const due = (UDP_BITS_PER_SECOND * IPERF_SECONDS) / 8 / UDP_BYTES;
      expect(end.sum.packets).toBeGreaterThan(0.9 * due);
    });

    it.each(both.slice(0, 2))("carries UDP at 20 Mbit/s over %s, %s", async (family, _, way) => {
      const { end } = await iperf(TARGET[family], ["-u", "-b", "20M", "-l", `${UDP_BYTES}`, ...way]);
      expect(end.sum.bytes).toBeGreaterThan(MIN_BYTES);
    });
  });

  it.each(FAMILIES)("a DNS answer of 4,000 bytes over UDP and %s arrives whole", async (family) => {
    const { client, server } = hosts;
    const strings = Array.from({ length: TXT_STRINGS }, (_, i) => String(i).padStart(255, "x"));
    const records = strings.map((text) => `--txt-record=long.test,${text}`);
    const port = await startDns(server, TARGET[family], server.port(), records);
    const lines = await client.run([
      ...["dig", `@${TARGET[family]}`, "-p", `${port}`, "TXT", "long.test"],
      ...[`+bufsize=${EDNS_BYTES}`, "+ignore", "+notcp", "+tries=1", "+time=3"],
    ]);
    const size = Number(/MSG SIZE {2}rcvd: (\d+)/.exec(lines.join("\n"))?.[1]);
    expect(size).toBeGreaterThan(4000);
    expect(size).toBeLessThanOrEqual(EDNS_BYTES);
    const texts = lines.flatMap((line) => /\tTXT\t"(.*)"$/.exec(line)?.[1] ?? []);
    expect(texts.sort()).toEqual(strings.sort());
  });

  it.each(FAMILIES)("a page arrives whole by HTTP/3 over %s", async (family) => {
    const { client, server, directory } = hosts;
    const [site, got] = [join(directory, `site-${family}`), join(directory, `got-${family}`)];
    for (const path of [site, got]) mkdirSync(path);
    const page = randomBytes(HTTP3_PAGE_BYTES);
    writeFileSync(join(site, "page"), page);
    const [key, certificate] = [join(directory, "key.pem"), join(directory, "certificate.pem")];
    const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key];
    await server.run(["openssl", "req", "-x509", ...made, "-out", certificate, "-subj", "/CN=quic.test"]);
    const port = server.port();
    server.spawn(["gtlsserver", "-q", "-d", site, TARGET[family], `${port}`, key, certificate]);
    await waitForUdp(server, port);
    const url = `https://quic.test:${port}/page`;
    const options = ["-q", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close"];
    await client.run(["gtlsclient", ...options, "--download", got, TARGET[family], `${port}`, url]);
    expect(hash(readFileSync(join(got, "page")))).toBe(hash(page));
  });

  it.each(FAMILIES)("ping is answered over %s, whole and in fragments", async (family) => {
    for (const size of [56, 1472, 4000]) {
      const options = ["-n", "-c", "3", "-i", "0.1", "-W", "2", "-s", `${size}`];
      const lines = await hosts.client.run(["ping", ...options, TARGET[family]]);
      expect(lines.join("\n")).toContain("3 received, 0% packet loss");
    }
  });

  describe("traceroute", () => {
    const HOPS = 4;
    const PEER = { IPv4: "198.18.0.2", IPv6: "fd75:6e64:7270::2" };
    const VERSION = { IPv4: "-4", IPv6: "-6" };

    /** Each hop with the results of its three queries: `ADDRESS ms ms ms`, or `* * *`. */
    async function trace(
      family: "IPv4" | "IPv6",
      target: string,
      options: readonly string[],
    ): Promise<string[]> {
      const argv = ["traceroute", VERSION[family], "-n", "-w", "2", "-m", `${HOPS}`, ...options, target];
      const [, ...hops] = await hosts.client.run(argv);
      return hops.map((hop) => hop.replace(/^ *\d+ +/, "").replace(/ +[\d.]+ ms/g, " ms"));
    }

    function answered(address: string): string {
      return `${address} ms ms ms`;
    }

    describe.each(FAMILIES)("over %s", (family) => {
      it.each([
        ["ICMP", ["-I"], TARGET],
        ["TCP", ["-T"], TARGET],
        ["UDP, which a rule rejects,", [], REJECTED],
        ["TCP, which a rule rejects,", ["-T"], REJECTED],
      ])("by %s names the device, then the target, and ends", async (_, options, { [family]: target }) => {
        expect(await trace(family, target, options)).toEqual([answered(PEER[family]), answered(target)]);
      });

      it.each([
        ["ICMP", ["-I"]],
        ["TCP", ["-T"]],
        ["UDP", []],
      ])("by %s to the device's peer address is one hop", async (_, options) => {
        expect(await trace(family, PEER[family], options)).toEqual([answered(PEER[family])]);
      });

      it("by UDP names the device, and ends", async () => {
        const [first, ...rest] = await trace(family, TARGET[family], []);
        expect(first).toBe(answered(PEER[family]));
        expect(rest.length).toBeLessThan(HOPS);
      });
    });
  });

  it.each(FAMILIES)("nc -u talks both ways over %s", async (family) => {
    const { client, server } = hosts;
    const port = server.port();
    const far = server.spawn(["nc", "-lu", TARGET[family], `${port}`]);
    await waitForUdp(server, port);
    const near = client.spawn(["nc", "-u", TARGET[family], `${port}`]);
    for (let turn = 0; turn < 5; turn++) {
      near.stdin.write(`question ${turn}\n`);
      await far.waitForLine(new RegExp(`^question ${turn}$`), 3000);
      far.stdin.write(`answer ${turn}\n`);
      await near.waitForLine(new RegExp(`^answer ${turn}$`), 3000);
    }
  });

  describe("an unreachable target", () => {
    function curl(address: string): Program {
      const host = address.includes(":") ? `[${address}]` : address;
      return hosts.client.spawn(["curl", "-sS", "-m", `${PATIENCE_S}`, `http://${host}:9/`]);
    }

    function dig(address: string): Program {
      const options = ["+tries=1", `+time=${PATIENCE_S}`, "example.test"];
      return hosts.client.spawn(["dig", `@${address}`, "-p", "9", ...options]);
    }

    describe.each(FAMILIES)("over %s", (family) => {
      it("a TCP port that the target refuses resets at once", async () => {
        const { status, ms, text } = await fail(curl(FRANK[family]));
        // The reset may arrive before curl has noticed that it was connected.
        expect(text).toMatch(/reset by peer|refused|Failed to connect/);
        expect(status).not.toBe(0);
        expect(ms).toBeLessThan(AT_ONCE_MS);
      });

      it("a rule that rejects refuses TCP and UDP at once", async () => {
        const [tcp, udp] = await Promise.all([fail(curl(REJECTED[family])), fail(dig(REJECTED[family]))]);
        expect(tcp.text).toMatch(/Failed to connect|refused/);
        expect(tcp.ms).toBeLessThan(AT_ONCE_MS);
        expect(udp.text).toContain("connection refused");
        expect(udp.ms).toBeLessThan(AT_ONCE_MS);
      });

      it("a rule that drops leaves TCP and UDP waiting", async () => {
        const [tcp, udp] = await Promise.all([fail(curl(DROPPED[family])), fail(dig(DROPPED[family]))]);
        expect(tcp.text).toContain("timed out");
        expect(tcp.ms).toBeGreaterThan(0.9 * PATIENCE_S * 1000);
        expect(udp.text).toContain("timed out");
        expect(udp.ms).toBeGreaterThan(0.9 * PATIENCE_S * 1000);
      });
    });
  });

  it("no UDP packet ever tried to cross from host to host", () => {
    expect(hosts.udpDropped()).toBe(0);
  });
});
