import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";

const MODULE = fileURLToPath(
  new URL("../../../native/build-sanitized/build/Release/underpass.node", import.meta.url),
);
const WORKLOAD = fileURLToPath(new URL("workload.mjs", import.meta.url));
const TUN_WORKLOAD = fileURLToPath(new URL("tun-workload.mjs", import.meta.url));
const LOCALS_WORKLOAD = fileURLToPath(new URL("locals-workload.mjs", import.meta.url));
const asan = spawnSync("cc", ["-print-file-name=libasan.so"], { encoding: "utf8" }).stdout?.trim() ?? "";
const hasSanitizer = existsSync(asan) || process.env.CI !== undefined;
const isRoot = process.getuid?.() === 0;

/** Runs the workload. A sanitizer that finds an error ends it with a report and a status other than 0. */
function run(prefix: readonly string[], args: readonly string[], workload = WORKLOAD) {
  const [command, ...rest] = [...prefix, process.execPath, workload, MODULE, ...args];
  const result = spawnSync(command, rest, {
    encoding: "utf8",
    env: {
      ...process.env,
      LD_PRELOAD: asan,
      // Node itself does not free all memory at exit.
      ASAN_OPTIONS: "detect_leaks=0:halt_on_error=1:exitcode=99",
      UBSAN_OPTIONS: "halt_on_error=1:print_stacktrace=1",
    },
  });
  expect(result.stderr).not.toMatch(/AddressSanitizer|runtime error/);
  expect(result.status).toBe(0);
  return JSON.parse(result.stdout);
}

describe.skipIf(!hasSanitizer)("the native module under AddressSanitizer and UBSan", () => {
  beforeAll(() => {
    const build = spawnSync("node", ["scripts/build-native.mjs", "--sanitize"], { stdio: "inherit" });
    expect(build.status).toBe(0);
  }, 120_000);

  it("survives random batches, invalid rows, and sockets that close in the middle", () => {
    const seen = run([], []);
    expect(seen.bad).toBe(0);
    expect(seen.datagrams).toBeGreaterThan(5_000);
    expect(seen.numbered).toBeGreaterThan(1_000);
    expect(seen.errors).toBeGreaterThan(1_000);
    expect([seen.accepted, seen.echoed]).toEqual([50, 50]);
    expect(seen.writable).toBeGreaterThan(0);
    expect(seen.unix).toBeGreaterThanOrEqual(26);
    expect([seen.paused, seen.reset, seen.left]).toEqual([seen.unix, 10, 0]);
  });

  it.skipIf(!isRoot && process.env.CI === undefined)(
    "queues datagrams that a slow link does not accept, and drops those above the bound",
    () => {
      const name = `under-slow-${process.pid}`;
      const script = `
        set -e
        ip netns add ${name}
        ip -n ${name} link set lo up
        ip -n ${name} link add name va type veth peer name vb
        ip -n ${name} addr add 10.7.0.1/24 dev va
        ip -n ${name} link set va up
        ip -n ${name} link set vb up
        ip -n ${name} neigh add 10.7.0.2 lladdr 02:00:00:00:00:01 dev va
        tc -n ${name} qdisc add dev va root tbf rate 1mbit burst 16kb latency 60s`;
      try {
        const made = spawnSync("sh", ["-c", script], { encoding: "utf8" });
        expect(made.stderr).toBe("");
        const seen = run(["ip", "netns", "exec", name], ["10.7.0.2"]);
        expect(seen.bad).toBe(0);
        const [, , , overflow] = seen.counts;
        expect(overflow).toBeGreaterThan(0);
      } finally {
        spawnSync("ip", ["netns", "del", name]);
      }
    },
  );

  it.skipIf(!isRoot && process.env.CI === undefined)(
    "answers from the address that was asked, also in runs, and from another after its removal",
    () => {
      const name = `under-locals-${process.pid}`;
      const script = `
        set -e
        ip netns add ${name}
        ip -n ${name} link set lo up
        for device in 0 1; do
          ip -n ${name} link add near$device type veth peer name far$device
          ip -n ${name} link set far$device up
          ip -n ${name} link set near$device up
          for number in 1 2; do ip -n ${name} addr add fe80::99:$number/64 dev near$device nodad; done
        done
        for number in 1 2 3; do
          ip -n ${name} addr add 10.9.0.$number/24 dev near0
          ip -n ${name} addr add fd99::$number/64 dev near0 nodad
        done`;
      try {
        expect(spawnSync("sh", ["-c", script], { encoding: "utf8" }).stderr).toBe("");
        const seen = run(["ip", "netns", "exec", name], [], LOCALS_WORKLOAD);
        expect(seen).toEqual({
          heard: {
            IPv4: "1000 from 10.9.0.2",
            "IPv4, another": "1000 from 10.9.0.3",
            IPv6: "1000 from fd99::2",
            "IPv6, another": "1000 from fd99::3",
            "link-local": "1000 from fe80::99:2%near0",
            "link-local on another interface": "1000 from fe80::99:2%near1",
          },
          dropped: 0,
          gone: {
            "10.9.0.2": "10.9.0.2 10.9.0.1 10.9.0.2 10.9.0.1",
            "fd99::2": "fd99::2 fd99::1 fd99::2 fd99::1",
          },
        });
      } finally {
        spawnSync("ip", ["netns", "del", name]);
      }
    },
  );

  it.skipIf((!isRoot || !existsSync("/dev/net/tun")) && process.env.CI === undefined)(
    "survives malformed packets, devices that close inside their callback, and connections that fail or are ended",
    () => {
      const name = `under-tun-${process.pid}`;
      try {
        const script = `ip netns add ${name} && ip -n ${name} link set lo up`;
        expect(spawnSync("sh", ["-c", script], { encoding: "utf8" }).stderr).toBe("");
        const seen = run(["ip", "netns", "exec", name], [], TUN_WORKLOAD);
        expect(seen).toMatchObject({ bad: 0, opened: 60, connected: 50, refused: 50, late: 0, leaked: 0 });
        expect(seen).toMatchObject({ ended: 300, aborted: 300, endedAgain: 0, local: [true, true, false] });
        expect(seen.packets).toBeGreaterThan(100);
        expect(seen.dropped).toBeGreaterThan(1000);
        expect(seen.thrown).toBeGreaterThan(30);
      } finally {
        spawnSync("ip", ["netns", "del", name]);
      }
    },
  );
});
