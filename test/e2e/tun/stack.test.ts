import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, beyond, FAMILIES } from "../network/transparent.ts";
import type { Host, Program, TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";
import type { Service } from "../programs/chain.ts";
import { tun2socks } from "../programs/underpass.ts";
import { expectHalfClosesAndResets } from "../targets/half-close.ts";
import { fetchPage, startPage } from "../targets/page.ts";

/**
 * `UNDERPASS_LONG=1 npx vitest run --project e2e test/e2e/tun/stack.test.ts`: with the numbers of docs/reference/tcp-stack.md, in minutes.
 */
const IS_LONG = process.env.UNDERPASS_LONG !== undefined;
type Family = (typeof FAMILIES)[number];
const RATE = IS_LONG ? { perSecond: 1000, seconds: 10 } : { perSecond: 200, seconds: 1 };
const IDLE_FLOWS = IS_LONG ? 10_000 : 1000;
/** Memory of the whole program for each idle flow: sockets of both sides, streams, and the connection itself. */
const IDLE_FLOW_BYTES = 16_000;
const STALL_S = IS_LONG ? 60 : 3;
const STALLED_BYTES = 20 * 1024 * 1024;
const FLOOD_SYNS = IS_LONG ? 500_000 : 30_000;
const PAGE_TIMEOUT_MS = 60_000;

const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const TARGET_PY = script("../targets/tcp-target.py");
const MANY_FLOWS = script("../peers/tun/many-flows.py");
const TARGET = beyond(6);
/** TCP goes there through a SOCKS5 server. */
const BY_SOCKS = beyond(7);
const REJECTED = beyond(8);
const MTU = 1500;

interface Impairment {
  readonly seed: number;
  /** In thousandths. */
  readonly loss: number;
  readonly duplicates: number;
  readonly reordered: number;
}

/**
 * The kernel of the client host is the other end of TCP: its device's packets go through a Unix socket to a tun2socks of the server host.
 */
async function startStack(
  { client, server, directory }: TwoHosts,
  options: readonly string[],
  impairment?: Impairment,
): Promise<Service> {
  const path = join(directory, `packets-${server.port()}`);
  const device = tun2socks(server, [
    ...["--device", `unix:${path}`, "--mtu", `${MTU}`, "--udp-via", "reject"],
    ...options,
  ]);
  await device.start();
  await startPeer(client, path, impairment);
  return device;
}

/** The same with an application that embeds the library in place of tun2socks and exchanges packets by callbacks. */
async function startCallbacks({ client, server, directory }: TwoHosts): Promise<void> {
  const path = join(directory, `packets-${server.port()}`);
  const argv = [process.execPath, script("../peers/tun/packets-by-callback.mjs"), path, `${MTU}`];
  await server.spawn(argv).waitForLine(/^ready/);
  await startPeer(client, path);
}

/** Starts the kernel's side: a device whose packets go through the Unix socket at `path`. */
async function startPeer(client: Host, path: string, impairment?: Impairment): Promise<void> {
  const { seed, loss, duplicates, reordered } = impairment ?? {
    seed: 0,
    loss: 0,
    duplicates: 0,
    reordered: 0,
  };
  const addresses = ["198.18.7.1/24", "fd75:7::1/64"];
  const numbers = [seed, loss, duplicates, reordered].map(String);
  const argv = [
    process.execPath,
    script("../peers/tun/carry-packets.mjs"),
    path,
    "tun-peer",
    `${MTU}`,
    ...addresses,
    ...numbers,
  ];
  await client.spawn(argv).waitForLine(/^ready/);
  for (const network of ["203.0.113.0/24", "2001:db8:5::/48"])
    await client.run(["ip", "route", "replace", network, "dev", "tun-peer"]);
}

async function startTarget(host: Host, address: string, mode: readonly string[]): Promise<number> {
  const port = host.port();
  await host.spawn(["python3", TARGET_PY, address, `${port}`, ...mode]).waitForLine(/^listening$/);
  return port;
}

async function startSocks(server: Host): Promise<string> {
  const port = server.port();
  server.spawn(["microsocks", "-i", "127.0.0.1", "-p", `${port}`]);
  await server.waitForTcp("127.0.0.1", port);
  return `socks5://127.0.0.1:${port}`;
}

/** Sends a file, ends, and compares the digest that comes back. */
async function upload(
  { client, directory }: TwoHosts,
  address: string,
  port: number,
  file: string,
): Promise<void> {
  const ask = `nc -N -w 120 ${address} ${port} < ${file} > ${directory}/digest`;
  await client.run(["sh", "-c", ask], { timeoutMs: 130_000 });
  const [digest] = (await client.run(["sha256sum", file]))[0].split(" ");
  expect(readFileSync(join(directory, "digest"), "utf8")).toBe(digest);
}

/** A page of 10 MB comes down, and 20 MB go up. */
async function transferBothWays(hosts: TwoHosts, family: Family): Promise<void> {
  await fetchPage(hosts, TARGET[family], await startPage(hosts));
  const file = join(hosts.directory, "up");
  writeFileSync(file, Buffer.alloc(STALLED_BYTES, "0123456789abcdef-"));
  await upload(hosts, TARGET[family], await startTarget(hosts.server, TARGET[family], ["hash"]), file);
}

/** @param way  options of iperf3 */
async function runEightStreams({ client, server }: TwoHosts, way: readonly string[]): Promise<void> {
  const port = server.port();
  server.spawn(["iperf3", "-s", "-B", TARGET.IPv4, "-p", `${port}`]);
  await server.waitForTcp(TARGET.IPv4, port);
  const argv = ["iperf3", "-J", "-c", TARGET.IPv4, "-p", `${port}`, "-t", "2", "-P", "8", ...way];
  const { end } = JSON.parse((await client.run(argv, { timeoutMs: 30_000 })).join("\n")) as {
    readonly end: { readonly streams: readonly { readonly receiver: { readonly bytes: number } }[] };
  };
  expect(end.streams).toHaveLength(8);
  for (const { receiver } of end.streams) expect(receiver.bytes).toBeGreaterThan(0);
}

/** A program's current memory in bytes. */
function memoryOf({ pid }: Program): number {
  const kilobytes = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kilobytes) * 1024;
}

describeWithTun("TCP of packets that no kernel receives", () => {
  let hosts: TwoHosts;
  let stack: Service;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );

  beforeAll(async () => {
    await addAddressesBeyond(hosts);
    // microsocks ends both directions with the first one, so only tests that do not notice this use it.
    const rules = FAMILIES.flatMap((family) => ["--rule", `tcp ${BY_SOCKS[family]} socks:0`]);
    const options = ["--tcp-via", "direct", "--socks", await startSocks(hosts.server), ...rules];
    stack = await startStack(hosts, [...options, "--rule", `tcp ${REJECTED.IPv4} reject`]);
  });

  it.each(FAMILIES)("curl downloads 10 MB, and 20 MB go up, over %s", async (family) => {
    await transferBothWays(hosts, family);
    await fetchPage(hosts, BY_SOCKS[family], await startPage(hosts));
  });

  it.each([
    ["up", []],
    ["down", ["-R"]],
  ])("carries eight streams of iperf3, %s", async (_, way) => {
    await runEightStreams(hosts, way);
  });

  it.each(FAMILIES)("half-closes and resets get through both ways, over %s", async (family) => {
    await expectHalfClosesAndResets(hosts, TARGET[family], family);
  });

  it(`a target that reads nothing for ${STALL_S} s closes the window, and gets every byte afterwards`, async () => {
    const { server } = hosts;
    const before = memoryOf(stack.program);
    const port = await startTarget(server, TARGET.IPv4, ["stall", `${STALL_S}`]);
    const file = join(hosts.directory, "stalled");
    writeFileSync(file, Buffer.alloc(STALLED_BYTES, "fedcba9876543210-"));
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, memoryOf(stack.program));
    }, 200);
    await upload(hosts, TARGET.IPv4, port, file).finally(() => clearInterval(watch));
    // Data in flight has to fit into the sender's window, not into the program's memory.
    expect(most - before).toBeLessThan(STALLED_BYTES / 2);
  });

  it("an application that reads nothing for a while gets every byte afterwards", async () => {
    const port = await startPage(hosts);
    const read =
      "import socket,sys,time,hashlib\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])))\n";
    const rest =
      "s.sendall(b'GET /page HTTP/1.0\\r\\n\\r\\n');time.sleep(2);n=0\nwhile d:=s.recv(65536): n+=len(d)\nprint(n)";
    const argv = ["python3", "-c", read + rest, TARGET.IPv4, `${port}`];
    const [bytes] = await hosts.client.run(argv, { timeoutMs: 30_000 });
    expect(Number(bytes)).toBeGreaterThan(10 * 1024 * 1024);
  });

  it(`opens ${RATE.perSecond} connections a second`, async () => {
    const { client, server } = hosts;
    const port = await startTarget(server, TARGET.IPv4, ["echo"]);
    const argv = [
      "python3",
      MANY_FLOWS,
      "rate",
      TARGET.IPv4,
      `${port}`,
      `${RATE.perSecond}`,
      `${RATE.seconds}`,
    ];
    const lines = await client.run(argv, { timeoutMs: 90_000 });
    expect(lines).toEqual([`done ${RATE.perSecond * RATE.seconds} failed 0 `]);
  });

  it(`holds ${IDLE_FLOWS} idle connections in ${IDLE_FLOW_BYTES} bytes each`, async () => {
    const { client, server } = hosts;
    const port = await startTarget(server, TARGET.IPv4, ["echo"]);
    const before = memoryOf(stack.program);
    const holder = client.spawn(["python3", MANY_FLOWS, "hold", TARGET.IPv4, `${port}`, `${IDLE_FLOWS}`]);
    await holder.waitForLine(/^holding/, 90_000);
    expect((memoryOf(stack.program) - before) / IDLE_FLOWS).toBeLessThan(IDLE_FLOW_BYTES);
    holder.stdin.end();
    expect(await holder.exit(60_000)).toBe(0);
    expect(holder.lines.at(-1)?.text).toBe(`answered ${IDLE_FLOWS}`);
  });

  it("a target that refuses, and one that a rule rejects, are reported at once", async () => {
    const { client, server } = hosts;
    for (const [address, statuses] of [
      // It is connected first; curl may notice the connection and the reset together.
      [TARGET.IPv4, [7, 56]],
      [REJECTED.IPv4, [7]],
    ] as const) {
      const refused = client.spawn(["curl", "-sS", "-m", "10", `http://${address}:${server.port()}/`]);
      expect(statuses).toContain(await refused.exit(15_000));
    }
  });

  it("a connection continues during a flood of SYNs, whose memory is bounded, and new ones open after it", async () => {
    const { client, directory } = hosts;
    const port = await startPage(hosts);
    const before = memoryOf(stack.program);
    const url = `http://${TARGET.IPv4}:${port}/page`;
    const slow = client.spawn([
      "sh",
      "-c",
      `curl -sS -m 40 --limit-rate 3M ${url} | cmp - ${directory}/page`,
    ]);
    await client.run(["sh", "-c", `until ss -Htn dport = :${port} | grep -q ESTAB; do sleep 0.02; done`]);
    const flood = client.spawn([
      "python3",
      script("../peers/tun/syn-flood.py"),
      "198.18.7.1",
      TARGET.IPv4,
      `${FLOOD_SYNS}`,
    ]);
    expect(await flood.exit(PAGE_TIMEOUT_MS)).toBe(0);
    expect(memoryOf(stack.program) - before).toBeLessThan(64 * 1024 * 1024);
    expect(await slow.exit(PAGE_TIMEOUT_MS)).toBe(0);
    await fetchPage(hosts, TARGET.IPv4, port);
  });
});

describeWithTun("TCP of packets that come and go by callbacks", () => {
  let hosts: TwoHosts;
  useTwoHosts(
    (made) => {
      hosts = made;
    },
    { keepPrograms: true },
  );

  beforeAll(async () => {
    await addAddressesBeyond(hosts);
    await startCallbacks(hosts);
  });

  it.each(FAMILIES)("curl downloads 10 MB, and 20 MB go up, over %s", async (family) => {
    await transferBothWays(hosts, family);
  });

  it.each([
    ["up", []],
    ["down", ["-R"]],
  ])("carries eight streams of iperf3, %s", async (_, way) => {
    await runEightStreams(hosts, way);
  });

  it.each(FAMILIES)("half-closes and resets get through both ways, over %s", async (family) => {
    await expectHalfClosesAndResets(hosts, TARGET[family], family);
  });
});

describeWithTun("TCP of packets that are lost, doubled and moved on their way to the stack", () => {
  let hosts: TwoHosts;
  useTwoHosts((made) => {
    hosts = made;
  });

  describe.each(FAMILIES)("over %s", (family) => {
    it.each([
      { seed: 1, loss: 10, duplicates: 10, reordered: 10 },
      { seed: 2, loss: 0, duplicates: 50, reordered: 50 },
    ])("every byte arrives, both ways: %o", async (impairment) => {
      await addAddressesBeyond(hosts);
      await startStack(hosts, ["--tcp-via", "direct"], impairment);
      const file = join(hosts.directory, "up");
      writeFileSync(file, Buffer.alloc(4 * 1024 * 1024, "0123456789abcdef-"));
      const port = await startTarget(hosts.server, TARGET[family], ["hash"]);
      await upload(hosts, TARGET[family], port, file);
      const echo = await startTarget(hosts.server, TARGET[family], ["echo"]);
      const ask = `head -c 2097152 ${file} | nc -N -w 60 ${TARGET[family]} ${echo} | cmp -n 2097152 - ${file}`;
      await hosts.client.run(["sh", "-c", ask], { timeoutMs: PAGE_TIMEOUT_MS });
    });
  });
});
