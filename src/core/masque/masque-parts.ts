import type { LatencyClass } from "../../wire/latency-class.ts";
import type { ClientAssociations } from "../client/client-associations.ts";
import type { ClientLatency } from "../client/client-latency.ts";
import type { ClientOutput } from "../client/client-parts.ts";
import type { Counters } from "../counters.ts";
import type { Deadlines } from "../deadlines.ts";
import type { Fifo } from "../fifo.ts";
import type { Cryptography } from "../handshakes/credentials.ts";
import type { ContextTable } from "../session/context-table.ts";
import type { LatencyRule } from "../session/latency-rules.ts";
import type { SendPool } from "../session/queue/send-pool.ts";

/** All durations in milliseconds, sizes in bytes. */
export interface MasqueClientOptions {
  readonly crypto: Cryptography;
  readonly ageBudgetMs: number;
  /** Bound of the datagrams that wait in one request. */
  readonly queueBytes: number;
  readonly maxAssociations: number;
  readonly maxContexts: number;
  /** Idle time after which an association with at most one answer ends, if it may expire. */
  readonly idleTimeoutMs: number;
  /** Idle time after which an association with more answers ends, if it may expire; and after which any target is forgotten. */
  readonly activeIdleTimeoutMs: number;
  readonly latency?: LatencyClass;
  readonly latencyRules?: readonly LatencyRule[];
}

export const DEADLINE_ASSOCIATIONS = 0;
export const DEADLINE_CONTEXTS = 1;
export const DEADLINE_CONNECT = 2;
/** The deadline of the queue of request 0. Those of the other requests follow. */
export const DEADLINE_FIRST_QUEUE = 3;

/** State that the parts of a MASQUE client share. */
export interface MasqueParts {
  readonly options: MasqueClientOptions;
  readonly counters: Counters;
  readonly outputs: Fifo<ClientOutput>;
  readonly deadlines: Deadlines;
  readonly pool: SendPool;
  readonly associations: ClientAssociations;
  readonly contexts: ContextTable;
  readonly latency: ClientLatency;
}
