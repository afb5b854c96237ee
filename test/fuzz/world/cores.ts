import { TunnelClient } from "../../../src/core/client/client.ts";
import type { Cryptography } from "../../../src/core/handshakes/credentials.ts";
import { TunnelServer } from "../../../src/core/server/server.ts";
import { parseLatencyRule } from "../../../src/core/session/latency-rules.ts";
import type { Settings } from "../settings.ts";

/** An association has targets of all classes, so its class changes whenever its contexts do. */
const LATENCY_RULES = ["interactive:54", "bulk:2001:db8::/32", "bulk:dscp=46"].map(
  (text) => parseLatencyRule(text)!,
);
const HEARTBEAT_MS = 5_000;
const HANDSHAKE_MS = 5_000;

export function makeServer(
  settings: Settings,
  psk: Uint8Array | undefined,
  crypto: Cryptography,
): TunnelServer {
  return new TunnelServer({
    psk,
    crypto,
    worker: undefined,
    hasReceipts: settings.hasReceipts,
    offersBind: true,
    filtering: settings.filtering,
    permits: (target) => target[0] !== 1 || target[1] !== 10,
    heartbeatMs: HEARTBEAT_MS,
    handshakeTimeoutMs: HANDSHAKE_MS,
    lingerMs: settings.lingerMs,
    idleTimeoutMs: settings.serverIdleMs,
    ageBudgetMs: settings.ageBudgetMs,
    queueBytes: settings.queueBytes,
    maxHalfOpen: settings.maxHalfOpen,
    maxTunnels: 256,
    maxSessions: settings.maxSessions,
    maxLingering: settings.maxLingering,
    maxAssociations: settings.maxServerAssociations,
    maxAssociationsPerSession: settings.maxAssociationsPerSession,
    maxContextsPerSession: settings.maxContextsPerSession,
    ...(settings.maxId === undefined ? {} : { maxId: settings.maxId }),
  });
}

export function makeClient(
  settings: Settings,
  psk: Uint8Array | undefined,
  crypto: Cryptography,
): TunnelClient {
  return new TunnelClient({
    lanes: settings.lanes,
    isLocal: settings.isLocal,
    ways: [{ authority: "server.test:3456", server: 0 }],
    psk,
    crypto,
    heartbeatMs: HEARTBEAT_MS,
    handshakeTimeoutMs: HANDSHAKE_MS,
    ageBudgetMs: settings.ageBudgetMs,
    queueBytes: settings.queueBytes,
    maxAssociations: settings.maxAssociations,
    maxContexts: settings.maxContexts,
    idleTimeoutMs: settings.clientIdleMs,
    activeIdleTimeoutMs: settings.clientActiveIdleMs,
    latencyRules: LATENCY_RULES,
    ...(settings.maxId === undefined ? {} : { maxId: settings.maxId }),
  });
}
