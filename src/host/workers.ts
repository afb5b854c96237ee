import type { KeyOption } from "./options/keys.ts";
import type { KeptState } from "./restart/kept-state.ts";
import type { EndpointStatus, FlowStatus } from "./status.ts";
import type { TunnelStats } from "./tunnel-stats.ts";

/** Which of several workers a thread is, from 0. */
export interface WorkerPlace {
  readonly index: number;
  readonly count: number;
}

/** A tunnel's connection for another worker than the one that accepted it. */
export interface HandedOver {
  readonly descriptor: number;
  /** The request that was read from it and accepted. */
  readonly head: Uint8Array;
  /** Name of the key that its client has proved; undefined for the key of everybody, or none. */
  readonly holder: string | undefined;
  /** Bytes that were read behind the request. */
  readonly surplus: Uint8Array;
}

/** The workers beside the one that listens. */
export interface OtherWorkers {
  stats(): TunnelStats[];
  /** Of those that answer in time. */
  status(): Promise<EndpointStatus[]>;
  /** The same for associations. */
  flows(): Promise<FlowStatus[]>;
  /** Hands a connection over to another worker. */
  handOver(worker: number, connection: HandedOver): void;
  /** They have other keys of single clients from now on. */
  replaceKeys(keys: readonly KeyOption[]): void;
  close(): Promise<void>;
  /** Ends them, and returns their sessions, with which another process goes on. */
  handOn(): Promise<readonly KeptState[]>;
}
