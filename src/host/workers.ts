import type { KeyOption } from "./options/keys.ts";
import type { KeptState } from "./restart/kept-state.ts";
import type { EndpointStatus, FlowStatus } from "./stats/status.ts";
import type { TunnelStats } from "./stats/tunnel-stats.ts";

/** The number of this thread among several workers, from 0. */
export interface WorkerPlace {
  readonly index: number;
  readonly count: number;
  /** The highest number in a name of a session that an earlier process or thread may have given. Default 0. */
  readonly numbersUsed?: number;
}

/** A tunnel's connection for a worker other than the one that accepted it. */
export interface HandedOver {
  readonly descriptor: number;
  /** The request that was read from it and accepted. */
  readonly head: Uint8Array;
  /** Name of the key that its client proved; undefined for the common key, or none. */
  readonly holder: string | undefined;
  /** Bytes that were read after the request. */
  readonly surplus: Uint8Array;
}

/** The workers besides the one that listens. */
export interface OtherWorkers {
  stats(): TunnelStats[];
  /** From the workers that answer in time. */
  status(): Promise<EndpointStatus[]>;
  /** The same for associations. */
  flows(): Promise<FlowStatus[]>;
  /** Hands a connection over to another worker. */
  handOver(worker: number, connection: HandedOver): void;
  /** Replaces their keys of single clients. */
  replaceKeys(keys: readonly KeyOption[]): void;
  close(): Promise<void>;
  /** Ends them, and returns their sessions for another process to continue. */
  handOn(): Promise<readonly KeptState[]>;
}
