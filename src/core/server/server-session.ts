import type { UpgradeRequest } from "../../wire/http/upgrade.ts";
import type { HeadBuffer } from "../handshakes/head-buffer.ts";
import type { NamedKey } from "../keys/named-key.ts";
import { MAX_LANES } from "../lanes/lane-bits.ts";
import type { LaneScheduler } from "../lanes/scheduler.ts";
import { LookupTurns } from "../session/name-lookups.ts";
import { SESSION } from "../session/session-model.ts";
import type { Tunnel } from "../session/tunnel.ts";
import { UnknownContexts } from "../session/unknown-contexts.ts";
import { TokenBucket } from "../token-bucket.ts";
import { BoundIds } from "./bound-tunnels.ts";
import { UsedIds } from "./used-ids.ts";

/** UNREACHABLE capsules that a client gets per second. */
const UNREACHABLE_PER_SECOND = 100;

/** A TCP connection at the server. */
export interface Connection {
  readonly index: number;
  state: "head" | "resolving" | "binding" | "open" | "closing";
  readonly tunnel: Tunnel;
  readonly head: HeadBuffer;
  lane: number;
  session: Session | undefined;
  request: UpgradeRequest | undefined;
  isDirty: boolean;
  /** The client sends no more. */
  hasEnded: boolean;
  /** Within another protocol, such as a WebSocket, rather than a connection of its own. */
  readonly isNested: boolean;
}

/** What a session with receipts has besides. */
export class SessionLanes {
  readonly scheduler: LaneScheduler;
  /** By number of the lane. */
  readonly connections: (Connection | undefined)[] = new Array(MAX_LANES).fill(undefined);
  /** Slots of contexts that this end has registered and the client has not acknowledged. */
  readonly unacked = new Set<number>();
  /** Ids that the client has closed, of associations (doubled) and of contexts: a registration on a slower lane may follow. */
  readonly closedAssociations = new UsedIds();
  readonly closedContexts = new UsedIds();
  /** Something has happened since the last dispatch. */
  isStirred = false;

  constructor(scheduler: LaneScheduler) {
    this.scheduler = scheduler;
  }
}

/** A session at the server: what outlives its connections. */
export class Session {
  /** A reusable number, for tables. */
  readonly index: number;
  /** Of its name. */
  readonly number: number;
  readonly id: Uint8Array;
  readonly key: Uint8Array;
  /** native: ours, resumable. bound, fixed: RFC 9298 without our extension, one association, ends with its tunnel. */
  readonly kind: "native" | "bound" | "fixed";
  /** A state of {@link SESSION}. */
  state = SESSION.after(SESSION.number("none"), "create");
  /** When it ends, while it has no lane. */
  lingersUntil = 0;
  readonly connections = new Set<Connection>();
  readonly associationById = new Map<number, number>();
  readonly contextById = new Map<number, number>();
  nextContextId = 1;
  /** Of a bound one. */
  readonly bound: BoundIds | undefined;
  readonly unknown = new UnknownContexts();
  readonly unreachable = new TokenBucket(UNREACHABLE_PER_SECOND);
  readonly lookups = new LookupTurns();
  /** Of a native one with receipts. */
  readonly lanes: SessionLanes | undefined;
  /** Whose session it is; undefined where the key is that of everybody, or there is none. */
  readonly holder: NamedKey | undefined;

  constructor(
    index: number,
    number: number,
    kind: Session["kind"],
    id: Uint8Array,
    key: Uint8Array,
    scheduler: LaneScheduler | undefined,
    holder?: NamedKey,
  ) {
    this.index = index;
    this.number = number;
    this.kind = kind;
    this.bound = kind === "bound" ? new BoundIds() : undefined;
    this.id = id;
    this.key = key;
    this.lanes = scheduler && new SessionLanes(scheduler);
    this.holder = holder;
  }

  /** Short, for logs; not a secret. */
  get name(): string {
    return `s${this.number}`;
  }

  /** False once it has ended. */
  get isLive(): boolean {
    return this.state !== SESSION.number("none");
  }
}
