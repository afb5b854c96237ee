import type { Dialect } from "../../wire/dialects/dialect.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { ClientOutput } from "../client/client-parts.ts";
import type { Counters } from "../counters.ts";
import type { Deadlines } from "../deadlines.ts";
import type { Fifo } from "../fifo.ts";
import type { SendPool } from "../session/queue/send-pool.ts";
import type { DialectLinkLimits } from "./dialect-link.ts";

/** All durations in milliseconds, sizes in bytes. */
export interface DialectClientOptions extends DialectLinkLimits {
  readonly dialect: Dialect;
  /** Number of ways to the server. After a failure the client takes the next one. */
  readonly ways: number;
  readonly handshakeTimeoutMs: number;
  /** Idle time after which an association with at most one answer ends, if it may expire. */
  readonly idleTimeoutMs: number;
  /** Idle time after which an association with more answers ends, if it may expire. */
  readonly activeIdleTimeoutMs: number;
  /** Past this bound the idlest association that may expire ends; if there is none, a new one is refused. */
  readonly maxAssociations: number;
  /** Bound of the remote addresses. Past it, the association's idlest is forgotten; if it has none, datagrams to a new one are dropped. */
  readonly maxContexts: number;
  readonly latency: LatencyClass;
  /** A random 32-bit number. */
  readonly seed: number;
  readonly unixSeconds: () => number;
}

/** State that the parts of a client in a dialect share. */
export interface DialectClientParts {
  readonly options: DialectClientOptions;
  /** Whether the dialect carries many flows on one connection, which all associations then share. */
  readonly isMany: boolean;
  readonly counters: Counters;
  readonly outputs: Fifo<ClientOutput>;
  readonly deadlines: Deadlines;
  readonly pool: SendPool;
}
