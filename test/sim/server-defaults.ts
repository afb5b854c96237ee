import type { TunnelServerOptions } from "../../src/core/server/server-options.ts";
import { formatAddress } from "../../src/wire/socket-address.ts";

/** Options of a server in virtual time, without a key. Its policy denies targets in 10.0.0.0/8. */
export const SERVER_DEFAULTS: Omit<TunnelServerOptions, "crypto"> = {
  psk: undefined,
  worker: undefined,
  filtering: "address-dependent",
  permits: (target) => !formatAddress(target).startsWith("10."),
  offersBind: true,
  heartbeatMs: 5_000,
  handshakeTimeoutMs: 5_000,
  lingerMs: 60_000,
  idleTimeoutMs: 600_000,
  ageBudgetMs: 100,
  queueBytes: 1_048_576,
  maxHalfOpen: 16,
  maxTunnels: 64,
  maxSessions: 64,
  maxLingering: 16,
  maxAssociations: 16_384,
  maxAssociationsPerSession: 4096,
  maxContextsPerSession: 65_536,
};
