import type { Counters } from "../counters.ts";
import type { Deadlines } from "../deadlines.ts";
import type { DatagramBatch } from "../session/datagram-batch.ts";
import type { NameLookups } from "../session/name-lookups.ts";
import type { SendPool } from "../session/send-queue.ts";
import type { QueueOwner } from "../tap.ts";
import type { AssociationLimits, ServerAssociations } from "./server-associations.ts";
import type { Connection, Session } from "./server-session.ts";

/** Keys of deadlines: kinds of a connection and of a session, by their index. */
export const DEADLINE_CONNECTION = 0;
export const DEADLINE_QUEUE = 1;
export const DEADLINE_LINGER = 2;
export const DEADLINE_ASSOCIATIONS = 3;
export const DEADLINE_CONTEXTS = 4;
export const DEADLINE_DISPATCH = 5;
/** Of the first key that expires; there is one. */
export const DEADLINE_KEYS = 6;
export const DEADLINE_KINDS = 7;

export function deadlineOf(index: number, kind: number): number {
  return DEADLINE_KINDS * index + kind;
}

/** Services of the server for its parts. */
export interface ServerPort {
  /** Sends control capsules on a connection. */
  send(connection: Connection, bytes: Uint8Array): void;
  /** The connection may have something to write. */
  markDirty(connection: Connection): void;
  /** Its tunnel has another deadline. */
  arm(connection: Connection): void;
  /** The association has ended, and the host closes its sockets. */
  release(association: number): void;
  /** The client has given the association another latency class. */
  handleLatency(association: number): void;
  /** Its client's datagrams have another DSCP now. */
  handleDscp(association: number): void;
  endSession(now: number, session: Session, reason: string): void;
  sessions(): Iterable<Session>;
}

/** State that the parts of a server share. */
export interface ServerParts {
  readonly options: AssociationLimits & {
    readonly idleTimeoutMs: number;
    readonly queueBytes: number;
    readonly ageBudgetMs: number;
  };
  /** Largest id of an association or context. */
  readonly maxId: number;
  readonly counters: Counters;
  readonly outgoing: DatagramBatch;
  readonly associations: ServerAssociations;
  readonly names: NameLookups<Connection>;
  readonly deadlines: Deadlines;
  readonly pool: SendPool;
  /** Of all its queues. */
  readonly queueOwner: QueueOwner;
  readonly port: ServerPort;
}
