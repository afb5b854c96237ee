import { fileURLToPath } from "node:url";
import type { Host } from "../two-hosts.ts";

/** Behind the server, in a namespace of its own: UDP passes here, as nft has it by port. */
export interface Internet {
  /** Addresses of its targets. */
  readonly first: string;
  readonly second: string;
  /** Echoes that lose fragments, one datagram in four, or nothing. */
  readonly noFragments: number;
  readonly lossy: number;
  readonly echo: number;
  /** A STUN server (RFC 5780), as it is and behind a NAT with another port for each target. */
  readonly stun: string;
  readonly stunSymmetric: string;
}

const SERVER = "198.51.100.254";
const SYMMETRIC = ["198.51.100.11", "198.51.100.12"] as const;
const PLAIN = ["198.51.100.1", "198.51.100.2"] as const;
const ECHO = fileURLToPath(new URL("../targets/udp-echo.mjs", import.meta.url));
const STUN_PORT = 3478;

/** Has programs run in it by `nsenter`; it goes with the one that holds it. */
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
  const addresses = [...PLAIN, ...SYMMETRIC].map((ip) => `ip addr add ${ip}/24 dev in0`).join("; ");
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
  for (const [one, other] of [PLAIN, SYMMETRIC]) {
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
    stunSymmetric: `${SYMMETRIC[0]}:${STUN_PORT}`,
  };
}
