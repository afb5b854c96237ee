import { type Service, ssLocal, ssServer, ssTunnel } from "../programs/chain.ts";
import { makeKeyFile, tun2socks, udpServer } from "../programs/underpass.ts";
import type { TwoHosts } from "./two-hosts.ts";

/** Networks of the server host that the client reaches only through the TUN device. */
const NETWORKS = { IPv4: "203.0.113.0/24", IPv6: "2001:db8:5::/48" };
export const BEYOND_NETWORKS = Object.values(NETWORKS);
/** Options of tun2socks that route them to its device. */
export const BEYOND_ROUTES = BEYOND_NETWORKS.flatMap((network) => ["--route", network]);

export const FAMILIES = ["IPv4", "IPv6"] as const;

/** Address `number`, 1 to 9, of the networks behind the tunnel. */
export function beyond(number: number): { readonly IPv4: string; readonly IPv6: string } {
  return { IPv4: `203.0.113.${number}`, IPv6: `2001:db8:5::${number}` };
}

export interface TransparentOptions {
  /** Further options of the two programs. */
  readonly udpServer?: readonly string[];
  readonly tun2socks?: readonly string[];
}

/** The started programs between the client's applications and their targets. */
export interface Transparent {
  readonly tun2socks: Service;
  readonly udpServer: Service;
  readonly ssTunnel: Service;
  readonly ssLocal: Service;
  /** Behind both of them. */
  readonly ssServer: Service;
}

export interface SocksWay {
  /** `socks5://…` on the client's loopback. */
  readonly url: string;
  readonly ssLocal: Service;
  readonly ssServer: Service;
  /** Where the ss-server listens. */
  readonly remote: { readonly address: string; readonly port: number };
}

/** Starts ss-local ═ obfs ═ ss-server: a SOCKS5 server on the client for TCP to the server host. */
export async function startSocksWay(hosts: TwoHosts): Promise<SocksWay> {
  const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
  const port = hosts.client.port();
  const far = ssServer(hosts, remote.address, remote.port);
  await far.start();
  const near = ssLocal(hosts, remote, port);
  await near.start();
  return { url: `socks5://127.0.0.1:${port}`, ssLocal: near, ssServer: far, remote };
}

/**
 * All between the client's applications and the addresses {@link beyond} of the server host:
 * TUN ─► tun2socks ─► ss-tunnel ═ obfs ═ ss-server ─► udp-server for UDP, and ─► ss-local ═ obfs ═ ss-server for TCP.
 */
export async function startTransparent(
  hosts: TwoHosts,
  options: TransparentOptions = {},
): Promise<Transparent> {
  const { client, server } = hosts;
  const keyFile = makeKeyFile(hosts);
  const listen = `127.0.0.1:${server.port()}`;
  const far = udpServer(hosts, listen, keyFile, BEYOND_NETWORKS, options.udpServer);
  const [socks] = await Promise.all([startSocksWay(hosts), far.start()]);
  const tunnelPort = client.port();
  const near = ssTunnel(hosts, socks.remote, tunnelPort, listen);
  await near.start();
  const device = tun2socks(client, [
    ...["--server", `127.0.0.1:${tunnelPort}`, "--psk-file", keyFile],
    ...["--tcp-via", socks.url, ...BEYOND_ROUTES],
    ...(options.tun2socks ?? []),
  ]);
  await device.start();
  // Some applications send only one query, and a datagram waits for a session no longer than the age budget.
  await device.program.waitForLine(/"msg":"session up"/);
  return {
    tun2socks: device,
    udpServer: far,
    ssTunnel: near,
    ssLocal: socks.ssLocal,
    ssServer: socks.ssServer,
  };
}

/**
 * Gives the server host all addresses {@link beyond}. Packets to them leave from `source`, by default the host's address on the link, as
 * they would to another host; for its own addresses, the kernel would choose the target's address.
 */
export async function addAddressesBeyond(
  { server }: TwoHosts,
  source: { readonly IPv4: string; readonly IPv6: string } = { IPv4: server.ipv4, IPv6: server.ipv6 },
): Promise<void> {
  const script = `
    ip addr show | grep -qw ${source.IPv4} || ip addr add ${source.IPv4}/32 dev lo
    ip addr show | grep -qw ${source.IPv6} || ip addr add ${source.IPv6}/128 dev lo nodad
    ip route replace local ${NETWORKS.IPv4} dev lo src ${source.IPv4}
    ip -6 route replace local ${NETWORKS.IPv6} dev lo src ${source.IPv6}
    sysctl -qw net.ipv6.ip_nonlocal_bind=1`;
  await server.run(["sh", "-ec", script]);
}
