import type { Logger } from "../../src/host/log.ts";
import { silentLogger } from "../../src/host/log.ts";
import type { UdpServerOptions } from "../../src/host/options/udp-server.ts";
import type { UdpLocal, UdpServer } from "../../src/node/handles.ts";
import type { UdpLocalOptions } from "../../src/node/options/udp-local.ts";
import { UDP_LOCAL_FIELDS } from "../../src/node/options/udp-local.ts";
import { UDP_SERVER_FIELDS } from "../../src/node/options/udp-server.ts";
import { startUdpLocal as startOnNode } from "../../src/node/udp-local.ts";
import { startUdpServer as startServerOnNode } from "../../src/node/udp-server.ts";
import { CHostHandle, startInC } from "./c-host.ts";
import { hostOf } from "./hosts.ts";

/** Starts a udp-local on this run's host. */
export async function startUdpLocal(options: UdpLocalOptions, log: Logger = silentLogger): Promise<UdpLocal> {
  if (hostOf("local") === "node") return startOnNode(options, log);
  const host = await startInC("local", UDP_LOCAL_FIELDS, options, log);
  const { listen, socks5 } = host.ready;
  const forwards = (options.forwards ?? []).map(({ target }, i) => ({ listen: listen[i], target }));
  return Object.assign(host, { address: { socks5, forwards, server: String(options.server ?? "") } });
}

/** Starts a udp-server on this run's host. */
export async function startUdpServer(
  options: UdpServerOptions,
  log: Logger = silentLogger,
): Promise<UdpServer> {
  if (hostOf("server") === "node") return startServerOnNode(options, log);
  const host = await startInC("server", UDP_SERVER_FIELDS, options, log);
  return Object.assign(host, { address: { listen: [...host.ready.listen] } });
}

/** Resident memory of the process that contains this end. */
export function residentBytes(end: UdpLocal | UdpServer): number {
  return end instanceof CHostHandle ? end.residentBytes() : process.memoryUsage().rss;
}
