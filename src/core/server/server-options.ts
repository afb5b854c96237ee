import type { KeyEntry } from "../keys/named-key.ts";
import type { HandshakeOptions } from "./admission/handshake.ts";
import type { PlainPolicy } from "./admission/plain-requests.ts";
import type { AssociationLimits } from "./server-associations.ts";

/** All durations in milliseconds, sizes in bytes. */
export interface TunnelServerOptions extends HandshakeOptions, AssociationLimits, PlainPolicy {
  /** Keys of single clients, in addition to the shared one. Without this option `TunnelServer.replaceKeys` has no effect. */
  readonly keys?: readonly KeyEntry[] | undefined;
  readonly heartbeatMs: number;
  readonly handshakeTimeoutMs: number;
  readonly lingerMs: number;
  readonly idleTimeoutMs: number;
  readonly ageBudgetMs: number;
  /** Bound of each tunnel's send queue, in bytes. */
  readonly queueBytes: number;
  readonly maxHalfOpen: number;
  readonly maxTunnels: number;
  readonly maxSessions: number;
  readonly maxLingering: number;
  /** Largest id of an association or context. Only tests lower it. */
  readonly maxId?: number;
  /** Whether requests of strangers go to the host, as `stranger` outputs, instead of being refused. Default false. */
  readonly hasDecoy?: boolean;
  /** Whether clients may have receipts. Default true. Only tests set it to false, for a server without them. */
  readonly hasReceipts?: boolean;
}
