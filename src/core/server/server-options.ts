import type { KeyEntry } from "../keys/named-key.ts";
import type { HandshakeOptions } from "./admission/handshake.ts";
import type { PlainPolicy } from "./admission/plain-requests.ts";
import type { AssociationLimits } from "./server-associations.ts";

/** All durations in milliseconds, sizes in bytes. */
export interface TunnelServerOptions extends HandshakeOptions, AssociationLimits, PlainPolicy {
  /** Keys of single clients, beside that of everybody. Default: none, and `TunnelServer.replaceKeys` gives it none. */
  readonly keys?: readonly KeyEntry[] | undefined;
  readonly heartbeatMs: number;
  readonly handshakeTimeoutMs: number;
  readonly lingerMs: number;
  readonly idleTimeoutMs: number;
  readonly ageBudgetMs: number;
  /** Bound of each tunnel's send queue. */
  readonly queueBytes: number;
  readonly maxHalfOpen: number;
  readonly maxTunnels: number;
  readonly maxSessions: number;
  readonly maxLingering: number;
  /** Largest id of an association or context; only tests lower it. */
  readonly maxId?: number;
  /** Whether the host answers what strangers request, as a `stranger` output, instead of a refusal. Default false. */
  readonly hasDecoy?: boolean;
  /** Whether clients may have receipts. Default true; false is for tests, as a server that lacks them. */
  readonly hasReceipts?: boolean;
}
