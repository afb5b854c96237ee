import { spawnSync } from "node:child_process";
import { describe, it, type TestOptions } from "vitest";

/** Programs, with the Debian packages that contain them. */
const PACKAGES: Readonly<Record<string, string>> = {
  ip: "iproute2",
  ss: "iproute2",
  nft: "nftables",
  nc: "netcat-openbsd",
  socat: "socat",
  dig: "bind9-dnsutils",
  dnsmasq: "dnsmasq-base",
  "ss-server": "shadowsocks-libev",
  "ss-local": "shadowsocks-libev",
  "ss-tunnel": "shadowsocks-libev",
  "obfs-server": "simple-obfs",
  "obfs-local": "simple-obfs",
  curl: "curl",
  openssl: "openssl",
  iperf3: "iperf3",
  ping: "iputils-ping",
  python3: "python3",
  traceroute: "traceroute",
  tftp: "tftp-hpa",
  "in.tftpd": "tftpd-hpa",
  microsocks: "microsocks",
  danted: "dante-server",
  socksify: "dante-client",
  turnserver: "coturn",
  turnutils_natdiscovery: "coturn",
  gtlsclient: "ngtcp2-client",
  gtlsserver: "ngtcp2-server",
};

/** Makes a namespace, reads its firewall, and destroys a live TCP connection in it: everything that the suite requires of the kernel. */
const KERNEL_PROBE = `
ip netns add "$1" || exit 1
trap 'kill -9 $(ip netns pids "$1") 2>/dev/null; ip netns del "$1"' EXIT
ip netns exec "$1" nft list ruleset || exit 1
ip -n "$1" link set lo up
ip netns exec "$1" nc -dl 127.0.0.1 7 >/dev/null 2>&1 &
for try in 1 2 3 4 5 6 7 8 9 10; do
  ip netns exec "$1" nc -d 127.0.0.1 7 >/dev/null 2>&1 &
  sleep 0.1
  ip netns exec "$1" ss -K -Htn dport = :7 | grep -q . && exit 0
done
echo "the kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)" >&2; exit 1`;

/** What this machine lacks for the suite, as text; empty if nothing. */
function findMissing(): string[] {
  if (process.platform !== "linux") return ["Linux"];
  if (process.getuid?.() !== 0) return ["root"];
  const missing: string[] = [];
  for (const [program, debianPackage] of Object.entries(PACKAGES)) {
    const { status } = spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]);
    if (status !== 0) missing.push(`${program} (apt-get install ${debianPackage})`);
  }
  if (missing.length > 0) return missing;
  const probe = spawnSync("sh", ["-c", KERNEL_PROBE, "sh", `upprobe${process.pid}`], { encoding: "utf8" });
  return probe.status === 0 ? [] : [`network namespaces: ${probe.stderr.trim()}`];
}

const missing = findMissing();

/** Makes and removes a TUN device in a namespace. */
const TUN_PROBE = `
ip netns add "$1" || exit 1
trap 'ip netns del "$1"' EXIT
ip -n "$1" tuntap add dev probe0 mode tun`;

/** Like {@link describeOnTwoHosts}, for tests that also need TUN devices. */
export function describeWithTun(name: string, body: () => void): void {
  if (missing.length === 0) {
    const probe = spawnSync("sh", ["-c", TUN_PROBE, "sh", `uptun${process.pid}`], { encoding: "utf8" });
    if (probe.status !== 0) missing.push(`TUN devices: ${probe.stderr.trim()}`);
  }
  describeOnTwoHosts(name, body);
}

/**
 * `describe` for tests that need two hosts. On a machine that cannot make them, the suite is one skipped test that names the reason; under
 * CI that test fails instead, so nothing is skipped unnoticed.
 */
export function describeOnTwoHosts(name: string, body: () => void, options: TestOptions = {}): void {
  if (missing.length === 0) {
    describe(name, options, body);
    return;
  }
  const reason = `this machine lacks: ${missing.join(", ")}`;
  describe(name, () => {
    it(reason, (context) => {
      if (process.env.CI) throw new Error(`${reason}; under CI nothing may be skipped`);
      console.warn(`SKIPPED ${name}: ${reason}`);
      context.skip(reason);
    });
  });
}

/** Like {@link describeOnTwoHosts}, for tests that mostly wait: they run in parallel, each by {@link itOnOwnHosts}. */
export function describeOnOwnHosts(name: string, body: () => void): void {
  describeOnTwoHosts(name, body, { concurrent: true });
}
