import type { Counters } from "../counters.ts";
import type { Deadlines } from "../deadlines.ts";
import type { Fifo } from "../fifo.ts";
import type { DatagramBatch } from "../session/datagram-batch.ts";
import type { NameLookups } from "../session/name-lookups.ts";
import type { SendPool } from "../session/queue/send-pool.ts";
import type { QueueOwner } from "../tap.ts";
import type { ServerAssociations } from "./server-associations.ts";
import type { TunnelServerOptions } from "./server-options.ts";
import type { ServerOutput } from "./server-output.ts";
import type { Connection, Session } from "./sessions/server-session.ts";
import type { ServerSessions } from "./sessions/server-sessions.ts";

/** Kinds of deadlines. With the index of a connection or session they make a key. */
export const DEADLINE_CONNECTION = 0;
export const DEADLINE_QUEUE = 1;
export const DEADLINE_LINGER = 2;
export const DEADLINE_ASSOCIATIONS = 3;
export const DEADLINE_CONTEXTS = 4;
export const DEADLINE_DISPATCH = 5;
/** The next expiry of a client's key. Only used with index 0. */
export const DEADLINE_KEYS = 6;
export const DEADLINE_KINDS = 7;

export function deadlineOf(index: number, kind: number): number {
  return DEADLINE_KINDS * index + kind;
}

/** What the parts of a server ask of it about connections and sessions. */
export interface ServerPort {
  /** Sends control capsules on a connection. */
  send(connection: Connection, bytes: Uint8Array): void;
  /** Marks a connection as one that may have something to write. */
  markDirty(connection: Connection): void;
  /** Updates the deadline of a connection from its tunnel. */
  arm(connection: Connection): void;
  close(now: number, connection: Connection): void;
  endSession(now: number, session: Session, reason: string): void;
}

/** How far the server's shutdown has come. */
export interface Shutdown {
  /** The server accepts no more lanes, and clients move to another server. */
  isDraining: boolean;
  /** The server accepts no more lanes, and another process will continue the sessions. */
  isSuspending: boolean;
  /** The server has announced its end to clients. */
  isClosed: boolean;
}

/** State that the parts of a server share. */
export interface ServerParts {
  readonly options: TunnelServerOptions;
  /** Largest id of an association or context. */
  readonly maxId: number;
  readonly counters: Counters;
  readonly outgoing: DatagramBatch;
  readonly outputs: Fifo<ServerOutput>;
  readonly associations: ServerAssociations;
  readonly sessions: ServerSessions;
  readonly names: NameLookups<Connection>;
  readonly deadlines: Deadlines;
  readonly pool: SendPool;
  /** Owner of the datagrams in all queues of the server. */
  readonly queueOwner: QueueOwner;
  readonly shutdown: Shutdown;
  readonly port: ServerPort;
}
