import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { describeWithTun } from "../network/requirements.ts";
import { addAddressesBeyond, beyond, startTransparent } from "../network/transparent.ts";
import type { TwoHosts } from "../network/two-hosts.ts";
import { useTwoHosts } from "../network/use-two-hosts.ts";

const FAMILIES = ["IPv4", "IPv6"] as const;
const UDP_ERROR = fileURLToPath(new URL("../peers/tun/udp-error.py", import.meta.url));
const TARGET = beyond(1);
/** An address that is denied by default, like all private networks. */
const DENIED = { IPv4: "10.99.0.1", IPv6: "fd99::1" };
/** An address that is permitted, but to which the server host has no route. */
const NOWHERE = { IPv4: "192.0.2.1", IPv6: "2001:db8:7::1" };
/** An address beyond a router whose next link has a smaller MTU than all before it. */
const FAR = { IPv4: "198.51.100.1", IPv6: "2001:db8:6::1" };
const NARROW_MTU = 1300;
const HEADER_BYTES = { IPv4: 28, IPv6: 48 };
const ROUTES = [
  ...["10.99.0.0/24", "fd99::/64"],
  ...["192.0.2.0/24", "2001:db8:7::/48"],
  ...["198.51.100.0/24", "2001:db8:6::/48"],
];

/** A router beside the server host, in a namespace that disappears with its process. */
async function startRouter({ server }: TwoHosts): Promise<void> {
  const script = `
    until ip link show far1 >/dev/null 2>&1; do sleep 0.02; done
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip link set lo up
    ip addr add 10.88.0.2/24 dev far1
    ip addr add fd88::2/64 dev far1 nodad
    ip link set far1 up
    ip link add narrow0 type veth peer name narrow1
    for end in narrow0 narrow1; do ip link set $end mtu ${NARROW_MTU} up; done
    ip route add 198.51.100.0/24 dev narrow0
    ip -6 route add 2001:db8:6::/48 dev narrow0
    echo routes
    exec sleep infinity`;
  const router = server.spawn(["unshare", "-n", "sh", "-ec", script]);
  const join = `
    until [ "$(readlink /proc/${router.pid}/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
    ip link add name far0 type veth peer name far1 netns ${router.pid}
    ip addr add 10.88.0.1/24 dev far0
    ip addr add fd88::1/64 dev far0 nodad
    ip link set far0 up
    ip route add 198.51.100.0/24 via 10.88.0.2
    ip -6 route add 2001:db8:6::/48 via fd88::2`;
  await server.run(["sh", "-ec", join]);
  await router.waitForLine(/^routes$/);
}

/** Starts an echo on {@link TARGET}. @returns its port */
async function startEcho({ server }: TwoHosts, family: (typeof FAMILIES)[number]): Promise<number> {
  const port = server.port();
  const bind = family === "IPv4" ? TARGET.IPv4 : `[${TARGET.IPv6}]`;
  server.spawn(["socat", `UDP${family.slice(-1)}-RECVFROM:${port},bind=${bind},fork`, "EXEC:cat"]);
  await server.run(["sh", "-c", `until ss -Hlun sport = :${port} | grep -q .; do sleep 0.02; done`]);
  return port;
}

interface Report {
  readonly result: string;
  readonly mtu: number;
}

async function ask(
  { client }: TwoHosts,
  address: string,
  port: number,
  size: number,
  options: readonly string[] = [],
): Promise<Report> {
  const lines = await client.run(["python3", UDP_ERROR, address, `${port}`, `${size}`, ...options]);
  return JSON.parse(lines.at(-1)!) as Report;
}

describeWithTun("what applications are told of targets that cannot be reached", () => {
  describe("beyond udp-server's own sockets", () => {
    let hosts: TwoHosts;
    useTwoHosts(
      (made) => {
        hosts = made;
      },
      { keepPrograms: true },
    );

    beforeAll(async () => {
      await addAddressesBeyond(hosts);
      await startRouter(hosts);
      await startTransparent(hosts, { tun2socks: ROUTES.flatMap((network) => ["--route", network]) });
    });

    describe.each(FAMILIES)("over %s", (family) => {
      it("a closed port gives ECONNREFUSED, an open one does not", async () => {
        const { result } = await ask(hosts, TARGET[family], hosts.server.port(), 10);
        expect(result).toBe("ECONNREFUSED");
        const port = await startEcho(hosts, family);
        expect((await ask(hosts, TARGET[family], port, 10)).result).toBe("10 bytes");
      });

      it("a denied target is prohibited, the first time and again", async () => {
        for (let i = 0; i < 2; i++) {
          const { result } = await ask(hosts, DENIED[family], 9, 10);
          expect(result).toBe(family === "IPv4" ? "EHOSTUNREACH" : "EACCES");
        }
      });

      it("a target without a route gives EHOSTUNREACH to a program that asks for it", async () => {
        const { result } = await ask(hosts, NOWHERE[family], 9, 10, ["all"]);
        expect(result).toBe("EHOSTUNREACH");
      });

      it("a packet longer than the MTU of a distant link gives EMSGSIZE with that MTU", async () => {
        const size = NARROW_MTU - HEADER_BYTES[family] + 1;
        const report = await ask(hosts, FAR[family], 9, size, ["df"]);
        expect(report).toEqual({ result: "EMSGSIZE", mtu: NARROW_MTU });
      });

      it("traceroute by UDP ends at the target", async () => {
        const options = ["-n", "-q", "1", "-w", "2", "-m", "4"];
        const lines = await hosts.client.run(["traceroute", ...options, TARGET[family]]);
        expect(lines).toHaveLength(3);
        expect(lines[2]).toMatch(new RegExp(`^ 2 {2}${TARGET[family]} `));
      });
    });

    it("no UDP packet ever tried to cross from host to host", () => {
      expect(hosts.udpDropped()).toBe(0);
    });
  });

  describe("beyond an egress of udp-server", () => {
    let hosts: TwoHosts;
    useTwoHosts((made) => {
      hosts = made;
    });

    beforeAll(() => addAddressesBeyond(hosts));

    it.each([
      ["tun2socks: with sockets of its own", () => "tun2socks:"],
      [
        "tun2socks: with a SOCKS5 relay that is gone",
        (port: number) => `tun2socks:socks5-udp://127.0.0.1:${port}`,
      ],
      ["socks5:// whose server is gone", (port: number) => `socks5://127.0.0.1:${port}`],
    ])("with --egress %s, a closed port gives ECONNREFUSED", async (_, egress) => {
      await startTransparent(hosts, { udpServer: ["--egress", egress(hosts.server.port())] });
      for (const family of FAMILIES) {
        const { result } = await ask(hosts, TARGET[family], hosts.server.port(), 10);
        expect(result).toBe("ECONNREFUSED");
      }
    });
  });
});
