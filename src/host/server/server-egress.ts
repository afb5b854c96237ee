import type { TunnelServer } from "../../core/server/server.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Driver } from "../driver.ts";
import type { Logger } from "../log.ts";
import type { PathCounts } from "../stats/path-counts.ts";
import type { System } from "../system.ts";
import type { BatchRecords } from "../tap/batch-records.ts";

/** Carries the datagrams of a server to their targets, and back. */
export interface ServerEgress {
  /** Settles once datagrams can be sent. @throws HostError */
  readonly ready: Promise<void>;
  /** Sends the batch of core. @param data  its payloads, in memory that does not change before they are sent */
  send(data: Uint8Array): void;
  /**
   * Prepares the association of a tunnel without our extension, and reports to core when that is done.
   *
   * @param target   undefined for a bound tunnel
   * @param localIp  the address at which its connection was accepted, if it has one
   */
  bind(association: number, target: AddressBytes | undefined, localIp: string | undefined): void;
  /** @param latency  undefined for the class of the host */
  setLatency(association: number, latency: LatencyClass | undefined): void;
  setDscp(association: number, dscp: number): void;
  /** The association has ended. */
  release(association: number): void;
  close(): Promise<void>;
  /** See `UdpPath.counts`. */
  counts?(): PathCounts | undefined;
}

/** What an egress gets from the server's host. */
export interface EgressHost {
  readonly core: TunnelServer;
  readonly driver: Driver;
  readonly system: System;
  readonly log: Logger;
  /** Records of core's batch, for a tap. */
  readonly records: BatchRecords;
  /** Carries out the outputs of core without waiting for the end of the turn. */
  handleOutputs(): void;
}
