import { DialectClient } from "../../core/dialects/dialect-client.ts";
import { randomSeed } from "../../core/handshakes/credentials.ts";
import { dialectByName } from "../../wire/dialects/dialects.ts";
import { NameLookups } from "../addresses/name-lookups.ts";
import type { Logger } from "../log.ts";
import type { ResolvedUdpLocalOptions } from "../options/udp-local.ts";
import type { System } from "../system.ts";
import { unixSeconds } from "../system.ts";
import type { RelayHost } from "../udp/fixed-forward.ts";
import { SharedLatency } from "../udp/shared-latency.ts";
import { TunnelPath } from "../udp-paths/tunnel.ts";
import { DialectHost } from "./dialect-host.ts";

/** Opens a client of the server that `--dialect` names. @param ways  number of ways to it */
export function openDialectClient(
  name: string,
  options: ResolvedUdpLocalOptions,
  ways: number,
  handshakeTimeoutMs: number,
  system: System,
): DialectClient {
  const { queueBytes, ageBudgetMs, idleTimeoutS, activeIdleTimeoutS, maxAssociations, maxContexts, latency } =
    options;
  return new DialectClient({
    dialect: dialectByName(name)!,
    ...{ queueBytes, ageBudgetMs, maxAssociations, maxContexts, latency, ways, handshakeTimeoutMs },
    idleTimeoutMs: idleTimeoutS * 1000,
    activeIdleTimeoutMs: activeIdleTimeoutS * 1000,
    seed: randomSeed(system.cryptography),
    unixSeconds: () => unixSeconds(system),
  });
}

/** Serves clients of udp-local's SOCKS5 server that ask for UDP on their own connection, through the tunnel. */
export function openLocalDialects(
  options: ResolvedUdpLocalOptions,
  tunnel: RelayHost,
  system: System,
  log: Logger,
): DialectHost {
  const { queueBytes, ageBudgetMs, maxAssociations, maxContexts, activeIdleTimeoutS } = options;
  const host = new DialectHost(
    {
      ...{ queueBytes, ageBudgetMs },
      target: undefined,
      nameserver: undefined,
      // The tunnel's server judges, resolves and filters.
      permits: () => true,
      resolvesNames: false,
      filtering: "endpoint-independent",
      maxConnections: maxAssociations,
      maxHalfOpen: maxAssociations,
      maxFlows: maxAssociations,
      maxFlowsPerConnection: maxAssociations,
      maxRemotes: maxContexts,
      handshakeTimeoutMs: 0,
      idleTimeoutMs: activeIdleTimeoutS * 1000,
      seed: randomSeed(system.cryptography),
      unixSeconds: () => unixSeconds(system),
    },
    new NameLookups(system, log),
    tunnel.core.counters,
    system,
    log,
  );
  host.use(new TunnelPath(tunnel, host, new SharedLatency(tunnel.latency, () => {})));
  return host;
}
