import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { describeWithTun } from "./requirements.ts";
import type { TwoHosts } from "./two-hosts.ts";
import { useTwoHosts } from "./use-two-hosts.ts";

const SOURCE = fileURLToPath(new URL("../../../bench/latency/programs/link.c", import.meta.url));
const DATAGRAMS = fileURLToPath(new URL("../peers/numbered-datagrams.py", import.meta.url));
/** Headers of an IPv4 packet around a UDP payload. */
const HEADERS = 28;
const DEVICE = "link0";
const [NEAR, FAR] = ["10.80.0.1", "10.80.0.2"];

describeWithTun("the link emulator of the benchmarks", () => {
  let hosts: TwoHosts;
  let link = "";
  useTwoHosts((made) => {
    hosts = made;
    link = join(made.directory, "link");
    execFileSync("cc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", link, SOURCE]);
  });

  /** Packets of one size at even distances, in virtual time: µs from each one's offer to its arrival, or undefined. */
  function replay(words: string[], count: number, everyUs: number, size: number, commands: string[] = []) {
    const offers = Array.from({ length: count }, (_, i) => `${i * everyUs} ${size}`);
    const { stdout, stderr, status } = spawnSync(link, ["replay", ...words], {
      input: [...commands, ...offers, ""].join("\n"),
      encoding: "utf8",
      maxBuffer: 1 << 28,
    });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const delays: (number | undefined)[] = Array(count).fill(undefined);
    const order: number[] = [];
    for (const line of stdout.trim().split("\n")) {
      const [index, at] = line.split(" ");
      if (at === "gone") continue;
      order.push(Number(index));
      delays[Number(index)] = Number(at) - Number(index) * everyUs;
    }
    return { delays, order, arrived: order.length };
  }

  describe("in virtual time", () => {
    it("sends 20 Mbit/s of 24 offered, delays packets by at most 100 ms, and drops the rest", () => {
      const { delays, arrived } = replay(["up.rate=20", "up.delay=25", "up.queue=100"], 20_000, 400, 1200);
      // 8 s at 20 Mbit/s, and a queue of 100 ms.
      expect(arrived).toBeGreaterThanOrEqual(16_666);
      expect(arrived).toBeLessThanOrEqual(16_666 + 209);
      const known = delays.filter((delay) => delay !== undefined);
      expect(Math.min(...known)).toBeCloseTo(25_480, 0);
      expect(Math.max(...known)).toBeLessThanOrEqual(125_001);
      expect(Math.max(...known)).toBeGreaterThan(124_000);
    });

    it("loses 1 % of 100,000 packets at random, within four standard deviations, and different ones for another seed", () => {
      const lost = [1, 2].map((seed) => {
        const { delays } = replay([`seed=${seed}`, "up.loss=0.01"], 100_000, 100, 100);
        return delays.flatMap((delay, i) => (delay === undefined ? [i] : []));
      });
      for (const { length } of lost) expect(Math.abs(length - 1000)).toBeLessThan(4 * Math.sqrt(990));
      expect(lost[0]).not.toEqual(lost[1]);
    });

    it("loses 5 % in bursts of 8 on average", () => {
      const { delays } = replay(["up.loss=0.05", "up.burst=8"], 200_000, 100, 100);
      const lost = delays.filter((delay) => delay === undefined).length;
      const bursts = delays.filter((delay, i) => delay === undefined && delays[i - 1] !== undefined).length;
      expect(lost / 200_000).toBeGreaterThan(0.043);
      expect(lost / 200_000).toBeLessThan(0.057);
      expect(lost / bursts).toBeGreaterThan(7);
      expect(lost / bursts).toBeLessThan(9);
    });

    it("changes the rate at the requested second, and keeps the queue's bytes", () => {
      const commands = ["after 2 up.rate=5"];
      const { delays } = replay(["up.rate=20", "up.queue=100"], 10_000, 400, 1000, commands);
      // Each packet takes 400 µs before, and four times as long after.
      expect(delays.slice(0, 5000).every((delay) => delay === 400)).toBe(true);
      expect(delays[5000]).toBe(1600);
      const known = delays.filter((delay) => delay !== undefined);
      // 100 ms at 20 Mbit/s are 400 ms at 5.
      expect(Math.max(...known)).toBeGreaterThan(395_000);
      expect(Math.max(...known)).toBeLessThanOrEqual(400_000);
    });

    it("varies the delay within the jitter without reordering, and lets packets overtake only those that are held back", () => {
      const jittered = replay(["up.delay=25", "up.jitter=10"], 10_000, 1000, 100);
      const delays = jittered.delays.map((delay) => delay ?? 0);
      expect(jittered.order).toEqual(jittered.order.toSorted((a, b) => a - b));
      expect(Math.min(...delays)).toBeGreaterThanOrEqual(25_000);
      expect(Math.max(...delays)).toBeLessThanOrEqual(35_000);
      expect(Math.max(...delays) - Math.min(...delays)).toBeGreaterThan(7000);

      const held = replay(["up.delay=25", "up.reorder=0.02", "up.hold=5"], 10_000, 1000, 100);
      const late = held.delays.filter((delay) => delay === 30_000).length;
      expect(held.delays.filter((delay) => delay === 25_000).length).toBe(10_000 - late);
      expect(Math.abs(late - 200)).toBeLessThan(4 * Math.sqrt(196));
    });

    it("refuses a word that it does not know", () => {
      const { status, stderr } = spawnSync(link, ["replay", "up.speed=1"], { input: "", encoding: "utf8" });
      expect(status).toBe(2);
      expect(stderr).toContain("up.speed=1");
    });
  });

  describe("between two hosts", () => {
    beforeAll(async () => {
      // Packets that the kernel sends by itself would be counted too.
      for (const host of [hosts.client, hosts.server])
        await host.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    });

    it.each([
      { name: "as it is", moderation: 0 },
      { name: "while it wakes only every 20 ms", moderation: 20_000 },
    ])(
      "loses exactly the packets that the model predicts, delays the others as configured, and never exceeds the rate, $name",
      async ({ moderation }) => {
        const [count, size] = [1500, 500];
        const words = ["seed=7", "up.rate=8", "up.delay=20", "up.loss=0.05", "up.burst=4"];
        const { delays } = replay(words, count, 500, size + HEADERS);
        const expected = delays.flatMap((delay, i) => (delay === undefined ? [] : [i]));
        const { client, server } = hosts;
        const own = [...words, `moderation=${moderation}`];
        const running = client.spawn([link, "run", client.namespace, server.namespace, DEVICE, ...own]);
        await running.waitForLine(/ready/);
        for (const [host, address] of [
          [client, NEAR],
          [server, FAR],
        ] as const) {
          await host.run(["ip", "addr", "add", `${address}/24`, "dev", DEVICE]);
          await host.run(["ip", "link", "set", DEVICE, "txqueuelen", "5000", "up"]);
        }
        const receiver = server.spawn(["python3", DATAGRAMS, "receive", FAR, `${expected.length}`]);
        const port = (await receiver.waitForLine(/^\d+$/)).text;
        await client.run(["python3", DATAGRAMS, "send", FAR, port, `${count}`, `${size}`]);
        const arrivals: [index: number, sent: number, received: number][] = JSON.parse(
          (await receiver.waitForLine(/^\[/, 15_000)).text,
        );
        running.stdin.write("report\n");
        const { up, down } = JSON.parse((await running.waitForLine(/"up"/)).text);
        expect(up).toMatchObject({ packets: count, lost: count - expected.length, dropped: 0 });
        expect(down.packets).toBe(0);
        expect(arrivals.map(([index]) => index)).toEqual(expected);
        for (const [, sent, received] of arrivals) expect(received - sent).toBeGreaterThanOrEqual(0.02);
        const [first, last] = [arrivals[0][1], arrivals.at(-1)![2]];
        const transmitted = ((expected.at(-1)! + 1) * (size + HEADERS) * 8) / 8e6;
        expect(last - first).toBeGreaterThanOrEqual(transmitted + 0.02 - 0.001);
        const pauses = arrivals.filter(([, , at], i) => i > 0 && at - arrivals[i - 1][2] > 0.015).length;
        if (moderation > 0) expect(pauses).toBeGreaterThanOrEqual(20);
        running.stdin.end();
        expect(await running.exit(5000)).toBe(0);
      },
    );
  });
});
