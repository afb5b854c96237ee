import { fileURLToPath } from "node:url";
import type { Host, TwoHosts } from "../network/two-hosts.ts";

/** A network behind the server, in a namespace of its own. UDP passes here, subject to nft rules by port. */
export interface Internet {
  /** Addresses of its targets. */
  readonly first: string;
  readonly second: string;
  /** Echoes that lose fragments, one datagram in four, or nothing. */
  readonly noFragments: number;
  readonly lossy: number;
  readonly echo: number;
  /** A STUN server (RFC 5780): directly, behind a stateful firewall, and behind a NAT that uses another port for each target. */
  readonly stun: string;
  readonly stunFirewall: string;
  readonly stunSymmetric: string;
}

const SERVER = "198.51.100.254";
const SYMMETRIC = ["198.51.100.11", "198.51.100.12"] as const;
const FIREWALL = ["198.51.100.21", "198.51.100.22"] as const;
/** An address of the server that is reached through a router between the two hosts. */
export const NARROW_SERVER = "10.78.2.2";
export const NARROW_CLIENT = "10.78.1.2";
const NARROW_MTU = 1_280;
const PLAIN = ["198.51.100.1", "198.51.100.2"] as const;
const ECHO = fileURLToPath(new URL("../targets/udp-echo.mjs", import.meta.url));
const STUN_PORT = 3478;

/** Runs programs in it by `nsenter`; it disappears with the process that holds it. */
export async function makeInternet(server: Host): Promise<Internet> {
  const holder = server.spawn(["unshare", "-n", "sh", "-c", "echo made; exec sleep infinity"]);
  await holder.waitForLine(/made/);
  const inside = (...argv: string[]) => ["nsenter", "-t", `${holder.pid}`, "-n", ...argv];
  const [noFragments, lossy, echo] = [server.port(), server.port(), server.port()];
  await server.run([
    "ip",
    "link",
    "add",
    "out0",
    "type",
    "veth",
    "peer",
    "name",
    "in0",
    "netns",
    `${holder.pid}`,
  ]);
  await server.run(["ip", "addr", "add", `${SERVER}/24`, "dev", "out0"]);
  await server.run(["ip", "link", "set", "out0", "up"]);
  const addresses = [...PLAIN, ...SYMMETRIC, ...FIREWALL]
    .map((ip) => `ip addr add ${ip}/24 dev in0`)
    .join("; ");
  await server.run(inside("sh", "-ec", `ip link set lo up; ${addresses}; ip link set in0 up`));
  await server.run(
    inside(
      "nft",
      `table inet links {
        chain fragments {
          ip daddr ${PLAIN[1]} drop
        }
        chain arriving {
          type filter hook prerouting priority -450
          ip frag-off & 0x3fff != 0 jump fragments
          udp dport ${lossy} numgen random mod 4 0 drop
        }
      }`,
    ),
  );
  await server.run([
    "nft",
    `table ip firewall {
      chain arriving {
        type filter hook input priority filter
        iifname out0 ip saddr { ${FIREWALL.join(", ")} } ct state new drop
      }
    }`,
  ]);
  await server.run([
    "nft",
    `table ip nat {
      chain leaving {
        type nat hook postrouting priority srcnat
        oifname out0 ip daddr { ${SYMMETRIC.join(", ")} } masquerade random
      }
    }`,
  ]);
  const started = [
    ...[echo, lossy].map((port) => server.spawn(inside(process.execPath, ECHO, `${port}`, PLAIN[0], "::"))),
    server.spawn(inside(process.execPath, ECHO, `${noFragments}`, PLAIN[1], "::1")),
  ];
  await Promise.all(started.map((program) => program.waitForLine(/"port"/)));
  for (const [one, other] of [PLAIN, SYMMETRIC, FIREWALL]) {
    const argv = [
      "turnserver",
      "--stun-only",
      "--no-cli",
      "--no-tls",
      "--no-dtls",
      "-c",
      "/dev/null",
      "--log-file",
      "stdout",
    ];
    server.spawn(
      inside(...argv, "--listening-port", `${STUN_PORT}`, "--pidfile", "/dev/null", "-L", one, "-L", other),
    );
    await server.waitForTcp(other, STUN_PORT);
  }
  return {
    first: PLAIN[0],
    second: PLAIN[1],
    ...{ noFragments, lossy, echo },
    stun: `${PLAIN[0]}:${STUN_PORT}`,
    stunFirewall: `${FIREWALL[0]}:${STUN_PORT}`,
    stunSymmetric: `${SYMMETRIC[0]}:${STUN_PORT}`,
  };
}

/**
 * Adds a router between the two hosts that reports by ICMP, in both directions, that its next link has an MTU of 1,280.
 *
 * @returns an echo at the client's end of it
 */
export async function makeRouter({ client, server }: TwoHosts): Promise<string> {
  const holder = server.spawn(["unshare", "-n", "sh", "-c", "echo made; exec sleep infinity"]);
  await holder.waitForLine(/made/);
  for (const [host, number, other] of [
    [client, 1, 2],
    [server, 2, 1],
  ] as const) {
    const link = `ip link add mid0 type veth peer name to${number} netns ${holder.pid}`;
    const address = `ip addr add 10.78.${number}.2/24 dev mid0; ip link set mid0 up`;
    await host.run([
      "sh",
      "-ec",
      `${link}; ${address}; ip route add 10.78.${other}.0/24 via 10.78.${number}.1`,
    ]);
  }
  const sides = [1, 2].map(
    (number) => `ip addr add 10.78.${number}.1/24 dev to${number}; ip link set to${number} up
      ip route change 10.78.${number}.0/24 dev to${number} src 10.78.${number}.1 mtu lock ${NARROW_MTU}`,
  );
  const script = `ip link set lo up; sysctl -qw net.ipv4.ip_forward=1; ${sides.join("\n")}`;
  await server.run(["nsenter", "-t", `${holder.pid}`, "-n", "sh", "-ec", script]);
  const port = client.port();
  await client.spawn([process.execPath, ECHO, `${port}`, NARROW_CLIENT, "::1"]).waitForLine(/"port"/);
  return `${NARROW_CLIENT}:${port}`;
}
