import type { ResolvedTun2SocksOptions } from "../host/options/tun2socks.ts";
import type { ResolvedUdpServerOptions } from "../host/options/udp-server.ts";
import { UdpServerHost } from "../host/udp-server.ts";
import type { CHost, Instance } from "./c-host.ts";
import { packetEgress } from "./egress.ts";
import { report, runEnd } from "./instance.ts";
import { cLogger } from "./log.ts";
import { offerStart } from "./start.ts";
import { cSystem } from "./system.ts";

/** Starts a udp-server. @throws HostError ERR_UNSUPPORTED for a feature that this host lacks */
function startServer(
  host: CHost,
  { inner, ...options }: ResolvedUdpServerOptions & { readonly inner?: ResolvedTun2SocksOptions },
): Instance {
  const server = new UdpServerHost(options, cLogger(host), cSystem(host, options.latency), {
    openPacketEgress: (...egress) => packetEgress(host, inner)(...egress),
  });
  server.events.on("session-up", () => host.event("session-up", 0, ""));
  server.events.on("session-resumed", () => host.event("session-resumed", 0, ""));
  server.events.on("session-down", ({ session }) => host.event("session-down", 0, session));
  server.events.on("session-ended", ({ session }) => host.event("session-down", 0, session));
  server.events.on("listener-failed", (error) => report(host, "listener-failed", error));
  return runEnd(host, server, () => host.ready(server.address.listen, undefined));
}

offerStart(startServer);
