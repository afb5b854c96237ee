import { CLOSE_REASONS } from "../../../wire/capsule.ts";
import type { UpgradeRequest } from "../../../wire/http/upgrade.ts";
import { DROP_REASONS } from "../../counters.ts";
import type { HeadBuffer } from "../../handshakes/head-buffer.ts";
import type { NamedKey } from "../../keys/named-key.ts";
import { MAX_LANES } from "../../lanes/lane-bits.ts";
import type { LaneScheduler } from "../../lanes/scheduler.ts";
import { LookupTurns } from "../../session/name-lookups.ts";
import { SESSION } from "../../session/session-model.ts";
import type { Tunnel } from "../../session/tunnel.ts";
import { UnknownContexts } from "../../session/unknown-contexts.ts";
import { TokenBucket } from "../../token-bucket.ts";
import { BoundIds } from "../bound-tunnels.ts";
import { EndedIds } from "./ended-ids.ts";
import { UsedIds } from "./used-ids.ts";

/** Most UNREACHABLE capsules that a client gets per second. */
const UNREACHABLE_PER_SECOND = 100;

/** A TCP connection at the server. */
export interface Connection {
  readonly index: number;
  state: "head" | "resolving" | "binding" | "open" | "closing";
  readonly tunnel: Tunnel;
  readonly head: HeadBuffer;
  /** How many of its requests were answered with a challenge. */
  challenges: number;
  lane: number;
  session: Session | undefined;
  request: UpgradeRequest | undefined;
  isDirty: boolean;
  /** The client has ended its side. */
  hasEnded: boolean;
  /** Whether another protocol, such as a WebSocket, carries it. */
  readonly isNested: boolean;
}

/** The additional state of a session with receipts. */
export class SessionLanes {
  readonly scheduler: LaneScheduler;
  /** By lane number. */
  readonly connections: (Connection | undefined)[] = new Array(MAX_LANES).fill(undefined);
  /** Slots of contexts that this end has registered, but the client has not acknowledged. */
  readonly unacked = new Set<number>();
  /** Ids of associations (doubled) and contexts that the client has closed. Their registration may still arrive on a slower lane. */
  readonly closedAssociations = new UsedIds();
  readonly closedContexts = new UsedIds();
  /** Whether anything has happened since the last dispatch. */
  isStirred = false;

  constructor(scheduler: LaneScheduler) {
    this.scheduler = scheduler;
  }
}

/** A session at the server, which outlives its connections. */
export class Session {
  /** A reusable number, for tables. */
  readonly index: number;
  /** The number in its name. */
  readonly number: number;
  readonly id: Uint8Array;
  readonly key: Uint8Array;
  /**
   * "native": with our extension, resumable. "bound" and "fixed": without it (RFC 9298), with one association, ending with the tunnel;
   * "fixed" has a single target.
   */
  readonly kind: "native" | "bound" | "fixed";
  /** A state of {@link SESSION}. */
  state = SESSION.after(SESSION.number("none"), "create");
  /** When it ends if no lane joins. Only valid while it has none. */
  lingersUntil = 0;
  readonly connections = new Set<Connection>();
  readonly associationById = new Map<number, number>();
  readonly contextById = new Map<number, number>();
  nextContextId = 1;
  /** Set in a bound session. */
  readonly bound: BoundIds | undefined;
  readonly unknown = new UnknownContexts();
  /** Associations that this end has refused or ended, ... */
  readonly endedAssociations = new EndedIds(CLOSE_REASONS);
  /** ... and contexts, with the reason under which datagrams that still arrive for them are counted. */
  readonly endedContexts = new EndedIds(DROP_REASONS);
  readonly unreachable = new TokenBucket(UNREACHABLE_PER_SECOND);
  readonly lookups: LookupTurns;
  /** Whether its client has been asked to begin another session in another worker. */
  isAskedToMove = false;
  /** Set in a native session with receipts. */
  readonly lanes: SessionLanes | undefined;
  /** The client's own key; undefined if the client used the shared key, or there is none. */
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
    this.lookups = new LookupTurns(holder === undefined ? `session ${index}` : `key ${holder.name}`);
  }

  /** A short name for logs. It is not a secret. */
  get name(): string {
    return `s${this.number}`;
  }

  /** False once it has ended. */
  get isLive(): boolean {
    return this.state !== SESSION.number("none");
  }
}
