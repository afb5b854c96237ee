import type { TwoHosts } from "../network/two-hosts.ts";
import { type Service, ssLocal, ssServer, ssTunnel, ssUrl } from "./chain.ts";

export type CarrierName =
  | "ss-tunnel + obfs"
  | "ss-local + obfs"
  | "ss:// + obfs"
  | "ss:// at both ends"
  | "TCP over IPv4"
  | "TCP over IPv6";

export interface Carrier {
  /** The address on which udp-server has to listen. */
  readonly listen: string;
  /** udp-local's options for this way to the server. */
  readonly options: readonly string[];
  /** The started shadowsocks programs at the server's and at the client's end; none for plain TCP. */
  readonly hops: readonly Service[];
}

/** Creates and starts the way between udp-local and udp-server. */
export async function startCarrier(hosts: TwoHosts, name: CarrierName): Promise<Carrier> {
  const serverPort = hosts.server.port();
  if (name === "TCP over IPv4" || name === "TCP over IPv6") {
    const listen =
      name === "TCP over IPv4"
        ? `${hosts.server.ipv4}:${serverPort}`
        : `[${hosts.server.ipv6}]:${serverPort}`;
    return { listen, options: ["--server", listen], hops: [] };
  }
  if (name === "ss:// at both ends") {
    const ss = (plugin: string) => ssUrl(hosts.server.ipv4, serverPort, `${plugin};obfs=tls`);
    return { listen: ss("obfs-server"), options: ["--via", ss("obfs-local")], hops: [] };
  }
  const listen = `127.0.0.1:${serverPort}`;
  const remote = { address: hosts.server.ipv4, port: hosts.server.port() };
  const far = ssServer(hosts, remote.address, remote.port);
  await far.start();
  if (name === "ss:// + obfs") {
    const via = ssUrl(remote.address, remote.port, "obfs-local;obfs=http;obfs-host=example.com");
    return { listen, options: ["--via", via, "--server", listen], hops: [far] };
  }
  const port = hosts.client.port();
  const near =
    name === "ss-tunnel + obfs" ? ssTunnel(hosts, remote, port, listen) : ssLocal(hosts, remote, port);
  await near.start();
  const options =
    name === "ss-tunnel + obfs"
      ? ["--server", `127.0.0.1:${port}`]
      : ["--via", `socks5://127.0.0.1:${port}`, "--server", listen];
  return { listen, options, hops: [far, near] };
}
