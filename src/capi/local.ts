import type { ResolvedUdpLocalOptions } from "../host/options/udp-local.ts";
import { UdpLocalHost } from "../host/udp-local.ts";
import { openAssociations } from "./associations.ts";
import type { CHost, Instance } from "./c-host.ts";
import { embedderCarrier } from "./carrier.ts";
import { report, runEnd } from "./instance.ts";
import { cLogger } from "./log.ts";
import { offerStart } from "./start.ts";
import { cSystem } from "./system.ts";

/** Starts a udp-local. @throws HostError ERR_UNSUPPORTED for a feature that this host lacks */
function startLocal(
  host: CHost,
  options: ResolvedUdpLocalOptions & { readonly carrier?: unknown },
): Instance {
  const system = cSystem(host, options.latency);
  const carrier = options.carrier === true ? embedderCarrier(host, system) : undefined;
  const local = new UdpLocalHost(options, cLogger(host), system, { carrier });
  local.events.on("session-up", () => report(host, "session-up", undefined));
  local.events.on("session-renewed", () => report(host, "session-up", undefined));
  local.events.on("session-resumed", () => report(host, "session-resumed", undefined));
  local.events.on("session-down", (error) => report(host, "session-down", error));
  local.events.on("error", (error) => report(host, "unreachable", error));
  local.events.on("listener-failed", (error) => report(host, "listener-failed", error));
  const instance = runEnd(host, local, () => {
    const { forwards, socks5, server } = local.address;
    host.ready(
      forwards.map(({ listen }) => listen),
      socks5,
      forwards.map(({ target }) => target),
      server,
    );
  });
  return {
    ...instance,
    reconnect: () => local.reconnect(),
    openAssociations: () => openAssociations(host, local),
  };
}

offerStart(startLocal);
