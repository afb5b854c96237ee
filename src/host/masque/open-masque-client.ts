import { MasqueClient } from "../../core/masque/masque-client.ts";
import { parseLatencyRule } from "../../core/session/latency-rules.ts";
import { formatEndpoint } from "../addresses/endpoint.ts";
import { outgoingOf } from "../addresses/outgoing.ts";
import type { Carrier } from "../carriers/carrier.ts";
import { openCarrierChain } from "../carriers/carrier-chain.ts";
import type { Logger } from "../log.ts";
import type { ResolvedUdpLocalOptions } from "../options/udp-local.ts";
import type { System } from "../system.ts";
import { MasqueCarrier } from "./masque-carrier.ts";
import { parseMasqueProxy } from "./masque-option.ts";

/** Opens a client of the proxy that `options.masque` names, and the carrier for its requests. */
export function openMasqueClient(
  options: ResolvedUdpLocalOptions & { readonly masque: string },
  system: System,
  log: Logger,
): { readonly core: MasqueClient; readonly carrier: Carrier } {
  const { masque, ways, heartbeatMs, idleTimeoutS, activeIdleTimeoutS, latencyRules, ...rest } = options;
  const core = new MasqueClient({
    ...rest,
    latencyRules: latencyRules.map((text) => parseLatencyRule(text)!),
    crypto: system.cryptography,
    idleTimeoutMs: idleTimeoutS * 1000,
    activeIdleTimeoutMs: activeIdleTimeoutS * 1000,
  });
  const proxy = parseMasqueProxy(masque);
  const server = formatEndpoint(proxy.endpoint.host, proxy.endpoint.port);
  const carrier = new MasqueCarrier({
    proxy,
    chain: openCarrierChain({ server, via: ways[0].via, outgoing: outgoingOf(options) }, system),
    targetOf: (lane) => core.targetOf(lane),
    heartbeatMs,
    system,
    log,
  });
  log.info(
    { proxy: carrier.description },
    "standard MASQUE has no sessions: after a lost connection, targets see new source ports",
  );
  return { core, carrier };
}
