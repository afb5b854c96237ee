import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterEach, expect, it } from "vitest";
import type { OnPackets } from "../../../src/core/tun2socks/packet-stream-reader.ts";
import { startTun2Socks } from "../../../src/node/tun2socks.ts";
import { startUdpLocal } from "../../../src/node/udp-local.ts";
import { startUdpServer } from "../../../src/node/udp-server.ts";
import { udpPacket } from "../../unit/packet-oracle.ts";
import { describeWith } from "../peers/peer-program.ts";

const PSK = Buffer.from("0123456789abcdef0123456789abcdef");
const INBOUND = "0x00000001";
const OUTBOUND = "0x00000002";
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "underpass-tap-"));
  cleanups.push(() => rmSync(path, { recursive: true }));
  return path;
}

interface Seen {
  readonly comment: string;
  readonly direction: string;
  readonly source: string;
  readonly destination: string;
  readonly checksum: string;
  readonly name: string;
  readonly payloadBytes: number;
}

/** The records that tshark reads from a file without an error. */
function read(file: string): Seen[] {
  const fields = ["frame.comment", "frame.packet_flags_direction", "ip.src", "ipv6.src", "udp.srcport"];
  const more = ["ip.dst", "ipv6.dst", "udp.dstport", "udp.checksum.status", "frame.interface_name"];
  const all = [...fields, ...more, "udp.length", "_ws.malformed", "_ws.expert.severity"];
  const args = ["-n", "-r", file, "-T", "fields", "-o", "udp.check_checksum:TRUE"];
  const options = ["-E", "separator=|", "-o", "ip.check_checksum:TRUE"];
  const { stdout, stderr, status } = spawnSync(
    "tshark",
    [...args, ...options, ...all.flatMap((name) => ["-e", name])],
    { encoding: "utf8", maxBuffer: 2 ** 28 },
  );
  expect([status, stderr.replace(/^Running as user .*\n/, "")]).toEqual([0, ""]);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [comment, direction, source4, source6, sourcePort, to4, to6, toPort, ...rest] = line.split("|");
      const [checksum, name, length, malformed] = rest;
      expect(malformed).toBe("");
      return {
        ...{ comment, direction, checksum, name, payloadBytes: Number(length) - 8 },
        source: `${source4}${source6} ${sourcePort}`,
        destination: `${to4}${to6} ${toPort}`,
      };
    });
}

/** The number of records by reason, without zeros. */
function reasonsOf(seen: readonly Seen[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { comment } of seen) {
    const reason = /^dropped: (\w+)/.exec(comment)?.[1];
    if (reason !== undefined) counts[reason] = (counts[reason] ?? 0) + 1;
  }
  return counts;
}

function occurring(counts: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

function kept(seen: readonly Seen[], direction: string): Seen[] {
  return seen.filter((each) => each.direction === direction && !each.comment.startsWith("dropped"));
}

async function echoOf(family: "udp4" | "udp6", host: string): Promise<number> {
  const echo = createSocket(family);
  echo.on("message", (message, { port, address }) => echo.send(message, port, address));
  echo.bind(0, host);
  await once(echo, "listening");
  cleanups.push(() => echo.close());
  return echo.address().port;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error("it has not happened");
    await wait(20);
  }
}

describeWith(["tshark"], "a tap, read by tshark", () => {
  it("contains each datagram once, with its direction, and dropped ones with the counted reason", async () => {
    const [local4, local6] = [await echoOf("udp4", "127.0.0.1"), await echoOf("udp6", "::1")];
    const path = folder();
    const files = { local: join(path, "local.pcapng"), server: join(path, "server.pcapng") };
    const server = await startUdpServer({
      listen: ["127.0.0.1:0"],
      psk: PSK,
      allow: ["127.0.0.1/32", "::1/128"],
      tap: files.server,
    });
    const targets = [`127.0.0.1:${local4}`, `[::1]:${local6}`, "127.0.0.2:9"];
    const local = await startUdpLocal({
      ...{ listen: false, server: server.address.listen[0], psk: PSK, tap: files.local },
      forwards: targets.map((target) => ({ listen: "127.0.0.1:0", target })),
      ageBudgetMs: 1_000,
    });
    if (local.stats().sessions === 0) await once(local, "session-up");
    const ports = local.address.forwards.map(({ listen }) => Number(listen.split(":").at(-1)));
    const application = createSocket("udp4").bind(0, "127.0.0.1");
    await once(application, "listening");
    cleanups.push(() => application.close());
    const [to4, to6, denied] = ports;
    for (let i = 0; i < 40; i++) application.send(Buffer.alloc(100 + i), to4, "127.0.0.1");
    for (let i = 0; i < 20; i++) application.send(Buffer.alloc(200 + i), to6, "127.0.0.1");
    application.send(Buffer.alloc(9), denied, "127.0.0.1");
    await until(() => local.stats().datagramsIn === 60 && local.stats().unreachable.prohibited === 1);
    for (let i = 0; i < 7; i++) application.send(Buffer.alloc(9), denied, "127.0.0.1");
    await until(() => local.stats().drops.refused_target === 7);
    local.on("error", () => {});
    await server.close();
    await until(() => local.stats().sessions === 0);
    for (let i = 0; i < 5; i++) application.send(Buffer.alloc(300), to4, "127.0.0.1");
    await until(() => local.stats().drops.age === 5);
    await local.close();

    const seen = read(files.local);
    const stats = local.stats();
    expect(stats.tapRecords).toBe(seen.length);
    expect(stats.tapLost).toBe(0);
    expect(reasonsOf(seen)).toEqual(occurring(stats.drops));
    expect(kept(seen, OUTBOUND).length).toBe(stats.datagramsOut);
    const received = kept(seen, INBOUND);
    expect(received.length).toBe(stats.datagramsIn);
    const { port } = application.address();
    expect(received.filter(({ source }) => source === `127.0.0.1 ${local4}`).length).toBe(40);
    const of6 = received.filter(({ source }) => source === `::1 ${local6}`);
    expect(of6.map(({ payloadBytes }) => payloadBytes).sort()).toEqual(
      [...Array(20).keys()].map((i) => 200 + i),
    );
    expect(new Set(of6.map(({ destination }) => destination))).toEqual(new Set([`::ffff:127.0.0.1 ${port}`]));
    // 1: correct. 3 would mean no checksum, which IPv4 allows.
    expect(new Set(of6.map(({ checksum }) => checksum))).toEqual(new Set(["1"]));

    const atServer = read(files.server);
    expect(reasonsOf(atServer)).toEqual(occurring(server.stats().drops));
    expect(kept(atServer, INBOUND).length).toBe(server.stats().datagramsIn);
    expect(kept(atServer, OUTBOUND).length).toBe(server.stats().datagramsOut);
    // Both ends record the application by its own address.
    const toTarget = kept(atServer, INBOUND).filter(
      ({ destination }) => destination === `127.0.0.1 ${local4}`,
    );
    expect(new Set(toTarget.map(({ source }) => source))).toEqual(new Set([`127.0.0.1 ${port}`]));
    expect(statSync(files.local).mode & 0o777).toBe(0o600);
  });

  it("keeps the newest files, each complete, with the records that its filter selects, and without payloads on request", async () => {
    const target = await echoOf("udp4", "127.0.0.1");
    const other = await echoOf("udp4", "127.0.0.1");
    const path = folder();
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: PSK, allow: ["127.0.0.1/32"] });
    cleanups.push(() => server.close());
    const local = await startUdpLocal({
      ...{ listen: false, server: server.address.listen[0], psk: PSK, ageBudgetMs: 5_000 },
      forwards: [target, other].map((port) => ({ listen: "127.0.0.1:0", target: `127.0.0.1:${port}` })),
      tap: join(path, "tap.pcapng"),
      tapFiles: 3,
      tapFileBytes: 1_048_576,
      tapPayloadBytes: 0,
      tapFilter: [`127.0.0.0/8:${target}`],
      tapInterfaces: "association",
    });
    const ports = local.address.forwards.map(({ listen }) => Number(listen.split(":").at(-1)));
    const application = createSocket("udp4").bind(0, "127.0.0.1");
    await once(application, "listening");
    cleanups.push(() => application.close());
    let sent = 0;
    while (local.stats().tapRecords < 48_000) {
      for (let i = 0; i < 64; i++)
        application.send(Buffer.alloc(50), ports[sent++ % 8 === 7 ? 1 : 0], "127.0.0.1");
      await wait(2);
    }
    await local.close();
    expect(readdirSync(path).sort()).toEqual(["tap.1.pcapng", "tap.2.pcapng", "tap.pcapng"]);
    const all = readdirSync(path).map((name) => read(join(path, name)));
    const count = all.reduce((total, seen) => total + seen.length, 0);
    expect(count).toBeLessThan(local.stats().tapRecords);
    for (const seen of all) {
      expect(seen.every(({ source, destination }) => `${source} ${destination}`.includes(` ${target}`))).toBe(
        true,
      );
      expect(new Set(seen.map(({ name }) => name)).size).toBe(1);
      expect(seen[0].name).toMatch(/^association \d+$/);
      // The file still gives the length of omitted payloads.
      expect(seen[0].payloadBytes).toBe(50);
    }
    for (const name of readdirSync(path))
      expect(statSync(join(path, name)).size).toBeLessThanOrEqual(1_048_576);
  });

  it("of tun2socks contains its datagrams, and dropped packets unchanged", async () => {
    const target = await echoOf("udp4", "127.0.0.1");
    const file = join(folder(), "tun.pcapng");
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: PSK, allow: ["127.0.0.1/32"] });
    cleanups.push(() => server.close());
    let onPackets: OnPackets | undefined;
    const tun = await startTun2Socks({
      server: server.address.listen[0],
      psk: PSK,
      tap: file,
      device: {
        start: (handler) => {
          onPackets = handler;
        },
        write: () => {},
      },
      rules: ["udp *:9 drop"],
    });
    await once(tun, "session-up");
    const give = (packet: Uint8Array) =>
      onPackets!(packet, Int32Array.of(0), Int32Array.of(packet.length), 1);
    const datagram = (port: number) =>
      udpPacket("10.0.0.1", 4_000, "10.9.9.9", port, Buffer.from("datagram"));
    for (let i = 0; i < 6; i++) give(datagram(target));
    for (let i = 0; i < 3; i++) give(datagram(9));
    const broken = datagram(target);
    broken[broken.length - 1] ^= 1;
    give(broken);
    // The server denies this target, and the client then knows it.
    await until(() => tun.stats().unreachable.prohibited > 0);
    for (let i = 0; i < 2; i++) give(datagram(target));
    await until(() => tun.stats().drops.refused_target === 2);
    await tun.close();
    const seen = read(file);
    const stats = tun.stats();
    expect(kept(seen, OUTBOUND).length).toBe(stats.datagramsOut);
    expect(stats.datagramsOut).toBe(8);
    expect(reasonsOf(seen)).toEqual(occurring(stats.drops));
    expect(reasonsOf(seen)).toMatchObject({ rule_drop: 3, bad_checksum: 1 });
    const dropped = seen.find(({ comment }) => comment === "dropped: rule_drop");
    expect(dropped).toMatchObject({
      source: "10.0.0.1 4000",
      destination: "10.9.9.9 9",
      payloadBytes: 8,
    });
  });
});

it("a tap never writes through a symbolic link, and the log announces its start", async () => {
  const path = folder();
  writeFileSync(join(path, "other"), "");
  symlinkSync(join(path, "other"), join(path, "tap.pcapng"));
  await expect(startUdpServer({ listen: ["127.0.0.1:0"], tap: join(path, "tap.pcapng") })).rejects.toThrow(
    /tap\.pcapng: is not a regular file/,
  );
  await expect(startUdpServer({ listen: ["127.0.0.1:0"], tap: join(path, "none/tap") })).rejects.toThrow(
    /none\/tap: no such file or directory \(ENOENT\)/,
  );
});
