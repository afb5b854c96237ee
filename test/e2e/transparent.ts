import { ssLocal, ssServer, ssTunnel } from "./chain.ts";
import type { TwoHosts } from "./two-hosts.ts";
import { makeKeyFile, tun2socks, udpServer } from "./underpass.ts";

/** Networks of the server host that the client reaches through the TUN device alone. */
const NETWORKS = { IPv4: "203.0.113.0/24", IPv6: "2001:db8:5::/48" };

/** Address `number`, 1 to 9, of the networks behind the tunnel. */
export function beyond(number: number): { readonly IPv4: string; readonly IPv6: string } {
  return { IPv4: `203.0.113.${number}`, IPv6: `2001:db8:5::${number}` };
}

export interface TransparentOptions {
  readonly udpServer?: readonly string[];
  readonly tun2socks?: readonly string[];
}

/**
 * All between the client's applications and the addresses {@link beyond} of the server host:
 * TUN ─► tun2socks ─► ss-tunnel ═ obfs ═ ss-server ─► udp-server for UDP, and ─► ss-local ═ obfs ═ ss-server for TCP.
 */
export async function startTransparent(hosts: TwoHosts, options: TransparentOptions = {}): Promise<void> {
  const { client, server } = hosts;
  const keyFile = makeKeyFile(hosts);
  const listen = `127.0.0.1:${server.port()}`;
  const remote = { address: server.ipv4, port: server.port() };
  const [tunnelPort, socksPort] = [client.port(), client.port()];
  const end = udpServer(hosts, listen, keyFile, Object.values(NETWORKS), options.udpServer);
  await Promise.all([end.start(), ssServer(hosts, remote.address, remote.port).start()]);
  await Promise.all([
    ssTunnel(hosts, remote, tunnelPort, listen).start(),
    ssLocal(hosts, remote, socksPort).start(),
  ]);
  const tunnel = tun2socks(client, [
    ...["--server", `127.0.0.1:${tunnelPort}`, "--psk-file", keyFile],
    ...["--tcp-via", `socks5://127.0.0.1:${socksPort}`],
    ...Object.values(NETWORKS).flatMap((network) => ["--route", network]),
    ...(options.tun2socks ?? []),
  ]);
  await tunnel.start();
  // Some applications ask only once, and a datagram waits for a session no longer than its age allows.
  await client.programs.at(-1)!.waitForLine(/"msg":"session up"/);
}

/**
 * Gives the server host all addresses {@link beyond}. What is sent there leaves from the host's address on the link, as
 * it would to another host; with addresses of its own the kernel would choose the target's.
 */
export async function addAddressesBeyond({ server }: TwoHosts): Promise<void> {
  const script = `
    ip route add local ${NETWORKS.IPv4} dev lo src ${server.ipv4}
    ip -6 route add local ${NETWORKS.IPv6} dev lo src ${server.ipv6}
    sysctl -qw net.ipv6.ip_nonlocal_bind=1`;
  await server.run(["sh", "-ec", script]);
}
