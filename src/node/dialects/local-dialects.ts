import { randomSeed } from "../../core/credentials.ts";
import { DialectClient } from "../../core/dialects/dialect-client.ts";
import type { Io } from "../../host/io/io.ts";
import type { Logger } from "../../host/log.ts";
import type { ResolvedUdpLocalOptions } from "../../host/options/udp-local.ts";
import type { RelayHost } from "../../host/udp/fixed-forward.ts";
import { SharedLatency } from "../../host/udp/shared-latency.ts";
import { TunnelPath } from "../../host/udp-paths/tunnel.ts";
import { dialectByName } from "../../wire/dialects/dialects.ts";
import { nodeCryptography } from "../cryptography.ts";
import { NameLookups } from "../name-lookups.ts";
import { DialectHost } from "./dialect-host.ts";
import { unixSeconds } from "./unix-seconds.ts";

/** A client of the server that `--dialect` names. @param ways  how many there are to it */
export function openDialectClient(
  name: string,
  options: ResolvedUdpLocalOptions,
  ways: number,
  handshakeTimeoutMs: number,
): DialectClient {
  const { queueBytes, ageBudgetMs, idleTimeoutS, activeIdleTimeoutS, maxAssociations, maxContexts, latency } =
    options;
  return new DialectClient({
    dialect: dialectByName(name)!,
    ...{ queueBytes, ageBudgetMs, maxAssociations, maxContexts, latency, ways, handshakeTimeoutMs },
    idleTimeoutMs: idleTimeoutS * 1000,
    activeIdleTimeoutMs: activeIdleTimeoutS * 1000,
    seed: randomSeed(nodeCryptography),
    unixSeconds,
  });
}

/** Serves clients of udp-local's SOCKS5 server that ask for UDP on their own connection: into the tunnel. */
export function openLocalDialects(
  options: ResolvedUdpLocalOptions,
  tunnel: RelayHost,
  io: Io,
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
      seed: randomSeed(nodeCryptography),
      unixSeconds,
    },
    new NameLookups(log),
    tunnel.core.counters,
    io,
    log,
  );
  host.use(new TunnelPath(tunnel, host, new SharedLatency(tunnel.latency, () => {})));
  return host;
}
