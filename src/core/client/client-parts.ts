import type { CloseReason, UnreachableKind } from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { Counters, DropReason } from "../counters.ts";
import type { Datapath } from "../datapath/datapath.ts";
import type { Deadlines } from "../deadlines.ts";
import type { ProtocolError } from "../errors.ts";
import type { Fifo } from "../fifo.ts";
import type { LaneScheduler } from "../lanes/scheduler.ts";
import type { ContextTable } from "../session/context-table.ts";
import type { DatagramBatch } from "../session/datagram-batch.ts";
import type { LatencyRule } from "../session/latency-rules.ts";
import type { EndedContexts } from "../session/queue/ended-contexts.ts";
import type { SendPool } from "../session/queue/send-pool.ts";
import type { QueueOwner } from "../tap.ts";
import type { ClientAssociations } from "./client-associations.ts";
import type { ClientDscp } from "./client-dscp.ts";
import type { ClientLatency } from "./client-latency.ts";
import type { Lane, LaneOptions } from "./lanes/lane.ts";

/** Options of a client. Durations are in milliseconds, sizes in bytes. */
export interface TunnelClientOptions extends LaneOptions {
  /** Number of lanes, or "auto" for as many as help ({@link LaneCount}). */
  readonly lanes: number | "auto";
  /** For "auto": whether all ways lead to an address on this machine, so that the server is near unless a relay listens there. Default false. */
  readonly isLocal?: boolean;
  readonly ageBudgetMs: number;
  /** Bound of each lane's send queue. */
  readonly queueBytes: number;
  /** The loops over datagrams. Default: those in TypeScript. */
  readonly datapath?: Datapath | undefined;
  /** Idle time after which an association that may expire ends, ... */
  readonly idleTimeoutMs: number;
  /** ... and the same after more than one answer. */
  readonly activeIdleTimeoutMs: number;
  /** Class for targets that no rule matches. Default: balanced. */
  readonly latency?: LatencyClass;
  /** Classes by target or DSCP; the first match applies. Default: none. */
  readonly latencyRules?: readonly LatencyRule[];
  /** Largest id of an association or context; only tests lower it. */
  readonly maxId?: number;
}

export type ClientOutput =
  /** `way`: index in the options. */
  | { readonly kind: "connect"; readonly lane: number; readonly way: number }
  | { readonly kind: "disconnect"; readonly lane: number; readonly error: ProtocolError | undefined }
  /** `isAnother`: the server did not know the former session, so associations now use other source ports. */
  | { readonly kind: "session-up"; readonly isAnother: boolean }
  | { readonly kind: "session-resumed" }
  /**
   * A new session has replaced one that was in use, so associations now use other source ports. `ids`: its ids were nearly used up;
   * `receipts`: it should have had receipts and did not, or the reverse; `moved`: its server has asked for that.
   */
  | { readonly kind: "session-renewed"; readonly reason: "ids" | "receipts" | "moved" }
  | { readonly kind: "session-down"; readonly error: Error | undefined }
  | { readonly kind: "association-closed"; readonly association: number; readonly reason: CloseReason }
  /** {@link TunnelClient.latencyOf} the association has changed. Initially it is the class in the options. */
  | { readonly kind: "latency"; readonly association: number }
  /**
   * A datagram of the association did not reach `remote`, which may be a name. `mtu`: for too-big, the largest IP packet that would reach
   * it, according to the server; 0 if unknown.
   */
  | {
      readonly kind: "unreachable";
      readonly association: number;
      readonly remote: AddressBytes;
      readonly reason: UnreachableKind;
      readonly mtu: number;
    };

/** Lists of idle contexts: the client's own, the server's, and those that the server refused. */
export const OWN = 0;
export const PEER = 1;
export const REFUSED = 2;

/** Keys of deadlines: the machine's own, then two for each lane. */
export const DEADLINE_ASSOCIATIONS = 0;
export const DEADLINE_CONTEXTS = 1;
export const DEADLINE_FORMER = 2;
export const DEADLINE_DISPATCH = 3;
export const DEADLINE_RACE = 4;
export const DEADLINE_PARALLEL = 5;
export const DEADLINE_FIRST_LANE = 6;

export const deadlineOfLane = (index: number): number => DEADLINE_FIRST_LANE + 2 * index;
export const deadlineOfQueue = (index: number): number => DEADLINE_FIRST_LANE + 2 * index + 1;

/** A session that was replaced by a new one. Its lanes deliver the last answers. */
export interface FormerSession {
  readonly lanes: readonly Lane[];
  readonly contextById: ReadonlyMap<number, number>;
  /** Generation of each context's slot at that time. A slot that has been reused since then is unknown to the former session. */
  readonly generation: Int32Array;
  /** What waits for its lanes. */
  readonly pool: SendPool;
  readonly scheduler: LaneScheduler | undefined;
  isEnding: boolean;
}

/** State that the parts of a client share. */
export interface ClientParts {
  readonly options: TunnelClientOptions;
  /** Largest id of an association or context. */
  readonly maxId: number;
  readonly counters: Counters;
  readonly received: DatagramBatch;
  readonly outputs: Fifo<ClientOutput>;
  readonly deadlines: Deadlines;
  readonly contexts: ContextTable;
  readonly associations: ClientAssociations;
  /** Lanes of this session, by number. */
  lanes: readonly Lane[];
  readonly latency: ClientLatency;
  readonly dscp: ClientDscp;
  /** Lanes of this session, of the one that will replace it, and of the former one, by index. */
  readonly laneByIndex: Lane[];
  /** Whether at least one lane is up. */
  isUp: boolean;
  /** Whether the client has ended. */
  isClosed: boolean;
  /** Ids and queues of the session. A session that replaces it has new ones. */
  pool: SendPool;
  /** The owner of all its queues. */
  readonly queueOwner: QueueOwner;
  /** The owner of the queues of the former session, in which ids have another meaning. */
  readonly formerOwner: QueueOwner;
  /** In a session with receipts: where its datagrams wait, instead of in the lanes' queues. */
  scheduler: LaneScheduler | undefined;
  /** Contexts that have ended, whose datagrams may still wait. */
  readonly ended: EndedContexts;
  contextById: Map<number, number>;
  associationById: Map<number, number>;
  nextAssociationId: number;
  nextContextId: number;
  former: FormerSession | undefined;
  laneOf(association: number): Lane;
  /** The lane for a control capsule about an association; it may be down. */
  controlLaneOf(association: number): Lane;
  /** Bits of the lanes, by number, on which to register something about an association; 0 while its lane is down. */
  registrationLanes(association: number): number;
  /** Connects held lanes up to the wanted number. */
  connectHeld(now: number): void;
  /** Ends surplus lanes of a session with receipts. */
  endUnwantedLanes(now: number): void;
  /** Drops the queued datagrams of an association. */
  removeFlow(association: number, reason: DropReason): void;
  /** Drops the queued datagrams of contexts that have ended. */
  dropEnded(): void;
  failLane(now: number, lane: Lane, error: ProtocolError): void;
  /** The server asks for another session elsewhere: it is shutting down, or another of its threads should have the session. */
  moveAway(now: number): void;
  /** Replaces the session if its ids are running out. @param serversId  an id that the server has assigned */
  renewIfDue(now: number, serversId?: number): void;
}

/** Whether a context's id was assigned by the server. */
export function isServersId(id: number): boolean {
  return id % 2 === 1;
}
