import type { Dialect } from "../../wire/dialects/dialect.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { ClientOutput } from "../client/client-parts.ts";
import type { Counters } from "../counters.ts";
import type { Deadlines } from "../deadlines.ts";
import type { SendPool } from "../session/queue/send-pool.ts";
import type { DialectLinkLimits } from "./dialect-link.ts";

/** All durations in milliseconds, sizes in bytes. */
export interface DialectClientOptions extends DialectLinkLimits {
  readonly dialect: Dialect;
  /** How many ways there are to the server. After a failure the next one is taken. */
  readonly ways: number;
  readonly handshakeTimeoutMs: number;
  /** Idle time after which an association that may expire ends, ... */
  readonly idleTimeoutMs: number;
  /** ... and after more than one answer. */
  readonly activeIdleTimeoutMs: number;
  /** Past it, the idlest that may expire ends, or a new one is refused. */
  readonly maxAssociations: number;
  /** Remote addresses in use. Past it, the idlest of the association is forgotten, or a datagram to a new one dropped. */
  readonly maxContexts: number;
  readonly latency: LatencyClass;
  /** A random 32-bit number. */
  readonly seed: number;
  readonly unixSeconds: () => number;
}

/** State that the parts of a client in a dialect share. */
export interface DialectClientParts {
  readonly options: DialectClientOptions;
  /** The dialect carries many flows on one connection, which all associations share. */
  readonly isMany: boolean;
  readonly counters: Counters;
  readonly outputs: ClientOutput[];
  readonly deadlines: Deadlines;
  readonly pool: SendPool;
}
